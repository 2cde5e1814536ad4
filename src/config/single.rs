//! The tables that are given once or not at all: `[spool]`, `[command]`, `[http]`, `[log]`, `[shutdown]`.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

use amibus_contract::{Context, message::check_prefix};

use super::{
    keys::{COMMAND, HTTP, LOG, SHUTDOWN, SPOOL},
    rules,
    tree::{Origin, Raw, Table},
    units,
    walker::{Faults, Section, walk},
};
use crate::command::{pace, policy};

/// The least that may be kept for a server, in bytes.
pub const MIN_SPOOL_BYTES: u64 = 1024 * 1024;
/// The least and the greatest `max_command_bytes`.
pub const COMMAND_BYTES: (u64, u64) = (256, 16 * 1024 * 1024);

/// The least time after which the owner of a claim may count as gone: its renewals need some.
const LEAST_TAKEOVER: Duration = Duration::from_secs(3);
/// A shared claim is kept for so many times the takeover time at least: its owner renews it within each.
const TAKEOVERS_KEPT: u32 = 3;

/// `[spool]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// The folder for what must survive the process.
    pub dir: PathBuf,
    /// How much of each server's events is kept.
    pub max_bytes: u64,
    /// How long they are kept for a bus that does not take them.
    pub max_age: Duration,
    /// How much a loss of power may cost.
    pub flush_interval: Duration,
}

/// `[command]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandConfig {
    /// How many commands for one server are worked on at once.
    pub concurrency: usize,
    /// The longest command taken.
    pub max_command_bytes: usize,
    /// How long after its arrival a command without a deadline may be sent.
    pub default_deadline: Duration,
    /// How long to wait for an OriginateResponse.
    pub final_timeout: Duration,
    /// How long outcomes are kept.
    pub journal_max_age: Duration,
    /// How long the owner of a shared claim may be silent.
    pub claim_takeover: Duration,
    /// What commands may do; empty: nothing.
    pub allow: Vec<policy::Rule>,
    /// How many calls a second, and how many at once; empty: any number.
    pub pace: Vec<pace::Limit>,
}

/// `[http]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Where to listen; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl LogFormat {
    /// The format of this word, `auto` for any other.
    pub fn parse(word: &str) -> Self {
        match word {
            "text" => Self::Text,
            "json" => Self::Json,
            _ => Self::Auto,
        }
    }
}

/// `[log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// A level or directives, valid.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long to drain.
    pub drain: Duration,
}

