//! How a reply goes on after its response: event lists, and the actions that announce one otherwise.
//!
//! Since Asterisk 1.8 a list says `EventList: start` in its response (`Start` in `FAXSessions`) and
//! `EventList: Complete` in its last event (`astman_send_listack`, `astman_send_list_complete_start`).
//! The names of last events cannot be derived. `Hangup` is a list only when it was given a `/regex/`,
//! and an empty list may be an Error: so the response decides, never the action. A few actions, and
//! more of them in old versions, announce in words what follows: those are in [`UNMARKED`].
//!
//! An item's values come raw (`Variable` in `Status`), so one of them may hold a line `EventList: Complete`.
//! Asterisk writes the mark before anything that a caller or a dialplan can choose, under a name that no
//! item has, and says how many items there were (`ListItems`; some modules count wrong). All of that is
//! looked at before an event is taken for the last.

use crate::frame::{Frame, OwnedFrame};

/// How the name of a last event ends.
const LAST: &[u8] = b"Complete";

/// What follows a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Nothing: the response is the reply.
    Nothing,
    /// Events up to one that says `EventList: Complete`.
    Marked,
    /// Events up to the one of this name; the last one may also carry the mark.
    Until(&'static str),
}

/// Actions whose successful response may come without `EventList`, a word that its `Message` then
/// holds, and the event that ends the reply. Where the mark is present, the mark counts.
const UNMARKED: &[(&str, &str, &str)] = &[
    ("FAXSession", "follow", "FAXSession"),
    ("FAXStats", "follow", "FAXStats"),
    ("WaitEvent", "", "WaitEventComplete"),
    // Asterisk 11 and before.
    ("Agents", "follow", "AgentsComplete"),
    ("DBGet", "follow", "DBGetResponse"),
    ("ParkedCalls", "follow", "ParkedCallsComplete"),
    ("QueueStatus", "follow", "QueueStatusComplete"),
    ("QueueSummary", "follow", "QueueSummaryComplete"),
    ("Status", "follow", "StatusComplete"),
];

/// The names of items that Asterisk 16 and 22 send: none of them ends a marked list.
const ITEMS: &[&str] = &[
    "Agents",
    "AorDetail",
    "AorList",
    "AuthDetail",
    "AuthList",
    "BridgeInfoChannel",
    "BridgeListItem",
    "BridgeTechnologyListItem",
    "ChannelHungup",
    "ConfbridgeList",
    "ConfbridgeListRooms",
    "ContactList",
    "ContactStatusDetail",
    "CoreShowChannel",
    "CoreShowChannelMap",
    "DAHDIShowChannels",
    "DAHDIShowStatus",
    "DBGetResponse",
    "DBGetTreeResponse",
    "DeviceEntry",
    "DeviceStateChange",
    "EndpointDetail",
    "EndpointList",
    "ExtensionStatus",
    "FAXSessionsEntry",
    "IdentifyDetail",
    "InboundRegistrationDetail",
    "InboundSubscriptionDetail",
    "LineEntry",
    "ListDialplan",
    "MWIGet",
    "MeetmeList",
    "MeetmeListRooms",
    "OutboundRegistrationDetail",
    "OutboundSubscriptionDetail",
    "PRIShowSpans",
    "ParkedCall",
    "Parkinglot",
    "PeerEntry",
    "PeerStatus",
    "PresenceStateChange",
    "QueueMember",
    "QueueParams",
    "QueueEntry",
    "QueueSummary",
    "RegistryEntry",
    "ResourceListDetail",
    "Status",
    "TransportDetail",
    "VoicemailBoxDetail",
    "VoicemailUserDetail",
    "VoicemailUserEntry",
];

/// Headers that may stand before the mark in a last event.
const BEFORE_MARK: [&str; 4] = ["Event", "Privilege", "ActionID", "ListItems"];

/// Events that may carry the ActionID of a pending list without being a part of it: anybody may
/// send a `UserEvent` with any ActionID, and `OriginateResponse` is for whoever asked for the call.
const NEVER_ITEMS: [&str; 2] = ["UserEvent", "OriginateResponse"];

impl Follow {
    /// What follows `response`, the answer to the action of that name.
    pub(crate) fn of(action: &str, response: &Frame<'_>) -> Self {
        if !response.is_success() {
            return Self::Nothing;
        }
        if says(response, "start") {
            return Self::Marked;
        }
        let known = UNMARKED.iter().find(|(name, _, _)| name.eq_ignore_ascii_case(action));
        match known {
            Some((_, word, last)) if contains_word(response, word) => Self::Until(last),
            _ => Self::Nothing,
        }
    }

    /// Whether `event`, which carries the list's ActionID, is its last; `items` came before it.
    pub(crate) fn ends_with(self, event: &Frame<'_>, items: &[OwnedFrame]) -> bool {
        matches!(self, Self::Until(last) if event.is_event(last)) || is_marked_end(event, items)
    }
}

fn is_marked_end(event: &Frame<'_>, items: &[OwnedFrame]) -> bool {
    if !(says(event, "Complete") || says(event, "Cancelled")) {
        return false;
    }
    let mut before = event.headers().take_while(|header| !header.is("EventList"));
    let name = event.name();
    before.all(|header| BEFORE_MARK.iter().any(|known| header.is(known)))
        && !ITEMS.iter().any(|item| event.is_event(item))
        && !items.iter().any(|item| item.frame().name().eq_ignore_ascii_case(name))
        && (is_named_as_last(name) || counts(event, items.len()))
}

/// So are all the last events of Asterisk 16 and 22; under another name a count has to be right.
fn is_named_as_last(name: &[u8]) -> bool {
    let tail = name.len().checked_sub(LAST.len()).and_then(|at| name.get(at..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case(LAST))
}

/// Whether `ListItems` says so, where it is given.
fn counts(event: &Frame<'_>, items: usize) -> bool {
    let Some(count) = event.first("ListItems") else { return true };
    let count = std::str::from_utf8(count.trim_ascii()).ok().and_then(|count| count.parse().ok());
    count == Some(items)
}

/// Whether an event that carries the ActionID of a list can belong to it.
pub(crate) fn may_be_item(event: &Frame<'_>) -> bool {
    !NEVER_ITEMS.iter().any(|name| event.is_event(name))
}

fn says(frame: &Frame<'_>, word: &str) -> bool {
    frame.first("EventList").is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
}

fn contains_word(frame: &Frame<'_>, word: &str) -> bool {
    let message = frame.first("Message").unwrap_or_default();
    memchr::memmem::find(&message.to_ascii_lowercase(), word.as_bytes()).is_some()
}
