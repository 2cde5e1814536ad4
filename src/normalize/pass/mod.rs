//! The usual message in one pass: each line is found, understood and written into `data` before the next is looked at.
//!
//! Most messages have the headers of one before, in its order. So the name that came after the last one is compared
//! first; only where it is another is the table asked. A value is copied while its end is searched, since the first byte
//! that cannot stand in a JSON string just so is most often the end of its line.
//!
//! What is unusual (a name that comes back later, a line that is no header, bytes that would not be rebuilt) ends the
//! pass without a result, and [`Lines`](super::lines::Lines) and [`data`](super::data) do all of it, for every message
//! there is. Where there is a result it is theirs, byte for byte.

mod source;
mod values;

#[cfg(test)]
mod tests;

use amibus_ami::Frame;

use self::source::{MAX_BYTES, Source};
use super::{
    block,
    data::RESERVED,
    draft::{self, Draft, MAX_DRAFT_BYTES},
    fields::{self, EventRules, Form, Rule},
    table::{self, MAX_NAMES, Name, TABLE, Table},
};
use crate::route::{CallIds, Role};

/// What stands between a name and its value.
const COLON: [u8; 2] = *b": ";
/// Variables in one object.
const MAX_VARIABLES: usize = 16;
/// Names outside the table in one message, a quarter of the places for them.
const MAX_OTHERS: usize = 128;

// A byte becomes six at most (`\u0001`), and a member needs less than six bytes for each of `: ` and the line's end.
const _: () = assert!(MAX_BYTES * 6 < MAX_DRAFT_BYTES);

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
    /// By the id of a name of the table; by 0, what is known of the first line.
    listed: Box<[Listed; MAX_NAMES]>,
    others: Box<[Other; MAX_OTHERS * 4]>,
    /// How many others there are.
    count: usize,
}

/// A name of the table.
#[derive(Clone, Copy, Default)]
struct Listed {
    /// The last message that has it.
    message: u32,
    /// The id of the name that stood behind it last.
    next: u16,
}

/// A name that is not in the table.
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
        let others = Box::new([Other::default(); MAX_OTHERS * 4]);
        let names = Names { message: 0, listed, others, count: 0 };
        Self { source: source::Memory::new(), data: draft::Memory::new(), names }
    }

    /// Writes the `data` of a usual message, and says whose it is.
    pub(super) fn read<'b>(&mut self, frame: Frame<'b>) -> Option<(CallIds<'b>, &[u8])> {
        let raw = frame.raw();
        let is_event = raw.starts_with(b"Event: ");
        let is_response = raw.starts_with(b"Response: ") && !frame.name().eq_ignore_ascii_case(b"Follows");
        if !(is_event || is_response) || raw.ends_with(&source::CRLF) {
            return None;
        }
        self.names.begin();
        let mut pass = Pass {
            raw,
            source: Source::new(raw, &mut self.source)?,
            at: 0,
            data: Draft::new(&mut self.data),
            is_event,
            user_event: frame.is_event("UserEvent"),
            users_own: false,
            rules: if is_event { EventRules::of(frame.name()) } else { EventRules::Common },
            ids: CallIds::default(),
        };
        if is_response {
            // An `Event` among its headers would change what they mean.
            self.names.see_first(fields::rule(b"Event").id)?;
        }
        pass.lines(&TABLE, &mut self.names)?;
        pass.data.push(b'}');
        let data = pass.data.finish();
        *data.first_mut()? = b'{';
        Some((pass.ids, data))
    }
}

/// What is known while a message is read. No function that is not inlined gets it whole, so that it can stay in
/// registers.
struct Pass<'b, 'm> {
    raw: &'b [u8],
    /// The same.
    source: Source<'m>,
    /// Where the lines begin that were not read yet.
    at: usize,
    data: Draft<'m>,
    is_event: bool,
    user_event: bool,
    /// Whether what follows is as the sender of a UserEvent wrote it.
    users_own: bool,
    rules: EventRules,
    ids: CallIds<'b>,
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

impl<'b> Pass<'b, '_> {
    /// All lines, each as a member with a comma before it.
    #[inline(always)]
    fn lines(&mut self, table: &Table, names: &mut Names) -> Option<()> {
        // The name of the last line that the table has.
        let mut last = 0;
        while self.at < self.source.end {
            let guessed = table.listed(names.after(last)?);
            let listed = match guessed.filter(|name| self.source.begins(self.at, &name.line)) {
                Some(name) => name,
                None => match table.get(self.name()?) {
                    Some(name) => {
                        names.learn(last, name.rule.id);
                        name
                    }
                    None => {
                        let head = self.other(names)?;
                        self.value(head)?;
                        continue;
                    }
                },
            };
            last = listed.rule.id;
            names.see_first(last)?;
            let head = self.listed(listed);
            self.value(head)?;
        }
        Some(())
    }

