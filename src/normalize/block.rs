//! Text in blocks of sixteen bytes, looked at and copied at once (SSE2, NEON).

use wide::{i8x16, u8x16};

/// Bytes of a block.
pub(crate) const BLOCK: usize = 16;
pub(crate) type Block = u8x16;

/// Bits of a mask, one for each byte of a block, the lowest for the first.
pub(crate) const ALL: u32 = 0xFFFF;

/// The first block, with NULs behind the end of `text`.
#[inline(always)]
pub(crate) fn load(text: &[u8]) -> Block {
    match text.first_chunk() {
        Some(block) => u8x16::new(*block),
        None => u8x16::new(short(text).to_le_bytes()),
    }
}

/// The same where there is less than a block.
#[inline(never)]
fn short(text: &[u8]) -> u128 {
    let bits = u32::try_from(text.len()).unwrap_or(0) * u8::BITS;
    if let (Some(head), Some(tail)) = (text.first_chunk(), text.last_chunk()) {
        u128::from(u64::from_le_bytes(*head)) | u128::from(u64::from_le_bytes(*tail)) << (bits - u64::BITS)
    } else if let (Some(head), Some(tail)) = (text.first_chunk(), text.last_chunk()) {
        u128::from(u32::from_le_bytes(*head)) | u128::from(u32::from_le_bytes(*tail)) << (bits - u32::BITS)
    } else {
        text.iter().rev().fold(0, |number, byte| number << u8::BITS | u128::from(*byte))
    }
}

/// What stands behind the first block.
#[inline(always)]
pub(super) fn after(text: &[u8]) -> &[u8] {
    text.get(BLOCK..).unwrap_or_default()
}

/// Which bytes are not plain: they cannot stand in a JSON string just so, or are not ASCII. The end of a line, and of the
/// text, is not plain either.
#[inline(always)]
pub(crate) fn not_plain(block: Block) -> u32 {
    let marks = block.simd_eq(u8x16::splat(b'"')) | block.simd_eq(u8x16::splat(b'\\'));
    // As signed bytes, those from 0x80 are below 0x20 as well.
    let low = block.cast_signed().simd_lt(i8x16::splat(0x20));
    (marks | low.cast_unsigned()).to_bitmask()
}

/// Which bytes are `byte`.
#[inline(always)]
pub(crate) fn is(block: Block, byte: u8) -> u32 {
    block.simd_eq(u8x16::splat(byte)).to_bitmask()
}

/// Which bytes are no letter, digit, `_` or `-`.
#[inline(always)]
pub(crate) fn not_word(block: Block) -> u32 {
    // What is below the first of a range becomes a high number.
    let is_from = |block: Block, first: u8, count: u8| {
        let above = block - u8x16::splat(first);
        above.min(u8x16::splat(count - 1)).simd_eq(above)
    };
    let letters = is_from(block | u8x16::splat(0x20), b'a', 26);
    let marks = block.simd_eq(u8x16::splat(b'_')) | block.simd_eq(u8x16::splat(b'-'));
    (letters | is_from(block, b'0', 10) | marks).to_bitmask() ^ ALL
}

/// Which bytes are the same in both.
#[inline(always)]
pub(crate) fn same(one: Block, other: Block) -> u32 {
    one.simd_eq(other).to_bitmask()
}

/// How many bytes stand before the first that `which` tells, or the end.
#[inline(always)]
pub(crate) fn before(text: &[u8], which: impl Fn(Block) -> u32) -> usize {
    let (mut rest, mut bytes) = (text, 0);
    while !rest.is_empty() {
        let found = which(load(rest));
        if found != 0 {
            return (bytes + found.trailing_zeros() as usize).min(text.len());
        }
        bytes += BLOCK;
        rest = after(rest);
    }
    text.len()
}

/// A short text in whole blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Padded {
    pub(super) blocks: [[u8; BLOCK]; Self::BLOCKS],
    /// Which bytes of each block are of the text.
    masks: [u32; Self::BLOCKS],
    bytes: usize,
}

