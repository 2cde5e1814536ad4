//! The usual message in one pass: each line is found, understood and written into `data` before the next is looked at.
//!
//! A value is copied while its end is searched, since the first byte that cannot stand in a JSON string just so is most
//! often the end of its line. [`run`](fn@run) does so with what nearly every line is; any other usual line is done here.
//!
//! What is unusual (a line that is no header, bytes that would not be rebuilt) ends the pass without a result, and
//! [`Lines`](super::lines::Lines) and [`data`](super::data) do all of it, for every message there is. Where there is a
//! result it is theirs, byte for byte.

mod again;
mod run;
mod source;
mod values;

#[cfg(test)]
mod sequences;
#[cfg(test)]
mod tests;

use amibus_ami::Frame;
use encoding_rs::Encoding;

use self::{
    again::Again,
    run::{Place, run},
    source::{MAX_BYTES, Source},
};
use super::{
    block::{self, BLOCK},
    data::{BYTES_KEY, RESERVED},
    draft::{self, Draft, MAX_DRAFT_BYTES},
    fields::{self, EventRules, Form, Rule},
    json,
    table::{self, MAX_NAMES, TABLE, Table},
};
use crate::route::{CallIds, Role};

/// What stands between a name and its value.
const COLON: [u8; 2] = *b": ";
/// Variables in one object; a channel in a queue has nearly thirty.
const MAX_VARIABLES: usize = 32;
/// Names outside the table in one message, a quarter of the places for them.
const MAX_OTHERS: usize = 128;
const OTHER_PLACES: usize = 4 * MAX_OTHERS;
/// Kinds of events that are told apart to know which name comes next.
const KINDS: usize = 16;

// A byte becomes six at most (`\u0001`), and a member needs less than six bytes for each of `: ` and the line's end. Once,
// it stands there in base64 too.
const _: () = assert!(MAX_BYTES * 6 + MAX_BYTES.div_ceil(3) * 4 + BLOCK < MAX_DRAFT_BYTES);

/// What is kept from one message to the next: memory, and which name came after which.
pub(super) struct Memo {
    source: source::Memory,
    data: draft::Memory,
    names: Names,
}

/// The names of a message, and what was learnt from those before.
struct Names {
    /// The number of the message, by which a name of an earlier one is told from one of this.
    message: u32,
    /// What its events are told from others by: few have the same as another.
    kind: usize,
    /// By the id of a name of the table, that of the name that stood behind it last, in each kind; by 0, the first name.
    next: Box<[u16; MAX_NAMES * KINDS]>,
    /// By the id of a name of the table.
    listed: Box<[Listed; MAX_NAMES]>,
    others: Box<[Other; OTHER_PLACES]>,
    /// How many others there are.
    count: usize,
    again: Again,
}

/// A name of the table.
#[derive(Clone, Copy, Default)]
struct Listed {
    /// The last message that has it.
    message: u32,
    /// Where its key begins in the `data` of that.
    key: u32,
}

/// Where a name is that the table does not have.
#[derive(Clone, Copy)]
struct Unlisted {
    /// Where it ends.
    end: usize,
    hash: usize,
}

/// A name of this message that the table does not have.
#[derive(Clone, Copy, Default)]
struct Other {
    /// The message that has it; the place is free in all others.
    message: u32,
    /// Where it stands.
    from: usize,
    to: usize,
}

impl Memo {
    pub(super) fn new() -> Self {
        let listed = Box::new([Listed::default(); MAX_NAMES]);
        let others = Box::new([Other::default(); OTHER_PLACES]);
        let next = Box::new([0; MAX_NAMES * KINDS]);
        let names = Names { message: 0, kind: 0, next, listed, others, count: 0, again: Again::new() };
        Self { source: source::Memory::new(), data: draft::Memory::new(), names }
    }

