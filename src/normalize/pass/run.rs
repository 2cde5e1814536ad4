//! The most usual lines: of names that the table has, in the form that it gives, and plain.
//!
//! Most messages have the headers of one before, in its order. So the name that came after the last one, in the last
//! message whose name fell to the same kind, is compared first; only where it is another is the table asked.

use super::{
    CallIds, Draft, Head, Message, Names, Unlisted, escapable, name_at,
    source::CRLF,
    values::{number, string, variables, words},
};
use crate::{
    normalize::{
        block,
        fields::{Form, Rule},
        table::{Name, Table},
    },
    route::Role,
};

/// How far the lines of a message were read.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Where the next one begins.
    pub(super) at: usize,
    /// The id of the name of the last line that the table has.
    pub(super) last: u16,
}

/// Writes lines as long as they are such, and gives how far that was. `ids` takes note of calls.
#[inline(never)]
pub(super) fn run<'b>(
    message: &Message<'b, '_>,
    from: Place,
    data: &mut Draft<'_>,
    table: &Table,
    names: &mut Names,
    ids: &mut CallIds<'b>,
    unlisted: &mut Option<Unlisted>,
) -> Place {
    let mut place = from;
    // What is borrowed for the loop alone stays in registers.
    data.lend(|data| {
        while place.at < message.source.end
            && let Some(next) = line(message, place, data, table, names, ids, unlisted)
        {
            place = next;
        }
        place
    })
}

/// Writes one such line, and gives where the next one begins; `None` where it is none: the draft is as it was then.
#[inline(always)]
fn line<'b>(
    message: &Message<'b, '_>,
    Place { at, last }: Place,
    data: &mut Draft<'_>,
    table: &Table,
    names: &mut Names,
    ids: &mut CallIds<'b>,
    unlisted: &mut Option<Unlisted>,
) -> Option<Place> {
    let guessed = names.after(last).and_then(|id| table.listed(id));
    let name = match guessed.filter(|name| message.source.begins(at, &name.line)) {
        Some(name) => name,
        None => {
            let name = search(message, at, table, unlisted)?;
            names.learn(last, name.rule.id);
            name
        }
    };
    let Rule { id, form, role } = name.rule;
    if name.special_in & message.bits != 0 || names.has(id) {
        return None;
    }
    let (begin, key, value) = (data.len(), name.own_key, at + name.line.len());
    data.put(&name.member);
    let end = match form {
        Form::Text => string(message, key, value, data, block::not_plain)?,
        Form::Number => number(message, key, value, data)?,
        Form::Escaped => string(message, key, value, data, escapable)?,
        Form::Words => words(message, key, value, data)?,
        Form::Variables => {
            let head = Head { line: at, value, key, rule: name.rule, wire: form };
            data.lend(|data| variables(message, head, data, |at| message.source.begins(at, &name.line)))?
        }
        Form::RawVariables | Form::Url => return None,
    };
    if role != Role::None
        && message.is_event
        && let Some(value) = message.raw.get(value..end)
    {
        ids.see(role, value);
    }
    names.see(id, begin);
    Some(Place { at: end + CRLF.len(), last: id })
}

/// The name of the line that begins there, if the table has it; of any other, what was found out about it is kept.
#[inline(never)]
fn search<'t>(
    message: &Message<'_, '_>,
    at: usize,
    table: &'t Table,
    unlisted: &mut Option<Unlisted>,
) -> Option<&'t Name> {
    let name = name_at(message, at)?;
    match table.find(name) {
        Ok(name) => Some(name),
        Err(hash) => {
            *unlisted = Some(Unlisted { end: at + name.len(), hash });
            None
        }
    }
}
