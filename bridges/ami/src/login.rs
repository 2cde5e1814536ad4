//! Login: what is sent, and what a refusal means.
//!
//! Asterisk (`main/manager.c`, `authenticate`) answers a wrong secret, an unknown user and an address
//! outside the ACL in the same words, after a pause of one second, and closes.

use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

use crate::action::{Action, ActionError};
use crate::action_id::hex;
use crate::error::Retry;
use crate::frame::Frame;

use md5::{Digest, Md5};

/// How the secret is shown to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginMethod {
    /// The secret itself goes over the wire.
    Plain,
    /// MD5 over a challenge and the secret.
    #[default]
    Md5,
}

/// The classes of events that a session may ask for. A name that Asterisk does not know would be
/// answered `Success` and followed by silence.
pub const EVENT_CLASSES: [&str; 19] = [
    "system",
    "call",
    "log",
    "verbose",
    "command",
    "agent",
    "user",
    "config",
    "dtmf",
    "reporting",
    "cdr",
    "dialplan",
    "originate",
    "agi",
    "cc",
    "aoc",
    "test",
    "security",
    "message",
];

/// Which events a session receives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EventMask {
    /// All that the user may read.
    #[default]
    On,
    /// None.
    Off,
    /// Those of some classes. Made by [`EventMask::classes`].
    Classes(EventClasses),
}

/// Names of event classes, joined as Asterisk reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventClasses(String);

/// A name that is none of [`EVENT_CLASSES`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is not a class of events")]
pub struct UnknownClass(pub String);

impl EventMask {
    /// The events of these classes.
    ///
    /// # Errors
    /// One of them is not among [`EVENT_CLASSES`], or there is none.
    pub fn classes<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownClass> {
        let names: Vec<&str> = names.into_iter().collect();
        match names.iter().find(|name| !EVENT_CLASSES.contains(*name)) {
            Some(unknown) => Err(UnknownClass((*unknown).to_owned())),
            None if names.is_empty() => Err(UnknownClass(String::new())),
            None => Ok(Self::Classes(EventClasses(names.join(",")))),
        }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Classes(EventClasses(names)) => names,
        }
    }
}

/// Why Asterisk did not let us in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoginError {
    /// Wrong secret, unknown user or an address outside the ACL: Asterisk does not say which.
    #[error("wrong username or secret, or an address that the user's ACL does not permit")]
    WrongSecret,
    /// `allowmultiplelogin=no`, and somebody is logged in.
    #[error("the user is logged in already, and may be only once")]
    AlreadyInUse,
    /// It is on its way out: during a graceful stop every action is answered so.
    #[error("Asterisk is shutting down")]
    ShuttingDown,
    /// Asterisk said something else.
    #[error("login refused: {0}")]
    Refused(String),
    /// MD5 was asked for, and Asterisk gave no challenge.
    #[error("no challenge for an MD5 login: {0}")]
    NoChallenge(String),
}

impl LoginError {
    /// When to try again. A login that is in use may be one of ours that Asterisk has not missed yet, and an
    /// Asterisk that stops may be started again; the rest needs a person.
    pub fn retry(&self) -> Retry {
        match self {
            Self::AlreadyInUse | Self::ShuttingDown => Retry::Soon,
            Self::WrongSecret | Self::Refused(_) | Self::NoChallenge(_) => Retry::Slowly,
        }
    }

    /// Reads the answer to `Login` that is not a `Success`.
    pub(crate) fn from_answer(frame: &Frame<'_>) -> Self {
        let message = message(frame);
        if message.eq_ignore_ascii_case("Authentication failed") {
            Self::WrongSecret
        } else if message.eq_ignore_ascii_case("Login Already In Use") {
            Self::AlreadyInUse
        } else if message.eq_ignore_ascii_case("Asterisk is shutting down") {
            Self::ShuttingDown
        } else {
            Self::Refused(message)
        }
    }
}

/// The words of a response, or its status where it has none.
pub(crate) fn message(frame: &Frame<'_>) -> String {
    let text = frame.first("Message").unwrap_or(frame.name());
    String::from_utf8_lossy(text.trim_ascii()).into_owned()
}

/// Who logs in, and for what.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) secret: SecretString,
    pub(crate) method: LoginMethod,
    pub(crate) events: EventMask,
}

impl Credentials {
    /// The first action of the session.
    pub(crate) fn first_action(&self) -> Result<Action, ActionError> {
        match self.method {
            LoginMethod::Md5 => Action::new("Challenge")?.header("AuthType", "MD5"),
            LoginMethod::Plain => {
                let login = Action::new("Login")?.header("Username", &self.username)?;
                login.header("Secret", self.secret.expose_secret())?.header("Events", self.events.as_str())
            }
        }
    }

    /// Whether both forms of the login can be written as headers.
    pub(crate) fn check(&self) -> Result<(), ActionError> {
        self.first_action()?;
        self.answer(b"").map(|_| ())
    }

    /// The answer to a challenge.
    pub(crate) fn answer(&self, challenge: &[u8]) -> Result<Action, ActionError> {
        let digest = Md5::new().chain_update(challenge).chain_update(self.secret.expose_secret()).finalize();
        let login = Action::new("Login")?.header("AuthType", "MD5")?.header("Username", &self.username)?;
        login.header("Key", hex(&digest))?.header("Events", self.events.as_str())
    }
}
