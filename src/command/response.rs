//! The one terminal outcome of a command, and the message that says it.
//!
//! The `data` of a response is built once and kept in the journal; the envelope around it is made where the message
//! takes its place in the server's sequence.

mod kept;

use std::time::SystemTime;

use amibus_ami::{Frame, OwnedFrame, Reply};
use amibus_contract::{Kind, Message};
use sha2::{Digest, Sha256};

use super::{
    decode::Command,
    error::{Code, CommandError, Outcome},
};
use crate::{asterisk::ActionFailure, normalize::Notice, spool::Spool, writer::Writer};

/// The longest `data` of a response, in bytes: with its envelope it fits what NATS and Kafka take unless configured
/// otherwise, 1 MiB. A longer event list is left out, and said so.
pub const MAX_DATA_BYTES: usize = 900 * 1024;

/// What the ChannelId of every call begins with.
pub const CHANNEL_ID_PREFIX: &str = "amibus-";

/// An outcome with what Asterisk said.
#[derive(Clone, Debug)]
pub struct Response {
    /// The command's id, where it had one or was given one.
    pub id: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where it did not simply succeed.
    pub error: Option<CommandError>,
    /// The server's name as the command gave it.
    pub server: String,
    /// The action as the command gave it.
    pub action: String,
    response: Option<Vec<u8>>,
    events: Vec<Vec<u8>>,
    call: Option<serde_json::Value>,
}

impl Response {
    /// The outcome that an error stands for.
    pub fn of_error(id: Option<String>, server: &str, action: &str, error: CommandError) -> Self {
        Self {
            id,
            outcome: error.code.outcome(),
            error: Some(error),
            server: server.to_owned(),
            action: action.to_owned(),
            response: None,
            events: Vec::new(),
            call: None,
        }
    }

    /// An Originate that ran for certain, though whoever waited for its answer or its end died: Asterisk's `answer` was
    /// kept, which is only where the end was waited for, or an `event` of its channel was seen. Both are JSON, the event
    /// as `data` has it.
    pub fn of_evidence(
        id: &str,
        server: &str,
        action: &str,
        answer: Option<Vec<u8>>,
        event: Option<Vec<u8>>,
    ) -> Self {
        let call = event.as_deref().and_then(call_of_event);
        let error = (answer.is_some() && call.is_none()).then(final_not_seen);
        Self {
            id: Some(id.to_owned()),
            outcome: Outcome::Executed,
            error,
            server: server.to_owned(),
            action: action.to_owned(),
            response: answer,
            events: event.into_iter().collect(),
            call,
        }
    }

    /// Asterisk's answer: Success (`Goodbye` and the like count as such) or Error, with its event list.
    pub fn of_reply(id: &str, command: &Command, writer: &Writer, reply: &Reply) -> Self {
        let mut response = Self::plain(id, command);
        response.answered(writer, &reply.response);
        let list = reply.items.iter().chain(&reply.complete);
        response.events = list.map(|event| writer.data(event.frame())).collect();
        response
    }

    /// What is known when there is no whole answer.
    pub fn of_failure(id: &str, command: &Command, writer: &Writer, failure: ActionFailure) -> Self {
        let mut response = Self::plain(id, command);
        let (code, text) = match failure {
            ActionFailure::NotConnected | ActionFailure::NotBooted | ActionFailure::NeverWritten => {
                (Code::Unavailable, format!("it was not sent: {failure}"))
            }
            ActionFailure::Lost { written: false } => {
                (Code::Unavailable, "the connection broke before it was sent".to_owned())
            }
            ActionFailure::Lost { .. } => (
                Code::ConnectionLost,
                "the connection broke after it was sent and before it was answered".into(),
            ),
            ActionFailure::TimedOut { response: Some(ref answered) } => {
                response.answered(writer, answered);
                let text = "the end of its event list did not come in time (server.action_deadline)";
                (Code::ListIncomplete, text.to_owned())
            }
            ActionFailure::TimedOut { response: None } => {
                (Code::NoAnswer, "Asterisk did not answer in time (server.action_deadline)".to_owned())
            }
            ActionFailure::TooLarge { response: ref answered, .. } => {
                response.answered(writer, answered);
                (Code::ListTooLong, failure.to_string())
            }
        };
        response.outcome = code.outcome();
        response.error = Some(CommandError::new(code, text));
        response
    }

    /// The response without its event list where that makes it longer than a bus takes.
    pub fn bounded(mut self) -> Self {
        let bytes: usize = self.events.iter().map(|event| event.len() + 1).sum();
        if bytes + self.response.as_ref().map_or(0, Vec::len) > MAX_DATA_BYTES {
            let text =
                format!("its event list has {bytes} bytes, more than {MAX_DATA_BYTES}; it is left out");
            self.error = Some(CommandError::new(Code::ListTooLong, text));
            self.events.clear();
        }
        self
    }

    /// Joins what became of the call that an Originate started; `None`: it was not seen in time. Asterisk took it
    /// nonetheless.
    pub fn join(&mut self, seen: Option<OwnedFrame>, writer: &Writer) {
        let Some(seen) = seen else {
            self.error = Some(final_not_seen());
            return;
        };
        let frame = seen.frame();
        self.call = Some(call(&frame));
        self.events.push(writer.data(frame));
    }

    /// Joins an event of the call's channel, `data` as JSON, that was found after its end was not seen. Where it is the
    /// end, that was seen after all.
    pub fn join_found(&mut self, event: Vec<u8>) {
        self.call = call_of_event(&event);
        if self.call.is_some() {
            self.error = None;
        }
        self.events.push(event);
    }

