//! A text that is written by whole blocks.

use wide::u8x16;

use super::block::{BLOCK, Block, Padded, after, load, not_plain};

/// A text that grows by whole blocks in memory of a fixed size, of which the last block stays free. What does not fit is
/// lost, and then nothing is free.
#[derive(Debug)]
pub(crate) struct Draft<'m> {
    free: &'m mut [u8],
}

impl<'m> Draft<'m> {
    pub(crate) fn new(memory: &'m mut [u8]) -> Self {
        Self { free: memory }
    }

    /// How many bytes are free, unless something was lost.
    pub(crate) fn free(&self) -> Option<usize> {
        Some(self.free.len()).filter(|free| *free >= BLOCK)
    }

    #[inline(always)]
    pub(crate) fn push(&mut self, byte: u8) {
        if let Some(place) = self.free.first_mut() {
            *place = byte;
        }
        self.keep(1);
    }

    /// Writes a short text, without making it part of the draft yet.
    #[inline(always)]
    pub(crate) fn put(&mut self, text: &Padded) {
        let [first, second, third] = text.blocks;
        self.block(0, u8x16::new(first));
        if text.len() > BLOCK {
            self.block(BLOCK, u8x16::new(second));
            if text.len() > 2 * BLOCK {
                self.block(2 * BLOCK, u8x16::new(third));
            }
        }
    }

    /// Appends text of any length.
    #[inline(always)]
    pub(crate) fn extend(&mut self, text: &[u8]) {
        if let Some(place) = self.free.get_mut(..text.len()) {
            place.copy_from_slice(text);
        }
        self.keep(text.len());
    }

    /// The same where it is most often short.
    #[inline(always)]
    pub(crate) fn copy(&mut self, text: &[u8]) {
        let (mut rest, mut done) = (text, 0);
        while !rest.is_empty() {
            self.block(done, load(rest));
            done += BLOCK;
            rest = after(rest);
        }
        self.keep(text.len());
    }

    /// Writes what `text` begins with and is plain, behind `ahead` bytes that were written before, and without making
    /// it part of the draft yet; says how much that is.
    #[inline(always)]
    pub(crate) fn plain(&mut self, ahead: usize, text: &[u8]) -> usize {
        let (mut rest, mut bytes) = (text, 0);
        loop {
            let block = load(rest);
            self.block(ahead + bytes, block);
            let found = not_plain(block);
            if found != 0 {
                return bytes + found.trailing_zeros() as usize;
            }
            bytes += BLOCK;
            rest = after(rest);
        }
    }

    /// Makes what was written last a part of the draft, and a quote behind it.
    #[inline(always)]
    pub(crate) fn close(&mut self, bytes: usize) {
        if let Some(place) = self.free.get_mut(bytes) {
            *place = b'"';
        }
        self.keep(bytes + 1);
    }

    /// Makes what was written last a part of the draft.
    #[inline(always)]
    pub(crate) fn keep(&mut self, bytes: usize) {
        self.free = std::mem::take(&mut self.free).get_mut(bytes..).unwrap_or_default();
    }

    #[inline(always)]
    fn block(&mut self, ahead: usize, block: Block) {
        if let Some(place) = self.free.get_mut(ahead..).and_then(<[u8]>::first_chunk_mut) {
            *place = block.to_array();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is written with so much memory, if it fitted.
    fn written(room: usize, write: impl FnOnce(&mut Draft<'_>)) -> Option<Vec<u8>> {
        let mut memory = vec![0; room];
        let mut draft = Draft::new(&mut memory);
        write(&mut draft);
        let bytes = room - draft.free()?;
        memory.truncate(bytes);
        Some(memory)
    }

    proptest! {
        #[test]
        fn what_is_plain_is_written(text in "[ -~]{0,60}[\r\u{e4}\"\\\\x\0]{0,2}[ -~]{0,20}") {
            let text = text.as_bytes();
            let is_plain = |byte: &u8| (0x20..0x80).contains(byte) && !b"\"\\".contains(byte);
            let expected: Vec<u8> = text.iter().copied().take_while(is_plain).collect();
            let plain = written(200, |draft| {
                draft.push(b'>');
                let plain = draft.plain(0, text);
                draft.keep(plain);
                draft.put(&Padded::new(b"key").expect("short"));
                let plain = draft.plain(3, text);
                draft.close(3 + plain);
            });
            prop_assert_eq!(plain, Some([b">", &*expected, b"key", &expected, b"\""].concat()));
            let copied = written(200, |draft| {
                draft.copy(text);
                draft.extend(b"end");
            });
            prop_assert_eq!(copied, Some([text, b"end"].concat()));
        }

        #[test]
        fn a_short_text_is_written(text in "[a-z: ]{0,48}", bytes in 0..=48_usize) {
            let padded = Padded::new(text.as_bytes()).expect("short");
            let bytes = bytes.min(text.len());
            let put = written(100, |draft| {
                draft.put(&padded);
                draft.keep(bytes);
                draft.push(b'.');
            });
            prop_assert_eq!(put, Some([&text.as_bytes()[..bytes], b"."].concat()));
        }

        #[test]
        fn what_does_not_fit_is_told(text in "[a-z]{0,60}", room in 0..80_usize) {
            let fits = text.len() + BLOCK <= room;
            let expected = fits.then(|| text.as_bytes().to_vec());
            prop_assert_eq!(written(room, |draft| draft.copy(text.as_bytes())), expected.clone());
            prop_assert_eq!(written(room, |draft| draft.extend(text.as_bytes())), expected.clone());
            let pushed = written(room, |draft| text.bytes().for_each(|byte| draft.push(byte)));
            prop_assert_eq!(pushed, expected.clone());
            let plain = written(room, |draft| {
                let bytes = draft.plain(0, text.as_bytes());
                draft.keep(bytes);
            });
            prop_assert_eq!(plain, expected);
        }
    }
}
