//! One value: from the file's spelling to its type.

use std::collections::BTreeMap;

use amibus_contract::{KeyKind, Value};
use toml::de::DeValue;

use super::{
    nearest::nearest,
    secret::{self, Lookup},
    tree::{Node, Raw, Table},
    units,
};

/// The most entries of a list or of a table of values.
pub const MAX_ENTRIES: usize = 1000;

/// Reads a value of this kind.
///
/// # Errors
/// What is wrong and what would be right, in words; of a secret, nothing of it.
pub(super) fn read(kind: KeyKind, node: &Node, lookup: Lookup<'_>) -> Result<Value, String> {
    match kind {
        KeyKind::Secret => Ok(Value::Secret(secret::resolve(node, lookup)?)),
        _ => match (&node.raw, node.origin.is_outside()) {
            (Raw::Text(text), true) => from_outside(kind, text),
            _ => from_file(kind, node),
        },
    }
}

/// The value that a default in the spelling of the key table stands for.
///
/// # Errors
/// As for [`read`].
pub(super) fn default(kind: KeyKind, text: &str) -> Result<Value, String> {
    from_outside(kind, text)
}

/// What a value of this kind looks like, for somebody who has to write one.
pub(super) fn expected(kind: KeyKind) -> String {
    match kind {
        KeyKind::Text => "give a string".to_owned(),
        KeyKind::Secret => "give a string, { env = \"NAME\" } or { file = \"/path\" }".to_owned(),
        KeyKind::Flag => "give true or false".to_owned(),
        KeyKind::Integer { min, max } => format!("give a whole number from {min} to {max}"),
        KeyKind::Number { min, max } => format!("give a number from {min} to {max}"),
        KeyKind::Duration => "give a duration such as \"10s\"".to_owned(),
        KeyKind::Size => "give a size such as \"64MiB\"".to_owned(),
        KeyKind::Choice(words) => format!("give one of {}", quoted(words)),
        KeyKind::TextList => "give a list of strings, e.g. [\"one\", \"two\"]".to_owned(),
        KeyKind::TextMap | KeyKind::ListMap => "give a table".to_owned(),
    }
}

fn from_file(kind: KeyKind, node: &Node) -> Result<Value, String> {
    let raw = &node.raw;
    let wrong = |want: &str| Err(format!("must be {want}, not {}", raw.what()));
    match kind {
        KeyKind::Text | KeyKind::Secret => match raw {
            Raw::Text(text) => Ok(Value::Text(text.clone())),
            _ => wrong("a string"),
        },
        KeyKind::Flag => match raw {
            Raw::Flag(flag) => Ok(Value::Flag(*flag)),
            Raw::Text(_) => Err("must be true or false, without quotes".to_owned()),
            _ => wrong("true or false"),
        },
        KeyKind::Integer { min, max } => match raw {
            Raw::Integer(integer) => whole(*integer, min, max),
            Raw::Text(_) => Err(format!("must be a whole number from {min} to {max}, without quotes")),
            _ => wrong("a whole number"),
        },
        KeyKind::Number { min, max } => match raw {
            Raw::Integer(integer) => number(*integer as f64, min, max),
            Raw::Number(value) => number(*value, min, max),
            _ => wrong("a number"),
        },
        KeyKind::Duration => match raw {
            Raw::Text(text) => units::duration(text).map(Value::Duration),
            Raw::Integer(n) => Err(format!("a duration needs its unit, in quotes: \"{n}s\" or \"{n}ms\"")),
            _ => wrong("a duration such as \"10s\""),
        },
        KeyKind::Size => match raw {
            Raw::Text(text) => units::size(text).map(Value::Size),
            Raw::Integer(bytes) => {
                u64::try_from(*bytes).map(Value::Size).map_err(|_| "must not be negative".to_owned())
            }
            _ => wrong("a size such as \"64MiB\""),
        },
        KeyKind::Choice(words) => match raw {
            Raw::Text(text) => choice(text, words),
            _ => wrong(&format!("one of {}", quoted(words))),
        },
        KeyKind::TextList => strings(node).map(Value::List),
        KeyKind::TextMap => {
            let mut map = BTreeMap::new();
            entries(raw, "", &mut |name, node| {
                map.insert(name.to_owned(), scalar(node).ok_or_else(|| unsuited(name, &node.raw))?);
                bounded(map.len())
            })?;
            Ok(Value::Map(map))
        }
        KeyKind::ListMap => {
            let mut map = BTreeMap::new();
            entries(raw, "", &mut |name, node| {
                map.insert(name.to_owned(), strings(node).map_err(|error| format!("{name}: {error}"))?);
                bounded(map.len())
            })?;
            Ok(Value::ListMap(map))
        }
    }
}

