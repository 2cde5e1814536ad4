//! Whether the numbers of one scrape add up, for each server and bus. Knows nothing of amibus but its metrics' text,
//! and needs nothing but the standard library: other test programs take it by `#[path]`.
//!
//! ```text
//! events_read + messages_own + messages_recovered
//!     = events_filtered + messages_published + messages_dead_lettered + messages_dropped + messages_waiting
//! ```

use std::collections::BTreeMap;

/// The numbers of one server and bus in one scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) server: String,
    pub(crate) bus: String,
    pub(crate) read: u64,
    pub(crate) own: u64,
    pub(crate) recovered: u64,
    pub(crate) filtered: u64,
    pub(crate) published: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) dropped: u64,
    pub(crate) waiting: u64,
}

impl Lane {
    /// What came in.
    pub(crate) fn given(&self) -> u64 {
        self.read + self.own + self.recovered
    }

    /// What became of it.
    pub(crate) fn found(&self) -> u64 {
        self.filtered + self.published + self.dead_lettered + self.dropped + self.waiting
    }
}

/// The lanes in the text of a scrape, each of which adds up.
///
/// # Errors
/// In words: a lane that does not add up, one that lacks a number, or a text without any.
pub(crate) fn check(text: &str) -> Result<Vec<Lane>, String> {
    let lanes = lanes(text)?;
    if lanes.is_empty() {
        return Err("the scrape has no lane".to_owned());
    }
    match lanes.iter().find(|lane| lane.given() != lane.found()) {
        Some(lane) => {
            Err(format!("{} came in and {} are accounted for: {lane:?}", lane.given(), lane.found()))
        }
        None => Ok(lanes),
    }
}

/// The lanes in the text of a scrape, whether or not they add up.
///
/// # Errors
/// In words: a number that is missing, or is none.
pub(crate) fn lanes(text: &str) -> Result<Vec<Lane>, String> {
    let samples = samples(text)?;
    let mut lanes = Vec::new();
    for (_, server, bus) in samples.keys().filter(|(name, ..)| *name == "amibus_messages_waiting") {
        let get = |name: &'static str, bus: &str| {
            let found = samples.get(&(name, (*server).to_owned(), bus.to_owned()));
            found.copied().ok_or_else(|| format!("no {name} of server {server:?}, bus {bus:?}"))
        };
        lanes.push(Lane {
            server: server.clone(),
            bus: bus.clone(),
            read: get("amibus_events_read_total", "")?,
            filtered: get("amibus_events_filtered_total", "")?,
            own: get("amibus_messages_own_total", "")?,
            recovered: get("amibus_messages_recovered_total", bus)?,
            published: get("amibus_messages_published_total", bus)?,
            dead_lettered: get("amibus_messages_dead_lettered_total", bus)?,
            dropped: get("amibus_messages_dropped_total", bus)?,
            waiting: get("amibus_messages_waiting", bus)?,
        });
    }
    Ok(lanes)
}

type Samples<'a> = BTreeMap<(&'a str, String, String), u64>;

/// By name, server and bus, those that have a server and no other label beside the bus.
fn samples(text: &str) -> Result<Samples<'_>, String> {
    let mut samples = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else { continue };
        let Some((labels, value)) = rest.rsplit_once("} ") else { return Err(format!("no sample: {line}")) };
        let (mut server, mut bus, mut others) = (None, String::new(), false);
        for label in labels.split(',') {
            match label.split_once('=') {
                Some(("server", value)) => server = Some(value.trim_matches('"').to_owned()),
                Some(("bus", value)) => bus = value.trim_matches('"').to_owned(),
                _ => others = true,
            }
        }
        let Some(server) = server.filter(|_| !others) else { continue };
        let counts = name.starts_with("amibus_events_") || name.starts_with("amibus_messages_");
        if counts {
            let value = value.parse().map_err(|_| format!("no whole number: {line}"))?;
            samples.insert((name, server, bus), value);
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(published: u64, waiting: u64) -> String {
        let mut out = String::from("# TYPE amibus_messages_waiting gauge\n");
        for (name, value) in
            [("events_read_total", 10), ("events_filtered_total", 3), ("messages_own_total", 2)]
        {
            out.push_str(&format!("amibus_{name}{{server=\"pbx1\"}} {value}\n"));
        }
        for (name, value) in [
            ("messages_recovered_total", 4),
            ("messages_published_total", published),
            ("messages_dead_lettered_total", 1),
            ("messages_dropped_total", 2),
            ("messages_waiting", waiting),
        ] {
            out.push_str(&format!("amibus_{name}{{server=\"pbx1\",bus=\"nats\"}} {value}\n"));
        }
        out.push_str("amibus_gaps_total{server=\"pbx1\",bus=\"nats\",reason=\"dropped\"} 7\n# EOF\n");
        out
    }

    #[test]
    fn what_adds_up_is_taken() {
        let lanes = check(&text(9, 1)).expect("adds up");
        assert_eq!((lanes.len(), lanes[0].given(), lanes[0].bus.as_str()), (1, 16, "nats"));
    }

    #[test]
    fn what_does_not_add_up_is_found() {
        assert!(
            check(&text(10, 1)).expect_err("one too many").contains("16 came in and 17 are accounted for")
        );
        assert!(check(&text(9, 0)).is_err());
        let lacking = text(9, 1).replace("amibus_messages_dropped_total", "amibus_messages_lost_total");
        assert!(check(&lacking).expect_err("a number is missing").contains("dropped"));
        assert!(check("# EOF\n").is_err());
    }
}