    /// What Asterisk answered, JSON; `null` where it did not.
    pub fn answer(&self) -> &[u8] {
        self.response.as_deref().unwrap_or(b"null")
    }

    /// The `data` of the response, JSON.
    pub fn data(&self) -> Vec<u8> {
        let head = serde_json::json!({
            "id": self.id,
            "server": self.server,
            "action": self.action,
            "outcome": self.outcome.as_str(),
        });
        let mut out = head.to_string().into_bytes();
        out.pop();
        out.extend_from_slice(b",\"response\":");
        out.extend_from_slice(self.answer());
        out.extend_from_slice(b",\"events\":[");
        for (n, event) in self.events.iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            out.extend_from_slice(event);
        }
        out.push(b']');
        if let Some(call) = &self.call {
            out.extend_from_slice(format!(",\"call\":{call}").as_bytes());
        }
        let error = self.error.as_ref().map(CommandError::to_json);
        out.extend_from_slice(format!(",\"error\":{}}}", serde_json::json!(error)).as_bytes());
        out
    }

    /// The same in at most so many bytes, where it is longer without what Asterisk said, and saying so.
    pub fn data_within(&self, most: usize) -> Vec<u8> {
        let data = self.data();
        if data.len() <= most {
            return data;
        }
        let mut short = Self { response: None, events: Vec::new(), ..self.clone() };
        if short.error.is_none() {
            let text = format!(
                "what Asterisk answered has {} bytes, more than is shared among several amibus; it is left out",
                data.len()
            );
            short.error = Some(CommandError::new(Code::ListTooLong, text));
        }
        short.data()
    }

    fn plain(id: &str, command: &Command) -> Self {
        Self {
            id: Some(id.to_owned()),
            outcome: Outcome::Unknown,
            error: None,
            server: command.server.clone(),
            action: command.action.clone(),
            response: None,
            events: Vec::new(),
            call: None,
        }
    }

    fn answered(&mut self, writer: &Writer, answer: &OwnedFrame) {
        let frame = answer.frame();
        self.response = Some(writer.data(frame));
        let refused = frame.name().eq_ignore_ascii_case(b"Error");
        self.outcome = if refused { Outcome::Refused } else { Outcome::Executed };
        if refused {
            let words = frame.first("Message").unwrap_or(b"no message");
            let words = String::from_utf8_lossy(words).trim().to_owned();
            self.error = Some(CommandError::new(Code::AsteriskError, words));
        }
    }
}

/// Gives a response its place in a server's sequence, for every bus, and answers the message.
pub fn append(writer: &Writer, spool: &Spool, id: Option<&str>, action: &str, data: &[u8]) -> Message {
    let name = if action.is_empty() { "Unknown" } else { action };
    let notice = Notice { kind: Kind::Response, name, subject: None, key: id, correlation: id, data };
    spool.append(|sequence| writer.notice(&notice, sequence, SystemTime::now()))
}

/// An id for a command that has none.
pub fn fresh_id() -> String {
    let mut random = [0; 16];
    match getrandom::fill(&mut random) {
        Ok(()) => format!("amibus-{}", hex(&random)),
        Err(_) => format!("amibus-{:?}", SystemTime::now()),
    }
}

/// The ChannelId of the call that a command starts: the same for the same command, so that Asterisk itself refuses
/// a second call while the first one lives. 39 bytes, at most 149 are taken.
pub fn channel_id(server: &str, id: &str) -> String {
    format!("{CHANNEL_ID_PREFIX}{}", digest(&[server, id]))
}

fn final_not_seen() -> CommandError {
    let text = "Asterisk queued it, but its OriginateResponse was not seen, within command.final_timeout or before \
                amibus was ended";
    CommandError::new(Code::FinalNotSeen, text)
}

/// What became of the call, of an event's `data`; `None`: it is no `OriginateResponse`.
fn call_of_event(event: &[u8]) -> Option<serde_json::Value> {
    let data: serde_json::Value = serde_json::from_slice(event).ok()?;
    let text = |name: &str| data.get(name).cloned().unwrap_or_default();
    (text("Event") == "OriginateResponse").then(|| {
        let reason = data.get("Reason").and_then(serde_json::Value::as_i64);
        let success = data.get("Response").is_some_and(|response| response == "Success");
        serde_json::json!({
            "result": result(reason, success), "reason": reason,
            "uniqueid": text("Uniqueid"), "channel": text("Channel"),
        })
    })
}

/// What became of the call, in words beside the numbers (`Reason` of `OriginateResponse`, `main/manager.c`).
fn call(frame: &Frame<'_>) -> serde_json::Value {
    let text = |name| frame.first(name).map(|v| String::from_utf8_lossy(v).into_owned());
    let reason: Option<i64> = text("Reason").and_then(|r| r.trim().parse().ok());
    let success = text("Response").is_some_and(|r| r.eq_ignore_ascii_case("Success"));
    let result = result(reason, success);
    serde_json::json!({ "result": result, "reason": reason, "uniqueid": text("Uniqueid"), "channel": text("Channel") })
}

fn result(reason: Option<i64>, success: bool) -> &'static str {
    match reason {
        Some(4) => "answered",
        Some(5) => "busy",
        Some(8) => "congestion",
        Some(3 | 1) => "no_answer",
        _ if success => "answered",
        _ => "failed",
    }
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hex(hash.finalize().get(..16).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
