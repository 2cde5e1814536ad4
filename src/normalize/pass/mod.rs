//! The usual message in one pass: each line is found, understood and written into `data` before the next is looked at.
//!
//! Most messages have the headers of one before, in its order. So the name that came after the last one is compared
//! first; only where it is another is the table asked. A value is copied while its end is searched, since the first byte
//! that cannot stand in a JSON string just so is most often the end of its line.
//!
//! What is unusual (a name that comes back later, a line that is no header, bytes that would not be rebuilt) ends the
//! pass without a result, and [`Lines`](super::lines::Lines) and [`data`](super::data) do all of it, for every message
//! there is. Where there is a result it is theirs, byte for byte.

mod values;

#[cfg(test)]
mod tests;

use amibus_ami::Frame;

use super::{
    block,
    data::RESERVED,
    draft::Draft,
    fields::{self, EventRules, Form, Rule},
    table::{MAX_NAMES, Name, TABLE, Table},
};
use crate::route::{CallIds, Role};

const CRLF: &[u8] = b"\r\n";
/// What stands between a name and its value.
const COLON: &[u8] = b": ";
/// Messages longer than this are not usual.
const MAX_BYTES: usize = 16 * 1024;
/// Names outside the table in one message, and variables in one object.
const MAX_OTHERS: usize = 16;
/// Room for what JSON needs beside twice the bytes of a message.
const SPARE_BYTES: usize = 512;

/// What is kept from one message to the next: memory, and which name came after which.
pub(super) struct Memo {
    memory: Vec<u8>,
    /// By the id of a name, that of the name that stood behind it last; by 0, the one that stood first.
    next: Box<[u16; MAX_NAMES]>,
}

impl Memo {
    pub(super) fn new() -> Self {
        Self { memory: Vec::new(), next: Box::new([0; MAX_NAMES]) }
    }

    /// Writes the `data` of a usual message, and says whose it is.
    pub(super) fn read<'b>(&mut self, frame: Frame<'b>) -> Option<(CallIds<'b>, &[u8])> {
        let text = frame.raw();
        let is_event = text.starts_with(b"Event: ");
        let is_response = text.starts_with(b"Response: ") && !frame.name().eq_ignore_ascii_case(b"Follows");
        if !(is_event || is_response) || text.len() > MAX_BYTES || text.ends_with(CRLF) {
            return None;
        }
        let room = 2 * text.len() + SPARE_BYTES;
        if self.memory.len() < room {
            self.memory.resize(room, 0);
        }
        let mut pass = Pass {
            rest: text,
            data: Draft::new(&mut self.memory),
            is_event,
            user_event: frame.is_event("UserEvent"),
            users_own: false,
            rules: if is_event { EventRules::of(frame.name()) } else { EventRules::Common },
            ids: CallIds::default(),
            seen: [0; MAX_NAMES / 64],
            others: Few::default(),
        };
        if is_response {
            // An `Event` among its headers would change what they mean.
            pass.see_first(fields::rule(b"Event").id)?;
        }
        pass.lines(&TABLE, &mut self.next)?;
        pass.data.push(b'}');
        let (ids, free) = (pass.ids, pass.data.free()?);
        *self.memory.first_mut()? = b'{';
        Some((ids, self.memory.get(..self.memory.len() - free)?))
    }
}

/// What is known while a message is read. No function that is not inlined gets it whole, so that it can stay in
/// registers.
struct Pass<'b, 'm> {
    /// The lines that were not read yet.
    rest: &'b [u8],
    data: Draft<'m>,
    is_event: bool,
    user_event: bool,
    /// Whether what follows is as the sender of a UserEvent wrote it.
    users_own: bool,
    rules: EventRules,
    ids: CallIds<'b>,
    /// One bit for each name of the table.
    seen: [u64; MAX_NAMES / 64],
    others: Few<'b>,
}

/// The header whose value is read.
#[derive(Clone, Copy)]
struct Head<'b> {
    name: &'b [u8],
    /// Bytes of its key that are written but not kept yet.
    key: usize,
    rule: Rule,
    /// How its value is written on the wire.
    wire: Form,
}

