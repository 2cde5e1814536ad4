//! ZeroMQ as a bus of amibus.
//!
//! - Events leave on a socket that any SUB can connect to (`publish`): two frames, topic and body. Subscribe by topic
//!   prefix: `ami.event.`, `ami.event.pbx1.`, `ami.event.pbx1.Hangup`.
//! - Commands come in on a ROUTER (`commands`), one frame each, from REQ (which sends an empty delimiter) and from
//!   DEALER (with or without one). The reply has the same envelope and one frame, the response.
//!
//! The protocol engine is the `zeromq` crate, and no peer ever reaches it: the module `gate` says what it cannot
//! defend itself against, and stands before it.
//!
//! # When is a subscription in force?
//! A subscriber that connects sees what is published once its subscription has arrived, and nothing tells it when
//! that is. Who needs to know subscribes to its topics first and then to any topic that begins with
//! `~amibus.confirm.`, and gets one message with that topic and an empty body: from then on it sees everything. Nobody
//! else sees that message.

mod address;
mod bridge;
mod client;
mod commands;
mod config;
mod engine;
mod gate;
mod inlet;
mod outlet;
mod probe;
mod publisher;
mod rejection;
mod relay;
mod router;
mod stats;
mod thread;
mod wire;

pub use bridge::ZeroMq;
pub use stats::Stats;
