//! The whole bridge on real servers: two Asterisks, NATS with JetStream, Kafka, ZeroMQ, and consumers in Python that use
//! nothing of ours. One stack for all tests; a test has it alone.

mod commands;
mod events;
mod healing;
mod monitor;
mod readme;
mod stack;

pub(crate) use stack::get;