    /// Writes the `data` of a usual message, and says whose it is.
    pub(super) fn read<'b>(
        &mut self,
        frame: Frame<'b>,
        charset: &'static Encoding,
    ) -> Option<(CallIds<'b>, &[u8])> {
        let raw = frame.raw();
        let is_event = raw.starts_with(b"Event: ");
        let is_response = raw.starts_with(b"Response: ") && !frame.name().eq_ignore_ascii_case(b"Follows");
        if !(is_event || is_response) || raw.ends_with(&source::CRLF) {
            return None;
        }
        self.names.begin(frame.name());
        let rules = if is_event { EventRules::of(frame.name()) } else { EventRules::Common };
        let user_event = frame.is_event("UserEvent");
        let bits = rules.bit() | if user_event { table::USER_EVENT } else { 0 };
        let source = Source::new(raw, &mut self.source)?;
        let mut pass = Pass {
            message: Message { raw, source, charset, is_event, rules, bits, users_own: false },
            place: Place { at: 0, last: 0 },
            data: Draft::new(&mut self.data),
            ids: CallIds::default(),
            unlisted: None,
            inexact: None,
        };
        if is_response {
            // An `Event` among its headers would change what they mean.
            self.names.see(fields::rule(b"Event").id, 0);
        }
        pass.lines(&TABLE, &mut self.names)?;
        let Pass { message, mut data, ids, inexact, .. } = pass;
        let again = &mut self.names.again;
        if !again.is_empty() {
            again.write(&message, &mut data)?;
        }
        if let Some(inexact) = inexact {
            inexact.write(&mut data, raw)?;
        }
        if again.irregular {
            again::order(&mut data, source, raw)?;
        }
        data.push(b'}');
        let data = data.finish();
        *data.first_mut()? = b'{';
        Some((ids, data))
    }
}

/// What decides about the lines of a message.
struct Message<'b, 'm> {
    raw: &'b [u8],
    /// The same.
    source: Source<'m>,
    /// What text that is not UTF-8 is decoded by.
    charset: &'static Encoding,
    is_event: bool,
    rules: EventRules,
    /// Those of [`Name::special_in`](table::Name::special_in) that count here.
    bits: u8,
    /// Whether what follows is as the sender of a UserEvent wrote it.
    users_own: bool,
}

/// What is known while a message is read.
struct Pass<'b, 'm> {
    message: Message<'b, 'm>,
    place: Place,
    data: Draft<'m>,
    ids: CallIds<'b>,
    /// The name of the next line, if it is known that the table does not have it.
    unlisted: Option<Unlisted>,
    /// The one value that needs its bytes beside it; with more, a message is not usual.
    inexact: Option<Inexact>,
}

/// A value that would not be rebuilt from what is shown of it.
#[derive(Clone, Copy)]
struct Inexact {
    /// Where its line begins.
    line: usize,
    /// Where its value begins, and ends.
    value: usize,
    end: usize,
}

/// The header whose value is read.
#[derive(Clone, Copy)]
struct Head {
    /// Where its line begins.
    line: usize,
    /// Where its value begins.
    value: usize,
    /// Bytes of its key that are written but not kept yet.
    key: usize,
    rule: Rule,
    /// How its value is written on the wire.
    wire: Form,
}

impl Pass<'_, '_> {
    /// All lines, each as a member with a comma before it.
    fn lines(&mut self, table: &Table, names: &mut Names) -> Option<()> {
        loop {
            let Self { message, data, ids, unlisted, .. } = self;
            self.place = run(message, self.place, data, table, names, ids, unlisted);
            if self.place.at >= self.message.source.end {
                return Some(());
            }
            self.line(table, names)?;
        }
    }

    /// Any one line.
    #[inline(never)]
    fn line(&mut self, table: &Table, names: &mut Names) -> Option<()> {
        let (message, data) = (&mut self.message, &mut self.data);
        let line = self.place.at;
        let (name, found) = match self.unlisted.take() {
            Some(Unlisted { end, hash }) => (message.raw.get(line..end)?, Err(hash)),
            None => {
                let name = name_at(message, line)?;
                (name, table.find(name))
            }
        };
        let value = line + name.len() + COLON.len();
        let head = match found {
            Ok(listed) => {
                let (id, wire) = (listed.rule.id, message.rules.form(name, listed.rule.form));
                self.place.last = id;
                if names.has(id) {
                    // Its name may be that of the value whose bytes are beside it.
                    if self.inexact.is_some() {
                        return None;
                    }
                    self.place.at = again::again(message, line, listed, names)? + source::CRLF.len();
                    return Some(());
                }
                names.see(id, data.len());
                data.put(&listed.member);
                Head { line, value, key: listed.key_bytes(wire), rule: listed.rule, wire }
            }
            Err(hash) => {
                if name.is_empty() || name.first() == Some(&RESERVED) {
                    return None;
                }
                names.add(message.raw, line, line + name.len(), hash)?;
                let rule = fields::unlisted(name);
                let wire = message.rules.form(name, rule.form);
                data.write(*b",\"");
                data.extend(name);
                match wire.is_quoted() {
                    true => data.write(*b"\":\""),
                    false => data.write(*b"\":"),
                }
                Head { line, value, key: 0, rule, wire }
            }
        };
        let end = match head.wire {
            Form::Text => values::string(message, head.key, value, data, block::not_plain),
            Form::Number => values::number(message, head.key, value, data),
            Form::Escaped => values::string(message, head.key, value, data, escapable),
            Form::Words => Some(values::words(message, head.key, value, data)?),
            Form::Variables | Form::RawVariables => {
                let begin = message.raw.get(line..value)?;
                let begins = |at: usize| message.raw.get(at..).is_some_and(|next| next.starts_with(begin));
                Some(values::variables(message, head, data, begins)?)
            }
            Form::Url => None,
        };
        let end = match end {
            Some(end) => end,
            None => {
                let (end, exact) = values::odd(message, head, data)?;
                if !exact && self.inexact.replace(Inexact { line, value, end }).is_some() {
                    return None;
                }
                end
            }
        };
        if head.rule.role != Role::None && message.is_event {
            self.ids.see(head.rule.role, message.raw.get(value..end)?);
        }
        message.users_own |= message.bits & table::USER_EVENT != 0 && name == b"UserEvent";
        self.place.at = end + source::CRLF.len();
        Some(())
    }
}

