//! NATS and JetStream as a bus of amibus.
//!
//! - [`Nats`] opens the bridge from configuration ([`keys`] is the table, [`settings`] what became of it).
//! - `dial` connects, logs in and tells what happens to a connection; `hub` keeps the one connection that all
//!   outlets publish on, `stream` looks after the JetStream stream.
//! - `jet` and `core` are the two outlets. `flight` is what `jet` has on its way, and `window` decides which message may
//!   leave when.
//! - `look` reads what the stream has before anything is sent again that its duplicate window may have forgotten, and
//!   `held` keeps it.
//! - `inlet` takes commands: `service` as a NATS micro service, `pull` from a JetStream stream, some of them `ahead`;
//!   `depth` tells how many wait, and `handle` is the way back.
//! - `claims` holds what several processes must not do twice, in a key-value bucket that `bucket` looks after.
//! - `client` is the other side of the bus, and `probe` tries it all.
//!
//! # Order
//! JetStream refuses a message and takes the next one without a thought, so what is in flight behind a refused or
//! lost message may be stored before it. Nothing in the protocol prevents that across several publishers: an
//! expected last sequence needs a single one. It happens when a cluster changes the stream's leader. Therefore, in
//! a cluster, a message leaves only when its predecessor of the same key is acknowledged, while other keys share
//! the wire (`max_in_flight_per_key`). The same holds for a stream that refuses what it has no room for (discard
//! new) and then takes a smaller one. A server that stands alone stores what it reads in the order of the
//! connection and loses only the rest of it, so where its stream makes room by itself (discard old, limits), everything
//! is in flight at once and the whole order is kept. What remains is such a stream that refuses all the same, e.g.
//! for want of disk: then the outlet falls back to one of a key at a time until a whole batch passes.
//! Batches that follow each other while messages are on their way change nothing of that: they share one window with its
//! limits, and the first fault ends it for all of them.
//!
//! A connection that broke is never resumed: async-nats would send what was left in its queue, out of order, on
//! the next one. What the server still reads from it is stored in the same order, and repeats are dropped by id.

mod ahead;
mod barrier;
mod bridge;
mod bucket;
mod claims;
mod client;
mod core;
mod dead;
mod depth;
mod dial;
mod faults;
mod flight;
mod handle;
mod headers;
mod held;
mod hub;
mod inlet;
mod jet;
pub mod keys;
mod login;
mod look;
mod post;
mod probe;
mod pull;
mod service;
pub mod settings;
mod stream;
mod subjects;
mod window;

pub use bridge::Nats;
