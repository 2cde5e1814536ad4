//! The configuration described for people and for machines, from the same tables that check it.

use std::fmt::Write as _;

use amibus_contract::{Key, KeyKind};
use serde_json::{Map, Value, json};

use super::keys::{GROUPS, Group};
use crate::buses::{REGISTRY, Registration};

const INTRODUCTION: &str = "\
# Configuration

<!-- Made from the tables that check the file: `amibus schema reference`. Do not edit by hand. -->

amibus reads one TOML file: `amibus run -c amibus.toml`. `amibus check -c amibus.toml` tells everything that is wrong
with it, each with file, line and column, and what amibus understood. `amibus.example.toml` shows every key.

**Durations** are a number and a unit: `\"250ms\"`, `\"10s\"`, `\"5min\"`, `\"2h\"`, `\"7d\"`. **Sizes** are a number
and a unit, `\"512KiB\"`, `\"10GiB\"`, or a plain number of bytes.

**A secret** is a string, `{ env = \"NAME\" }` (from an environment variable) or `{ file = \"/path\" }` (from a file;
its final newline is left out). It is never printed.

**Environment variables** go before the file: `AMIBUS_`, the table, `__`, the key, in capitals; a dot is `__` too. So
`AMIBUS_BUS__NATS__URL` is `url` in `[bus.nats]`, and `AMIBUS_HTTP__LISTEN` is `listen` in `[http]`. Keys of a server
go by its name in the file, with `_` for `-`: `AMIBUS_SERVER__PBX1__SECRET`. Lists are separated by commas, or
written as in the file; a table is written as in the file: `AMIBUS_SERVER__PBX1__SNAPSHOT='[]'`,
`AMIBUS_BUS__KAFKA__LIBRDKAFKA='{ \"linger.ms\" = 5 }'`. They take the place of what the file says there. A variable
that begins with `AMIBUS_` and means nothing is an error. `[[filter]]`, `[[command.allow]]` and `[[command.pace]]`
are given in the file only.
";

/// What is read as a duration, as a pattern of ECMA 262.
const DURATION: &str =
    r"^\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*([mM]?[sS]|[sS][eE][cC]|[mM]([iI][nN])?|[hH]|[dD])\s*$";
/// What is read as a size.
const SIZE: &str = r"^\s*([0-9]+|([0-9]+\.?[0-9]*|\.[0-9]+)\s*([kKmMgGtT][iI]?)?[bB])\s*$";

/// The reference in Markdown.
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    for group in GROUPS {
        let heading =
            if group.name.is_empty() { "At the top".to_owned() } else { format!("`{}`", group.heading()) };
        section(&mut out, &heading, group.doc, group.keys);
    }
    for bus in REGISTRY {
        let doc = format!("The bus {}; leave the table out for a process without it.", bus.name);
        section(&mut out, &format!("`[bus.{}]`", bus.name), &doc, bus.keys);
    }
    out
}

fn section(out: &mut String, heading: &str, doc: &str, keys: &[Key]) {
    let _ =
        write!(out, "\n## {heading}\n\n{doc}\n\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let default = match (key.default, key.required) {
            (Some(default), _) => format!("`{}`", shown(key.kind, default)),
            (None, true) => "**required**".to_owned(),
            (None, false) => "none".to_owned(),
        };
        let doc = key.doc.replace('|', "\\|");
        let _ = writeln!(out, "| `{}` | {} | {default} | {doc} |", key.name, kind(key.kind));
    }
}

/// A default as it stands in the file.
fn shown(kind: KeyKind, default: &str) -> String {
    match kind {
        KeyKind::Text | KeyKind::Choice(_) | KeyKind::Duration => format!("{default:?}"),
        KeyKind::Size if default.parse::<u64>().is_err() => format!("{default:?}"),
        KeyKind::TextList if !default.starts_with('[') => {
            format!("{:?}", default.split(',').map(str::trim).filter(|t| !t.is_empty()).collect::<Vec<_>>())
        }
        _ => default.to_owned(),
    }
}

