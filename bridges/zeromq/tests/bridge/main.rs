//! The bridge against libzmq (pyzmq in a process of its own) and against literal bytes.

mod close;
mod commands;
mod conformance;
mod hostile;
mod peers;
#[path = "../support/mod.rs"]
mod support;
