//! Where an event goes: its topic's last word, and the call that it belongs to.
//!
//! The key of an event is its call's `Linkedid`, else its `Uniqueid`, else the server's name. An event that
//! tells of several channels names them with prefixes (`DestLinkedid`, `LocalOneUniqueid`). Its own, unprefixed
//! ids come first; where there are none (`DialBegin` of an Originate, `LocalBridge`, `ParkedCall`), the first
//! prefixed one in the order of the message counts. `Cdr` and `CEL` write `LinkedID` and `UniqueID`. A bridge's id
//! is none of a call's.
//!
//! The subject is the same with `Uniqueid` before `Linkedid`, and absent where there is neither.

use amibus_ami::{Frame, Kind};
use amibus_contract::message::MAX_TOPIC_WORD_BYTES;

use crate::normalize::{block, fields};

/// Bytes of a call's id; Asterisk makes none longer than 149 (`AST_MAX_PUBLIC_UNIQUEID`).
pub const MAX_CALL_ID_BYTES: usize = 255;
/// The name of what is no event: what was torn off a message by an empty line inside a value.
pub const UNPARSED: &str = "Unparsed";

/// What a header says about the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing.
    None,
    /// The event's call.
    Linkedid,
    /// The event's channel.
    Uniqueid,
    /// The call of one of several channels.
    OtherLinkedid,
    /// One of several channels.
    OtherUniqueid,
}

/// The ids that a message holds, the first of each role. All are UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallIds<'b> {
    linkedid: Option<&'b [u8]>,
    uniqueid: Option<&'b [u8]>,
    other_linkedid: Option<&'b [u8]>,
    other_uniqueid: Option<&'b [u8]>,
}

impl<'b> CallIds<'b> {
    /// Reads the ids of an event; those of any other message are nobody's.
    pub fn of(frame: Frame<'b>) -> Self {
        let mut ids = Self::default();
        if frame.kind() == Kind::Event {
            frame.headers().for_each(|header| ids.see(fields::rule(header.name).role, header.value));
        }
        ids
    }

    /// Takes note of one header.
    pub(crate) fn see(&mut self, role: Role, value: &'b [u8]) {
        let place = match role {
            Role::None => return,
            Role::Linkedid => &mut self.linkedid,
            Role::Uniqueid => &mut self.uniqueid,
            Role::OtherLinkedid => &mut self.other_linkedid,
            Role::OtherUniqueid => &mut self.other_uniqueid,
        };
        if place.is_none() {
            *place = call_id(value);
        }
    }

    /// The key by which order is kept, `None` where it is the server's name.
    pub fn key(&self) -> Option<&'b str> {
        std::str::from_utf8(self.key_bytes()?).ok()
    }

    /// What the event is about.
    pub fn subject(&self) -> Option<&'b str> {
        std::str::from_utf8(self.subject_bytes()?).ok()
    }

    pub(crate) fn key_bytes(&self) -> Option<&'b [u8]> {
        self.linkedid.or(self.uniqueid).or(self.other_linkedid).or(self.other_uniqueid)
    }

    pub(crate) fn subject_bytes(&self) -> Option<&'b [u8]> {
        self.uniqueid.or(self.linkedid).or(self.other_uniqueid).or(self.other_linkedid)
    }
}

/// The last word of a topic and of a type, as [`amibus_contract::Topic`] would write it: `[A-Za-z0-9_-]`, never
/// empty.
pub fn topic_word(name: &[u8]) -> String {
    const SAFE: [bool; 256] = safe_bytes(b"_-");
    let word = |&byte: &u8| if SAFE[usize::from(byte)] { char::from(byte) } else { '_' };
    match name.get(..name.len().min(MAX_TOPIC_WORD_BYTES)) {
        None | Some([]) => "_".to_owned(),
        Some(name) => name.iter().map(word).collect(),
    }
}

/// Which bytes are letters, digits, or one of `others`.
pub(crate) const fn safe_bytes(others: &[u8]) -> [bool; 256] {
    let mut safe = [false; 256];
    let mut byte = 0;
    while byte < safe.len() {
        safe[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        safe[others[at] as usize] = true;
        at += 1;
    }
    safe
}

/// The name of a message for its topic, its type and the filter.
pub fn name<'b>(frame: &Frame<'b>) -> &'b [u8] {
    match frame.kind() {
        Kind::Other => UNPARSED.as_bytes(),
        Kind::Event | Kind::Response => frame.name(),
    }
}

