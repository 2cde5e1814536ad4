//! The configuration as a tree of values that know where they came from.
//!
//! The file is read into this tree first; environment variables and arguments are then laid over it. Nothing in
//! here implements `Debug`: a secret may be among the values.

use std::{collections::BTreeMap, ops::Range};

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The file, at this byte.
    File(usize),
    /// An environment variable.
    Variable(String),
    /// An argument of the command line.
    Argument(String),
}

impl Origin {
    /// Whether the value is text whatever its type, since it came from outside the file.
    pub(super) fn is_outside(&self) -> bool {
        !matches!(self, Self::File(_))
    }
}

/// A value and where it came from.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) raw: Raw,
}

/// A value as the file spells it.
#[derive(Clone)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Number(f64),
    Flag(bool),
    Time,
    List(Vec<Node>),
    Table(Table),
}

impl Raw {
    /// The value's type in words.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Number(_) => "a number",
            Self::Flag(_) => "true or false",
            Self::Time => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A key's place and its value.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: Origin,
    pub(super) node: Node,
}

/// A table by key.
#[derive(Clone, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, Entry>);

impl Table {
    /// Puts `text` under the dotted path, in the place of what is there.
    pub(super) fn put(&mut self, path: &[&str], text: &str, origin: &Origin) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            let node = Node { origin: origin.clone(), raw: Raw::Text(text.to_owned()) };
            self.0.insert((*first).to_owned(), Entry { key: origin.clone(), node });
            return;
        }
        let entry = self.0.entry((*first).to_owned()).or_insert_with(|| Entry {
            key: origin.clone(),
            node: Node { origin: origin.clone(), raw: Raw::Table(Self::default()) },
        });
        if let Raw::Table(table) = &mut entry.node.raw {
            table.put(rest, text, origin);
        }
    }
}

/// The file's text and name, to tell places from bytes.
pub(super) struct Source<'a> {
    pub(super) file: &'a str,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// The place that an error shows.
    pub(super) fn place(&self, origin: &Origin) -> Place {
        match origin {
            Origin::File(byte) => self.at(*byte),
            Origin::Variable(name) => Place::Variable(name.clone()),
            Origin::Argument(argument) => Place::Argument(argument.clone()),
        }
    }

    fn at(&self, byte: usize) -> Place {
        let before = self.text.get(..byte).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::File {
            file: self.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }

    /// Reads the text as TOML.
    ///
    /// # Errors
    /// Every place where it is not TOML.
    pub(super) fn parse(&self) -> Result<Table, Vec<ConfigError>> {
        let (root, errors) = DeTable::parse_recoverable(self.text);
        if errors.is_empty() {
            return Ok(table(root.get_ref()));
        }
        Err(errors.iter().map(|error| self.syntax(error.message(), error.span())).collect())
    }

    fn syntax(&self, message: &str, span: Option<Range<usize>>) -> ConfigError {
        let place = self.at(span.map_or(0, |span| span.start));
        let message = format!("not TOML: {}", message.replace('\n', ", "));
        ConfigError { place, key: String::new(), message }
    }
}

fn table(from: &DeTable<'_>) -> Table {
    let entry = |key: &toml::Spanned<_>, value: &toml::Spanned<DeValue<'_>>| Entry {
        key: Origin::File(key.span().start),
        node: node(value),
    };
    Table(from.iter().map(|(key, value)| (key.get_ref().to_string(), entry(key, value))).collect())
}

pub(super) fn node(from: &toml::Spanned<DeValue<'_>>) -> Node {
    let raw = match from.get_ref() {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Raw::Integer(integer),
            Err(_) => Raw::Number(integer.as_str().parse().unwrap_or(f64::INFINITY)),
        },
        DeValue::Float(number) => Raw::Number(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Datetime(_) => Raw::Time,
        DeValue::Array(items) => Raw::List(items.iter().map(node).collect()),
        DeValue::Table(from) => Raw::Table(table(from)),
    };
    Node { origin: Origin::File(from.span().start), raw }
}
