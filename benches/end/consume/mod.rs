//! The role of a consumer of a bus, by the bus's own client: it counts, and says when it has everything.

mod kafka;
mod nats;
mod zeromq;

use std::io;

use crate::{buses::Bus, child::say, tally::Tally};

/// `consume BUS ADDRESS PREFIX COUNT`: says `ready`, then `whole BYTES` once everything came, or what was wrong.
pub(crate) async fn run(bus: Bus, address: &str, prefix: &str, count: u64) -> io::Result<()> {
    let mut tally = Tally::new(count);
    match bus {
        Bus::Nats => nats::core(address, prefix, &mut tally).await?,
        Bus::JetStream => nats::stream(address, prefix, &mut tally).await?,
        Bus::Kafka => kafka::run(address, prefix, &mut tally)?,
        Bus::ZeroMq => zeromq::run(address, prefix, &mut tally).await?,
    }
    say(&tally.verdict())
}