impl<'b> Pass<'b, '_> {
    /// All lines, each as a member with a comma before it.
    #[inline(always)]
    fn lines(&mut self, table: &Table, next: &mut [u16; MAX_NAMES]) -> Option<()> {
        let mut guess = next.first_mut()?;
        while !self.rest.is_empty() {
            let guessed = table.listed(*guess).filter(|name| name.begins(self.rest));
            let listed = match guessed {
                Some(name) => Some(name),
                None => table.get(first_name(self.rest)?),
            };
            let head = match listed {
                Some(name) => {
                    *guess = name.rule.id;
                    guess = next.get_mut(usize::from(name.rule.id))?;
                    self.listed(name)?
                }
                None => self.other()?,
            };
            self.value(head)?;
        }
        Some(())
    }

    /// Writes the key of a name of the table.
    #[inline(always)]
    fn listed(&mut self, name: &Name) -> Option<Head<'b>> {
        self.see_first(name.rule.id)?;
        let (text, rule) = (self.rest.get(..name.len())?, name.rule);
        let wire = self.rules.form(text, rule.form);
        self.data.put(&name.member);
        Some(Head { name: text, key: name.key_bytes(wire), rule, wire })
    }

    /// The same for any other name.
    #[inline(always)]
    fn other(&mut self) -> Option<Head<'b>> {
        let name = first_name(self.rest)?;
        if name.is_empty() || name.first() == Some(&RESERVED) {
            return None;
        }
        self.others.add(name)?;
        let rule = fields::unlisted(name);
        let wire = self.rules.form(name, rule.form);
        self.data.extend(b",\"");
        self.data.extend(name);
        self.data.extend(if wire.is_quoted() { b"\":\"" } else { b"\":" });
        Some(Head { name, key: 0, rule, wire })
    }

    /// Takes note of a name of the table, which must be the first of that name.
    #[inline(always)]
    fn see_first(&mut self, id: u16) -> Option<()> {
        let (word, bit) = (self.seen.get_mut(usize::from(id / 64))?, 1 << (id % 64));
        let first = *word & bit == 0;
        *word |= bit;
        first.then_some(())
    }

    /// Writes the value of the header whose key has been written, and goes on behind its line.
    #[inline(always)]
    fn value(&mut self, head: Head<'b>) -> Option<()> {
        let text = self.rest.get(head.name.len() + COLON.len()..)?;
        let plain = match head.wire {
            Form::Text => self.string(head.key, text),
            Form::Number => self.number(head.key, text),
            Form::Escaped => self.escaped(head.key, text),
            Form::Words => Some(self.words(head.key, text)?),
            Form::Variables | Form::RawVariables => return self.variables(head, text),
            Form::Url => None,
        };
        let (value, rest) = match plain {
            Some((bytes, rest)) => (text.get(..bytes)?, rest),
            None => self.odd(head, text)?,
        };
        if self.is_event && head.rule.role != Role::None {
            self.ids.see(head.rule.role, value);
        }
        if self.user_event {
            self.users_own |= head.name == b"UserEvent";
        }
        self.rest = rest;
        Some(())
    }
}

/// What follows the end of a line, if `text` begins with that; nothing follows the last line.
#[inline(always)]
fn behind_end(text: &[u8]) -> Option<&[u8]> {
    match text {
        [] => Some(text),
        [b'\r', b'\n', behind @ ..] => Some(behind),
        _ => None,
    }
}

/// The name of the first line, if a colon and a blank stand behind it.
#[inline(never)]
fn first_name(text: &[u8]) -> Option<&[u8]> {
    let bytes = block::before(text, |block| block::is(block, b':') | block::not_plain(block));
    let (name, behind) = text.split_at_checked(bytes)?;
    behind.starts_with(COLON).then_some(name)
}

/// A few texts, no two the same.
#[derive(Default)]
struct Few<'b> {
    texts: [&'b [u8]; MAX_OTHERS],
    count: usize,
}

impl<'b> Few<'b> {
    /// Adds one, unless it is among them or they are too many.
    #[inline(always)]
    fn add(&mut self, text: &'b [u8]) -> Option<()> {
        if self.texts.iter().take(self.count).any(|other| *other == text) {
            return None;
        }
        *self.texts.get_mut(self.count)? = text;
        self.count += 1;
        Some(())
    }
}
