//! The one terminal outcome of a command, and the message that says it.
//!
//! The `data` of a response is built once and kept in the journal; the envelope around it is made where the message
//! takes its place in the server's sequence. Its CloudEvents `id` follows from the command's id, so that a
//! consumer and JetStream recognise a repeat.

use std::time::SystemTime;

use amibus_ami::{Frame, OwnedFrame, Reply};
use amibus_contract::{Bytes, Kind, Message};
use sha2::{Digest, Sha256};

use super::{
    decode::Command,
    error::{Code, CommandError, Outcome},
    journal::Record,
};
use crate::{
    asterisk::ActionFailure,
    normalize::{self, Envelope, Profile},
    queue::Queue,
};

/// An outcome with what Asterisk said.
#[derive(Clone, Debug)]
pub struct Response {
    /// The command's id, where it had one or was given one.
    pub id: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where it did not simply succeed.
    pub error: Option<CommandError>,
    server: String,
    action: String,
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

    /// Asterisk's answer: Success (`Goodbye` and the like count as such) or Error, with its event list.
    pub fn of_reply(id: &str, command: &Command, profile: &Profile, reply: &Reply) -> Self {
        let mut response = Self::plain(id, command);
        response.answered(profile, &reply.response);
        let list = reply.items.iter().chain(&reply.complete);
        response.events = list.map(|event| data(profile, event.frame())).collect();
        response
    }

    /// What is known when there is no whole answer.
    pub fn of_failure(id: &str, command: &Command, profile: &Profile, failure: ActionFailure) -> Self {
        let mut response = Self::plain(id, command);
        let (code, text) = match failure {
            ActionFailure::NotConnected | ActionFailure::NotBooted | ActionFailure::NeverWritten => {
                (Code::Unavailable, format!("it was not sent: {failure}"))
            }
            ActionFailure::Lost { written: false } => {
                (Code::Unavailable, "the connection broke before it was sent".to_owned())
            }
            ActionFailure::Lost { .. } => {
                (Code::ConnectionLost, "the connection broke after it was sent and before it was answered".into())
            }
            ActionFailure::TimedOut { response: ref answered, .. } => {
                if let Some(answered) = answered {
                    response.answered(profile, answered);
                }
                (Code::NoAnswer, "Asterisk did not answer in time (server.action_deadline)".to_owned())
            }
            ActionFailure::TooLarge { response: ref answered, .. } => {
                response.answered(profile, answered);
                (Code::ListTooLong, failure.to_string())
            }
        };
        response.outcome = code.outcome();
        response.error = Some(CommandError::new(code, text));
        response
    }

    /// Joins what became of the call that an Originate started; `None`: it was not seen in time.
    pub fn join(&mut self, seen: Option<OwnedFrame>, profile: &Profile) {
        let Some(seen) = seen else {
            let text = "Asterisk queued it, but its OriginateResponse was not seen in time (command.final_timeout)";
            self.outcome = Outcome::Unknown;
            self.error = Some(CommandError::new(Code::FinalNotSeen, text));
            return;
        };
        let frame = seen.frame();
        self.call = Some(call(&frame));
        self.events.push(data(profile, frame));
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
        out.extend_from_slice(self.response.as_deref().unwrap_or(b"null"));
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

    /// Gives the response its place in the server's sequence, for every bus, and answers the message.
    pub fn append(&self, profile: &Profile, queue: &Queue) -> Message {
        let mut message = None;
        queue.append(|sequence| {
            let made = self.message(profile, Some(sequence));
            message = Some(made.clone());
            made
        });
        message.unwrap_or_else(|| self.unsequenced(profile))
    }

    /// The message without a place in any sequence: no server of ours is concerned.
    pub fn unsequenced(&self, profile: &Profile) -> Message {
        self.message(profile, None)
    }

    fn message(&self, profile: &Profile, sequence: Option<u64>) -> Message {
        envelope(profile, self.id.as_deref(), &self.action, &self.data(), sequence)
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

    fn answered(&mut self, profile: &Profile, answer: &OwnedFrame) {
        let frame = answer.frame();
        self.response = Some(data(profile, frame));
        let refused = frame.name().eq_ignore_ascii_case(b"Error");
        self.outcome = if refused { Outcome::Refused } else { Outcome::Executed };
        if refused {
            let words = frame.first("Message").unwrap_or(b"no message");
            let words = String::from_utf8_lossy(words).trim().to_owned();
            self.error = Some(CommandError::new(Code::AsteriskError, words));
        }
    }
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
    format!("amibus-{}", digest(&[server, id]))
}

/// The answer to a command that ended before: byte for byte what was published, where it was.
pub fn replay(profile: &Profile, id: &str, command: &Command, record: &Record) -> Message {
    let mut message = envelope(profile, Some(id), &command.action, &record.response, None);
    if let Some(body) = &record.body {
        message.body = Bytes::from(body.clone());
    }
    message
}

fn envelope(
    profile: &Profile,
    id: Option<&str>,
    action: &str,
    data: &[u8],
    sequence: Option<u64>,
) -> Message {
    let fresh;
    let id_hash = match id {
        Some(id) => digest(&[profile.server(), id]),
        None => {
            fresh = fresh_id();
            digest(&[&fresh])
        }
    };
    normalize::envelope(
        profile,
        &Envelope {
            kind: Kind::Response,
            name: action,
            id: &format!("{}:response:{id_hash}", profile.server()),
            key: id,
            correlation: id,
            time: SystemTime::now(),
            sequence,
            data,
        },
    )
}

/// What became of the call, in words beside the numbers (`Reason` of `OriginateResponse`, `main/manager.c`).
fn call(frame: &Frame<'_>) -> serde_json::Value {
    let text = |name| frame.first(name).map(|v| String::from_utf8_lossy(v).into_owned());
    let reason: Option<i64> = text("Reason").and_then(|r| r.trim().parse().ok());
    let success = text("Response").is_some_and(|r| r.eq_ignore_ascii_case("Success"));
    let result = match reason {
        Some(4) => "answered",
        Some(5) => "busy",
        Some(8) => "congestion",
        Some(3 | 1) => "no_answer",
        _ if success => "answered",
        _ => "failed",
    };
    serde_json::json!({ "result": result, "reason": reason, "uniqueid": text("Uniqueid"), "channel": text("Channel") })
}

fn data(profile: &Profile, frame: Frame<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(frame.raw().len() + 256);
    normalize::data(profile, frame, &mut out);
    out
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
