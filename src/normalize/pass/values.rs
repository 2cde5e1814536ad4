//! Values, each written as its form says. What is not plain is written by the same functions as any message's.

use std::borrow::Cow;

use super::{
    Head, MAX_VARIABLES, Message, escapable,
    source::{CRLF, Source},
};
use crate::normalize::{
    block::{self, BLOCK, Block},
    data,
    draft::Draft,
    fields::Form,
    json,
    lines::as_written,
    value::{self, is_canonical_integer},
};

/// Values of so many bytes are long.
const LONG_BYTES: usize = 8 * BLOCK;

/// Writes what stands at `from`, up to the first byte that `which` tells, without keeping it: behind `ahead` bytes that
/// were written before. Gives where that byte stands. `which` must tell line ends.
#[inline(always)]
pub(super) fn copy(
    source: Source<'_>,
    from: usize,
    data: &mut Draft<'_>,
    mut ahead: usize,
    which: impl Fn(Block) -> u32,
) -> usize {
    let mut at = from;
    loop {
        let block = source.block(at);
        data.block(ahead, block);
        let found = which(block);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        (at, ahead) = (at + BLOCK, ahead + BLOCK);
        if at - from >= LONG_BYTES {
            return at + long(source, at, data, ahead, &which);
        }
    }
}

/// The same by several blocks at once; gives how many bytes stand before the one that `which` tells.
#[cold]
#[inline(never)]
fn long(
    source: Source<'_>,
    from: usize,
    data: &mut Draft<'_>,
    ahead: usize,
    which: impl Fn(Block) -> u32,
) -> usize {
    let mut bytes = 0;
    loop {
        let blocks: [u8; 4 * BLOCK] = source.bytes(from + bytes);
        data.put_at(ahead + bytes, blocks);
        let found = blocks.as_chunks().0.iter().fold(0, |found, block| found | which(Block::new(*block)));
        if found != 0 {
            return bytes + block::before(&blocks, which);
        }
        bytes += blocks.len();
    }
}

/// A value behind a key of so many bytes that is shown as it came, unless it has bytes that `which` tells; gives where it ends.
#[inline(always)]
pub(super) fn string(
    message: &Message<'_, '_>,
    key: usize,
    value: usize,
    data: &mut Draft<'_>,
    which: impl Fn(Block) -> u32,
) -> Option<usize> {
    let end = copy(message.source, value, data, key, which);
    if !message.source.is_end(end) {
        return None;
    }
    data.close(key + (end - value));
    Some(end)
}

/// A number, or a string where it is none.
#[inline(always)]
pub(super) fn number(
    message: &Message<'_, '_>,
    key: usize,
    value: usize,
    data: &mut Draft<'_>,
) -> Option<usize> {
    let end = copy(message.source, value, data, key, block::not_plain);
    if !message.source.is_end(end) {
        return None;
    }
    if is_canonical_integer(message.raw.get(value..end)?) {
        data.keep(key + (end - value));
        return Some(end);
    }
    data.close(key);
    string(message, 0, value, data, block::not_plain)
}

/// Any value that is plain, without a key; gives where it ends.
pub(super) fn plain(
    message: &Message<'_, '_>,
    wire: Form,
    value: usize,
    data: &mut Draft<'_>,
) -> Option<usize> {
    if wire.is_quoted() {
        data.push(b'"');
    }
    match wire {
        Form::Text => string(message, 0, value, data, block::not_plain),
        Form::Number => number(message, 0, value, data),
        Form::Escaped => string(message, 0, value, data, escapable),
        Form::Words => words(message, 0, value, data),
        Form::Variables | Form::RawVariables | Form::Url => None,
    }
}

/// An array of what stands between commas.
#[inline(always)]
pub(super) fn words(
    message: &Message<'_, '_>,
    key: usize,
    value: usize,
    data: &mut Draft<'_>,
) -> Option<usize> {
    let before = data.len();
    data.keep(key);
    data.write(*b"[\"");
    let mut at = value;
    loop {
        let end = copy(message.source, at, data, 0, |block| block::is(block, b',') | block::not_plain(block));
        data.keep(end - at);
        if message.source.bytes(end) == *b"," {
            data.write(*b"\",\"");
            at = end + 1;
        } else if message.source.is_end(end) {
            data.write(*b"\"]");
            return Some(end);
        } else {
            data.cut(before);
            return None;
        }
    }
}

/// This line's `name=value` and those of all lines that follow and begin so too, as an object; gives where the last of
/// them ends.
#[inline(never)]
pub(super) fn variables(
    message: &Message<'_, '_>,
    head: Head,
    data: &mut Draft<'_>,
    begins: impl Fn(usize) -> bool,
) -> Option<usize> {
    let before = data.len();
    let end = data.lend(|data| object(message, head, data, begins));
    if end.is_none() {
        data.cut(before);
    }
    end
}