fn from_outside(kind: KeyKind, text: &str) -> Result<Value, String> {
    let text = text.trim();
    match kind {
        KeyKind::Text => Ok(Value::Text(text.to_owned())),
        KeyKind::Flag => match text {
            "true" => Ok(Value::Flag(true)),
            "false" => Ok(Value::Flag(false)),
            _ => Err(format!("must be true or false, not {text:?}")),
        },
        KeyKind::Integer { min, max } => match text.parse() {
            Ok(integer) => whole(integer, min, max),
            Err(_) => Err(format!("must be a whole number from {min} to {max}, not {text:?}")),
        },
        KeyKind::Number { min, max } => match text.parse() {
            Ok(value) => number(value, min, max),
            Err(_) => Err(format!("must be a number from {min} to {max}, not {text:?}")),
        },
        KeyKind::Duration => units::duration(text).map(Value::Duration),
        KeyKind::Size => units::size(text).map(Value::Size),
        KeyKind::Choice(words) => choice(text, words),
        KeyKind::TextList if text.starts_with('[') => from_file(kind, &parsed(text)?),
        KeyKind::TextList => Ok(Value::List(
            text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(String::from).collect(),
        )),
        KeyKind::TextMap | KeyKind::ListMap => from_file(kind, &parsed(text)?),
        KeyKind::Secret => Err("a secret has no default".to_owned()),
    }
}

fn parsed(text: &str) -> Result<Node, String> {
    let value = DeValue::parse(text).map_err(|error| format!("not a TOML value: {}", error.message()))?;
    Ok(super::tree::node(&value))
}

fn whole(integer: i64, min: i64, max: i64) -> Result<Value, String> {
    if (min..=max).contains(&integer) {
        return Ok(Value::Integer(integer));
    }
    Err(format!("must be from {min} to {max}, not {integer}"))
}

fn number(value: f64, min: f64, max: f64) -> Result<Value, String> {
    if (min..=max).contains(&value) {
        return Ok(Value::Number(value));
    }
    Err(format!("must be from {min} to {max}, not {value}"))
}

fn choice(text: &str, words: &[&str]) -> Result<Value, String> {
    if words.contains(&text) {
        return Ok(Value::Text(text.to_owned()));
    }
    let near = nearest(text, words.iter().copied());
    let near = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
    Err(format!("must be one of {}, not {text:?}{near}", quoted(words)))
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

/// A list of strings; a single string counts as a list of one.
fn strings(node: &Node) -> Result<Vec<String>, String> {
    let items = match &node.raw {
        Raw::List(items) => items,
        Raw::Text(text) => return Ok(vec![text.clone()]),
        other => return Err(format!("must be a list of strings, not {}", other.what())),
    };
    bounded(items.len())?;
    let text = |(index, item): (usize, &Node)| match &item.raw {
        Raw::Text(text) => Ok(text.clone()),
        other => Err(format!("must be a list of strings; item {} is {}", index + 1, other.what())),
    };
    items.iter().enumerate().map(text).collect()
}

fn scalar(node: &Node) -> Option<String> {
    match &node.raw {
        Raw::Text(text) => Some(text.clone()),
        Raw::Integer(integer) => Some(integer.to_string()),
        Raw::Number(number) => Some(number.to_string()),
        Raw::Flag(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Visits the entries of a table whose keys may hold dots: `a.b = 1` is the entry `a.b`.
fn entries(
    raw: &Raw,
    prefix: &str,
    visit: &mut dyn FnMut(&str, &Node) -> Result<(), String>,
) -> Result<(), String> {
    let Raw::Table(Table(map)) = raw else {
        return Err(format!("must be a table, not {}", raw.what()));
    };
    for (word, entry) in map {
        let name = format!("{prefix}{word}");
        match &entry.node.raw {
            table @ Raw::Table(_) => entries(table, &format!("{name}."), visit)?,
            _ => visit(&name, &entry.node)?,
        }
    }
    Ok(())
}

fn unsuited(name: &str, raw: &Raw) -> String {
    format!("{name} must be a string, a number, true or false, not {}", raw.what())
}

fn bounded(entries: usize) -> Result<(), String> {
    if entries > MAX_ENTRIES {
        return Err(format!("more than {MAX_ENTRIES} entries"));
    }
    Ok(())
}