/// Checks a table that is given once or not at all.
fn section(
    root: &Table,
    name: &'static str,
    keys: &'static [amibus_contract::Key],
    others: &[&'static str],
    faults: &mut Faults<'_>,
) -> Section {
    let nothing = Table::default();
    match root.0.get(name) {
        None => walk(&nothing, &Origin::File(0), name, keys, others, faults),
        Some(entry) => match &entry.node.raw {
            Raw::Table(table) => walk(table, &entry.node.origin, name, keys, others, faults),
            other => {
                faults.note(&entry.key, name, format!("must be a table [{name}], not {}", other.what()));
                walk(&nothing, &entry.key, name, keys, others, faults)
            }
        },
    }
}

pub(super) fn context(top: &Section, faults: &mut Faults<'_>) -> Context {
    let prefix = top.values.text("prefix").unwrap_or_default().to_owned();
    if let Err(error) = check_prefix(&prefix) {
        top.note(faults, "prefix", error.to_string());
    }
    let instance = top.values.text("name").unwrap_or_default().to_owned();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if instance.is_empty() || instance.len() > 64 || !instance.chars().all(plain) {
        top.note(faults, "name", "must be 1 to 64 of [A-Za-z0-9_-]");
    }
    Context { prefix, instance, ..Context::default() }
}

/// As configured, or by the cores and by how many `lanes` (pairs of a server and a bus) there are.
pub(super) fn worker_threads(top: &Section, lanes: usize) -> NonZeroUsize {
    let given = top.values.integer("worker_threads").and_then(|count| usize::try_from(count).ok());
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    given.and_then(NonZeroUsize::new).unwrap_or_else(|| workers_for(lanes, cores))
}

/// The runtime wakes one thread more than it needs for each wake from outside, while it has one: at 10,000 events a
/// second to NATS that is a sixth to a third of what amibus takes. And most run beside a PBX, which needs its cores itself.
fn workers_for(lanes: usize, cores: NonZeroUsize) -> NonZeroUsize {
    NonZeroUsize::new(lanes.min(cores.get() / 2)).unwrap_or(NonZeroUsize::MIN)
}

impl CommandConfig {
    /// How long a shared claim must be kept at least: as long as the journal knows the command, and until its owner counts
    /// as gone, some times over.
    pub(super) fn claims_least_age(&self) -> Duration {
        self.journal_max_age.max(self.claim_takeover * TAKEOVERS_KEPT)
    }
}

pub(super) fn command(root: &Table, servers: &[&str], faults: &mut Faults<'_>) -> CommandConfig {
    let section = section(root, "command", COMMAND, &["allow", "pace"], faults);
    let (least, most) = COMMAND_BYTES;
    at_least(&section, "max_command_bytes", least, faults);
    if section.values.size("max_command_bytes").is_some_and(|bytes| bytes > most) {
        section.note(faults, "max_command_bytes", format!("must be at most {}", units::show_size(most)));
    }
    let (mut allow, mut pace) = (Vec::new(), Vec::new());
    if let Some(Raw::Table(table)) = root.0.get("command").map(|entry| &entry.node.raw) {
        allow = rules::allows(table.0.get("allow"), servers, faults);
        pace = super::pace::limits(table.0.get("pace"), servers, faults);
    }
    let duration = |key: &str| section.values.duration(key).unwrap_or_default();
    if section.values.duration("claim_takeover").is_some_and(|within| within < LEAST_TAKEOVER) {
        section.note(faults, "claim_takeover", format!("must be at least {} s", LEAST_TAKEOVER.as_secs()));
    }
    for key in ["default_deadline", "final_timeout", "journal_max_age"] {
        if section.values.duration(key) == Some(Duration::ZERO) {
            section.note(faults, key, "must be longer than nothing");
        }
    }
    let size = section.values.size("max_command_bytes").and_then(|bytes| usize::try_from(bytes).ok());
    let count = section.values.integer("concurrency").and_then(|count| usize::try_from(count).ok());
    CommandConfig {
        concurrency: count.unwrap_or(1),
        max_command_bytes: size.unwrap_or_default(),
        default_deadline: duration("default_deadline"),
        final_timeout: duration("final_timeout"),
        journal_max_age: duration("journal_max_age"),
        claim_takeover: duration("claim_takeover"),
        allow,
        pace,
    }
}

pub(super) fn http(root: &Table, faults: &mut Faults<'_>) -> Http {
    let section = section(root, "http", HTTP, &[], faults);
    let listen = section.values.text("listen").and_then(|text| match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let message = format!("must be an address and a port, e.g. \"127.0.0.1:9438\", not {text:?}");
            section.note(faults, "listen", message);
            None
        }
    });
    Http { listen }
}

pub(super) fn log(root: &Table, faults: &mut Faults<'_>) -> Log {
    let section = section(root, "log", LOG, &[], faults);
    let level = section.values.text("level").unwrap_or("info").to_owned();
    if let Err(message) = crate::logging::check(&level) {
        section.note(faults, "level", message);
    }
    Log { level, format: LogFormat::parse(section.values.text("format").unwrap_or_default()) }
}

pub(super) fn spool(root: &Table, faults: &mut Faults<'_>) -> Spool {
    let section = section(root, "spool", SPOOL, &[], faults);
    at_least(&section, "max_bytes", MIN_SPOOL_BYTES, faults);
    Spool {
        dir: section.values.text("dir").unwrap_or_default().into(),
        max_bytes: section.values.size("max_bytes").unwrap_or_default(),
        max_age: section.values.duration("max_age").unwrap_or_default(),
        flush_interval: section.values.duration("flush_interval").unwrap_or_default(),
    }
}

pub(super) fn shutdown(root: &Table, faults: &mut Faults<'_>) -> Shutdown {
    let section = section(root, "shutdown", SHUTDOWN, &[], faults);
    Shutdown { drain: section.values.duration("drain").unwrap_or_default() }
}

fn at_least(section: &Section, key: &str, least: u64, faults: &mut Faults<'_>) {
    if section.values.size(key).is_some_and(|bytes| bytes < least) {
        section.note(faults, key, format!("must be at least {}", units::show_size(least)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_workers_than_have_something_to_do_or_half_the_cores() {
        let workers = |lanes, cores| workers_for(lanes, NonZeroUsize::new(cores).expect("some")).get();
        assert_eq!([workers(1, 1), workers(1, 16), workers(3, 16), workers(1_000, 16)], [1, 1, 3, 8]);
        assert_eq!([workers(1_000, 1), workers(1_000, 2), workers(1_000, 3), workers(2, 4)], [1, 1, 1, 2]);
    }
}
