//! What amibus can and cannot see of a server: the `ami.link.*` messages.
//!
//! Link messages take their place in the server's sequence, so that their order against events is exact. A gap that
//! concerns one bus alone takes the number of the last message that the bus lost.

use std::time::SystemTime;

use amibus_contract::{Kind, Message};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{normalize::Notice, spool::Lost, writer::Writer};

/// What was not seen of Asterisk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// `disconnected` or `skipped`.
    pub reason: &'static str,
    /// How many events, where that can be told.
    pub missed: Option<u64>,
    /// Asterisk's own numbers, where it gives them: the missed ones are among these. All are, where they are as many.
    pub range: Option<(u64, u64)>,
    /// What was missed was not sent before.
    pub from: SystemTime,
    /// Nor after.
    pub until: SystemTime,
}

/// The link is up.
pub fn up(writer: &Writer, sequence: u64, asterisk: &str, boot: Option<&str>, resumed: bool) -> Message {
    let data = json!({ "state": "up", "asterisk": asterisk, "boot": boot, "resumed": resumed });
    message(writer, "up", sequence, &data)
}

/// The link is down. `seen` is when something was last seen of Asterisk.
pub fn down(writer: &Writer, sequence: u64, reason: &str, seen: Option<SystemTime>) -> Message {
    let seen = seen.and_then(time);
    message(writer, "down", sequence, &json!({ "state": "down", "reason": reason, "seen": seen }))
}

/// Something was not seen, by no bus.
pub fn gap(writer: &Writer, sequence: u64, gap: &Gap) -> Message {
    let data = json!({
        "state": "gap",
        "reason": gap.reason,
        "missed": gap.missed,
        "first": gap.range.map(|(first, _)| first),
        "last": gap.range.map(|(_, last)| last),
        "from": time(gap.from),
        "until": time(gap.until),
        "bus": null,
    });
    message(writer, "gap", sequence, &data)
}

/// The items of one list action, as they are at this place in the sequence. `items` are `data` objects, JSON.
pub fn snapshot(writer: &Writer, sequence: u64, list: &str, items: &[Vec<u8>]) -> Message {
    let head = json!({ "state": "snapshot", "list": list, "at": format!("{sequence:020}") });
    let mut data = head.to_string().into_bytes();
    data.pop();
    data.extend_from_slice(b",\"items\":[");
    data.extend_from_slice(&items.join(&b','));
    data.extend_from_slice(b"]}");
    writer.notice(&notice("snapshot", &data), sequence, SystemTime::now())
}

/// What one bus will not get, since the spool was full or damaged. It stands where the last lost message would, or
/// right after it where the bus may have had that one; its id is the same whenever it is told again.
pub fn dropped(writer: &Writer, bus: &str, lost: &Lost) -> Message {
    let reason = lost.reason.as_str();
    let data = json!({
        "state": "gap",
        "reason": reason,
        "missed": lost.count(),
        "first": lost.first,
        "last": lost.last_lost(),
        "from": time(lost.from),
        "until": time(lost.until),
        "bus": bus,
    });
    let loss = format!("{bus}-{reason}-{}", lost.first);
    writer.notice_of_loss(&loss, &notice("gap", data.to_string().as_bytes()), lost.last, lost.until)
}

fn message(writer: &Writer, state: &str, sequence: u64, data: &Value) -> Message {
    writer.notice(&notice(state, data.to_string().as_bytes()), sequence, SystemTime::now())
}

fn notice<'a>(state: &'a str, data: &'a [u8]) -> Notice<'a> {
    Notice { kind: Kind::Link, name: state, subject: None, key: None, correlation: None, data }
}

/// RFC 3339 in UTC with microseconds.
fn time(at: SystemTime) -> Option<String> {
    Timestamp::try_from(at).ok().map(|at| format!("{at:.6}"))
}
