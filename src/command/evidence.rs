//! Evidence that an Originate ran: the channel that amibus chose for it, in the log or among the live channels.
//!
//! A command's ChannelId becomes its channel's `Uniqueid` (`main/manager.c`, `action_originate`), and no other command has
//! it. So one event with that Uniqueid proves that Asterisk took the Originate, whatever was lost in a crash.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    ops::ControlFlow,
    path::Path,
    time::{Duration, SystemTime},
};

use amibus_ami::Reply;
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    spool::scan::{self, Since},
    writer::Writer,
};

/// What begins the Uniqueid of every channel that amibus chose, as it stands in an event's JSON.
const OUR_UNIQUEID: &[u8] = b"\"Uniqueid\":\"amibus-";
/// How much earlier than a time of sending the log is read, for clocks that differ or were set meanwhile.
const CLOCK_MARGIN: Duration = Duration::from_secs(3600);

/// Events that prove calls: by ChannelId, an event's `data` as JSON.
pub(super) type Evidence = BTreeMap<String, Vec<u8>>;

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(rename = "Event", borrow)]
    event: Option<std::borrow::Cow<'a, str>>,
    #[serde(rename = "Uniqueid", borrow)]
    uniqueid: Option<std::borrow::Cow<'a, str>>,
}

/// Where the log is read for a call of which only the time is known at which it was sent, or one before it.
pub(super) fn sent_at(at: SystemTime) -> Since {
    Since::time(at.checked_sub(CLOCK_MARGIN).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Looks in the spool of `dir` for the channels of `wanted`, as far as `since` reads. The
/// `OriginateResponse` counts more than other events, for it tells what became of the call. Answers also the number from
/// which the next look may go on for what was not found.
///
/// # Errors
/// When the spool cannot be read.
pub(super) fn in_the_log(dir: &Path, since: Since, wanted: &[String]) -> io::Result<(Evidence, u64)> {
    let ours = memmem::Finder::new(OUR_UNIQUEID);
    let mut found: HashMap<&str, (bool, Vec<u8>)> = HashMap::new();
    let wanted: std::collections::HashSet<&str> = wanted.iter().map(String::as_str).collect();
    let read = scan::payloads(dir, since, |payload| {
        if ours.find(payload).is_none() {
            return ControlFlow::Continue(());
        }
        let Some((data, is_final, channel)) = parse(payload, &wanted) else {
            return ControlFlow::Continue(());
        };
        let known = found.entry(channel).or_default();
        if known.1.is_empty() || (is_final && !known.0) {
            *known = (is_final, data);
        }
        ControlFlow::Continue(())
    })?;
    Ok((found.into_iter().map(|(channel, (_, data))| (channel.to_owned(), data)).collect(), read))
}

fn parse<'a>(
    payload: &[u8],
    wanted: &std::collections::HashSet<&'a str>,
) -> Option<(Vec<u8>, bool, &'a str)> {
    let body: Body<'_> = serde_json::from_slice(payload).ok()?;
    let data: Data<'_> = serde_json::from_str(body.data.get()).ok()?;
    let channel = *wanted.get(data.uniqueid.as_deref()?)?;
    // The dialplan may put anything into a UserEvent. What it forges as a whole message, by line ends in a value, is not
    // told apart here: it has to know the command's id (docs/commands.md).
    let event = data.event.filter(|event| event != "UserEvent")?;
    Some((body.data.get().as_bytes().to_vec(), event == "OriginateResponse", channel))
}

/// Which of `wanted` are among the channels that Asterisk lists.
pub(super) fn among_the_living(listed: &Reply, writer: &Writer, wanted: &[String]) -> Evidence {
    let mut found = Evidence::new();
    for item in &listed.items {
        let frame = item.frame();
        let unique = frame.first("Uniqueid").and_then(|id| std::str::from_utf8(id).ok());
        if let Some(channel) = unique.filter(|id| wanted.iter().any(|wanted| wanted == id)) {
            found.insert(channel.to_owned(), writer.data(frame));
        }
    }
    found
}
