//! Why a bus did not do what it was asked, and what the caller should do about it.

use std::fmt;

/// What the caller does next. Whoever raises a fault decides this; nobody guesses it from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is wrong with the message: offer the same again, later.
    Retry,
    /// This message will never be taken (too large, refused for good): leave it out and go on.
    Skip,
    /// Nothing will be taken until a person mends something (credentials, permissions): report, retry slowly.
    Stop,
}

/// What went wrong, for metrics and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The bus cannot be reached, or the connection broke.
    Unreachable,
    /// The bus did not answer in time; whether it took the message is not known.
    TimedOut,
    /// The bus refused our credentials.
    Unauthorized,
    /// The bus knows us but does not permit this.
    Forbidden,
    /// The message is larger than the bus takes.
    TooLarge,
    /// The bus refused this message for another reason of its own.
    Refused,
    /// A stream, topic or bucket that was asked for does not exist or has another shape.
    Missing,
    /// The bridge's own queue is full.
    Full,
    /// The bridge has been closed.
    Closed,
}

impl FaultKind {
    /// The kind as one lower-case word, for metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::Missing => "missing",
            Self::Full => "full",
            Self::Closed => "closed",
        }
    }

    /// What usually follows from this kind.
    pub fn usual_decision(self) -> Decision {
        match self {
            Self::Unreachable | Self::TimedOut | Self::Full => Decision::Retry,
            Self::TooLarge | Self::Refused => Decision::Skip,
            Self::Unauthorized | Self::Forbidden | Self::Missing | Self::Closed => Decision::Stop,
        }
    }
}

/// A refusal or failure of a bus. `Display` prints the kind and the bus's own words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What the caller does next.
    pub decision: Decision,
    /// What went wrong.
    pub kind: FaultKind,
    /// The bus's own words, or ours; never a secret.
    pub message: String,
}

impl Fault {
    /// A fault with the decision that usually follows from its kind.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self { decision: kind.usual_decision(), kind, message: message.into() }
    }

    /// The same fault with another decision.
    pub fn deciding(mut self, decision: Decision) -> Self {
        self.decision = decision;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.message)
    }
}

impl std::error::Error for Fault {}
