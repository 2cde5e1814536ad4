//! What became of one row: read from the response, written as a result.

use serde::{Deserialize, Serialize};

use super::batch::Batch;
use crate::command::Outcome;

/// The longest of the texts in a result, in bytes.
const MAX_TEXT_BYTES: usize = 500;

/// One result: a line of the results file. Times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) row: u64,
    pub(super) number: String,
    pub(super) id: String,
    /// `executed`, `refused`, `rejected`, `expired` or `unknown`.
    pub(super) outcome: String,
    /// `answered`, `busy`, `congestion`, `no_answer` or `failed`, where there was a call.
    pub(super) result: Option<String>,
    /// Asterisk's own reason.
    pub(super) reason: Option<i64>,
    pub(super) uniqueid: Option<String>,
    /// When amibus recorded the outcome.
    pub(super) time: Option<String>,
    /// When it came here.
    pub(super) seen: Option<String>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
}

/// What the counts need of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Brief {
    pub(super) outcome: Outcome,
    pub(super) result: Option<CallResult>,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallResult {
    Answered,
    Busy,
    Congestion,
    NoAnswer,
    Failed,
}

impl CallResult {
    pub(super) const ALL: [Self; 5] =
        [Self::Answered, Self::Busy, Self::Congestion, Self::NoAnswer, Self::Failed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Busy => "busy",
            Self::Congestion => "congestion",
            Self::NoAnswer => "no_answer",
            Self::Failed => "failed",
        }
    }
}

impl Line {
    /// The result in few words; `None` where the outcome is no word of ours.
    pub(super) fn brief(&self) -> Option<Brief> {
        let word = self.result.as_deref();
        let result = CallResult::ALL.into_iter().find(|result| Some(result.as_str()) == word);
        Some(Brief { outcome: Outcome::parse(&self.outcome)?, result })
    }
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    correlationid: Option<String>,
    #[serde(default)]
    time: Option<String>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    action: String,
    outcome: String,
    #[serde(default)]
    call: Option<Call>,
    #[serde(default)]
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Call {
    result: Option<String>,
    reason: Option<i64>,
    uniqueid: Option<String>,
}

#[derive(Deserialize)]
struct Error {
    code: Option<String>,
    message: Option<String>,
}

/// A response to an Originate, with the id that it answers.
pub(super) struct Response {
    pub(super) id: String,
    body: Body,
}

impl Response {
    /// Reads a CloudEvent; `None`: it is not the response to an Originate.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut body: Body = serde_json::from_slice(body).ok()?;
        let id = body.correlationid.take()?;
        let known = body.data.action.eq_ignore_ascii_case("Originate")
            && Outcome::parse(&body.data.outcome).is_some();
        known.then_some(Self { id, body })
    }

    /// The result of the row that it answers.
    pub(super) fn result(self, batch: &Batch, index: usize, seen: String) -> Line {
        let Body { time, data, .. } = self.body;
        let call = data.call;
        let (result, reason, uniqueid) =
            call.map_or((None, None, None), |call| (call.result, call.reason, call.uniqueid));
        let (code, message) = data.error.map_or((None, None), |error| (error.code, error.message));
        Line {
            row: batch.row(index),
            number: plain(batch.number(index)),
            id: self.id,
            outcome: data.outcome,
            result: result.map(|text| plain(&text)),
            reason,
            uniqueid: uniqueid.map(|text| plain(&text)),
            time: time.map(|text| plain(&text)),
            seen: Some(seen),
            code: code.map(|text| plain(&text)),
            message: message.map(|text| plain(&text)),
        }
    }
}

/// A text that stays on its line.
pub(super) fn plain(text: &str) -> String {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let text = text.get(..end).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_responses_to_an_originate_count() {
        let body = br#"{"correlationid":"b-1","time":"t","data":{"action":"Originate","outcome":"executed",
            "call":{"result":"busy","reason":5,"uniqueid":"amibus-1"},"error":null}}"#;
        assert_eq!(Response::read(body).expect("one").id, "b-1");
        let text = String::from_utf8_lossy(body);
        for (from, to) in [("Originate", "Ping"), ("executed", "done"), ("correlationid", "other")] {
            assert!(Response::read(text.replace(from, to).as_bytes()).is_none(), "{to}");
        }
        assert!(Response::read(b"?").is_none());
    }

    #[test]
    fn a_text_stays_on_its_line() {
        assert_eq!(plain("a\r\nb"), "a  b");
        assert_eq!(plain(&"ü".repeat(400)).len(), MAX_TEXT_BYTES);
    }
}
