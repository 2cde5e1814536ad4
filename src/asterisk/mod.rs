//! The connector: keeps two AMI sessions to each server, and drives the sans-IO session of `amibus-ami`.
//!
//! | module | idea |
//! |---|---|
//! | [`settings`] | where a server is, who logs in, which times are kept |
//! | [`dial`] | from a target to a connection: TCP, TLS |
//! | [`backoff`] | how long to wait before connecting again |
//! | [`events`] | the event session: log in, learn who is there, deliver |
//! | [`actions`] | the action session: a bounded handle in front, one connection behind |
//! | [`link`] | why a session ended, and what that means for the next |
//!
//! `wire` moves bytes between a connection and a session; `identity` knows which Asterisk it is.
//!
//! One server's sessions share nothing with those of another but the counter of ActionIDs. Nothing here waits
//! for a bus: what is read goes to an [`EventSink`], which may not wait.

pub mod actions;
pub mod backoff;
pub mod dial;
pub mod events;
mod identity;
pub mod link;
#[cfg(test)]
mod live;
pub mod settings;
#[cfg(test)]
mod tests;
mod wire;

pub use actions::{ActionFailure, ActionSession, Actions};
pub use dial::DialError;
pub use events::{EventSink, Up, run_events};
pub use link::DownReason;
pub use settings::{ClientCertificate, ServerSettings, Target, TlsSettings, action_ids};
