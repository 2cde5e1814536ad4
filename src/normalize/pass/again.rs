//! Names of the table that come again, most often with others between: their values become arrays, each in the place of
//! the first value, and `$order` tells how the lines stood.

use super::{
    Message, Names, name_end,
    source::{CRLF, Source},
    values,
};
use crate::{
    normalize::{block, data::ORDER_KEY, draft::Draft, fields::Form, table::Name},
    route::Role,
};

/// Lines of one message whose names came before.
pub(super) const MAX_AGAIN: usize = 32;
/// How many bytes of one message may be moved to make room for arrays; beyond, the general way does with fewer.
const MAX_MOVED_BYTES: usize = 64 * 1024;

/// The lines of a message whose names came before. They are written when all others are.
pub(super) struct Again {
    lines: [Line; MAX_AGAIN],
    count: usize,
    /// Whether other lines stood between.
    pub(super) irregular: bool,
}

#[derive(Clone, Copy)]
struct Line {
    /// Where the first value of its name begins in `data`.
    first: usize,
    /// Where its own value begins.
    value: usize,
    /// How that is written on the wire.
    wire: Form,
}

impl Again {
    pub(super) fn new() -> Self {
        Self { lines: [Line { first: 0, value: 0, wire: Form::Text }; MAX_AGAIN], count: 0, irregular: false }
    }

    /// Begins another message.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        (self.count, self.irregular) = (0, false);
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes the arrays. Only values that are plain are usual.
    #[cold]
    #[inline(never)]
    pub(super) fn write(&mut self, message: &Message<'_, '_>, data: &mut Draft<'_>) -> Option<()> {
        let lines = self.lines.get_mut(..self.count)?;
        // Those of one name stay in their order.
        lines.sort_by_key(|line| line.first);
        let mut moved = 0;
        // From the last, so that those before are where they were.
        for array in lines.chunk_by(|one, other| one.first == other.first).rev() {
            let first = array.first()?.first;
            let behind = first + value_bytes(data.text().get(first..)?)?;
            let end = data.len();
            moved += end - behind;
            if moved > MAX_MOVED_BYTES {
                return None;
            }
            for line in array {
                data.push(b',');
                values::plain(message, line.wire, line.value, data)?;
            }
            data.push(b']');
            data.turn(behind, end);
            data.insert(first, b'[');
        }
        Some(())
    }
}

/// Takes note of the line that begins there, whose name `name` is, not for the first time; gives where it ends.
#[cold]
#[inline(never)]
pub(super) fn again(message: &Message<'_, '_>, line: usize, name: &Name, names: &mut Names) -> Option<usize> {
    let &Message { raw, source, .. } = message;
    if !message.is_event || name.rule.role != Role::None {
        return None;
    }
    // Its key has a quote behind it there, or the value begins there.
    let first = names.key(name.rule.id)? + name.member.len() - 1;
    let value = line + name.line.len();
    let wire = message.rules.form(raw.get(line..value - 2)?, name.rule.form);
    let before = raw.get(..line.checked_sub(CRLF.len())?)?;
    let before = before.windows(CRLF.len()).rposition(|end| end == CRLF).map_or(0, |end| end + CRLF.len());
    let again = &mut names.again;
    again.irregular |= !source.begins(before, &name.line);
    *again.lines.get_mut(again.count)? = Line { first, value, wire };
    again.count += 1;
    Some(source.line_end(value))
}

/// How many bytes a value of JSON has, if its strings are plain; nothing but a comma stands behind a number.
fn value_bytes(text: &[u8]) -> Option<usize> {
    match text.first()? {
        b'"' => string_bytes(text),
        b'[' => {
            let mut bytes = 1;
            loop {
                bytes += string_bytes(text.get(bytes..)?)? + 1;
                match text.get(bytes - 1)? {
                    b',' => {}
                    b']' => return Some(bytes),
                    _ => return None,
                }
            }
        }
        _ => Some(block::before(text, |block| block::is(block, b','))),
    }
}

/// The same of a string.
fn string_bytes(text: &[u8]) -> Option<usize> {
    let inside = text.strip_prefix(b"\"")?;
    let end = block::before(inside, block::not_plain);
    (inside.get(end) == Some(&b'"')).then_some(end + 2)
}

/// Appends the member that tells the names of all lines in their order.
#[cold]
#[inline(never)]
pub(super) fn order(data: &mut Draft<'_>, source: Source<'_>, raw: &[u8]) -> Option<()> {
    data.extend(b",\"");
    data.extend(ORDER_KEY.as_bytes());
    data.extend(b"\":");
    let (mut at, mut comma) = (0, b'[');
    while at < source.end {
        data.write([comma, b'"']);
        data.extend(raw.get(at..name_end(source, at)?)?);
        data.push(b'"');
        comma = b',';
        at = source.line_end(at) + CRLF.len();
    }
    data.push(b']');
    Some(())
}
