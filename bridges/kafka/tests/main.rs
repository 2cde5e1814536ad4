//! The bridge against real Kafka.

mod commands;
mod conformance;
mod events;
mod letters;
mod login;
mod rig;
mod values;
