//! The bridge against real Kafka.

mod begun;
mod commands;
mod conformance;
mod events;
mod flight;
mod hung;
mod letters;
mod login;
mod rig;
mod values;
