//! How a reply goes on after its response: event lists, and the actions that announce one otherwise.
//!
//! Since Asterisk 1.8 a list says `EventList: start` in its response (`Start` in `FAXSessions`) and
//! `EventList: Complete` in its last event (`astman_send_listack`, `astman_send_list_complete_start`).
//! The names of last events cannot be derived. `Hangup` is a list only when it was given a `/regex/`,
//! and an empty list may be an Error: so the response decides, never the action. A few actions, and
//! more of them in old versions, announce in words what follows: those are in [`UNMARKED`].

use crate::frame::Frame;

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

    /// Whether `event`, which carries the list's ActionID, is its last.
    pub(crate) fn ends_with(self, event: &Frame<'_>) -> bool {
        says(event, "Complete")
            || says(event, "Cancelled")
            || matches!(self, Self::Until(last) if event.is_event(last))
    }
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
