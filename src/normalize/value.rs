//! How values look on the wire, both ways: what is shown, and what it is rebuilt into.

use std::borrow::Cow;

use super::fields::Form;

/// JSON readers keep integers up to 2^53 exactly.
const MAX_SAFE_INTEGER: u64 = 1 << 53;
/// Decimal digits of [`MAX_SAFE_INTEGER`].
const MAX_INTEGER_DIGITS: usize = 16;

/// What C escapes stand for, in the order of `escape_sequences` in `main/utils.c`.
const ESCAPES: [(u8, u8); 11] = [
    (0x07, b'a'),
    (0x08, b'b'),
    (0x0C, b'f'),
    (b'\n', b'n'),
    (b'\r', b'r'),
    (b'\t', b't'),
    (0x0B, b'v'),
    (b'\\', b'\\'),
    (b'\'', b'\''),
    (b'"', b'"'),
    (b'?', b'?'),
];

/// Whether the digits are those that the number would be printed with, and every JSON reader keeps it.
#[inline]
pub(crate) fn is_canonical_integer(text: &[u8]) -> bool {
    // Most are flags and states.
    if let [digit] = text {
        return digit.is_ascii_digit();
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    match digits {
        [b'0'] => digits.len() == text.len(),
        [b'1'..=b'9', ..] if digits.len() <= MAX_INTEGER_DIGITS && digits.iter().all(u8::is_ascii_digit) => {
            digits.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')) <= MAX_SAFE_INTEGER
        }
        _ => false,
    }
}

/// What is shown of a value whose wire form is `form`; `None` where it is not in that form.
pub(crate) fn shown(form: Form, raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    match form {
        Form::Escaped | Form::Variables => unescape(raw),
        Form::Url => url_decode(raw),
        _ => Some(Cow::Borrowed(raw)),
    }
}

/// The wire form of what is shown: the other way round of [`shown`].
pub(crate) fn rebuilt(form: Form, shown: &[u8]) -> Cow<'_, [u8]> {
    match form {
        Form::Escaped | Form::Variables => escape(shown),
        Form::Url => url_encode(shown),
        _ => Cow::Borrowed(shown),
    }
}

#[inline]
fn is_escapable(byte: u8) -> bool {
    matches!(byte, 0x07..=0x0D | b'\\' | b'\'' | b'"' | b'?')
}

fn unescape(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !raw.contains(&b'\\') {
        return Some(Cow::Borrowed(raw));
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'\\' => {
                let letter = bytes.next()?;
                ESCAPES.iter().find(|(_, escape)| escape == letter)?.0
            }
            _ => byte,
        });
    }
    Some(Cow::Owned(out))
}

fn escape(shown: &[u8]) -> Cow<'_, [u8]> {
    if !shown.iter().any(|&byte| is_escapable(byte)) {
        return Cow::Borrowed(shown);
    }
    let mut out = Vec::with_capacity(shown.len() + 16);
    for &byte in shown {
        match ESCAPES.iter().find(|(plain, _)| *plain == byte) {
            Some((_, letter)) => out.extend_from_slice(&[b'\\', *letter]),
            None => out.push(byte),
        }
    }
    Cow::Owned(out)
}

fn url_decode(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !raw.contains(&b'%') {
        return Some(Cow::Borrowed(raw));
    }
    let hex = |digit: &u8| char::from(*digit).to_digit(16);
    let mut out = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        out.push(match byte {
            b'%' => u8::try_from(hex(bytes.next()?)? << 4 | hex(bytes.next()?)?).ok()?,
            _ => byte,
        });
    }
    Some(Cow::Owned(out))
}

fn url_encode(shown: &[u8]) -> Cow<'_, [u8]> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    if shown.iter().all(|&byte| plain(byte)) {
        return Cow::Borrowed(shown);
    }
    let hex = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or(b'0');
    let mut out = Vec::with_capacity(shown.len() * 3);
    for &byte in shown {
        if plain(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', hex(byte >> 4), hex(byte & 15)]);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_canonical_integers_are_numbers() {
        for good in ["0", "7", "-7", "42", "9007199254740992", "-9007199254740992"] {
            assert!(is_canonical_integer(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "-",
            "-0",
            "+5",
            "007",
            "00",
            " 1",
            "1 ",
            "1.50",
            "1e3",
            "0x1",
            "9007199254740993",
            "99999999999999999999999",
            "--1",
            "1-",
            "\u{0661}",
        ] {
            assert!(!is_canonical_integer(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn escapes_as_asterisk_writes_them() {
        let wire: &[u8] = br#"Flow: \"q\" \'a\' \\ \? \a\b\f\n\r\t\v"#;
        let text: &[u8] = b"Flow: \"q\" 'a' \\ ? \x07\x08\x0C\n\r\t\x0B";
        assert_eq!(shown(Form::Escaped, wire).as_deref(), Some(text));
        assert_eq!(&*rebuilt(Form::Escaped, text), wire);
        assert_eq!(shown(Form::Escaped, br"a\x"), None);
        assert_eq!(shown(Form::Escaped, br"a\"), None);
        assert_eq!(shown(Form::Url, b"200%20result%3D1%0A").as_deref(), Some(&b"200 result=1\n"[..]));
        assert_eq!(&*rebuilt(Form::Url, b"200 result=1\n"), b"200%20result%3D1%0A");
        assert_eq!((shown(Form::Url, b"%"), shown(Form::Url, b"%2x")), (None, None));
    }

    proptest! {
        #[test]
        fn what_asterisk_encoded_is_shown_and_rebuilt(text in proptest::collection::vec(1_u8.., 0..40)) {
            for form in [Form::Escaped, Form::Url] {
                let wire = rebuilt(form, &text);
                let shown = shown(form, &wire);
                prop_assert_eq!(shown.as_deref(), Some(&*text));
            }
        }
    }
}
