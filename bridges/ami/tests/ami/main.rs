//! The protocol on recorded bytes and in virtual time.

mod action;
mod corpus;
mod decoder;
mod driver;
mod replay;
mod seeds;
mod session;
mod session_lists;
mod stream;
mod traps;
