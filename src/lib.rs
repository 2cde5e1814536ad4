//! amibus bridges Asterisk to a message bus.
//!
//! If it knows a wire, it lives in `bridges/`; if it decides something, it lives here.
//!
//! | module | what it decides |
//! |---|---|
//! | `cli`, `config`, `check`, `logging` | how the program is told what to do, and what it tells |
//! | `daemon` | how the parts are put together, and taken apart |
//! | `buses` | which buses there are: one line each |
//! | `asterisk` | when to connect, and what the two sessions of a server do |
//! | `intake`, `filter`, `seen` | what an event session sees: kept or not, gap or not |
//! | `normalize`, `route`, `schema`, `writer`, `link` | how it is written |
//! | `spool` | the durable log of a server, with a cursor for each bus |
//! | `outlet` | one lane of a server to a bus: batch, publish, commit |
//! | `command` | decode, policy, journal, send, outcome |
//! | `health`, `metrics`, `http` | what is shown to those who watch |
//! | `failpoint` | where a test may end the process, in builds for tests alone |
//!
//! An event's way: `asterisk` -> `intake` -> `writer` -> `spool` -> `outlet` -> bus. A command's: bus -> `command` ->
//! `asterisk`, and its response into the `spool`.

pub mod asterisk;
pub mod buses;
pub mod check;
pub mod cli;
pub mod command;
pub mod config;
pub mod daemon;
pub mod failpoint;
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
pub mod seen;
pub mod spool;
pub mod writer;
