//! The text that Prometheus reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use super::Metrics;
use crate::spool::{Account, LaneAccount, Status};

/// Every label that there may be: each takes its values from the configuration or from a closed list.
const LABELS: [&str; 7] = ["bus", "kind", "le", "outcome", "reason", "server", "version"];
/// What a name with a unit ends with.
const UNITS: [&str; 2] = ["_seconds", "_bytes"];

fn full() -> Metrics {
    let metrics = Metrics::default();
    for name in ["pbx1", "pbx2"] {
        let server = metrics.server(name);
        server.bytes_read.inc_by(700);
        server.link_up.set(1);
        server.gaps("skipped").inc();
        metrics.lane(name, "nats").gaps("dropped").inc();
        metrics.commands(name).finished("executed").inc();
        metrics.watch(name, vec!["nats"], || Some(account()));
    }
    metrics.bus("nats").latency(Duration::from_millis(3));
    metrics.bus("nats").faults("unreachable").inc();
    metrics
}

fn account() -> Account {
    let lane = LaneAccount {
        recovered: 2,
        published: 5,
        dead_lettered: 1,
        dropped: 3,
        waiting: 4,
        oldest: Some(SystemTime::now() - Duration::from_secs(90)),
    };
    let status =
        Status { bytes: 4096, segments: 2, unwritten_bytes: 17, failing: Some("no space".to_owned()) };
    Account { read: 14, filtered: 4, own: 1, lanes: vec![lane], status }
}

#[test]
fn everything_has_its_name() {
    let text = full().encode();
    for expected in [
        "amibus_events_read_total{server=\"pbx1\"} 14",
        "amibus_events_filtered_total{server=\"pbx1\"} 4",
        "amibus_messages_own_total{server=\"pbx1\"} 1",
        "amibus_messages_recovered_total{server=\"pbx2\",bus=\"nats\"} 2",
        "amibus_messages_published_total{server=\"pbx1\",bus=\"nats\"} 5",
        "amibus_messages_dead_lettered_total{server=\"pbx1\",bus=\"nats\"} 1",
        "amibus_messages_dropped_total{server=\"pbx1\",bus=\"nats\"} 3",
        "amibus_messages_waiting{server=\"pbx1\",bus=\"nats\"} 4",
        "amibus_spool_bytes{server=\"pbx1\"} 4096",
        "amibus_spool_unwritten_bytes{server=\"pbx1\"} 17",
        "amibus_spool_segments{server=\"pbx1\"} 2",
        "amibus_spool_failing{server=\"pbx1\"} 1",
        "amibus_read_bytes_total{server=\"pbx1\"} 700",
        "amibus_link_up{server=\"pbx1\"} 1",
        "amibus_gaps_total{server=\"pbx1\",bus=\"all\",reason=\"skipped\"} 1",
        "amibus_gaps_total{server=\"pbx1\",bus=\"all\",reason=\"disconnected\"} 0",
        "amibus_gaps_total{server=\"pbx1\",bus=\"nats\",reason=\"dropped\"} 1",
        "amibus_gaps_total{server=\"pbx1\",bus=\"nats\",reason=\"damaged\"} 0",
        "amibus_commands_total{server=\"pbx1\",outcome=\"executed\"} 1",
        "amibus_publish_latency_seconds_bucket{le=\"0.005\",bus=\"nats\"} 1",
        "amibus_publish_faults_total{bus=\"nats\",kind=\"unreachable\"} 1",
    ] {
        assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn the_oldest_waiting_message_ages_between_scrapes() {
    let text = full().encode();
    let name = "amibus_oldest_waiting_seconds{server=\"pbx1\",bus=\"nats\"} ";
    let value = text.lines().find_map(|line| line.strip_prefix(name)).expect("there");
    let seconds: f64 = value.parse().expect("a number");
    assert!((90.0..100.0).contains(&seconds), "{seconds}");
}

#[test]
fn a_spool_that_is_gone_has_no_series() {
    let metrics = Metrics::default();
    metrics.watch("pbx1", vec!["nats"], || None);
    assert!(!metrics.encode().contains("{server=\"pbx1\""));
}

/// What `promtool check metrics` complains of, and what OpenMetrics demands.
#[test]
fn names_follow_the_conventions() {
    let wrong = complaints(&full().encode());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_against_the_conventions_is_found() {
    for (text, expected) in [
        ("# TYPE amibus_a counter\namibus_a_total 1\n", "no HELP"),
        ("# HELP amibus_a A.\namibus_a 1\n", "no TYPE"),
        ("# HELP amibus_a A.\n# TYPE amibus_a counter\namibus_a 1\n", "a counter without _total"),
        ("# HELP amibus_a_total A.\n# TYPE amibus_a_total gauge\namibus_a_total 1\n", "_total"),
        ("# HELP amibus_aB A.\n# TYPE amibus_aB gauge\namibus_aB 1\n", "not in snake case"),
        ("# HELP amibus_a_ms A.\n# TYPE amibus_a_ms gauge\namibus_a_ms 1\n", "no base unit"),
        ("# HELP amibus_a A.\n# TYPE amibus_a gauge\namibus_a 1\namibus_a 2\n", "twice"),
        ("# HELP amibus_a A.\n# TYPE amibus_a gauge\namibus_a{id=\"1\"} 1\n", "label id"),
        ("# HELP amibus_a A.\n# TYPE amibus_a gauge\n# UNIT amibus_a seconds\namibus_a 1\n", "its unit"),
    ] {
        let wrong = complaints(text);
        assert!(wrong.iter().any(|one| one.contains(expected)), "{expected}: {wrong:?}");
    }
}

fn complaints(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |bad: bool, name: &str, what: &str| {
        if bad {
            wrong.push(format!("{name}: {what}"));
        }
    };
    let (mut helps, mut types, mut series) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (word, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let rest = words.next().unwrap_or_default();
            match word {
                "HELP" => say(rest.is_empty() || !helps.insert(name), name, "HELP is empty or there twice"),
                "TYPE" => say(types.insert(name, rest).is_some(), name, "TYPE is there twice"),
                "UNIT" => say(!name.ends_with(&format!("_{rest}")), name, "does not end with its unit"),
                _ => say(true, name, "an unknown comment"),
            }
            continue;
        }
        let (id, value) = line.rsplit_once(' ').unwrap_or_default();
        let (name, labels) = id.split_once('{').unwrap_or((id, "}"));
        say(!series.insert(id), id, "twice");
        say(value.parse::<f64>().is_err(), id, "no number");
        let snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        say(!name.starts_with("amibus_") || !name.chars().all(snake), name, "not in snake case");
        let family = ["_total", "_bucket", "_sum", "_count", "_info"]
            .iter()
            .find_map(|end| name.strip_suffix(end).filter(|family| types.contains_key(family)))
            .unwrap_or(name);
        say(!helps.contains(family), name, "no HELP");
        let kind = types.get(family).copied().unwrap_or_default();
        say(kind.is_empty(), name, "no TYPE");
        say(kind == "counter" && !name.ends_with("_total"), name, "a counter without _total");
        say(kind != "counter" && name.ends_with("_total"), name, "_total, and no counter");
        let no_base = ["_ms", "_millis", "_milliseconds", "_micros", "_minutes", "_kib", "_kb", "_mb"];
        say(no_base.iter().any(|end| family.ends_with(end)), name, "no base unit");
        say(kind == "histogram" && !UNITS.iter().any(|end| family.ends_with(end)), name, "no unit");
        for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
            let label = label.split('=').next().unwrap_or_default();
            say(!LABELS.contains(&label), name, &format!("label {label} may have any number of values"));
        }
    }
    wrong
}
