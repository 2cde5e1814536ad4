//! No event is lost silently: faults under load, and a judge that knows nothing of amibus.
//!
//! | file | what |
//! |---|---|
//! | `judge` | what must hold, and whether it did; tested on doctored stores |
//! | `consume.py`, `witness.py` | consumers of the buses, and a second AMI session: what was seen, what was sent |
//! | `flood`, `asterisk` | the sources of numbered events: simulated, for rates, and real |
//! | `wire`, `proxy`, `netns` | wires that can be cut: in the test process, or between network namespaces |
//! | `brokers`, `rig` | real brokers, one amibus with its consumers |
//! | `accounting` | whether amibus's own counters add up at every scrape |
//! | `table`, `paper` | a row a fault |
//! | `brokers_die`, `brokers_hang`, `network_cut`, `asterisk_dies`, `kafka_away` | the faults |
//! | `spool` | the faults that need events to survive amibus |
//!
//! Each has a short form, and a long one: `tests/faults/long`.

#[path = "../accounting/identity.rs"]
mod accounting;
mod asterisk;
mod asterisk_dies;
mod brokers;
mod brokers_die;
mod brokers_hang;
mod consumer;
mod extent;
mod flood;
mod judge;
mod kafka_away;
mod netns;
mod network_cut;
mod paper;
mod proxy;
mod rig;
mod spool;
mod table;
mod wire;