#[inline(always)]
fn object(
    message: &Message<'_, '_>,
    head: Head,
    data: &mut Draft<'_>,
    begins: impl Fn(usize) -> bool,
) -> Option<usize> {
    // Where they begin and end; a place in a usual message has sixteen bits.
    let mut names = [(0_u16, 0_u16); MAX_VARIABLES];
    let (mut at, mut comma) = (head.value, b'{');
    data.keep(head.key);
    for count in 0..MAX_VARIABLES {
        data.write([comma, b'"']);
        comma = b',';
        let (name, end) = variable(message, at, head, data)?;
        let is_it =
            |(from, to): &(u16, u16)| message.raw.get(usize::from(*from)..usize::from(*to)) == Some(name);
        if names.iter().take(count).any(is_it) {
            return None;
        }
        *names.get_mut(count)? = (at as u16, (at + name.len()) as u16);
        let next = end + CRLF.len();
        if next >= message.source.end || !begins(next) {
            data.push(b'}');
            return Some(end);
        }
        at = next + (head.value - head.line);
    }
    None
}

/// The `name=value` at `from` with the quotes behind the first; gives its name, and where it ends.
#[inline(always)]
fn variable<'b>(
    message: &Message<'b, '_>,
    from: usize,
    head: Head,
    data: &mut Draft<'_>,
) -> Option<(&'b [u8], usize)> {
    const EQUALS: [u8; 3] = *b"\":\"";
    let source = message.source;
    let name_end = copy(source, from, data, 0, |block| block::is(block, b'=') | block::not_plain(block));
    if source.bytes(name_end) == *b"=" {
        let (name_bytes, value) = (name_end - from, name_end + 1);
        let ahead = name_bytes + EQUALS.len();
        let end = match head.wire {
            Form::Variables => copy(source, value, data, ahead, escapable),
            _ => copy(source, value, data, ahead, block::not_plain),
        };
        if source.is_end(end) {
            data.keep(name_bytes);
            data.write(EQUALS);
            data.close(end - value);
            return Some((message.raw.get(from..name_end)?, end));
        }
    }
    let (name, written, end) = odd_variable(message, from, head)?;
    data.extend(&written);
    Some((name, end))
}

/// A value that is not plain; gives where it ends, and whether it would be rebuilt.
#[cold]
#[inline(never)]
pub(super) fn odd(message: &Message<'_, '_>, head: Head, data: &mut Draft<'_>) -> Option<(usize, bool)> {
    match head.wire.is_quoted() {
        true => data.keep(head.key),
        false => data.close(head.key),
    }
    let value = line_at(message, head.value)?;
    // Most have a few escapes.
    let mut text = Vec::with_capacity(2 * value.len());
    let exact = shown(&mut text, head, message, value);
    data.extend(&text);
    Some((head.value + value.len(), exact))
}

/// The name at `from`, what shows it and its value with the quotes behind each, and where the line ends.
#[cold]
#[inline(never)]
fn odd_variable<'b>(
    message: &Message<'b, '_>,
    from: usize,
    head: Head,
) -> Option<(&'b [u8], Vec<u8>, usize)> {
    let variable = line_at(message, from)?;
    let (name, value) = data::variable(variable)?;
    std::str::from_utf8(name).ok()?;
    let mut out = Vec::new();
    json::escaped(&mut out, name);
    out.extend_from_slice(b"\":\"");
    shown(&mut out, head, message, value).then_some(())?;
    Some((name, out, from + variable.len()))
}

/// What stands at `from` in its line.
fn line_at<'b>(message: &Message<'b, '_>, from: usize) -> Option<&'b [u8]> {
    message.raw.get(from..message.source.line_end(from))
}

/// Appends what shows `raw`, and a closing quote; says whether `raw` would be rebuilt from it.
fn shown(out: &mut Vec<u8>, head: Head, message: &Message<'_, '_>, raw: &[u8]) -> bool {
    let form = if message.users_own { as_written(head.rule.form) } else { head.wire };
    let shown = value::shown(form, raw).unwrap_or(Cow::Borrowed(raw));
    let is_utf8 = std::str::from_utf8(&shown).is_ok();
    match is_utf8 {
        true => json::escaped(out, &shown),
        false => json::escaped(out, message.charset.decode_without_bom_handling(&shown).0.as_bytes()),
    }
    out.push(b'"');
    is_utf8 && *value::rebuilt(head.wire, &shown) == *raw
}
