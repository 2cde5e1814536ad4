//! Apache Kafka as a bus of amibus, over librdkafka.
//!
//! - **Topics**: a topic a kind (`ami.event`, `ami.link`, `ami.call`, `ami.command`, `ami.response`), and `<topic>-dlt`
//!   for what could not be stored or read (`topics`, `letters`). The record key is the call key; the partition is
//!   the one that Java's clients choose. Order within a call holds as long as the number of partitions stays.
//! - **Out**: a batch goes in flight as a whole, and others follow while it is on its way, through one idempotent producer
//!   that all lanes share (`front`, `outlet`). What is stored is at any time a prefix of what was sent, per partition, so
//!   that offering the rest of what failed again keeps the order.
//! - **In**: a member of a consumer group on a thread of its own (`member`, `group`); a command is committed after
//!   its acknowledge, out of order where need be (`tracker`). Replies as Spring Kafka asks for them (`command`).
//! - **The other side**: readers at the end of all partitions, and requests (`client`).
//!
//! Every file that holds state opens with what it promises.

mod asked;
mod begins;
mod bridge;
mod client;
mod clients;
mod command;
mod committer;
mod faults;
mod front;
mod group;
mod health;
mod hub;
mod inlet;
mod keys;
mod letters;
mod marks;
mod member;
mod outlet;
mod passthrough;
mod post;
mod probe;
mod record;
mod reports;
mod settings;
mod single;
mod topics;
mod tracker;

pub use bridge::Kafka;