    /// The name of the next line, if a colon and a blank stand behind it.
    #[inline(always)]
    fn name(&self) -> Option<&'b [u8]> {
        self.raw.get(self.at..name_end(self.source, self.at)?)
    }

    /// Writes the key of a name of the table.
    #[inline(always)]
    fn listed(&mut self, name: &Name) -> Head {
        let (line, value, rule) = (self.at, self.at + name.line.len(), name.rule);
        let wire = match self.rules {
            EventRules::Common => rule.form,
            rules => rules.form(self.raw.get(line..line + name.len()).unwrap_or_default(), rule.form),
        };
        self.data.put(&name.member);
        Head { line, value, key: name.key_bytes(wire), rule, wire }
    }

    /// The same for any other name.
    #[inline(always)]
    fn other(&mut self, names: &mut Names) -> Option<Head> {
        let name = self.name()?;
        if name.is_empty() || name.first() == Some(&RESERVED) {
            return None;
        }
        names.add(self.raw, self.at, self.at + name.len())?;
        let rule = fields::unlisted(name);
        let wire = self.rules.form(name, rule.form);
        self.data.write(*b",\"");
        self.data.extend(name);
        match wire.is_quoted() {
            true => self.data.write(*b"\":\""),
            false => self.data.write(*b"\":"),
        }
        Some(Head { line: self.at, value: self.at + name.len() + COLON.len(), key: 0, rule, wire })
    }

    /// Writes the value of the header whose key has been written, and goes on behind its line.
    #[inline(always)]
    fn value(&mut self, head: Head) -> Option<()> {
        let plain = match head.wire {
            Form::Text => self.string(head, block::not_plain),
            Form::Number => self.number(head),
            Form::Escaped => self.string(head, escapable),
            Form::Words => Some(self.words(head)?),
            Form::Variables | Form::RawVariables => return self.variables(head),
            Form::Url => None,
        };
        let end = match plain {
            Some(end) => end,
            None => self.odd(head)?,
        };
        if self.is_event && head.rule.role != Role::None {
            self.ids.see(head.rule.role, self.raw.get(head.value..end)?);
        }
        if self.user_event {
            self.users_own |= self.raw.get(head.line..)?.starts_with(b"UserEvent: ");
        }
        self.at = end + source::CRLF.len();
        Some(())
    }
}

/// Which bytes Asterisk would have escaped, where it escapes, and those that cannot stand in a JSON string just so.
#[inline(always)]
fn escapable(block: block::Block) -> u32 {
    block::not_plain(block) | block::is(block, b'\'') | block::is(block, b'?')
}

/// Where the name of the line ends that begins there, if a colon and a blank stand behind it.
#[inline(never)]
fn name_end(source: Source<'_>, at: usize) -> Option<usize> {
    let end = source.find(at, |block| block::is(block, b':') | block::not_plain(block));
    (source.bytes(end) == COLON).then_some(end)
}

impl Names {
    /// Begins another message, which has no name yet.
    fn begin(&mut self) {
        self.count = 0;
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
        Some(self.listed.get(usize::from(id))?.next)
    }

    fn learn(&mut self, id: u16, next: u16) {
        if let Some(name) = self.listed.get_mut(usize::from(id)) {
            name.next = next;
        }
    }

    /// Takes note of a name of the table, which must be the first of that name.
    #[inline(always)]
    fn see_first(&mut self, id: u16) -> Option<()> {
        let name = self.listed.get_mut(usize::from(id))?;
        let before = std::mem::replace(&mut name.message, self.message);
        (before != self.message).then_some(())
    }

    /// The same for another name, of which there must not be too many.
    fn add(&mut self, raw: &[u8], from: usize, to: usize) -> Option<()> {
        let name = raw.get(from..to)?;
        self.count += 1;
        let places = self.others.len();
        for place in table::places(name).take(places).filter(|_| self.count <= MAX_OTHERS) {
            let other = self.others.get_mut(place % places)?;
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
