//! What amibus asks of a message bus.
//!
//! A *bridge* carries already-encoded messages to one bus and requests back. It knows the bus's wire and nothing
//! else: it neither reads configuration files, nor knows what a call is, nor decides what is retried. The root
//! crate knows no wire. This crate is what both agree on:
//!
//! - [`Message`] and [`Topic`]: what is published, and under which name ([`message`]);
//! - [`Outlet`]: takes a batch and says how many are safe and how far they got ([`outlet`]);
//! - [`Inlet`] and [`Request`]: commands from the bus, acknowledged after their outcome is recorded ([`inlet`]);
//! - [`Claims`]: what several processes must not do twice ([`claims`]);
//! - [`Client`]: the other side of the bus, for `amibus tail`, `send` and `dial` and the tests ([`client`]);
//! - [`Plug`], [`Key`] and [`Values`]: how a bus is named, configured and opened ([`settings`]);
//! - [`conformance`]: the suite that every bridge passes against the real bus.
//!
//! Nothing in here opens a socket, reads a clock or depends on an async runtime.

pub mod attributes;
pub mod claims;
pub mod client;
pub mod conformance;
pub mod fault;
pub mod inlet;
pub mod message;
pub mod outlet;
pub mod settings;

use std::{future::Future, pin::Pin, sync::Arc};

pub use bytes::Bytes;
pub use bytestring::ByteString;

pub use attributes::{Attribute, Attributes, Places, Shown};
pub use claims::Claims;
pub use client::{Client, Delivery, Feed, Posted, Replies};
pub use fault::{Decision, Fault, FaultKind};
pub use inlet::{Begin, Handle, Inlet, Rejection, Request, Scope};
pub use message::{CallKey, Kind, Message, Topic, TopicError, Topics};
pub use outlet::{Outlet, Published, Reach};
pub use settings::{Context, Key, KeyKind, Plug, Problem, Value, Values};

/// A boxed future, so that bridges can be used as trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One bus, configured and ready to be used; opening it did no input or output yet.
///
/// Every method may be called at any time, also while the bus is down: then the futures answer with a
/// [`Fault`] whose decision is [`Decision::Retry`], within the bridge's own connect deadline.
pub trait Bridge: Send + Sync {
    /// The bus's name in the configuration, in metrics and in logs, e.g. `nats`.
    fn name(&self) -> &'static str;

    /// How far a message has got when [`Outlet::publish`] counts it as safe.
    fn reach(&self) -> Reach;

    /// What the bus's promise amounts to, in a sentence for `amibus check`, e.g. "stored by JetStream stream AMI
    /// (file storage, one replica)".
    fn promise(&self) -> String;

    /// Whether the bus was reachable when last seen; `Err` holds the reason in words. Never blocks.
    fn status(&self) -> Result<(), String>;

    /// An outlet of its own for one lane (a server's name). Order is kept within an outlet and key.
    fn outlet<'a>(&'a self, lane: &'a str) -> BoxFuture<'a, Result<Box<dyn Outlet>, Fault>>;

    /// Where commands come in, or `None` where the configuration takes none from this bus. Called again
    /// where it could not be opened, or was closed by itself.
    fn inlet<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<Option<Box<dyn Inlet>>, Fault>>;

    /// Whether commands that nobody takes at the moment are kept, so that [`Client::publish_command`] is to be had.
    fn keeps_commands(&self) -> bool {
        false
    }

    /// The store of claims that every process on this bus shares; `None` where the bus cannot hold one, or the
    /// configuration switches it off. Nothing is connected before its first use.
    fn claims(&self) -> Option<Arc<dyn Claims>> {
        None
    }

    /// How many commands this bus keeps that nobody took yet, where the bus keeps any and can tell; for the inlet that is
    /// open. What a bridge fetched ahead and no [`Inlet::next`] has given out counts. Answered from what is known or in
    /// one short question a server.
    ///
    /// # Errors
    /// When the bus did not answer.
    fn commands_waiting(&self) -> BoxFuture<'_, Result<Option<u64>, Fault>> {
        Box::pin(async { Ok(None) })
    }

    /// The consumer's and requester's side of the same bus.
    fn client<'a>(&'a self) -> BoxFuture<'a, Result<Box<dyn Client>, Fault>>;

    /// Tries the bus for real, for `amibus check --connect`: reachable, permitted, streams and topics there.
    /// Answers what was found, a line each; a line may be a warning in words.
    fn probe(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>>;

    /// Ends the bus's connections after delivering what outlets accepted, within `limit`. Answers how many
    /// accepted messages could not be delivered in that time.
    fn close(&self, limit: std::time::Duration) -> BoxFuture<'_, u64>;
}

/// A bridge that several tasks share.
pub type SharedBridge = Arc<dyn Bridge>;
