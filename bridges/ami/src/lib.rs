//! The Asterisk Manager Interface (AMI), sans-IO: bytes and instants in, bytes and values out.
//!
//! Nothing here opens a socket, reads a clock, draws randomness or sleeps; a driver does that and
//! hands in what came of it. That is why every rule of the protocol is tested in virtual time, on
//! recorded bytes.
//!
//! | module | idea |
//! |---|---|
//! | [`decoder`] | where a message begins and ends in the bytes of a connection |
//! | [`frame`] | one message, borrowed: what it is, and its header lines |
//! | [`action`] | one action; what Asterisk would cut cannot be built |
//! | [`action_id`] | ActionIDs that nobody can guess |
//! | [`session`] | login, events, replies, life: one connection as a value |
//! | [`config`], [`output`] | what goes into a session, and what comes out |
//! | [`login`] | what is sent, and what a refusal means |
//! | [`reply`] | a response and the event list that it announced |
//! | [`error`] | why a session ended, and when to try again |
//! | [`limits`] | the bound of everything that a server could make grow |
//!
//! `lists` knows what follows a response, `pending` holds the actions that are not answered in full.

pub mod action;
pub mod action_id;
pub mod config;
pub mod decoder;
pub mod error;
pub mod frame;
pub mod limits;
mod lists;
pub mod login;
pub mod output;
mod pending;
pub mod reply;
pub mod session;

pub use action::{Action, ActionError};
pub use action_id::{ActionId, ActionIds};
pub use config::SessionConfig;
pub use decoder::{Decoded, Decoder, FrameError, Tail};
pub use error::{Retry, SendError, SessionError};
pub use frame::{Frame, Header, Headers, Kind, OwnedFrame, Separator};
pub use limits::Limits;
pub use login::{EventMask, LoginError, LoginMethod};
pub use output::{Output, Sink};
pub use reply::{Reply, ReplyError};
pub use session::Session;