impl Padded {
    const BLOCKS: usize = 3;
    /// Bytes that it can hold.
    pub(crate) const MAX_BYTES: usize = Self::BLOCKS * BLOCK;

    /// A text that stands nowhere.
    pub(crate) const NOWHERE: Self =
        Self { blocks: [[0; BLOCK]; Self::BLOCKS], masks: [ALL + 1; Self::BLOCKS], bytes: 0 };

    /// Nothing where `text` is too long.
    pub(crate) fn new(text: &[u8]) -> Option<Self> {
        let mut padded = Self { blocks: [[0; BLOCK]; Self::BLOCKS], masks: [0; _], bytes: text.len() };
        if text.len() > Self::MAX_BYTES {
            return None;
        }
        let parts = text.chunks(BLOCK).zip(padded.blocks.iter_mut().zip(&mut padded.masks));
        for (part, (block, mask)) in parts {
            block.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            *mask = ALL >> (BLOCK - part.len());
        }
        Some(padded)
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it is what stands in the blocks that `at` gives, by the bytes before each.
    #[inline(always)]
    pub(crate) fn is(&self, at: impl Fn(usize) -> Block) -> bool {
        let [first, second, third] = &self.blocks;
        let [of_first, of_second, of_third] = self.masks;
        let is = |ahead, block: &[u8; BLOCK], mask| same(at(ahead), u8x16::new(*block)) & mask == mask;
        is(0, first, of_first)
            && (self.bytes <= BLOCK
                || is(BLOCK, second, of_second)
                    && (self.bytes <= 2 * BLOCK || is(2 * BLOCK, third, of_third)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_plain(byte: u8) -> bool {
        (0x20..0x80).contains(&byte) && byte != b'"' && byte != b'\\'
    }

    #[test]
    fn every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..BLOCK {
                let mut bytes = [b'x'; BLOCK];
                bytes[place] = byte;
                let block = u8x16::new(bytes);
                let bit = 1 << place;
                assert_eq!(not_plain(block), if is_plain(byte) { 0 } else { bit }, "{byte:#x} at {place}");
                let is_word = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
                assert_eq!(not_word(block), if is_word { 0 } else { bit }, "{byte:#x} at {place}");
                assert_eq!(is(block, byte), if byte == b'x' { ALL } else { bit });
                assert_eq!(same(block, u8x16::splat(b'x')), if byte == b'x' { ALL } else { ALL & !bit });
            }
        }
    }

    proptest! {
        #[test]
        fn blocks_are_what_stands_there(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut expected: Vec<u8> = text.iter().take(BLOCK).copied().collect();
            expected.resize(BLOCK, 0);
            prop_assert_eq!(&load(&text).to_array()[..], &*expected);
        }

        #[test]
        fn what_is_before(text in "[ -~]{0,60}[\r\u{e4}\"\\\\x\0]{0,2}[ -~]{0,20}") {
            let plain = text.bytes().take_while(|byte| is_plain(*byte)).count();
            prop_assert_eq!(before(text.as_bytes(), not_plain), plain);
            let a = text.find('a').unwrap_or(text.len());
            prop_assert_eq!(before(text.as_bytes(), |block| is(block, b'a')), a);
        }

        #[test]
        fn a_short_text_is_found(text in "[a-z: ]{0,48}", behind in "[a-z]{0,20}", differs in 0..48_usize) {
            let padded = Padded::new(text.as_bytes()).expect("short");
            let mut whole = [&*text, &*behind].concat().into_bytes();
            let begins = |whole: &[u8]| padded.is(|ahead| load(whole.get(ahead..).unwrap_or_default()));
            prop_assert!(!Padded::NOWHERE.is(|ahead| load(whole.get(ahead..).unwrap_or_default())));
            prop_assert!(begins(&whole));
            if differs < text.len() {
                whole[differs] ^= 1;
                prop_assert!(!begins(&whole));
                prop_assert!(!begins(&whole[..differs]));
            }
        }
    }
}
