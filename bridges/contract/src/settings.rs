//! How a bus says what it can be configured with.
//!
//! A bridge describes its keys in a table. The root crate reads the file, checks names and types against the
//! table (with line numbers and the nearest right spelling), resolves secrets, and hands the bridge typed
//! [`Values`]; the bridge checks what only it can know, all of it at once. The same table makes the
//! configuration reference and the schema, so that none of them can disagree.

use std::{collections::BTreeMap, fmt, time::Duration};

use secrecy::SecretString;

use crate::SharedBridge;

/// What a key's value looks like in the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeyKind {
    /// A string.
    Text,
    /// A secret: a string, `{ env = "NAME" }` or `{ file = "PATH" }`. Never printed.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both inclusive.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// A number, whole or not, within bounds, both inclusive.
    Number {
        /// The least value.
        min: f64,
        /// The greatest value.
        max: f64,
    },
    /// A duration with its unit: `"250ms"`, `"10s"`, `"5min"`, `"2h"`, `"7d"`.
    Duration,
    /// A number of bytes with its unit: `"512KiB"`, `"10GiB"`, or a plain number of bytes.
    Size,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of strings.
    TextList,
    /// A table of strings, numbers and booleans, kept as text; its keys may hold dots.
    TextMap,
    /// A table of lists of strings (a single string counts as a list of one); its keys may hold dots.
    ListMap,
}

/// One key. A dot in its name means a table within: `tls.ca` is `ca` in `[bus.nats.tls]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Key {
    /// The key's name.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: KeyKind,
    /// Whether it must be given.
    pub required: bool,
    /// The default in the spelling of the file, for the documentation and for [`Values`]; `None`: no default.
    pub default: Option<&'static str>,
    /// What it does, with units, in a sentence or two.
    pub doc: &'static str,
}

impl Key {
    /// A key that may be left out and then has no value.
    pub const fn optional(name: &'static str, kind: KeyKind, doc: &'static str) -> Self {
        Self { name, kind, required: false, default: None, doc }
    }

    /// A key that must be given.
    pub const fn required(name: &'static str, kind: KeyKind, doc: &'static str) -> Self {
        Self { name, kind, required: true, default: None, doc }
    }

    /// A key with a default, in the spelling of the file without quotes (`10s`, `true`, `4222`).
    pub const fn with_default(
        name: &'static str,
        kind: KeyKind,
        default: &'static str,
        doc: &'static str,
    ) -> Self {
        Self { name, kind, required: false, default: Some(default), doc }
    }
}

/// A value of the right type for its key.
#[derive(Clone)]
pub enum Value {
    /// Of [`KeyKind::Text`] and [`KeyKind::Choice`].
    Text(String),
    /// Of [`KeyKind::Secret`], resolved.
    Secret(SecretString),
    /// Of [`KeyKind::Flag`].
    Flag(bool),
    /// Of [`KeyKind::Integer`].
    Integer(i64),
    /// Of [`KeyKind::Number`].
    Number(f64),
    /// Of [`KeyKind::Duration`].
    Duration(Duration),
    /// Of [`KeyKind::Size`], in bytes.
    Size(u64),
    /// Of [`KeyKind::TextList`].
    List(Vec<String>),
    /// Of [`KeyKind::TextMap`].
    Map(BTreeMap<String, String>),
    /// Of [`KeyKind::ListMap`].
    ListMap(BTreeMap<String, Vec<String>>),
}

/// Prints everything except secrets; a map may hold one under any name (`sasl.password`), so of it only the keys.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(value) => value.fmt(f),
            Self::Secret(_) => f.write_str("***"),
            Self::Flag(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Number(value) => value.fmt(f),
            Self::Duration(value) => value.fmt(f),
            Self::Size(value) => value.fmt(f),
            Self::List(value) => value.fmt(f),
            Self::Map(map) => f.debug_map().entries(map.keys().map(|key| (key, "***"))).finish(),
            Self::ListMap(value) => value.fmt(f),
        }
    }
}

/// The values of a table of keys: every required key is there, and every default filled in.
#[derive(Clone, Debug, Default)]
pub struct Values(pub BTreeMap<&'static str, Value>);

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty, $value:ident => $result:expr) => {
        $(#[$doc])*
        pub fn $name(&self, key: &str) -> Option<$type> {
            match self.0.get(key) {
                Some(Value::$variant($value)) => Some($result),
                _ => None,
            }
        }
    };
}

impl Values {
    getter!(
        /// The text or choice under `key`.
        text, Text, &str, v => v.as_str()
    );
    getter!(
        /// The secret under `key`.
        secret, Secret, &SecretString, v => v
    );
    getter!(
        /// The flag under `key`.
        flag, Flag, bool, v => *v
    );
    getter!(
        /// The whole number under `key`.
        integer, Integer, i64, v => *v
    );
    getter!(
        /// The number under `key`.
        number, Number, f64, v => *v
    );
    getter!(
        /// The duration under `key`.
        duration, Duration, Duration, v => *v
    );
    getter!(
        /// The size under `key`, in bytes.
        size, Size, u64, v => *v
    );
    getter!(
        /// The list under `key`.
        list, List, &[String], v => v.as_slice()
    );
    getter!(
        /// The table of texts under `key`.
        map, Map, &BTreeMap<String, String>, v => v
    );
    getter!(
        /// The table of lists under `key`.
        list_map, ListMap, &BTreeMap<String, Vec<String>>, v => v
    );

    /// The same with another value under `key`; for tests and embedded defaults.
    pub fn with(mut self, key: &'static str, value: Value) -> Self {
        self.0.insert(key, value);
        self
    }
}

/// What is wrong with a configured value, beyond its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, as in the table.
    pub key: &'static str,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem with the value of `key`.
    pub fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }
}

/// What every bus is told beside its own values.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// The prefix of all topics.
    pub prefix: String,
    /// What this process calls itself towards the bus (client id, connection name), e.g. `amibus`.
    pub instance: String,
    /// How long a claim that several processes share must be kept at least: what is forgotten sooner may be run again.
    pub claims_least_age: Duration,
}

/// A kind of bus that can be opened from configuration: one line in the root crate's registry.
pub trait Plug {
    /// The table's name in the configuration: `[bus.NAME]`.
    const NAME: &'static str;
    /// What it can be configured with.
    const KEYS: &'static [Key];

    /// Checks the values and makes the bridge, without any input or output on the network (files that the values
    /// name, such as certificates, are read).
    ///
    /// # Errors
    /// Everything that is wrong with the values, all at once.
    fn open(values: &Values, context: &Context) -> Result<SharedBridge, Vec<Problem>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_printed_without_its_secrets() {
        let map = BTreeMap::from([("sasl.password".to_owned(), "hush".to_owned())]);
        let values = Values::default()
            .with("properties", Value::Map(map))
            .with("password", Value::Secret("hush".into()))
            .with("user", Value::Text("me".into()));
        let text = format!("{values:?}");
        assert!(!text.contains("hush") && text.contains("sasl.password") && text.contains("me"), "{text}");
    }
}
