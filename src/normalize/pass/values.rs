//! Values, each written as its form says. What is not plain is written by the same functions as any message's.

use std::borrow::Cow;

use memchr::memmem;

use super::{Head, MAX_VARIABLES, Pass, escapable, source::CRLF};
use crate::normalize::{
    block::{self, BLOCK, Block},
    data,
    fields::Form,
    json,
    lines::as_written,
    value,
};

impl<'b> Pass<'b, '_> {
    /// Writes what stands at `from`, up to the first byte that `which` tells, without keeping it: behind `ahead` bytes
    /// that were written before. Gives where that byte stands. `which` must tell line ends.
    #[inline(always)]
    fn copy(&mut self, from: usize, mut ahead: usize, which: impl Fn(Block) -> u32) -> usize {
        let mut at = from;
        loop {
            let block = self.source.block(at);
            self.data.block(ahead, block);
            let found = which(block);
            if found != 0 {
                return at + found.trailing_zeros() as usize;
            }
            (at, ahead) = (at + BLOCK, ahead + BLOCK);
        }
    }

    /// A value that is shown as it came, unless it has bytes that `which` tells; gives where it ends.
    #[inline(always)]
    pub(super) fn string(&mut self, head: Head, which: impl Fn(Block) -> u32) -> Option<usize> {
        let end = self.copy(head.value, head.key, which);
        if !self.source.is_end(end) {
            return None;
        }
        self.data.close(head.key + (end - head.value));
        Some(end)
    }

    /// A number, or a string where it is none.
    #[inline(always)]
    pub(super) fn number(&mut self, head: Head) -> Option<usize> {
        let end = self.copy(head.value, head.key, block::not_plain);
        if !self.source.is_end(end) {
            return None;
        }
        if value::is_canonical_integer(self.raw.get(head.value..end)?) {
            self.data.keep(head.key + (end - head.value));
            return Some(end);
        }
        self.data.close(head.key);
        self.string(Head { key: 0, ..head }, block::not_plain)
    }

    /// An array of what stands between commas.
    #[inline(always)]
    pub(super) fn words(&mut self, head: Head) -> Option<usize> {
        self.data.keep(head.key);
        self.data.write(*b"[\"");
        let mut at = head.value;
        loop {
            let end = self.copy(at, 0, |block| block::is(block, b',') | block::not_plain(block));
            self.data.keep(end - at);
            if self.source.bytes(end) != *b"," {
                self.data.write(*b"\"]");
                return self.source.is_end(end).then_some(end);
            }
            self.data.write(*b"\",\"");
            at = end + 1;
        }
    }

    /// This line's `name=value` and those of all lines of the same name that follow, as an object.
    #[inline(always)]
    pub(super) fn variables(&mut self, head: Head) -> Option<()> {
        let begin = self.raw.get(head.line..head.value)?;
        let mut names = [&b""[..]; MAX_VARIABLES];
        let mut comma = b'{';
        self.data.keep(head.key);
        self.at = head.value;
        for count in 0..MAX_VARIABLES {
            self.data.write([comma, b'"']);
            comma = b',';
            let name = self.variable(head)?;
            if names.iter().take(count).any(|before| *before == name) {
                return None;
            }
            *names.get_mut(count)? = name;
            // The last line has nothing behind it.
            if !self.raw.get(self.at..).is_some_and(|next| next.starts_with(begin)) {
                self.data.push(b'}');
                return Some(());
            }
            self.at += begin.len();
        }
        None
    }

    /// One `name=value` with the quotes behind the first; gives its name, and goes on behind its line.
    #[inline(always)]
    fn variable(&mut self, head: Head) -> Option<&'b [u8]> {
        const EQUALS: [u8; 3] = *b"\":\"";
        let from = self.at;
        let name_end = self.copy(from, 0, |block| block::is(block, b'=') | block::not_plain(block));
        if self.source.bytes(name_end) == *b"=" {
            let (name_bytes, value) = (name_end - from, name_end + 1);
            let ahead = name_bytes + EQUALS.len();
            let end = match head.wire {
                Form::Variables => self.copy(value, ahead, escapable),
                _ => self.copy(value, ahead, block::not_plain),
            };
            if self.source.is_end(end) {
                self.data.keep(name_bytes);
                self.data.write(EQUALS);
                self.data.close(end - value);
                self.at = end + CRLF.len();
                return self.raw.get(from..name_end);
            }
        }
        let (name, written, end) = odd_variable(self.raw, from, head, self.users_own)?;
        self.data.extend(&written);
        self.at = end + CRLF.len();
        Some(name)
    }

    /// A value that is not plain; gives where it ends.
    #[inline(always)]
    pub(super) fn odd(&mut self, head: Head) -> Option<usize> {
        match head.wire.is_quoted() {
            true => self.data.keep(head.key),
            false => self.data.close(head.key),
        }
        let (written, end) = odd_value(self.raw, head, self.users_own)?;
        self.data.extend(&written);
        Some(end)
    }
}

/// The inside of a string that shows a value that is not plain, and its closing quote; and where the value ends.
#[cold]
#[inline(never)]
fn odd_value(raw: &[u8], head: Head, users_own: bool) -> Option<(Vec<u8>, usize)> {
    let value = line_at(raw, head.value)?;
    let mut out = Vec::new();
    exact(&mut out, head, users_own, value)?;
    Some((out, head.value + value.len()))
}

/// The same for `name=value` at `from`, with the quotes between them; the name comes first.
#[cold]
#[inline(never)]
fn odd_variable(raw: &[u8], from: usize, head: Head, users_own: bool) -> Option<(&[u8], Vec<u8>, usize)> {
    let variable = line_at(raw, from)?;
    let (name, value) = data::variable(variable)?;
    std::str::from_utf8(name).ok()?;
    let mut out = Vec::new();
    json::escaped(&mut out, name);
    out.extend_from_slice(b"\":\"");
    exact(&mut out, head, users_own, value)?;
    Some((name, out, from + variable.len()))
}

/// What stands at `from` in its line.
fn line_at(raw: &[u8], from: usize) -> Option<&[u8]> {
    let text = raw.get(from..)?;
    text.get(..memmem::find(text, &CRLF).unwrap_or(text.len()))
}

/// Appends what shows `raw`, and a closing quote, if `raw` would be rebuilt from it.
fn exact(out: &mut Vec<u8>, head: Head, users_own: bool, raw: &[u8]) -> Option<()> {
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
