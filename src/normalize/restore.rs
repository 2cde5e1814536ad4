//! The way back: from `data` to the lines that Asterisk sent.
//!
//! JSON objects have no order, but every reader that keeps the one they were written in gets the lines in the order of
//! the wire. [`restore_json`] does; [`restore`] has the order of its [`serde_json::Value`], which sorts by name unless
//! serde_json is built with `preserve_order`. Where lines need an order beyond that, `$order` gives it.

use std::{collections::HashMap, fmt};

use amibus_ami::Separator;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{
    data::{BYTES_KEY, LINES_KEY, ORDER_KEY, RESERVED},
    fields::{self, EventRules, Form},
    json, value,
};

/// One line as Asterisk sent it, without its CRLF. A line of `$lines` comes whole, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What stands before the colon.
    pub name: Vec<u8>,
    /// What stands between.
    pub separator: Separator,
    /// What stands behind.
    pub value: Vec<u8>,
}

/// Why `data` cannot be rebuilt: it is not one that amibus wrote. Skip it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Not JSON, or not an object.
    #[error("data is not a JSON object")]
    NotAnObject,
    /// A value of a type that this header never has.
    #[error("{0:?} has a value of another type than amibus writes")]
    Type(String),
    /// `$bytes` holds what is not base64.
    #[error("$bytes of {0:?} is not base64")]
    Base64(String),
    /// `$order` names more or fewer lines than there are.
    #[error("$order and the headers disagree about {0:?}")]
    Order(String),
}

/// The lines that `data` was made of.
///
/// # Errors
/// When `data` is not one that amibus wrote.
pub fn restore(data: &Value) -> Result<Vec<Line>, RestoreError> {
    lines(&Json::from(data))
}

/// The same from the text of `data`, in the order of its keys.
///
/// # Errors
/// When `data` is not one that amibus wrote.
pub fn restore_json(data: &[u8]) -> Result<Vec<Line>, RestoreError> {
    lines(&serde_json::from_slice(data).map_err(|_| RestoreError::NotAnObject)?)
}

/// The message that these lines are, without its final empty line.
pub fn message(lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&line.name);
        out.extend_from_slice(line.separator.as_bytes());
        out.extend_from_slice(&line.value);
    }
    out
}

fn lines(data: &Json) -> Result<Vec<Line>, RestoreError> {
    let Json::Object(pairs) = data else { return Err(RestoreError::NotAnObject) };
    let rules = EventRules::of(event_name(data));
    let bytes = data.get(BYTES_KEY);
    let mut headers = Vec::new();
    for (key, shown) in pairs.iter().filter(|(key, _)| key != BYTES_KEY && key != ORDER_KEY) {
        let exact = bytes.and_then(|bytes| bytes.get(key)).map(|exact| from_bytes(key, exact)).transpose()?;
        let name = key.strip_prefix(char::from(RESERVED)).unwrap_or(key).as_bytes();
        let form = rules.form(name, fields::rule(name).form);
        let values = exact.map_or_else(|| values(form, shown), Some);
        headers.push((&**key, values.ok_or_else(|| RestoreError::Type(key.clone()))?));
    }
    match data.get(ORDER_KEY) {
        None => Ok(headers
            .into_iter()
            .flat_map(|(key, values)| values.into_iter().map(|value| line(key, false, value)))
            .collect()),
        Some(Json::Array(order)) => ordered(headers, order),
        Some(_) => Err(RestoreError::Type(ORDER_KEY.to_owned())),
    }
}

/// The lines in the order that `$order` gives.
fn ordered(headers: Vec<(&str, Vec<Vec<u8>>)>, order: &[Json]) -> Result<Vec<Line>, RestoreError> {
    let mut left: HashMap<&str, _> =
        headers.into_iter().map(|(key, values)| (key, values.into_iter())).collect();
    let mut lines = Vec::with_capacity(order.len());
    for entry in order {
        let Json::String(entry) = entry else { return Err(RestoreError::Type(ORDER_KEY.to_owned())) };
        let (key, bare) = entry.strip_suffix(':').map_or((&**entry, false), |key| (key, true));
        let value = left.get_mut(key).and_then(Iterator::next);
        lines.push(line(key, bare, value.ok_or_else(|| RestoreError::Order(key.to_owned()))?));
    }
    match left.into_iter().find(|(_, values)| values.len() > 0) {
        Some((key, _)) => Err(RestoreError::Order(key.to_owned())),
        None => Ok(lines),
    }
}

