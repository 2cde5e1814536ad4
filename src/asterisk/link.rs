//! Connecting again and again: what a session's end means for the next one.

use std::{fmt, sync::Arc, time::Duration};

use amibus_ami::{ActionError, EventMask, LoginError, Retry, Session, SessionError};
use thiserror::Error;
use tokio::time::Instant;

use super::{
    backoff::{Backoff, jittered},
    dial::{DialError, dial},
    settings::ServerSettings,
    wire::{Wire, WireError, now},
};

/// Why a server is not seen at the moment, in words short enough for a link event.
#[derive(Debug, Error)]
pub enum DownReason {
    /// There is no connection.
    #[error("{0}")]
    Unreachable(#[from] DialError),
    /// Asterisk did not let us in. A wrong secret is [`LoginError::WrongSecret`].
    #[error("{0}")]
    Refused(LoginError),
    /// Asterisk said that it stops, and did.
    #[error("Asterisk {}", if *.restart { "restarts" } else { "has been stopped" })]
    Stopped {
        /// Whether it said that it will be back.
        restart: bool,
    },
    /// Asterisk, or something between, closed the connection.
    #[error("Asterisk closed the connection{}", if *.cut { " within a message" } else { "" })]
    Closed {
        /// Whether the last message was cut off.
        cut: bool,
    },
    /// The connection was open, and nothing came over it any more.
    #[error("{0}")]
    Dead(SessionError),
    /// The connection or the session broke in another way.
    #[error("{text}")]
    Broken {
        /// What happened.
        text: String,
        /// When to try again.
        retry: Retry,
    },
    /// amibus itself is on its way out.
    #[error("amibus is stopping")]
    Stopping,
}

impl DownReason {
    pub(super) fn of(error: WireError, cut: bool, shutdown: Option<bool>) -> Self {
        match (error, shutdown) {
            (WireError::Closed | WireError::Io(_), Some(restart)) => Self::Stopped { restart },
            (WireError::Closed, None) => Self::Closed { cut },
            (WireError::Session(SessionError::Login(error)), _) => Self::Refused(error),
            (WireError::Session(error @ SessionError::Dead { .. }), _) => Self::Dead(error),
            (WireError::Session(error), _) => Self::Broken { text: chain(&error), retry: error.retry() },
            (error, _) => Self::Broken { text: error.to_string(), retry: Retry::Soon },
        }
    }

    /// When to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Refused(error) => error.retry(),
            Self::Broken { retry, .. } => *retry,
            Self::Unreachable(error) if error.is_configuration() => Retry::Slowly,
            _ => Retry::Soon,
        }
    }
}

/// An error with what caused it, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// How a session went, for whoever decides when the next begins.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) reason: DownReason,
    /// When the login succeeded.
    pub(super) since: Option<Instant>,
}

/// The waits between the sessions of one server.
#[derive(Debug)]
pub(super) struct Retries {
    backoff: Backoff,
    slow: Duration,
    stable_after: Duration,
}

impl Retries {
    pub(super) fn new(settings: &ServerSettings) -> Self {
        let backoff = Backoff::new(settings.backoff_min, settings.backoff_max);
        Self { backoff, slow: settings.slow_retry, stable_after: settings.stable_after }
    }

    /// How long to wait now. A session that lived long enough makes it short.
    pub(super) fn wait(&mut self, ended: &Ended) -> Duration {
        if ended.since.is_some_and(|since| since.elapsed() >= self.stable_after) {
            self.backoff.reset();
        }
        match ended.reason.retry() {
            Retry::Soon => self.backoff.wait(),
            Retry::Slowly => jittered(self.slow),
        }
    }
}

/// Which of a server's sessions, for the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    Events,
    Actions,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Events => "events",
            Self::Actions => "actions",
        })
    }
}

/// Connects, ready to log in within what is left of the time for both.
pub(super) async fn open(settings: &Arc<ServerSettings>, events: EventMask) -> Result<Wire, DownReason> {
    let begun = Instant::now();
    let stream = dial(&settings.target, settings.connect_timeout).await?;
    let left = settings.connect_timeout.saturating_sub(begun.elapsed());
    let session = Session::new(settings.session(events, left), now());
    let unsendable =
        |error: ActionError| DownReason::Broken { text: error.to_string(), retry: Retry::Slowly };
    let session = session.map_err(unsendable)?;
    Ok(Wire::new(stream, session))
}

/// Tells the log how a session ended; a wrong secret in words of its own.
pub(super) fn log_end(settings: &ServerSettings, role: Role, ended: &Ended, wait: Duration) {
    let (server, reason, retry_in) = (&settings.name, &ended.reason, format_args!("{wait:.1?}"));
    match reason {
        DownReason::Stopping => tracing::info!(%server, session = %role, "logged off"),
        DownReason::Refused(LoginError::WrongSecret) => tracing::error!(
            %server, session = %role, username = settings.username, retry_in,
            "Asterisk refused the login: check username and secret, and the user's permit and deny in manager.conf"
        ),
        DownReason::Refused(LoginError::AlreadyInUse) => tracing::error!(
            %server, session = %role, username = settings.username, retry_in,
            "the user is logged in already: amibus needs two sessions, so set allowmultiplelogin=yes in manager.conf"
        ),
        DownReason::Refused(LoginError::ShuttingDown) => {
            tracing::warn!(%server, session = %role, target = %settings.target, %reason, retry_in, "not connected");
        }
        DownReason::Refused(error) => {
            tracing::error!(%server, session = %role, username = settings.username, %error, retry_in, "login refused");
        }
        _ => {
            tracing::warn!(%server, session = %role, target = %settings.target, %reason, retry_in, "not connected")
        }
    }
}
