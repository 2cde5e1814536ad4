//! Values, each written as its form says. What is not plain is written by the same functions as any message's.

use std::borrow::Cow;

use memchr::memmem;

use super::{COLON, CRLF, Few, Head, Pass, behind_end};
use crate::normalize::{block, data, fields::Form, json, lines::as_written, value};

/// The bytes of a plain value, and what follows its line.
type Plain<'b> = Option<(usize, &'b [u8])>;

impl<'b> Pass<'b, '_> {
    /// A value that is shown as it came.
    #[inline(always)]
    pub(super) fn string(&mut self, key: usize, text: &'b [u8]) -> Plain<'b> {
        let bytes = self.data.plain(key, text);
        let rest = behind_end(text.get(bytes..)?)?;
        self.data.close(key + bytes);
        Some((bytes, rest))
    }

    /// A value without C escapes, and nothing that would have got one.
    #[inline(always)]
    pub(super) fn escaped(&mut self, key: usize, text: &'b [u8]) -> Plain<'b> {
        let escapable = |block| block::not_plain(block) | block::is(block, b'\'') | block::is(block, b'?');
        match text.get(block::before(text, escapable)..)? {
            [b'\'' | b'?', ..] => None,
            _ => self.string(key, text),
        }
    }

    /// A number, or a string where it is none.
    #[inline(always)]
    pub(super) fn number(&mut self, key: usize, text: &'b [u8]) -> Plain<'b> {
        let bytes = self.data.plain(key, text);
        let rest = behind_end(text.get(bytes..)?)?;
        if value::is_canonical_integer(text.get(..bytes)?) {
            self.data.keep(key + bytes);
            return Some((bytes, rest));
        }
        self.data.close(key);
        self.string(0, text)
    }

    /// An array of what stands between commas.
    #[inline(always)]
    pub(super) fn words(&mut self, key: usize, text: &'b [u8]) -> Plain<'b> {
        self.data.keep(key);
        let (mut rest, mut bytes) = (text, 0);
        let mut quote = &b"[\""[..];
        loop {
            self.data.extend(quote);
            let word = block::before(rest, |block| block::is(block, b',') | block::not_plain(block));
            self.data.copy(rest.get(..word)?);
            bytes += word;
            rest = rest.get(word..)?;
            if let Some(behind) = rest.strip_prefix(b",") {
                (rest, bytes, quote) = (behind, bytes + 1, b"\",\"");
                continue;
            }
            self.data.extend(b"\"]");
            return Some((bytes, behind_end(rest)?));
        }
    }

    /// This line's `name=value` and those of all lines of the same name that follow, as an object.
    #[inline(always)]
    pub(super) fn variables(&mut self, head: Head<'b>, mut text: &'b [u8]) -> Option<()> {
        let begin = self.rest.get(..head.name.len() + COLON.len())?;
        let mut names = Few::default();
        let mut comma = b'{';
        self.data.keep(head.key);
        loop {
            self.data.push(comma);
            comma = b',';
            self.rest = self.variable(head, text, &mut names)?;
            match self.rest.strip_prefix(begin) {
                Some(next) => text = next,
                None => break,
            }
        }
        self.data.push(b'}');
        Some(())
    }

    /// One `name=value`; gives what follows its line.
    #[inline(always)]
    fn variable(&mut self, head: Head<'b>, text: &'b [u8], names: &mut Few<'b>) -> Option<&'b [u8]> {
        self.data.push(b'"');
        let bytes = self.data.plain(0, text);
        let (plain, behind) = text.split_at_checked(bytes)?;
        let name = block::before(plain, |block| block::is(block, b'='));
        let escapable = head.wire == Form::Variables && is_escapable(plain);
        if let Some(rest) = behind_end(behind).filter(|_| name < bytes && !escapable) {
            names.add(plain.get(..name)?)?;
            self.data.keep(name);
            self.data.extend(b"\":\"");
            self.data.copy(plain.get(name + 1..)?);
            self.data.push(b'"');
            return Some(rest);
        }
        let (name, written, rest) = odd_variable(text, head, self.users_own)?;
        names.add(name)?;
        self.data.extend(&written);
        Some(rest)
    }

    /// A value that is not plain, and what follows its line.
    #[inline(always)]
    pub(super) fn odd(&mut self, head: Head<'b>, text: &'b [u8]) -> Option<(&'b [u8], &'b [u8])> {
        let (value, rest) = split_line(text)?;
        match head.wire.is_quoted() {
            true => self.data.keep(head.key),
            false => self.data.close(head.key),
        }
        self.data.extend(&odd_value(value, head, self.users_own)?);
        Some((value, rest))
    }
}

/// Whether Asterisk would escape some of these plain bytes, in a value that it escapes.
#[inline(always)]
fn is_escapable(plain: &[u8]) -> bool {
    block::before(plain, |block| block::is(block, b'\'') | block::is(block, b'?')) < plain.len()
}

/// The inside of a string that shows a value that is not plain, and its closing quote.
#[cold]
#[inline(never)]
fn odd_value(value: &[u8], head: Head<'_>, users_own: bool) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    exact(&mut out, head, users_own, value)?;
    Some(out)
}

/// The same for `name=value`, with the quotes between them; the name comes first, what follows the line last.
#[cold]
#[inline(never)]
fn odd_variable<'b>(
    text: &'b [u8],
    head: Head<'_>,
    users_own: bool,
) -> Option<(&'b [u8], Vec<u8>, &'b [u8])> {
    let (variable, rest) = split_line(text)?;
    let (name, value) = data::variable(variable)?;
    std::str::from_utf8(name).ok()?;
    let mut out = Vec::new();
    json::escaped(&mut out, name);
    out.extend_from_slice(b"\":\"");
    exact(&mut out, head, users_own, value)?;
    Some((name, out, rest))
}

/// The first line, and what follows its end.
#[cold]
#[inline(never)]
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = memmem::find(text, CRLF).unwrap_or(text.len());
    let (line, behind) = text.split_at_checked(bytes)?;
    Some((line, behind_end(behind)?))
}

/// Appends what shows `raw`, and a closing quote, if `raw` would be rebuilt from it.
fn exact(out: &mut Vec<u8>, head: Head<'_>, users_own: bool, raw: &[u8]) -> Option<()> {
    let form = if users_own { as_written(head.rule.form) } else { head.wire };
    let shown = value::shown(form, raw).unwrap_or(Cow::Borrowed(raw));
    std::str::from_utf8(&shown).ok()?;
    if *value::rebuilt(head.wire, &shown) != *raw {
        return None;
    }
    json::escaped(out, &shown);
    out.push(b'"');
    Some(())
}