/// An id that can stand in a header of any bus. `<unknown>` is what Asterisk writes where there is no channel.
fn call_id(value: &[u8]) -> Option<&[u8]> {
    if value.is_empty() || value.len() > MAX_CALL_ID_BYTES || value == b"<unknown>" {
        return None;
    }
    let is_no_text = |block| block::not_plain(block) | block::is(block, 0x7F);
    let is_text = block::before(value, is_no_text) == value.len()
        || std::str::from_utf8(value).is_ok_and(|id| !id.chars().any(char::is_control));
    is_text.then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(lines: &str) -> (Option<String>, Option<String>) {
        let raw = lines.replace('\n', "\r\n");
        let ids = CallIds::of(Frame::parse(raw.as_bytes()));
        (ids.key().map(str::to_owned), ids.subject().map(str::to_owned))
    }

    fn some(key: &str, subject: &str) -> (Option<String>, Option<String>) {
        (Some(key.to_owned()), Some(subject.to_owned()))
    }

    #[test]
    fn a_call_is_found_by_linkedid_then_uniqueid() {
        assert_eq!(ids("Event: Hangup\nUniqueid: 1.2\nLinkedid: 1.1"), some("1.1", "1.2"));
        assert_eq!(ids("Event: OriginateResponse\nUniqueid: 1.2"), some("1.2", "1.2"));
        assert_eq!(ids("Event: Cdr\nUniqueID: 1.2\nLinkedID: 1.1"), some("1.1", "1.2"));
    }

    #[test]
    fn prefixed_ids_count_where_there_are_no_others() {
        assert_eq!(ids("Event: DialBegin\nDestUniqueid: 1.2\nDestLinkedid: 1.1"), some("1.1", "1.2"));
        let both = "Event: DialBegin\nDestUniqueid: 1.4\nDestLinkedid: 1.3\nUniqueid: 1.2\nLinkedid: 1.1";
        assert_eq!(ids(both), some("1.1", "1.2"));
        let local = "Event: LocalBridge\nLocalOneUniqueid: 1.2\nLocalOneLinkedid: 1.1\nLocalTwoUniqueid: 1.3\n\
                     LocalTwoLinkedid: 1.9";
        assert_eq!(ids(local), some("1.1", "1.2"));
        assert_eq!(ids("Event: ParkedCall\nParkeeUniqueid: 1.2\nParkeeLinkedid: 1.1"), some("1.1", "1.2"));
    }

    #[test]
    fn a_bridge_is_not_a_call() {
        assert_eq!(ids("Event: BridgeCreate\nBridgeUniqueid: c5f4b672"), (None, None));
        assert_eq!(
            ids("Event: BridgeEnter\nBridgeUniqueid: c5\nUniqueid: 1.2\nLinkedid: 1.1"),
            some("1.1", "1.2")
        );
    }

    #[test]
    fn what_is_no_id_is_passed_over() {
        assert_eq!(ids("Event: OriginateResponse\nUniqueid: <unknown>"), (None, None));
        assert_eq!(ids("Event: X\nUniqueid: \nLinkedid: 1.1"), some("1.1", "1.1"));
        assert_eq!(ids("Event: X\nUniqueid: a\u{7}b"), (None, None));
        assert_eq!(ids(&format!("Event: X\nUniqueid: {}", "1".repeat(256))), (None, None));
        assert_eq!(ids("Variable: x\nUniqueid: 1.2"), (None, None), "torn off: anyone may have written it");
    }

    #[test]
    fn a_later_forged_id_does_not_count() {
        assert_eq!(ids("Event: UserEvent\nLinkedid: 1.1\nUserEvent: x\nLinkedid: 6.6"), some("1.1", "1.1"));
    }

    #[test]
    fn names_are_safe_words() {
        for (name, expected) in [("Hangup", "Hangup"), ("AOC-D", "AOC-D"), ("a.b >", "a_b__"), ("", "_")] {
            assert_eq!(topic_word(name.as_bytes()), expected);
        }
        assert_eq!(topic_word(&[0xFF; 500]).len(), MAX_TOPIC_WORD_BYTES);
        assert_eq!(name(&Frame::parse(b"Variable: x\r\nEvent: Hangup")), UNPARSED.as_bytes());
    }
}
