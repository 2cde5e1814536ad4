//! No call is dialled twice: faults while Originates flow, and a judge that counts the calls that Asterisk ran.
//!
//! | file | what |
//! |---|---|
//! | `judge` | what must hold, and whether it did; tested on doctored evidence |
//! | `pbx`, `wiretap` | real Asterisks that write down each call; the wire to them, and what was sent over it |
//! | `flow`, `flow.py`, `outcomes.py`, `stores` | senders and consumers in Python, and what they stored |
//! | `rig`, `pair` | one amibus between them, and what is done to it; two beside each other |
//! | `table` | a row a fault |
//! | `killed`, `steps`, `others_die`, `thrice`, `two`, `apart` | the faults |
//! | `pace` | a batch, and what is beside it |
//!
//! Brokers, wires and what says how long and how often are those of `tests/faults`. Each row has a short form, and a long
//! one: `tests/calls/long`.

mod apart;
#[path = "../faults/brokers.rs"]
#[allow(dead_code, reason = "the faults use more of it")]
mod brokers;
#[path = "../faults/extent.rs"]
#[allow(dead_code, reason = "the faults use more of it")]
mod extent;
mod flow;
mod judge;
mod killed;
#[path = "../faults/netns.rs"]
#[allow(dead_code, reason = "the faults use more of it")]
mod netns;
mod others_die;
mod pace;
mod pair;
#[path = "../faults/paper.rs"]
mod paper;
mod pbx;
#[path = "../faults/proxy.rs"]
mod proxy;
mod rig;
mod steps;
mod stores;
mod table;
mod thrice;
mod two;
#[path = "../faults/wire.rs"]
#[allow(dead_code, reason = "the faults use more of it")]
mod wire;
mod wiretap;
