//! What went over the wire to Asterisk: each Originate, and when it was answered.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::judge::Sent;
use super::proxy::Tap;

/// The variable by which a call carries its command's id.
pub(super) const VARIABLE: &str = "__CMD_ID";

/// Hears both sessions of every amibus that comes this way.
#[derive(Debug, Default)]
pub(super) struct Wiretap(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// What has come of the next message, by connection and direction.
    rests: HashMap<(u64, bool), Vec<u8>>,
    /// Where in `sent` the action of a connection is.
    by_action: HashMap<(u64, String), usize>,
    sent: Vec<Sent>,
}

impl Wiretap {
    /// All Originates so far.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.lock().sent.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap for Wiretap {
    fn carries(&self, connection: u64, to_server: bool, bytes: &[u8]) {
        let mut heard = self.lock();
        let mut all = heard.rests.remove(&(connection, to_server)).unwrap_or_default();
        all.extend_from_slice(bytes);
        let end = all.windows(4).rposition(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        let whole = String::from_utf8_lossy(&all[..end]).into_owned();
        for message in whole.split("\r\n\r\n") {
            if to_server { heard.action(connection, message) } else { heard.answer(connection, message) }
        }
        heard.rests.insert((connection, to_server), all.split_off(end));
    }
}

impl Heard {
    fn action(&mut self, connection: u64, message: &str) {
        if value(message, "Action") != Some("Originate") {
            return;
        }
        let variables = message.lines().filter_map(|line| line.strip_prefix("Variable: "));
        let command = variables.filter_map(|text| text.split_once('=')).find(|(name, _)| *name == VARIABLE);
        let command = command.map_or("without an id", |(_, id)| id).to_owned();
        let channel = value(message, "ChannelId").unwrap_or("without a channel").to_owned();
        let action = value(message, "ActionID").unwrap_or_default().to_owned();
        self.by_action.insert((connection, action), self.sent.len());
        self.sent.push(Sent { command, channel, answered_at: None });
    }

    fn answer(&mut self, connection: u64, message: &str) {
        if !message.starts_with("Response: ") {
            return;
        }
        let Some(action) = value(message, "ActionID") else { return };
        if let Some(at) = self.by_action.remove(&(connection, action.to_owned())) {
            self.sent[at].answered_at = Some(micros());
        }
    }
}

/// Microseconds since 1970.
pub(super) fn micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn value<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn originates_and_their_answers_are_heard_however_they_are_cut() {
    let action =
        b"Action: Ping\r\nActionID: 1\r\n\r\nAction: Originate\r\nActionID: 2\r\nChannelId: amibus-x\r\n\
                  Variable: __CMD_ID=c-1\r\n\r\n";
    let answer =
        b"Asterisk Call Manager/9\r\nEvent: X\r\nActionID: 2\r\n\r\nResponse: Success\r\nActionID: 2\r\n\r\n";
    for cut in 1..action.len() {
        let tap = Wiretap::default();
        tap.carries(1, true, &action[..cut]);
        tap.carries(1, true, &action[cut..]);
        tap.carries(2, false, answer);
        assert!(tap.sent()[0].answered_at.is_none(), "another connection's answer");
        tap.carries(1, false, &answer[..cut.min(answer.len())]);
        tap.carries(1, false, &answer[cut.min(answer.len())..]);
        let sent = tap.sent();
        assert_eq!((sent.len(), &*sent[0].command, &*sent[0].channel), (1, "c-1", "amibus-x"));
        assert!(sent[0].answered_at.is_some());
    }
}
