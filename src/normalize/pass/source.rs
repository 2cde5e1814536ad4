//! The message that is read, with room behind it to look at whole blocks.

use crate::normalize::block::{self, BLOCK, Block, Padded};

/// Messages of so many bytes and more are not usual. A power of two, so that the compiler sees that every place is
/// inside.
pub(super) const MAX_BYTES: usize = 1 << 16;
const SPARE_BYTES: usize = 4 * BLOCK;
pub(super) const CRLF: [u8; 2] = *b"\r\n";

/// Memory of a message. Only what was written once takes any.
pub(super) struct Memory(Box<[u8; MAX_BYTES + SPARE_BYTES]>);

impl Memory {
    pub(super) fn new() -> Self {
        let zeros = vec![0; MAX_BYTES + SPARE_BYTES].into_boxed_slice();
        Self(zeros.try_into().expect("it is that long"))
    }
}

/// A message, its last line ended as the others are. What stands behind it is left from longer ones; nothing that is
/// looked for goes on behind a line's end.
#[derive(Clone, Copy)]
pub(super) struct Source<'m> {
    text: &'m [u8; MAX_BYTES + SPARE_BYTES],
    /// Bytes of all lines and their ends.
    pub(super) end: usize,
}

impl<'m> Source<'m> {
    /// A copy of `raw`, unless that is too long.
    #[inline(always)]
    pub(super) fn new(raw: &[u8], memory: &'m mut Memory) -> Option<Self> {
        let end = raw.len() + CRLF.len();
        if end >= MAX_BYTES {
            return None;
        }
        memory.0.get_mut(..raw.len())?.copy_from_slice(raw);
        *memory.0.get_mut(raw.len()..)?.first_chunk_mut()? = CRLF;
        Some(Self { text: &memory.0, end })
    }

    /// What stands there.
    #[inline(always)]
    pub(super) fn block(self, at: usize) -> Block {
        Block::new(self.bytes(at))
    }

    #[inline(always)]
    pub(super) fn bytes<const N: usize>(self, at: usize) -> [u8; N] {
        self.text.get(at % MAX_BYTES..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    /// Whether a line ends there.
    #[inline(always)]
    pub(super) fn is_end(self, at: usize) -> bool {
        self.bytes(at) == CRLF
    }

    #[inline(always)]
    pub(super) fn begins(self, at: usize, text: &Padded) -> bool {
        text.is(|ahead| self.block(at + ahead))
    }

    /// Where the first byte is that `which` tells; it must tell line ends.
    #[inline(always)]
    pub(super) fn find(self, mut at: usize, which: impl Fn(Block) -> u32) -> usize {
        loop {
            let found = which(self.block(at));
            if found != 0 {
                return at + found.trailing_zeros() as usize;
            }
            at += BLOCK;
        }
    }

    /// Where the line ends that begins there.
    pub(super) fn line_end(self, mut at: usize) -> usize {
        loop {
            at = self.find(at, |block| block::is(block, b'\r'));
            if self.is_end(at) {
                return at;
            }
            at += 1;
        }
    }
}
