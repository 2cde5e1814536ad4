//! `[bus.NAME]`: the buses, by the tables of the registry.

use std::fmt;

use amibus_contract::{Context, SharedBridge, Values};

use super::{
    nearest::hint,
    tree::{Origin, Raw, Table},
    walker::{Faults, walk},
};
use crate::buses::{KNOWN, Open, Registration};

/// The messages of a batch where the bus has no key for it.
const DEFAULT_BATCH_MESSAGES: usize = 1024;
/// The bytes of a batch where the bus has no key for it.
const DEFAULT_BATCH_BYTES: usize = 1024 * 1024;

/// The bytes that all servers together may have on their way where the bus has no key for it.
const DEFAULT_TOTAL_BYTES: usize = 16 * 1024 * 1024;

/// One configured bus, opened: its values are right, and nothing was connected yet.
#[derive(Clone)]
pub struct Bus {
    /// The bus's name, e.g. `nats`.
    pub name: &'static str,
    /// Whether readiness needs it.
    pub required: bool,
    /// The most messages of a batch.
    pub batch_messages: usize,
    /// The most bytes of a batch.
    pub batch_bytes: usize,
    /// The most bytes that the batches of all servers have together, beyond [`crate::outlet::LANE_BYTES`] each.
    pub total_bytes: usize,
    /// All values.
    pub values: Values,
    /// The bridge.
    pub bridge: SharedBridge,
    /// How the bridge is made.
    open: Open,
}

impl Bus {
    /// Whether the bus is configured to bring commands: every bus has a key `commands`, a flag or an address.
    pub fn takes_commands(&self) -> bool {
        self.values.flag("commands") == Some(true) || self.values.text("commands").is_some()
    }

    /// Replaces the bridge by one that was never at work.
    pub(super) fn reopen(&mut self, context: &Context) -> Result<(), String> {
        self.bridge = (self.open)(&self.values, context).map_err(|problems| {
            let told = problems.iter().map(|problem| format!("{}: {}", problem.key, problem.message));
            format!("bus.{}: {}", self.name, told.collect::<Vec<_>>().join(", "))
        })?;
        Ok(())
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus")
            .field("name", &self.name)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

/// All `[bus.NAME]` tables, or the one that `only` names.
pub(super) fn buses(
    root: &Table,
    registry: &[Registration],
    only: Option<&str>,
    context: &Context,
    faults: &mut Faults<'_>,
) -> Vec<Bus> {
    let compiled: Vec<&str> = registry.iter().map(|bus| bus.name).collect();
    let Some(entry) = root.0.get("bus") else {
        let message = format!("no [bus.NAME]: amibus needs at least one bus of {}", compiled.join(", "));
        faults.note(&Origin::File(0), "", message);
        return Vec::new();
    };
    let Raw::Table(tables) = &entry.node.raw else {
        faults.note(
            &entry.node.origin,
            "bus",
            format!("must be tables [bus.NAME], not {}", entry.node.raw.what()),
        );
        return Vec::new();
    };
    let mut buses = Vec::new();
    for (name, entry) in &tables.0 {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let path = format!("bus.{name}");
        let Some(bus) = registry.iter().find(|bus| bus.name == name) else {
            faults.note(&entry.key, path, unknown(name, &compiled));
            continue;
        };
        match &entry.node.raw {
            Raw::Table(table) => {
                // Where the table's heading stands, rather than where its first key does.
                let here = &entry.node.origin;
                buses.extend(open(table, here, &path, bus, context, faults));
            }
            other => faults.note(&entry.node.origin, path, format!("must be a table, not {}", other.what())),
        }
    }
    buses
}

fn open(
    table: &Table,
    here: &Origin,
    path: &str,
    bus: &Registration,
    context: &Context,
    faults: &mut Faults<'_>,
) -> Option<Bus> {
    let before = faults.count();
    let section = walk(table, here, path, bus.keys, &[], faults);
    if faults.count() > before {
        return None;
    }
    let bridge = match (bus.open)(&section.values, context) {
        Ok(bridge) => bridge,
        Err(problems) => {
            section.problems(faults, problems);
            return None;
        }
    };
    let values = section.values;
    let messages = values.integer("batch_messages").and_then(|count| usize::try_from(count).ok());
    let size = |key| values.size(key).and_then(|bytes| usize::try_from(bytes).ok());
    Some(Bus {
        name: bus.name,
        required: values.flag("required").unwrap_or(true),
        batch_messages: messages.unwrap_or(DEFAULT_BATCH_MESSAGES).max(1),
        batch_bytes: size("batch_bytes").unwrap_or(DEFAULT_BATCH_BYTES).max(1),
        total_bytes: size("total_bytes").unwrap_or(DEFAULT_TOTAL_BYTES),
        values,
        bridge,
        open: bus.open,
    })
}

fn unknown(name: &str, compiled: &[&str]) -> String {
    if let Some((_, feature)) = KNOWN.iter().find(|(known, _)| *known == name) {
        return format!(
            "this amibus was built without the bus {name:?}; build it with the cargo feature {feature:?}"
        );
    }
    format!("unknown bus{}", hint(name, compiled.iter().copied()))
}
