//! amibus bridges Asterisk to a message bus.

pub mod asterisk;
pub mod buses;
pub mod check;
pub mod cli;
pub mod command;
pub mod config;
pub mod daemon;
pub mod filter;
pub mod health;
pub mod http;
pub mod intake;
pub mod link;
pub mod logging;
pub mod metrics;
pub mod normalize;
pub mod outlet;
pub mod route;
pub mod schema;
pub mod spool;
pub mod writer;
