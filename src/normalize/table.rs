//! The table of header names: what each means, and how it stands on the wire and in JSON, ready to be compared and copied.

use std::sync::LazyLock;

use super::{
    block::Padded,
    fields::{self, EventRules, Form, Rule},
};

/// Header names that [`Table`] can hold at most; ids stay below.
pub(crate) const MAX_NAMES: usize = 1280;
/// A power of two, so that the table stays at most one third full.
const SLOTS: usize = 4096;

/// The bit of `UserEvent` in events of that name: what follows it is its sender's.
pub(crate) const USER_EVENT: u8 = 1 << 7;

pub(crate) static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

/// A name of the table.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) rule: Rule,
    /// `Name: `, as a line begins.
    pub(crate) line: Padded,
    /// `,"Name":"`, as a member of `data` begins.
    pub(crate) member: Padded,
    /// Bytes of that where the values are of the form that the table gives.
    pub(crate) own_key: usize,
    /// The messages in which it means something else: [`EventRules::bit`] of those that give its values another form,
    /// and [`USER_EVENT`].
    pub(crate) special_in: u8,
}

/// Open addressing over a hash of the length and the outer bytes of a name.
pub(crate) struct Table {
    /// By hash, the id of a name, or 0. Small, for this is all that a name that is not listed has to be looked for in.
    slots: Box<[u16; SLOTS]>,
    /// Each at its id, as the next.
    spelled: Vec<Spelled>,
    /// The names, each at its id; no line begins with the first.
    names: Vec<Name>,
}

/// What a name is known by.
#[derive(Clone, Copy)]
struct Spelled {
    /// What [`ends`] says of the name. Up to sixteen bytes, that and the length are all of it.
    ends: (u64, u64),
    name: &'static [u8],
}

impl Table {
    fn new() -> Self {
        let mut table = Self { slots: Box::new([0; SLOTS]), spelled: Vec::new(), names: Vec::new() };
        let none = Name {
            rule: fields::UNKNOWN,
            line: Padded::NOWHERE,
            member: Padded::NOWHERE,
            own_key: 0,
            special_in: 0,
        };
        table.names.push(none);
        table.spelled.push(Spelled { ends: (0, 0), name: b"" });
        for (name, form, role) in fields::listed() {
            let id = u16::try_from(table.names.len()).unwrap_or(0);
            let ready = Name::new(&name, Rule { id, form, role });
            table.names.push(ready.expect("no listed name is longer than a Padded"));
            table.insert(name, id);
        }
        assert!(table.names.len() <= MAX_NAMES, "MAX_NAMES is too small");
        table
    }

    fn insert(&mut self, name: String, id: u16) {
        let ends = ends(name.as_bytes());
        let free = |slot: &usize| self.slots.get(*slot) == Some(&0);
        let place = probe(hash(name.len(), ends), SLOTS).find(free);
        if let Some(slot) = place.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = id;
        }
        // The table is made once and stays.
        self.spelled.push(Spelled { ends, name: name.leak().as_bytes() });
    }

    /// The name of that id; of 0, one that no line begins with.
    #[inline(always)]
    pub(crate) fn listed(&self, id: u16) -> Option<&Name> {
        self.names.get(usize::from(id))
    }

    /// The name that is exactly that.
    #[inline(always)]
    pub(crate) fn get(&self, name: &[u8]) -> Option<&Name> {
        self.find(name).ok()
    }

    /// The same; for a name that is not listed, its hash.
    #[inline(always)]
    pub(crate) fn find(&self, name: &[u8]) -> Result<&Name, usize> {
        let ends = ends(name);
        let hash = hash(name.len(), ends);
        for slot in probe(hash, SLOTS) {
            let Some(id) = self.slots.get(slot).filter(|id| **id != 0) else { break };
            let Some(spelled) = self.spelled.get(usize::from(*id)) else { break };
            let same = spelled.ends == ends && spelled.name.len() == name.len();
            if same && (name.len() <= 16 || spelled.name == name) {
                return self.listed(*id).ok_or(hash);
            }
        }
        Err(hash)
    }
}

impl Name {
    fn new(name: &str, rule: Rule) -> Option<Self> {
        let line = Padded::new(format!("{name}: ").as_bytes())?;
        let member = Padded::new(format!(",\"{name}\":\"").as_bytes())?;
        let own_key = member.len() - usize::from(!rule.form.is_quoted());
        let is_other = |rules: &&EventRules| rules.form(name.as_bytes(), rule.form) != rule.form;
        let bits = EventRules::ALL.iter().filter(is_other).fold(0, |bits, rules| bits | rules.bit());
        let special_in = if name == "UserEvent" { bits | USER_EVENT } else { bits };
        Some(Self { rule, line, member, own_key, special_in })
    }

    /// Bytes of `member` before a value of that form: with the quote, or without.
    #[inline(always)]
    pub(crate) fn key_bytes(&self, form: Form) -> usize {
        if form == self.rule.form { self.own_key } else { self.member.len() - usize::from(!form.is_quoted()) }
    }
}

/// The first and the last eight bytes of a name, which may overlap; of a shorter one, all of it in the first word.
#[inline]
fn ends(name: &[u8]) -> (u64, u64) {
    if let (Some(head), Some(tail)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        return (u64::from_le_bytes(*head), u64::from_le_bytes(*tail));
    }
    if let (Some(head), Some(tail)) = (name.first_chunk::<4>(), name.last_chunk::<4>()) {
        return (u64::from(u32::from_le_bytes(*head)) | u64::from(u32::from_le_bytes(*tail)) << 32, 0);
    }
    (name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)), 0)
}

#[inline(always)]
fn hash(length: usize, (head, tail): (u64, u64)) -> usize {
    let mut hash = (length as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash = (hash ^ head).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    hash = (hash ^ hash >> 29 ^ tail).wrapping_mul(0x94D0_49BB_1331_11EB);
    usize::try_from(hash >> 48).unwrap_or(0)
}

/// Where a name of that hash may stand among so many places: those after the first that is probed follow one another.
#[inline(always)]
pub(crate) fn probe(hash: usize, places: usize) -> impl Iterator<Item = usize> {
    (0..places).map(move |step| (hash + step) % places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::block;

    #[test]
    fn every_name_is_found_again_and_only_once() {
        let names: Vec<_> = TABLE.slots.iter().filter(|id| **id != 0).collect();
        for id in &names {
            let spelled = TABLE.spelled[usize::from(**id)].name;
            let name = String::from_utf8_lossy(spelled);
            let found = TABLE.get(spelled).expect("listed");
            assert_eq!(found.rule.id, **id, "{name} is in two lists");
            assert_eq!(found.line.len(), spelled.len() + ": ".len());
            let begins = |line: &str| {
                found.line.is(|ahead| block::load(line.as_bytes().get(ahead..).unwrap_or_default()))
            };
            assert!(begins(&format!("{name}: x")) && !begins(&format!("{name}:x")), "{name}");
        }
        assert_eq!(names.len() + 1, TABLE.names.len());
        assert!(names.len() > 800 && names.len() < SLOTS / 3);
    }
}
