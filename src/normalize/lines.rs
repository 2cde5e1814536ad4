//! The header lines of one message, grouped by name without copying them.

use std::{collections::HashMap, num::NonZeroU32};

use amibus_ami::{Frame, Header, Kind, Separator};
use memchr::memmem;

use super::{
    fields::{self, EventRules, Form, Rule},
    json,
    table::MAX_NAMES,
    value,
};
use crate::route::CallIds;

const CRLF: &[u8] = b"\r\n";
/// Names outside the table that are found again by looking at each line; beyond, by a map.
const MAX_SCANNED_NAMES: usize = 32;
/// Bytes that are expected of a line, and lines of a short message.
const USUAL_LINE_BYTES: usize = 24;
const LEAST_LINES: usize = 4;

/// One header line and its place among those of the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'b> {
    pub(crate) header: Header<'b>,
    pub(crate) rule: Rule,
    /// How this line's value is shown.
    pub(crate) form: Form,
    pub(crate) show: Show,
    /// Whether it is the first of its name.
    pub(crate) first: bool,
    /// The position of the next of its name.
    next: Option<NonZeroU32>,
}

/// What was found out about a value while its line's end was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// It stands in JSON between quotes, just so, and is rebuilt from that.
    Plain,
    /// It stands in JSON without quotes.
    Number,
    /// It must be looked at.
    Look,
}

impl Show {
    /// Of a value that needs no escape in JSON, whose form on the wire is `wire`.
    #[inline]
    fn of_plain(wire: Form, text: &[u8]) -> Self {
        match wire {
            Form::Text => Self::Plain,
            Form::Number if value::is_canonical_integer(text) => Self::Number,
            Form::Number => Self::Plain,
            // No backslash is in it, so nothing is undone; these would be escaped when it is rebuilt.
            Form::Escaped | Form::Variables if !text.iter().any(|byte| matches!(byte, b'\'' | b'?')) => {
                Self::Plain
            }
            Form::RawVariables => Self::Plain,
            _ => Self::Look,
        }
    }
}

impl Field<'_> {
    /// Whether this is a whole line that is no header: no colon, or a name that is not UTF-8. Its name is empty.
    pub(crate) fn is_line(&self) -> bool {
        self.header.separator == Separator::None
    }

    /// Whether no other line has its name.
    #[inline]
    pub(crate) fn is_single(&self) -> bool {
        self.first && self.next.is_none()
    }
}

/// All lines of a message.
pub(crate) struct Lines<'b> {
    pub(crate) fields: Vec<Field<'b>>,
    pub(crate) ids: CallIds<'b>,
    /// What the event's name changes about the table.
    pub(crate) rules: EventRules,
    /// Whether the whole message is UTF-8.
    pub(crate) utf8: bool,
    /// Whether the order of the groups is not the order of the lines, or a line lacks the blank after its colon.
    pub(crate) irregular: bool,
    seen: [u64; MAX_NAMES / 64],
    others: usize,
    index: HashMap<(bool, &'b [u8]), u32>,
}

impl<'b> Lines<'b> {
    pub(crate) fn of(frame: Frame<'b>) -> Self {
        let mut lines = Self {
            fields: Vec::with_capacity(frame.raw().len() / USUAL_LINE_BYTES + LEAST_LINES),
            ids: CallIds::default(),
            rules: EventRules::Common,
            utf8: std::str::from_utf8(frame.raw()).is_ok(),
            irregular: false,
            seen: [0; MAX_NAMES / 64],
            others: 0,
            index: HashMap::new(),
        };
        match frame.kind() {
            // Its lines may not be its headers: see `Frame::headers`.
            Kind::Response => lines.fill(frame, frame.headers().map(|header| (header, false))),
            Kind::Event | Kind::Other => lines.fill(frame, Scan::of(&frame)),
        }
        lines
    }

