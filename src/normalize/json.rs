//! Writing JSON: strings without looking at each byte, base64, and fixed-width numbers.

use base64::{Engine as _, engine::general_purpose::STANDARD};

const ONES: u64 = u64::MAX / 255;
const HIGH: u64 = ONES << 7;

/// Appends a JSON string. `text` must be UTF-8; then so is what is appended.
#[inline]
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    escaped(out, text);
    out.push(b'"');
}

/// Appends the inside of a JSON string.
#[inline]
pub(crate) fn escaped(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some((plain, [special, after @ ..])) = rest.split_at_checked(plain_bytes(rest)) {
        out.extend_from_slice(plain);
        escape(out, *special);
        rest = after;
    }
    out.extend_from_slice(rest);
}

/// Appends a JSON string of base64.
pub(crate) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// The bytes that a JSON string of base64 stands for.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// The decimal digits of a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digits {
    /// With zeros before.
    all: [u8; 24],
    /// How many there are without those; one at least.
    count: usize,
}

impl Digits {
    #[inline]
    pub(crate) fn of(value: u64) -> Self {
        const EIGHT: u64 = 100_000_000;
        let (high, low) = (value / EIGHT, value % EIGHT);
        let mut all = [b'0'; 24];
        let mut count = 0;
        if let [first, second, third] = all.as_chunks_mut::<8>().0 {
            *third = eight_digits(low);
            count = 8 - leading_zeros(third);
            if high > 0 {
                (*first, *second) = (eight_digits(high / EIGHT), eight_digits(high % EIGHT));
                count = if high < EIGHT { 16 - leading_zeros(second) } else { 24 - leading_zeros(first) };
            }
        }
        Self { all, count: count.max(1) }
    }

    /// Without zeros before them.
    #[inline]
    pub(crate) fn short(&self) -> &[u8] {
        self.all.get(self.all.len() - self.count..).unwrap_or_default()
    }

    /// All that any number may need.
    #[inline]
    pub(crate) fn twenty(&self) -> [u8; 20] {
        let [_, _, _, _, twenty @ ..] = self.all;
        twenty
    }
}

/// The decimal digits of a value below 10^8, computed all at once: halves of four digits, then quarters of two, then
/// single ones, each in its own part of the word.
#[inline]
pub(crate) fn eight_digits(value: u64) -> [u8; 8] {
    let halves = (value / 10_000) | ((value % 10_000) << 32);
    let hundreds = ((halves * 10_486) >> 20) & 0x7F_0000_007F;
    let quarters = hundreds | ((halves - 100 * hundreds) << 16);
    let tens = ((quarters * 103) >> 10) & 0x000F_000F_000F_000F;
    (tens | ((quarters - 10 * tens) << 8) | (ONES * 0x30)).to_le_bytes()
}

/// How many zeros eight digits begin with.
#[inline]
fn leading_zeros(digits: &[u8; 8]) -> usize {
    (u64::from_le_bytes(*digits) ^ (ONES * 0x30)).trailing_zeros() as usize / 8
}

/// The value of eight decimal digits: pairs, then fours, then all, each sum in its own part of the word.
#[inline]
pub(crate) fn from_eight_digits(digits: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(digits);
    let high = word & (ONES * 0xF0);
    let above = word.wrapping_add(ONES * 6) & (ONES * 0xF0);
    if high != ONES * 0x30 || above != ONES * 0x30 {
        return None;
    }
    let ones = word & (ONES * 0x0F);
    let pairs = (ones * 10 + (ones >> 8)) & 0x00FF_00FF_00FF_00FF;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_FFFF_0000_FFFF;
    Some((fours * 10_000 + (fours >> 32)) & 0xFFFF_FFFF)
}

/// How many bytes from the start need no escape.
#[inline]
pub(crate) fn plain_bytes(text: &[u8]) -> usize {
    bytes_before(text, specials, |byte| matches!(byte, 0..0x20 | b'"' | b'\\'))
}

/// How many bytes stand before the first colon or control character.
#[inline]
pub(crate) fn name_bytes(text: &[u8]) -> usize {
    bytes_before(
        text,
        |word| (below_0x20(word) | zero_in(word ^ (ONES * 0x3A))) & HIGH,
        |byte| matches!(byte, 0..0x20 | b':'),
    )
}

/// How many bytes stand before the first that is looked for: `in_word` sets its high bit, and may set those behind it.
#[inline]
fn bytes_before(text: &[u8], in_word: impl Fn(u64) -> u64, is_it: impl Fn(u8) -> bool) -> usize {
    let (words, tail) = text.as_chunks::<8>();
    let mut before = 0;
    for word in words {
        let found = in_word(u64::from_le_bytes(*word));
        if found != 0 {
            return before + found.trailing_zeros() as usize / 8;
        }
        before += 8;
    }
    before + tail.iter().take_while(|byte| !is_it(**byte)).count()
}

/// The high bit of each byte below 0x20, of each quote and each backslash; exact up to the first that is set.
#[inline]
fn specials(word: u64) -> u64 {
    (below_0x20(word) | zero_in(word ^ (ONES * 0x22)) | zero_in(word ^ (ONES * 0x5C))) & HIGH
}

#[inline]
fn zero_in(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word
}

#[inline]
fn below_0x20(word: u64) -> u64 {
    word.wrapping_sub(ONES * 0x20) & !word
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        _ => {
            let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(text in "(?s)\\PC{0,9}[\u{0}-\u{7f}]{0,20}.{0,12}") {
            let mut out = Vec::new();
            string(&mut out, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
        }
    }

    #[test]
    fn every_byte_at_every_place_of_a_word() {
        for byte in 0..0x80_u8 {
            for place in 0..17 {
                let mut text = [b'\x7f'; 17];
                text[place] = byte;
                let mut out = Vec::new();
                string(&mut out, &text);
                let back: String = serde_json::from_slice(&out).expect("JSON");
                assert_eq!(back.as_bytes(), text, "{byte:#x} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn digits_are_written_and_read(value: u64, bits in 0..64_u32) {
            let value = value >> bits;
            let digits = Digits::of(value);
            prop_assert_eq!(String::from_utf8_lossy(digits.short()), value.to_string());
            let twenty = digits.twenty();
            prop_assert_eq!(String::from_utf8_lossy(&twenty), format!("{value:020}"));
            let eight = value % 100_000_000;
            prop_assert_eq!(from_eight_digits(eight_digits(eight)), Some(eight));
        }

        #[test]
        fn what_is_no_digit_is_no_number(at in 0..8_usize, byte: u8) {
            let mut digits = *b"12345678";
            digits[at] = byte;
            let expected = std::str::from_utf8(&digits).ok().filter(|_| byte.is_ascii_digit());
            prop_assert_eq!(from_eight_digits(digits), expected.and_then(|text| text.parse().ok()));
        }
    }

    #[test]
    fn numbers_at_the_limits_are_written() {
        let others = (0..63).map(|bits| (1_u64 << bits) - 1).chain((0..19).map(|n| 10_u64.pow(n) * 9));
        for value in [42, u64::MAX, 12_345_678_901_234_567_890].into_iter().chain(others) {
            let digits = Digits::of(value);
            assert_eq!(digits.short(), value.to_string().as_bytes());
            assert_eq!(digits.twenty(), *format!("{value:020}").as_bytes());
        }
    }
}
