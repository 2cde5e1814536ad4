//! One name of the table that comes again, most often with others between: its values become an array, in the place of
//! the first, and `$order` tells how the lines stood.

use super::{
    Message, Names, name_end,
    source::{CRLF, Source},
};
use crate::{
    normalize::{
        block,
        data::ORDER_KEY,
        draft::Draft,
        fields::{EventRules, Form},
        table::Name,
    },
    route::Role,
};

/// How many bytes of one message may be moved to make room in its array; beyond, the general way does with fewer.
const MAX_MOVED_BYTES: usize = 64 * 1024;

/// The name that came again.
#[derive(Clone, Copy)]
pub(super) struct Again {
    id: u16,
    /// Where its array ends in `data`.
    end: usize,
    /// How many bytes were moved for it.
    moved: usize,
    /// Whether other lines stood between.
    pub(super) irregular: bool,
}

/// Writes the value of the line that begins there, whose name `name` is, not for the first time; gives where the line
/// ends. Only text that is plain is usual, and only one name.
#[cold]
#[inline(never)]
pub(super) fn again(
    message: &Message<'_, '_>,
    line: usize,
    name: &Name,
    data: &mut Draft<'_>,
    names: &mut Names,
) -> Option<usize> {
    let &Message { raw, source, .. } = message;
    let (value, id) = (line + name.line.len(), name.rule.id);
    let end = source.find(value, block::not_plain);
    let is_common = message.is_event && message.rules == EventRules::Common;
    if !is_common || name.rule.form != Form::Text || name.rule.role != Role::None || !source.is_end(end) {
        return None;
    }
    let array_end = match names.again {
        Some(again) => Some(again.end).filter(|_| again.id == id)?,
        None => {
            // Behind its key, the quote of which is the first value's.
            let first = names.key(id)? + name.key_bytes(Form::Text) - 1;
            let behind = first + 2 + first_quote(data.text().get(first + 1..)?)?;
            data.insert(behind, &[b"]"]);
            data.insert(first, &[b"["]);
            behind + 1
        }
    };
    let moved = names.again.map_or(0, |again| again.moved) + data.text().len().saturating_sub(array_end);
    if moved > MAX_MOVED_BYTES {
        return None;
    }
    let text = raw.get(value..end)?;
    data.insert(array_end, &[b",\"", text, b"\""]);
    let before = raw.get(..line.checked_sub(CRLF.len())?)?;
    let before = before.windows(CRLF.len()).rposition(|end| end == CRLF).map_or(0, |end| end + CRLF.len());
    let irregular = names.again.is_some_and(|again| again.irregular) || !source.begins(before, &name.line);
    names.again = Some(Again { id, end: array_end + text.len() + 3, moved, irregular });
    Some(end)
}

/// How many bytes stand before the end of a string without escapes.
fn first_quote(text: &[u8]) -> Option<usize> {
    let end = block::before(text, block::not_plain);
    (text.get(end) == Some(&b'"')).then_some(end)
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
