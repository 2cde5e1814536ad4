//! amibus bridges Asterisk to a message bus.

pub mod health;
pub mod metrics;