    #[inline]
    fn fill(&mut self, frame: Frame<'b>, headers: impl Iterator<Item = (Header<'b>, bool)>) {
        let is_event = frame.kind() == Kind::Event;
        let torn = frame.kind() == Kind::Other;
        let (mut named, mut users_own) = (false, false);
        for (header, plain) in headers {
            let is_header = header.separator != Separator::None
                && !torn
                && (self.utf8 || std::str::from_utf8(header.name).is_ok());
            if !is_header {
                let line = whole_line(frame.raw(), &header);
                self.push(line, fields::rule(b""), Form::Text, Show::Look);
                continue;
            }
            let rule = fields::rule(header.name);
            if !named && header.name == b"Event" {
                named = true;
                self.rules = EventRules::of(header.value);
            }
            if is_event {
                self.ids.see(rule.role, header.value);
            }
            let wire = self.rules.form(header.name, rule.form);
            let form = if users_own { as_written(rule.form) } else { wire };
            let show = if plain && self.utf8 { Show::of_plain(wire, header.value) } else { Show::Look };
            self.push(header, rule, form, show);
            users_own |= is_event && header.name == b"UserEvent" && frame.is_event("UserEvent");
        }
    }

    /// A line and those after it that have the same name.
    pub(crate) fn group<'a>(&'a self, first: &'a Field<'b>) -> impl Iterator<Item = &'a Field<'b>> + Clone {
        std::iter::successors(Some(first), |field| {
            field.next.and_then(|next| self.fields.get(usize::try_from(next.get()).ok()?))
        })
    }

    #[inline]
    fn push(&mut self, header: Header<'b>, rule: Rule, form: Form, show: Show) {
        let at = u32::try_from(self.fields.len()).unwrap_or(u32::MAX);
        let before = self.before(&header, rule.id);
        self.irregular |= header.separator == Separator::Colon;
        if let Some(before) = before {
            self.irregular |= before + 1 != self.fields.len();
            if let Some(field) = self.fields.get_mut(before) {
                field.next = NonZeroU32::new(at);
            }
        }
        if self.others > MAX_SCANNED_NAMES && rule.id == 0 {
            self.index.insert((header.separator == Separator::None, header.name), at);
        }
        self.fields.push(Field { header, rule, form, show, first: before.is_none(), next: None });
    }

    /// The position of the last line of that name so far.
    #[inline]
    fn before(&mut self, header: &Header<'b>, id: u16) -> Option<usize> {
        if id == 0 {
            return self.other_before(header);
        }
        let (word, bit) = (usize::from(id / 64), 1_u64 << (id % 64));
        let seen = self.seen.get_mut(word)?;
        let known = *seen & bit != 0;
        *seen |= bit;
        if known { self.fields.iter().rposition(|field| field.rule.id == id) } else { None }
    }

    /// The same for a name outside the table.
    fn other_before(&mut self, header: &Header<'b>) -> Option<usize> {
        let line = header.separator == Separator::None;
        let same = |field: &Field<'_>| {
            field.rule.id == 0 && field.is_line() == line && field.header.name == header.name
        };
        if self.fields.last().is_some_and(same) {
            return Some(self.fields.len() - 1);
        }
        if self.others > MAX_SCANNED_NAMES {
            return self.index.get(&(line, header.name)).and_then(|&at| usize::try_from(at).ok());
        }
        let before = self.fields.iter().rposition(same);
        if before.is_none() {
            self.others += 1;
            if self.others > MAX_SCANNED_NAMES {
                self.build_index();
            }
        }
        before
    }

    fn build_index(&mut self) {
        for (at, field) in (0_u32..).zip(&self.fields) {
            if field.rule.id == 0 {
                self.index.insert((field.is_line(), field.header.name), at);
            }
        }
    }
}

/// The lines of an event, each with whether it is a name, a colon, a blank and a value that needs no escape in JSON. One
/// search finds that and the line's end, since CR would need an escape too.
struct Scan<'b> {
    rest: Option<&'b [u8]>,
}

impl<'b> Scan<'b> {
    fn of(frame: &Frame<'b>) -> Self {
        Self { rest: Some(frame.raw()).filter(|raw| !raw.is_empty()) }
    }
}

