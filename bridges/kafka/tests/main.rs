//! The bridge against real Kafka.

mod commands;
mod conformance;
mod events;
mod login;
mod rig;
mod values;
