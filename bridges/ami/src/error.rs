//! Why a session ended, or would not take an action, and what to do about it.

use std::time::Duration;

use thiserror::Error;

use crate::action::ActionError;
use crate::decoder::FrameError;
use crate::login::LoginError;

/// When it makes sense to connect again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After the usual backoff: it may be over by then.
    Soon,
    /// Rarely: a person has to change something first.
    Slowly,
}

/// The session is over; its connection is to be dropped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// What came is beyond a limit.
    #[error("the server's bytes are beyond a limit")]
    Frame(#[source] FrameError),
    /// The first line is not the banner of an Asterisk.
    #[error("not an Asterisk manager: {line}")]
    NotAsterisk {
        /// The line, escaped.
        line: String,
    },
    /// Asterisk did not let us in.
    #[error("login failed")]
    Login(#[from] LoginError),
    /// Asterisk did not say what it has to in time.
    #[error("no {waiting_for} in time")]
    LoginTimeout {
        /// What did not come.
        waiting_for: &'static str,
    },
    /// A ping was not answered, and nothing else came.
    #[error("nothing received for {silent:?}, a ping unanswered for {waited:?}")]
    Dead {
        /// Since the last byte.
        silent: Duration,
        /// Since the ping.
        waited: Duration,
    },
    /// The login cannot be written as headers.
    #[error("the login cannot be sent")]
    Unsendable(#[source] ActionError),
    /// The session had ended before.
    #[error("the session is over")]
    Closed,
}

impl SessionError {
    /// When to connect again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Login(error) => error.retry(),
            Self::NotAsterisk { .. } | Self::Unsendable(_) => Retry::Slowly,
            Self::Frame(_) | Self::LoginTimeout { .. } | Self::Dead { .. } | Self::Closed => Retry::Soon,
        }
    }
}

/// An action was not taken. Nothing was sent, so sending it later is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// The login has not succeeded yet.
    #[error("not logged in")]
    NotLoggedIn,
    /// A ping is overdue: Asterisk runs an action that takes long, or the connection is dead.
    #[error("Asterisk has not answered for a while")]
    Silent,
    /// As many actions as [`Limits::pending_actions`](crate::Limits) are waiting for their reply.
    #[error("{limit} actions are waiting for their reply")]
    TooManyPending {
        /// The limit, in actions.
        limit: usize,
    },
    /// The session is over.
    #[error("the session is over")]
    Closed,
}