impl Inexact {
    /// Appends the member that tells the bytes.
    #[cold]
    fn write(self, data: &mut Draft<'_>, raw: &[u8]) -> Option<()> {
        let mut bytes = Vec::new();
        json::base64(&mut bytes, raw.get(self.value..self.end)?);
        data.extend(b",\"");
        data.extend(BYTES_KEY.as_bytes());
        data.extend(b"\":{\"");
        data.extend(raw.get(self.line..self.value - COLON.len())?);
        data.extend(b"\":");
        data.extend(&bytes);
        data.push(b'}');
        Some(())
    }
}

/// Which bytes Asterisk would have escaped, where it escapes, and those that cannot stand in a JSON string just so.
#[inline(always)]
fn escapable(block: block::Block) -> u32 {
    block::not_plain(block) | block::is(block, b'\'') | block::is(block, b'?')
}

/// The name of the line that begins there, if a colon and a blank stand behind it.
fn name_at<'b>(message: &Message<'b, '_>, line: usize) -> Option<&'b [u8]> {
    message.raw.get(line..name_end(message.source, line)?)
}

/// Where that ends.
fn name_end(source: Source<'_>, line: usize) -> Option<usize> {
    let end = source.find(line, |block| block::is(block, b':') | block::not_plain(block));
    (source.bytes(end) == COLON).then_some(end)
}

impl Names {
    /// Begins another message, which has no header yet, of an event of that name.
    fn begin(&mut self, name: &[u8]) {
        let byte = |at: usize| name.get(at).copied().map_or(0, usize::from);
        self.kind = (name.len() + byte(0) + 3 * byte(name.len() / 2)) % KINDS;
        self.count = 0;
        self.again.clear();
        self.message = self.message.wrapping_add(1);
        if self.message == 0 {
            self.listed.iter_mut().for_each(|name| name.message = 0);
            self.others.iter_mut().for_each(|name| name.message = 0);
            self.message = 1;
        }
    }

    /// The id of the name that came after that one last.
    #[inline(always)]
    fn after(&self, id: u16) -> Option<u16> {
        self.next.get(usize::from(id) * KINDS + self.kind).copied()
    }

    fn learn(&mut self, id: u16, next: u16) {
        if let Some(place) = self.next.get_mut(usize::from(id) * KINDS + self.kind) {
            *place = next;
        }
    }

    /// Whether the message had that name of the table before.
    #[inline(always)]
    fn has(&self, id: u16) -> bool {
        self.listed.get(usize::from(id)).is_none_or(|name| name.message == self.message)
    }

    /// Takes note of a name of the table, whose key begins there in `data`.
    #[inline(always)]
    fn see(&mut self, id: u16, key: usize) {
        if let Some(name) = self.listed.get_mut(usize::from(id)) {
            *name = Listed { message: self.message, key: key as u32 };
        }
    }

    /// Where the key of the first line of that name begins.
    fn key(&self, id: u16) -> Option<usize> {
        usize::try_from(self.listed.get(usize::from(id))?.key).ok()
    }

    /// Takes note of another name, which must be the first of that name, and they must not be too many.
    #[inline(always)]
    fn add(&mut self, raw: &[u8], from: usize, to: usize, hash: usize) -> Option<()> {
        let name = raw.get(from..to)?;
        self.count += 1;
        for place in table::probe(hash, OTHER_PLACES).filter(|_| self.count <= MAX_OTHERS) {
            let other = self.others.get_mut(place)?;
            if other.message != self.message {
                *other = Other { message: self.message, from, to };
                return Some(());
            }
            if raw.get(other.from..other.to)? == name {
                return None;
            }
        }
        None
    }
}