fn kind(kind: KeyKind) -> String {
    match kind {
        KeyKind::Text => "string".to_owned(),
        KeyKind::Secret => "secret".to_owned(),
        KeyKind::Flag => "`true` or `false`".to_owned(),
        KeyKind::Integer { min, max } => format!("whole number, {min} to {max}"),
        KeyKind::Number { min, max } => format!("number, {min} to {max}"),
        KeyKind::Duration => "duration".to_owned(),
        KeyKind::Size => "size".to_owned(),
        KeyKind::Choice(words) => {
            words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
        }
        KeyKind::TextList => "list of strings".to_owned(),
        KeyKind::TextMap => "table of strings".to_owned(),
        KeyKind::ListMap => "table of lists of strings".to_owned(),
    }
}

/// The configuration as a JSON Schema (2020-12), for editors that check TOML against one.
pub fn json_schema() -> Value {
    let mut root = Map::new();
    for group in GROUPS {
        let Group { name, repeated, doc, keys } = group;
        let mut table = table_schema(keys);
        if name.is_empty() {
            if let Some(Value::Object(top)) = table.get_mut("properties") {
                root.append(top);
            }
            continue;
        }
        set(&mut table, "description", json!(doc));
        let mut value = if repeated { json!({ "type": "array", "items": table }) } else { table };
        if name == "server" {
            set(&mut value, "minItems", json!(1));
        }
        match name.split_once('.') {
            None => {
                root.insert(name.to_owned(), value);
            }
            Some((outer, inner)) => {
                if let Some(properties) = root.get_mut(outer).and_then(|outer| outer.get_mut("properties")) {
                    set(properties, inner, value);
                }
            }
        }
    }
    let buses: Map<String, Value> = REGISTRY.iter().map(bus_schema).collect();
    let bus =
        json!({ "type": "object", "properties": buses, "additionalProperties": false, "minProperties": 1 });
    root.insert("bus".to_owned(), bus);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of amibus",
        "type": "object",
        "properties": root,
        // A bus may come whole from the environment.
        "required": ["server"],
        "additionalProperties": false,
    })
}

fn bus_schema(bus: &Registration) -> (String, Value) {
    (bus.name.to_owned(), table_schema(bus.keys))
}

/// Whether a key must stand in the file is left out for secrets and other values that may come from the environment.
fn table_schema(keys: &[Key]) -> Value {
    let mut table = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    for key in keys {
        let mut value = kind_schema(key.kind);
        set(&mut value, "description", json!(key.doc));
        place(&mut table, key.name, value);
    }
    table
}

fn place(table: &mut Value, name: &str, value: Value) {
    let Some(properties) = table.get_mut("properties").and_then(Value::as_object_mut) else { return };
    match name.split_once('.') {
        None => {
            properties.insert(name.to_owned(), value);
        }
        Some((outer, inner)) => {
            let within = properties.entry(outer).or_insert_with(
                || json!({ "type": "object", "properties": {}, "additionalProperties": false }),
            );
            place(within, inner, value);
        }
    }
}

fn set(value: &mut Value, key: &str, to: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(key.to_owned(), to);
    }
}

fn kind_schema(kind: KeyKind) -> Value {
    let strings = json!({ "type": "array", "items": { "type": "string" } });
    match kind {
        KeyKind::Text => json!({ "type": "string" }),
        KeyKind::Secret => json!({ "oneOf": [
            { "type": "string" },
            { "type": "object", "properties": { "env": { "type": "string" } }, "required": ["env"], "additionalProperties": false },
            { "type": "object", "properties": { "file": { "type": "string" } }, "required": ["file"], "additionalProperties": false },
        ]}),
        KeyKind::Flag => json!({ "type": "boolean" }),
        KeyKind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        KeyKind::Number { min, max } => json!({ "type": "number", "minimum": min, "maximum": max }),
        KeyKind::Duration => json!({ "type": "string", "pattern": DURATION }),
        KeyKind::Size => json!({ "oneOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": SIZE },
        ]}),
        KeyKind::Choice(words) => json!({ "enum": words }),
        KeyKind::TextList => json!({ "oneOf": [{ "type": "string" }, strings] }),
        KeyKind::TextMap => json!({ "type": "object" }),
        KeyKind::ListMap => json!({ "type": "object" }),
    }
}
