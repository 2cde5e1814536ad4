//! Which channels and bridges are up, read off the events as they are published.
//!
//! Recorded and originated calls are thereby listed alike. Limits: [`CHANNELS_MAX`], [`BRIDGES_MAX`],
//! [`ENDED_MAX`]; past them the newest is not listed, or the oldest forgotten.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::event::{Event, lines, push_line};

/// Channels listed at most.
pub(crate) const CHANNELS_MAX: usize = 100_000;
/// Bridges listed at most.
pub(crate) const BRIDGES_MAX: usize = 100_000;
/// Calls remembered as ended by a Hangup action, so that the rest of their script is not played.
pub(crate) const ENDED_MAX: usize = 4_096;

const SNAPSHOT_HEADERS: &[&str] = &[
    "Channel",
    "ChannelState",
    "ChannelStateDesc",
    "CallerIDNum",
    "CallerIDName",
    "ConnectedLineNum",
    "ConnectedLineName",
    "Language",
    "AccountCode",
    "Context",
    "Exten",
    "Priority",
    "Uniqueid",
    "Linkedid",
    "ChanVariable",
];

/// A channel that is up.
#[derive(Debug, Clone)]
pub(crate) struct LiveChannel {
    pub(crate) name: String,
    pub(crate) uniqueid: String,
    pub(crate) linkedid: String,
    /// The header lines of its last snapshot.
    pub(crate) snapshot: Vec<u8>,
    pub(crate) application: String,
    pub(crate) application_data: String,
    pub(crate) bridge: String,
    pub(crate) since: Instant,
}

/// The channels and bridges that are up, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Floor {
    channels: HashMap<String, LiveChannel>,
    order: u64,
    places: HashMap<String, u64>,
    bridges: Vec<(String, Vec<u8>)>,
    ended: VecDeque<String>,
    processed_calls: u64,
}

impl Floor {
    /// Follows one event.
    pub(crate) fn observe(&mut self, event: &Event) {
        match event.name.as_str() {
            "BridgeCreate" | "BridgeEnter" | "BridgeLeave" => self.bridge(event),
            "BridgeDestroy" => {
                let gone = event.header("BridgeUniqueid").unwrap_or_default();
                self.bridges.retain(|(id, _)| id != gone);
                return;
            }
            _ => {}
        }
        let (Some(name), Some(uniqueid)) = (event.header("Channel"), event.header("Uniqueid")) else {
            return;
        };
        match event.name.as_str() {
            "Hangup" => {
                self.channels.remove(uniqueid);
                self.places.remove(uniqueid);
            }
            "Newchannel" => self.insert(name, uniqueid, event),
            other => self.update(name, uniqueid, other, event),
        }
    }

    /// Channels in the order in which they came.
    pub(crate) fn channels(&self) -> Vec<&LiveChannel> {
        let mut all: Vec<&LiveChannel> = self.channels.values().collect();
        all.sort_by_key(|channel| self.places.get(&channel.uniqueid));
        all
    }

    pub(crate) fn by_uniqueid(&self, uniqueid: &str) -> Option<&LiveChannel> {
        self.channels.get(uniqueid)
    }

    /// A channel by its name or, as Asterisk accepts too, by its Uniqueid.
    pub(crate) fn find(&self, name_or_uniqueid: &str) -> Option<&LiveChannel> {
        self.channels.get(name_or_uniqueid).or_else(|| {
            self.channels.values().find(|channel| channel.name.eq_ignore_ascii_case(name_or_uniqueid))
        })
    }

    /// The `Bridge...` header lines of each bridge.
    pub(crate) fn bridges(&self) -> impl Iterator<Item = &[u8]> {
        self.bridges.iter().map(|(_, lines)| lines.as_slice())
    }

    /// Bridges that only channels of this call are in.
    pub(crate) fn bridges_of(&self, linkedid: &str) -> Vec<(String, Vec<u8>)> {
        let mine = |id: &str| self.channels.values().any(|c| c.bridge == id && c.linkedid == linkedid);
        let others = |id: &str| self.channels.values().any(|c| c.bridge == id && c.linkedid != linkedid);
        self.bridges.iter().filter(|(id, _)| mine(id) && !others(id)).cloned().collect()
    }

    /// The rest of this call's script is not played.
    pub(crate) fn end(&mut self, linkedid: &str) {
        if self.ended.len() >= ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(linkedid.to_owned());
    }

    pub(crate) fn has_ended(&self, linkedid: &str) -> bool {
        self.ended.iter().any(|ended| ended == linkedid)
    }

    /// The same Linkedid begins anew.
    pub(crate) fn begin(&mut self, linkedid: &str) {
        self.ended.retain(|ended| ended != linkedid);
    }

    pub(crate) fn processed_calls(&self) -> u64 {
        self.processed_calls
    }

    fn insert(&mut self, name: &str, uniqueid: &str, event: &Event) {
        if self.channels.len() >= CHANNELS_MAX {
            return;
        }
        self.order += 1;
        self.processed_calls += 1;
        self.places.insert(uniqueid.to_owned(), self.order);
        self.channels.insert(
            uniqueid.to_owned(),
            LiveChannel {
                name: name.to_owned(),
                uniqueid: uniqueid.to_owned(),
                linkedid: event.header("Linkedid").unwrap_or(uniqueid).to_owned(),
                snapshot: snapshot(&event.body),
                application: String::new(),
                application_data: String::new(),
                bridge: String::new(),
                since: Instant::now(),
            },
        );
    }

    fn update(&mut self, name: &str, uniqueid: &str, event_name: &str, event: &Event) {
        let Some(channel) = self.channels.get_mut(uniqueid) else { return };
        name.clone_into(&mut channel.name);
        channel.snapshot = snapshot(&event.body);
        if let Some(linkedid) = event.header("Linkedid") {
            linkedid.clone_into(&mut channel.linkedid);
        }
        match event_name {
            "Newexten" => {
                channel.application = event.header("Application").unwrap_or_default().to_owned();
                channel.application_data = event.header("AppData").unwrap_or_default().to_owned();
            }
            "BridgeEnter" => channel.bridge = event.header("BridgeUniqueid").unwrap_or_default().to_owned(),
            "BridgeLeave" => channel.bridge.clear(),
            _ => {}
        }
    }

    fn bridge(&mut self, event: &Event) {
        let Some(id) = event.header("BridgeUniqueid") else { return };
        let mut block = Vec::new();
        for line in lines(&event.body).filter(|line| line.starts_with(b"Bridge")) {
            block.extend_from_slice(line);
            block.extend_from_slice(b"\r\n");
        }
        if let Some((_, known)) = self.bridges.iter_mut().find(|(known, _)| known == id) {
            *known = block;
        } else if self.bridges.len() < BRIDGES_MAX {
            self.bridges.push((id.to_owned(), block));
        }
    }
}

impl LiveChannel {
    /// The channel's line block with another state of the call after it, e.g. for a Hangup.
    pub(crate) fn hangup(&self, cause: u16, text: &str) -> Event {
        let mut event = Event::new("Hangup", "call,all").lines(&self.snapshot);
        push_line(&mut event.body, "Cause", &cause.to_string());
        push_line(&mut event.body, "Cause-txt", text);
        event
    }
}

fn snapshot(body: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(512);
    for line in lines(body) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if SNAPSHOT_HEADERS.iter().any(|header| header.as_bytes() == name) {
            block.extend_from_slice(line);
            block.extend_from_slice(b"\r\n");
        }
    }
    block
}
