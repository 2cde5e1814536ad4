//! The role of the raw publisher: the bus's client as amibus uses it, with its settings, and nothing else. What it
//! publishes is what amibus publishes, made ready in memory before the clock runs.

mod kafka;
mod nats;
mod zeromq;

use std::io;

use crate::{
    buses::Bus,
    child::{say, told},
    ready,
};

/// `raw BUS ADDRESS PREFIX RECORDING COUNT`: says `ready`; told to go, it publishes, and says `published`.
pub(crate) async fn run(
    bus: Bus,
    address: &str,
    prefix: &str,
    recording: &str,
    count: u64,
) -> io::Result<()> {
    let messages = ready::messages(recording, prefix, count)?;
    match bus {
        Bus::Nats => nats::core(address, messages).await?,
        Bus::JetStream => nats::stream(address, messages).await?,
        Bus::Kafka => kafka::run(address, messages)?,
        Bus::ZeroMq => zeromq::run(address, messages).await?,
    }
    say("published")?;
    // What it holds in memory is let go with the process.
    told().map(|_| ())
}

/// Everything is there; waits until it may begin.
async fn ready() -> io::Result<()> {
    say("ready")?;
    tokio::task::spawn_blocking(told).await.map_err(io::Error::other)??;
    Ok(())
}
