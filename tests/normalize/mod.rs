//! AMI to JSON and back: nothing is lost, and what services read stays what it is.

mod arbitrary;
mod corpus;
mod golden;
mod live;
mod python;
mod schema;
mod strange;
mod table;
mod validate;

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use amibus::normalize::{self, Encoded, Profile, Stamp, restore};
use amibus_ami::Frame;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// 2026-11-21T00:00:00.5Z.
const RECEIVED: Duration = Duration::from_millis(1_795_219_200_500);

fn profile() -> Profile {
    Profile::new("pbx1", None).expect("a valid profile")
}

fn stamp() -> Stamp<'static> {
    Stamp {
        sequence: 42,
        received: UNIX_EPOCH + RECEIVED,
        given: None,
        boot: None,
        number: None,
        log: "log-1",
    }
}

/// A message from lines that end in LF.
fn wire(lines: &str) -> Vec<u8> {
    lines.trim_end_matches('\n').replace('\n', "\r\n").into_bytes()
}

fn encode(raw: &[u8]) -> (Encoded, Vec<u8>) {
    let mut out = Vec::new();
    let encoded = normalize::event(&profile(), Frame::parse(raw), &stamp(), &mut out);
    (encoded, out)
}

/// The text of `data` of a message.
fn data(raw: &[u8]) -> String {
    let mut out = Vec::new();
    normalize::data(&profile(), Frame::parse(raw), &mut out);
    String::from_utf8(out).expect("UTF-8")
}

/// Encodes a message, and fails unless it is JSON without a repeated key, its attributes are found again, and the
/// message is rebuilt from it byte for byte.
fn check(raw: &[u8]) -> Result<(), String> {
    let (encoded, body) = encode(raw);
    let said = || format!("{}\n{}", raw.escape_ascii(), String::from_utf8_lossy(&body));
    serde_json::from_slice::<NoRepeats>(&body).map_err(|error| format!("{error}: {}", said()))?;
    if normalize::read(&body).as_ref() != Ok(&encoded) {
        return Err(format!("the envelope is not found again: {}", said()));
    }
    let whole: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let data = data(raw);
    if serde_json::from_str::<Value>(&data).ok().as_ref() != whole.get("data") {
        return Err(format!("data differs: {}", said()));
    }
    let lines = restore::restore_json(data.as_bytes()).map_err(|error| format!("{error}: {}", said()))?;
    if restore::message(&lines) != raw {
        return Err(format!("rebuilt {}: {}", restore::message(&lines).escape_ascii(), said()));
    }
    check_without_order(raw, &whole)
}

/// Readers that sort keys get the same lines, in the order of the names.
fn check_without_order(raw: &[u8], whole: &Value) -> Result<(), String> {
    let data = whole.get("data").ok_or("no data")?;
    let lines = normalize::restore(data).map_err(|error| format!("{error}: {data}"))?;
    let mut rebuilt: Vec<_> = lines.iter().map(|line| restore::message(std::slice::from_ref(line))).collect();
    let mut sent: Vec<_> = Frame::parse(raw)
        .headers()
        .map(|header| {
            let mut line = Vec::new();
            header.write_line(&mut line);
            line
        })
        .collect();
    rebuilt.sort();
    sent.sort();
    if rebuilt == sent { Ok(()) } else { Err(format!("other lines: {data}")) }
}

/// Any JSON in which no object has a key twice.
struct NoRepeats;

impl<'de> Deserialize<'de> for NoRepeats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for NoRepeats {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, _)) = map.next_entry::<String, Self>()? {
            if !keys.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("the key {key:?} twice")));
            }
        }
        Ok(self)
    }
}
