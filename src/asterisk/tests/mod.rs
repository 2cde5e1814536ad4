//! The connector against scripted servers: over pipes in stopped time, and over TCP where connecting is what
//! is tested.

mod actions;
mod events;
mod reconnect;
pub(super) mod script;
mod tls;
