//! What the tests stand on: the recordings of real Asterisks ([`corpus`]) and the real servers.
//!
//! A server is a value: it runs a process of its own on free loopback ports in a directory of its own, it has
//! answered before the value is there, and it is gone when the value or the test process is. Nothing here is
//! published. Every failure is a panic that says what to do, because a test that cannot have its server must
//! fail, not pass.

mod asterisk;
mod asterisk_config;
mod cache;
pub mod corpus;
mod kafka;
mod nats;
mod ports;
mod process;
mod program;
mod python;
mod tls;

pub use asterisk::{Asterisk, AsteriskOptions, Version};
pub use kafka::{KAFKA_PASSWORD, KAFKA_USER, Kafka, KafkaOptions};
pub use nats::{Nats, NatsOptions};
pub use ports::Ports;
pub use process::Process;
pub use program::Program;
pub use python::{Python, python};
pub use tls::Certificates;
