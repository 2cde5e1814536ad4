//! Checks one table of the tree against its table of keys, and gives typed values.
//!
//! Nothing stops at the first error: a value that is wrong is noted and left out, and the walk goes on. Whoever
//! builds something of the values may therefore find a required one missing, and then only goes on too.

use std::collections::{BTreeMap, BTreeSet};

use amibus_contract::{Key, Problem, Value, Values};

use super::{
    error::{ConfigError, ConfigErrors},
    nearest::{hint, nearest},
    secret::Lookup,
    tree::{Node, Origin, Raw, Source, Table},
    value,
};

/// The errors so far, and what is needed to note one.
pub(super) struct Faults<'a> {
    pub(super) source: Source<'a>,
    pub(super) lookup: Lookup<'a>,
    noted: Vec<(Origin, ConfigError)>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(source: Source<'a>, lookup: Lookup<'a>) -> Self {
        Self { source, lookup, noted: Vec::new() }
    }

    /// Notes that something is wrong with `key` at `origin`.
    pub(super) fn note(&mut self, origin: &Origin, key: impl Into<String>, message: impl Into<String>) {
        let error =
            ConfigError { place: self.source.place(origin), key: key.into(), message: message.into() };
        self.noted.push((origin.clone(), error));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.noted.is_empty()
    }

    /// How many errors there are so far.
    pub(super) fn count(&self) -> usize {
        self.noted.len()
    }

    /// All errors, in the order of the file; what came from outside the file after it.
    pub(super) fn into_errors(mut self) -> ConfigErrors {
        self.noted.sort_by(|(a, _), (b, _)| a.cmp(b));
        ConfigErrors(self.noted.into_iter().map(|(_, error)| error).collect())
    }
}

/// A table that was checked.
pub(super) struct Section {
    /// The table as errors name it, e.g. `bus.nats`; empty at the top.
    path: String,
    /// Where the table begins.
    here: Origin,
    /// What it holds; defaults filled in.
    pub(super) values: Values,
    origins: BTreeMap<&'static str, Origin>,
}

impl Section {
    /// Whether the key was given, right or wrong.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Where the key was given, else where its table begins.
    pub(super) fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&self.here)
    }

    /// The key with its table; the table alone where the key is empty.
    pub(super) fn name(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Notes that something is wrong with the value of `key`.
    pub(super) fn note(&self, faults: &mut Faults<'_>, key: &str, message: impl Into<String>) {
        faults.note(self.origin(key), self.name(key), message);
    }

    /// Notes what a bridge found wrong.
    pub(super) fn problems(&self, faults: &mut Faults<'_>, problems: Vec<Problem>) {
        for problem in problems {
            self.note(faults, problem.key, problem.message);
        }
    }
}

/// Checks `table`, called `path` in errors, against `keys`. Tables named in `others` are somebody else's.
pub(super) fn walk(
    table: &Table,
    here: &Origin,
    path: &str,
    keys: &'static [Key],
    others: &[&'static str],
    faults: &mut Faults<'_>,
) -> Section {
    let mut walk = Walk { path, keys, others, faults, values: BTreeMap::new(), origins: BTreeMap::new() };
    walk.table(table, "");
    walk.absent(here);
    let Walk { values, origins, .. } = walk;
    Section { path: path.to_owned(), here: here.clone(), values: Values(values), origins }
}

struct Walk<'w, 'f> {
    path: &'w str,
    keys: &'static [Key],
    others: &'w [&'static str],
    faults: &'w mut Faults<'f>,
    values: BTreeMap<&'static str, Value>,
    origins: BTreeMap<&'static str, Origin>,
}

impl Walk<'_, '_> {
    /// `prefix` is the way from the section to this table, empty or ending with a dot.
    fn table(&mut self, table: &Table, prefix: &str) {
        for (word, entry) in &table.0 {
            let full = format!("{prefix}{word}");
            if prefix.is_empty() && self.others.contains(&word.as_str()) {
                continue;
            }
            if let Some(key) = self.keys.iter().find(|key| key.name == full) {
                self.value(key, &entry.key, &entry.node);
                continue;
            }
            let within = format!("{full}.");
            if self.keys.iter().any(|key| key.name.starts_with(&within)) {
                match &entry.node.raw {
                    Raw::Table(table) => self.table(table, &within),
                    other => {
                        let message = format!("must be a table, not {}", other.what());
                        self.faults.note(&entry.node.origin, join(self.path, &full), message);
                    }
                }
                continue;
            }
            let message = self.unknown(&full);
            self.faults.note(&entry.key, join(self.path, &full), message);
        }
    }

    fn unknown(&self, full: &str) -> String {
        let mut known: BTreeSet<&str> = self.keys.iter().map(|key| key.name).collect();
        known.extend(self.others);
        // A known key's table given as a whole word, or the last word without its table.
        let whole = known.iter().find(|name| name.rsplit('.').next() == Some(full));
        // A table of dotted keys is known by its name alone, too.
        let tables = self.keys.iter().filter_map(|key| key.name.rsplit_once('.').map(|(table, _)| table));
        let near = whole.copied().or_else(|| nearest(full, known.iter().copied().chain(tables)));
        match near {
            Some(name) => format!("unknown key; did you mean {name:?}?"),
            None => format!("unknown key{}", hint(full, known.iter().copied())),
        }
    }

    fn value(&mut self, key: &'static Key, at: &Origin, node: &Node) {
        self.origins.insert(key.name, at.clone());
        match value::read(key.kind, node, self.faults.lookup) {
            Ok(value) => {
                self.values.insert(key.name, value);
            }
            Err(message) => self.faults.note(&node.origin, join(self.path, key.name), message),
        }
    }

    fn absent(&mut self, here: &Origin) {
        for key in self.keys {
            if self.origins.contains_key(key.name) {
                continue;
            }
            if let Some(default) = key.default {
                match value::default(key.kind, default) {
                    Ok(value) => {
                        self.values.insert(key.name, value);
                    }
                    Err(message) => {
                        let message = format!("the built-in default is wrong: {message}");
                        self.faults.note(here, join(self.path, key.name), message);
                    }
                }
            } else if key.required {
                let message = format!("missing; {}", value::expected(key.kind));
                self.faults.note(here, join(self.path, key.name), message);
            }
        }
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() || key.is_empty() { format!("{path}{key}") } else { format!("{path}.{key}") }
}
