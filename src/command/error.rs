//! The closed list of error codes, and the outcomes of a command.

use serde::Serialize;

/// What became of a command. Every command has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Asterisk said Success.
    Executed,
    /// Asterisk said Error.
    Refused,
    /// Never sent: invalid, forbidden, unknown server, or its id was used for another payload.
    Rejected,
    /// Never sent: its deadline passed first.
    Expired,
    /// Sent, and nobody knows what became of it.
    Unknown,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Executed, Self::Refused, Self::Rejected, Self::Expired, Self::Unknown];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// The outcome that a word on the wire stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|o| o.as_str() == word)
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $outcome:ident),* $(,)?) => {
        /// Why a command did not simply succeed. The list is closed: it is part of the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name),* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// The outcome that goes with the code.
            pub fn outcome(self) -> Outcome {
                match self { $(Self::$name => Outcome::$outcome),* }
            }
        }
    };
}

codes! {
    /// The message is not the JSON of one command.
    Malformed = "malformed" => Rejected,
    /// The command is longer than `command.max_command_bytes`.
    TooLarge = "too_large" => Rejected,
    /// A key that a command does not have.
    UnknownField = "unknown_field" => Rejected,
    /// A key that a command must have.
    MissingField = "missing_field" => Rejected,
    /// A value of the wrong type or form, or one that Asterisk would cut or misread.
    InvalidField = "invalid_field" => Rejected,
    /// The topic, the CloudEvent and the command do not say the same.
    Contradiction = "contradiction" => Rejected,
    /// No server of that name is configured here.
    UnknownServer = "unknown_server" => Rejected,
    /// No allow rule permits it.
    Forbidden = "forbidden" => Rejected,
    /// The id was used before, for another payload.
    IdReused = "id_reused" => Rejected,
    /// The server is not connected, and the requester waits.
    Unavailable = "unavailable" => Rejected,
    /// The journal could not record the command, so it was not sent.
    NotRecorded = "not_recorded" => Rejected,
    /// The deadline passed before it was sent.
    DeadlinePassed = "deadline_passed" => Expired,
    /// Asterisk answered Error.
    AsteriskError = "asterisk_error" => Refused,
    /// The connection broke after it was sent and before it was answered.
    ConnectionLost = "connection_lost" => Unknown,
    /// Asterisk did not answer in time.
    NoAnswer = "no_answer" => Unknown,
    /// Queued by Asterisk, but what became of the call was not seen.
    FinalNotSeen = "final_not_seen" => Executed,
    /// amibus was ended after sending it and before its outcome was recorded.
    Interrupted = "interrupted" => Unknown,
    /// Asterisk said Success, but its list was longer than the limits and is left out.
    ListTooLong = "list_too_long" => Executed,
    /// Asterisk said Success, but the end of its list did not come in time; the list is left out.
    ListIncomplete = "list_incomplete" => Executed,
}

/// An error as it stands in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// What kind.
    pub code: Code,
    /// What is wrong and what would be right, in words.
    pub message: String,
    /// The field that it is about, as a path such as `fields.Channel`.
    pub field: Option<String>,
}

impl CommandError {
    /// An error about no field in particular.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None }
    }

    /// An error about a field.
    pub fn at(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: Some(field.into()) }
    }

    /// The error as JSON: `{"code","message","field"}`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "code": self.code.as_str(), "message": self.message, "field": self.field })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unique_and_read_back() {
        let words: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::parse(outcome.as_str()), Some(outcome));
        }
    }
}
