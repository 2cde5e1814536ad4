//! What a session needs to know, and the times that it keeps where nobody says otherwise.

use std::time::Duration;

use secrecy::SecretString;

use crate::action_id::ActionIds;
use crate::limits::Limits;
use crate::login::{EventMask, LoginMethod};

/// Silence after which a ping is sent.
pub const DEFAULT_PING_INTERVAL: Duration = Duration::from_secs(10);
/// Silence after a ping that means the connection is dead.
pub const DEFAULT_PING_DEADLINE: Duration = Duration::from_secs(10);
/// From the connection to the end of the login. Asterisk pauses 1 s before it refuses one.
pub const DEFAULT_LOGIN_DEADLINE: Duration = Duration::from_secs(15);
/// From the sending of an action to the end of its reply.
pub const DEFAULT_ACTION_DEADLINE: Duration = Duration::from_secs(30);

/// What a session needs to know.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The AMI user, a section of `manager.conf`.
    pub username: String,
    /// That user's secret.
    pub secret: SecretString,
    /// How it is shown to be known.
    pub login: LoginMethod,
    /// Which events the session receives.
    pub event_mask: EventMask,
    /// Silence after which a ping is sent.
    pub ping_interval: Duration,
    /// Silence after a ping that means the connection is dead.
    pub ping_deadline: Duration,
    /// From the connection to the end of the login.
    pub login_deadline: Duration,
    /// From [`Session::send`] to the end of the reply.
    pub action_deadline: Duration,
    /// What the session will hold.
    pub limits: Limits,
    /// Where ActionIDs come from, shared by the sessions of a process.
    pub action_ids: ActionIds,
}

impl SessionConfig {
    /// MD5 login, all events, and the default limits and times.
    pub fn new(username: impl Into<String>, secret: SecretString, action_ids: ActionIds) -> Self {
        Self {
            username: username.into(),
            secret,
            login: LoginMethod::default(),
            event_mask: EventMask::default(),
            ping_interval: DEFAULT_PING_INTERVAL,
            ping_deadline: DEFAULT_PING_DEADLINE,
            login_deadline: DEFAULT_LOGIN_DEADLINE,
            action_deadline: DEFAULT_ACTION_DEADLINE,
            limits: Limits::default(),
            action_ids,
        }
    }
}
