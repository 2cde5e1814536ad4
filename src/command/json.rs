//! JSON that keeps the order of keys and refuses a key given twice.
//!
//! `serde_json::Value` keeps the last of two equal keys, silently; a command must not mean something else to us
//! than to whoever looked at it on its way.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// How deep a command may nest: the CloudEvent, its `data`, `fields`, and a field's array or object.
pub(super) const MAX_DEPTH: usize = 5;

/// The least whole number that a double may not hold exactly, 2^53.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Flag(bool),
    /// A number in its canonical spelling.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses one whole document.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let parsed: Self = serde_json::from_slice(bytes)?;
        if parsed.depth() > MAX_DEPTH {
            return Err(serde_json::Error::custom(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(parsed)
    }

    /// What kind of value it is, for messages.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Flag(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    fn depth(&self) -> usize {
        let deepest = match self {
            Self::Array(items) => items.iter().map(Self::depth).max(),
            Self::Object(entries) => entries.iter().map(|(_, v)| v.depth()).max(),
            _ => return 0,
        };
        1 + deepest.unwrap_or(0)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Flag(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Json, E> {
        // A whole number that arrives here was larger than 64 bits, and has lost digits already.
        if value.fract() == 0.0 && value.abs() >= MAX_EXACT {
            return Err(E::custom("a number of more than 15 digits would change: write it as a string"));
        }
        Ok(Json::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element()? {
            array.push(item);
        }
        Ok(Json::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut seen = std::collections::HashSet::new();
        let mut object = Vec::new();
        while let Some((key, value)) = entries.next_entry::<String, Json>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key {key:?} is given twice")));
            }
            object.push((key, value));
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_numbers_are_canonical() {
        let parsed = Json::parse(br#"{"b":1,"a":[true,null,-2.50,"x"]}"#).expect("valid");
        let array = vec![Json::Flag(true), Json::Null, Json::Number("-2.5".into()), Json::Text("x".into())];
        let expected = vec![("b".into(), Json::Number("1".into())), ("a".into(), Json::Array(array))];
        assert_eq!(parsed, Json::Object(expected));
    }

    #[test]
    fn a_key_given_twice_trailing_text_and_depth_are_refused() {
        let deep = format!("{}1{}", "[".repeat(6), "]".repeat(6));
        let very_deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        for bad in [
            r#"{"a":1,"b":{"c":1,"c":2}}"#,
            "{} {}",
            "",
            "{\"a\":\u{1}}",
            "[123456789012345678901234]",
            &deep,
            &very_deep,
        ] {
            assert!(Json::parse(bad.as_bytes()).is_err(), "{bad:.40}");
        }
    }
}