impl<'b> Iterator for Scan<'b> {
    type Item = (Header<'b>, bool);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest?;
        let plain = plain_line(text);
        let (header, after) = plain.unwrap_or_else(|| any_line(text));
        self.rest = after;
        Some((header, plain.is_some()))
    }
}

/// The first line of `text` and what follows its end.
#[cold]
fn any_line(text: &[u8]) -> (Header<'_>, Option<&[u8]>) {
    let end = memmem::find(text, CRLF);
    let line = end.and_then(|end| text.get(..end)).unwrap_or(text);
    (Header::parse(line), end.and_then(|end| text.get(end + CRLF.len()..)))
}

/// The same, if the line is plain.
#[inline]
fn plain_line(text: &[u8]) -> Option<(Header<'_>, Option<&[u8]>)> {
    let (name, behind) = text.split_at_checked(json::name_bytes(text))?;
    let behind = behind.strip_prefix(b": ")?;
    let (value, behind) = behind.split_at_checked(json::plain_bytes(behind))?;
    let after = match behind {
        [] => None,
        [b'\r', b'\n', after @ ..] => Some(after),
        _ => return None,
    };
    Some((Header { name, value, separator: Separator::ColonBlank }, after))
}

/// What the sender of a UserEvent wrote after its name is not escaped.
pub(crate) fn as_written(form: Form) -> Form {
    match form {
        Form::Escaped => Form::Text,
        Form::Variables => Form::RawVariables,
        other => other,
    }
}

/// The line that a header was read from, as one value.
fn whole_line<'b>(raw: &'b [u8], header: &Header<'b>) -> Header<'b> {
    let value_at = (header.value.as_ptr() as usize).saturating_sub(raw.as_ptr() as usize);
    let before = header.name.len() + header.separator.as_bytes().len();
    let line = raw.get(value_at.saturating_sub(before)..value_at + header.value.len());
    Header { name: b"", value: line.unwrap_or(header.value), separator: Separator::None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, check: impl FnOnce(&Lines<'_>)) {
        let raw = text.replace('\n', "\r\n");
        check(&Lines::of(Frame::parse(raw.as_bytes())));
    }

    #[test]
    fn lines_of_one_name_are_chained() {
        lines("Event: X\nA: 1\nState: 2\nA: 3\nNo colon\n: 4\nA: 5\nState: 6\nMore", |lines| {
            let groups: Vec<Vec<_>> = lines
                .fields
                .iter()
                .filter(|field| field.first)
                .map(|first| lines.group(first).map(|field| field.header.value).collect())
                .collect();
            let expected: [&[&[u8]]; 5] =
                [&[b"X"], &[b"1", b"3", b"5"], &[b"2", b"6"], &[b"No colon", b"More"], &[b"4"]];
            assert_eq!(groups, expected);
            assert!(lines.irregular);
        });
    }

    #[test]
    fn many_names_are_chained_too() {
        let names: String = (0..5000).map(|n| format!("N{n}: a\n")).collect();
        lines(&format!("Event: X\n{names}{names}End"), |lines| {
            assert_eq!(lines.fields.iter().filter(|field| field.first).count(), 5002);
            assert!(
                lines
                    .fields
                    .iter()
                    .filter(|field| field.first)
                    .skip(1)
                    .take(5000)
                    .all(|field| { lines.group(field).count() == 2 })
            );
        });
    }

    #[test]
    fn usual_messages_are_regular() {
        lines("Event: X\nPrivilege: call,all\nChanVariable: A=1\nChanVariable: B=2\nExten: 1", |lines| {
            assert!(!lines.irregular && lines.utf8);
        });
    }

    #[test]
    fn torn_off_text_is_lines() {
        lines("Variable: x\nEvent: Hangup", |lines| {
            let values: Vec<_> = lines.fields.iter().map(|field| field.header.value).collect();
            assert_eq!(values, [&b"Variable: x"[..], b"Event: Hangup"]);
            assert!(lines.fields.iter().all(Field::is_line));
        });
    }
}
