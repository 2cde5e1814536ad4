//! A text that is written by whole blocks.

use super::block::{BLOCK, Block, Padded, after, load};

/// Bytes that a draft can hold: a power of two, so that the compiler sees that every place is inside.
pub(crate) const MAX_DRAFT_BYTES: usize = 1 << 19;
/// What may be written behind the end of the longest one.
const SPARE_BYTES: usize = 4 * BLOCK;

/// Memory of a draft. Only what was written once takes any.
#[derive(Debug)]
pub(crate) struct Memory(Box<[u8; MAX_DRAFT_BYTES + SPARE_BYTES]>);

impl Memory {
    pub(crate) fn new() -> Self {
        let zeros = vec![0; MAX_DRAFT_BYTES + SPARE_BYTES].into_boxed_slice();
        Self(zeros.try_into().expect("it is that long"))
    }
}

/// A text that grows by whole blocks: what is written behind its end is not part of it until it is kept. Who writes must
/// know that it stays below [`MAX_DRAFT_BYTES`]; beyond, its beginning is lost.
#[derive(Debug)]
pub(crate) struct Draft<'m> {
    memory: &'m mut [u8; MAX_DRAFT_BYTES + SPARE_BYTES],
    bytes: usize,
}

impl<'m> Draft<'m> {
    #[inline(always)]
    pub(crate) fn new(memory: &'m mut Memory) -> Self {
        Self { memory: &mut memory.0, bytes: 0 }
    }

    /// What was written so far.
    #[inline(always)]
    pub(crate) fn text(&self) -> &[u8] {
        self.memory.get(..self.bytes).unwrap_or_default()
    }

    /// What was written.
    #[inline(always)]
    pub(crate) fn finish(self) -> &'m mut [u8] {
        self.memory.get_mut(..self.bytes).unwrap_or_default()
    }

    /// Bytes so far.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) {
        self.write([byte]);
    }

    /// Appends a few bytes.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&mut self, bytes: [u8; N]) {
        self.put_at(0, bytes);
        self.bytes += N;
    }

    /// Appends text of any length.
    #[inline(always)]
    pub(crate) fn extend(&mut self, text: &[u8]) {
        if let Some(place) = self.memory.get_mut(self.bytes..self.bytes + text.len()) {
            place.copy_from_slice(text);
        }
        self.bytes += text.len();
    }

    /// Appends a short text, unless `which` tells any of its bytes; says whether it did.
    #[inline(always)]
    pub(crate) fn extend_without(&mut self, text: &[u8], which: impl Fn(Block) -> u32) -> bool {
        let (mut rest, mut ahead) = (text, 0);
        while !rest.is_empty() {
            let block = load(rest);
            self.block(ahead, block);
            let found = which(block);
            if found != 0 && ahead + (found.trailing_zeros() as usize) < text.len() {
                return false;
            }
            ahead += BLOCK;
            rest = after(rest);
        }
        self.keep(text.len());
        true
    }

    /// Puts a byte before what stands there.
    pub(crate) fn insert(&mut self, at: usize, byte: u8) {
        let end = self.bytes;
        self.push(byte);
        self.turn(at, end);
    }

    /// Puts what was written from `from` on before what stands at `at`.
    pub(crate) fn turn(&mut self, at: usize, from: usize) {
        if let Some(text) = self.memory.get_mut(at..self.bytes)
            && let Some(before) = from.checked_sub(at).filter(|before| *before <= text.len())
        {
            text.rotate_left(before);
        }
    }

    /// Lets a function that is not inlined write on, while the draft itself stays in registers.
    #[inline(always)]
    pub(crate) fn lend<T>(&mut self, write: impl FnOnce(&mut Draft<'_>) -> T) -> T {
        let mut lent = Draft { memory: &mut *self.memory, bytes: self.bytes };
        let written = write(&mut lent);
        self.bytes = lent.bytes;
        written
    }

    /// Makes it as short as it was before.
    #[inline(always)]
    pub(crate) fn cut(&mut self, bytes: usize) {
        self.bytes = bytes;
    }

    /// Writes a short text, without making it part of the draft yet.
    #[inline(always)]
    pub(crate) fn put(&mut self, text: &Padded) {
        let [first, second, third] = &text.blocks;
        self.put_at(0, *first);
        if text.len() > BLOCK {
            self.put_at(BLOCK, *second);
            if text.len() > 2 * BLOCK {
                self.put_at(2 * BLOCK, *third);
            }
        }
    }

    /// Writes a block so many bytes behind the end, without making it part of the draft yet.
    #[inline(always)]
    pub(crate) fn block(&mut self, ahead: usize, block: Block) {
        self.put_at(ahead, block.to_array());
    }

    /// Makes what was written last a part of the draft.
    #[inline(always)]
    pub(crate) fn keep(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The same, and a quote behind it.
    #[inline(always)]
    pub(crate) fn close(&mut self, bytes: usize) {
        self.put_at(bytes, *b"\"");
        self.bytes += bytes + 1;
    }

    /// Writes a few bytes so many behind the end, without making them part of the draft yet.
    #[inline(always)]
    pub(crate) fn put_at<const N: usize>(&mut self, ahead: usize, bytes: [u8; N]) {
        debug_assert!(self.bytes + ahead + N <= MAX_DRAFT_BYTES, "it would begin anew");
        let at = (self.bytes + ahead) % MAX_DRAFT_BYTES;
        if let Some(place) = self.memory.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::normalize::block::not_plain;

    proptest! {
        #[test]
        fn what_is_kept_is_written(text in "[a-z: ]{0,48}", bytes in 0..=48_usize, behind in "[a-z]{0,60}") {
            let padded = Padded::new(text.as_bytes()).expect("short");
            let bytes = bytes.min(text.len());
            let mut memory = Memory::new();
            let mut draft = Draft::new(&mut memory);
            draft.put(&padded);
            draft.close(bytes);
            draft.push(b'.');
            for (at, part) in behind.as_bytes().chunks(BLOCK).enumerate() {
                draft.block(at * BLOCK, load(part));
            }
            draft.keep(behind.len());
            draft.write(*b"\":");
            draft.extend(text.as_bytes());
            let quoted = [behind.as_bytes(), b"\""].concat();
            prop_assert!(!draft.extend_without(&quoted, not_plain));
            prop_assert!(draft.extend_without(behind.as_bytes(), not_plain));
            let (short, long) = (&text.as_bytes()[..bytes], behind.as_bytes());
            let end = draft.len();
            draft.extend(long);
            draft.push(b'>');
            draft.turn(short.len(), end);
            draft.insert(short.len(), b'<');
            let expected = [short, b"<", long, b">", b"\".", long, b"\":", text.as_bytes(), long].concat();
            prop_assert_eq!(draft.len(), expected.len());
            prop_assert_eq!(&*draft.finish(), &*expected);
        }
    }
}