fn line(key: &str, bare: bool, value: Vec<u8>) -> Line {
    let name = key.strip_prefix(char::from(RESERVED)).unwrap_or(key);
    match (key == LINES_KEY, bare) {
        (true, _) => Line { name: Vec::new(), separator: Separator::None, value },
        (_, true) => Line { name: name.into(), separator: Separator::Colon, value },
        (_, false) => Line { name: name.into(), separator: Separator::ColonBlank, value },
    }
}

fn event_name(data: &Json) -> &[u8] {
    let first = match data.get("Event") {
        Some(Json::Array(values)) => values.first(),
        other => other,
    };
    if let Some(Json::String(name)) = first { name.as_bytes() } else { b"" }
}

/// The values of one header, in order.
fn values(form: Form, shown: &Json) -> Option<Vec<Vec<u8>>> {
    match (form, shown) {
        (Form::Variables | Form::RawVariables, Json::Object(pairs)) => {
            pairs.iter().map(|(name, value)| variable(form, name, value)).collect()
        }
        // A variable that is shown as it came, because it is none.
        (Form::Variables, Json::String(text)) => Some(vec![text.clone().into_bytes()]),
        (Form::Variables, Json::Array(all)) => {
            all.iter().map(|value| scalar(Form::RawVariables, value)).collect()
        }
        (Form::Words, Json::Array(all)) if !all.iter().all(|word| matches!(word, Json::Array(_))) => {
            Some(vec![scalar(form, shown)?])
        }
        (_, Json::Array(all)) => all.iter().map(|value| scalar(form, value)).collect(),
        (_, one) => Some(vec![scalar(form, one)?]),
    }
}

fn variable(form: Form, name: &str, value: &Json) -> Option<Vec<u8>> {
    let Json::String(value) = value else { return None };
    let mut text = name.as_bytes().to_vec();
    text.push(b'=');
    text.extend_from_slice(&value::rebuilt(form, value.as_bytes()));
    Some(text)
}

fn scalar(form: Form, shown: &Json) -> Option<Vec<u8>> {
    match (form, shown) {
        (_, Json::Integer(digits)) => Some(digits.to_string().into_bytes()),
        (_, Json::String(text)) => Some(value::rebuilt(form, text.as_bytes()).into_owned()),
        (Form::Words, Json::Array(words)) => {
            let words: Option<Vec<_>> = words.iter().map(Json::as_str).collect();
            Some(words?.join(",").into_bytes())
        }
        _ => None,
    }
}

fn from_bytes(key: &str, exact: &Json) -> Result<Vec<Vec<u8>>, RestoreError> {
    let decode = |one: &Json| {
        one.as_str().and_then(json::from_base64).ok_or_else(|| RestoreError::Base64(key.to_owned()))
    };
    match exact {
        Json::Array(all) => all.iter().map(decode).collect(),
        one => Ok(vec![decode(one)?]),
    }
}

/// JSON that keeps the order of its keys. Numbers with a fraction are never ours.
enum Json {
    Other,
    Integer(i64),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    fn get(&self, key: &str) -> Option<&Self> {
        let Self::Object(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null | Value::Bool(_) => Self::Other,
            Value::Number(number) => number.as_i64().map_or(Self::Other, Self::Integer),
            Value::String(text) => Self::String(text.clone()),
            Value::Array(all) => Self::Array(all.iter().map(Self::from).collect()),
            Value::Object(pairs) => {
                Self::Object(pairs.iter().map(|(key, value)| (key.clone(), Self::from(value))).collect())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
                Ok(Json::Other)
            }

            fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
                Ok(Json::Integer(number))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
                Ok(i64::try_from(number).map_or(Json::Other, Json::Integer))
            }

            fn visit_str<E>(self, text: &str) -> Result<Json, E> {
                Ok(Json::String(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut all = Vec::new();
                while let Some(value) = seq.next_element()? {
                    all.push(value);
                }
                Ok(Json::Array(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Json::Object(pairs))
            }
        }

        deserializer.deserialize_any(Any)
    }
}
