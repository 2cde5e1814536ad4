//! What a plain TCP client sees of the simulated Asterisk, byte for byte. Nothing of ours reads the bytes: the
//! client here splits at empty lines and no more.

#![allow(missing_docs)]

mod actions;
mod client;
mod faults;
mod flood;
mod login;
mod originate;
mod play;
