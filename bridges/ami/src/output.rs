//! What a session has to say.

use crate::action_id::ActionId;
use crate::frame::Frame;
use crate::reply::{Reply, ReplyError};

/// What a session has to say.
#[derive(Debug)]
pub enum Output<'a> {
    /// The version of AMI (not of Asterisk) that the banner tells, such as `11.0.0`.
    Banner(&'a str),
    /// Actions can be sent from now on.
    LoggedIn,
    /// All modules are loaded. The event itself follows as [`Output::Event`].
    FullyBooted,
    /// An event that is no item of a list of ours.
    Event(Frame<'a>),
    /// An action is answered in full, or given up.
    Reply {
        /// The ActionID under which it was sent.
        action_id: ActionId,
        /// What the caller gave to [`Session::send`].
        token: u64,
        /// The answer.
        result: Result<Reply, ReplyError>,
    },
    /// A response that answers no action of ours.
    Stray(Frame<'a>),
    /// A message that is neither event nor response: torn off another one, as a rule.
    Other(Frame<'a>),
    /// The session is over, and this action has no reply.
    Unanswered {
        /// The ActionID under which it was to be sent.
        action_id: ActionId,
        /// What the caller gave to [`Session::send`].
        token: u64,
        /// Whether its bytes had been handed out to be written. If not, Asterisk never saw it.
        written: bool,
    },
}

/// Where a session's values go.
pub type Sink<'s> = &'s mut dyn FnMut(Output<'_>);
