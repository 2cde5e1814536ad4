//! The role of the raw publisher: the bus's client as amibus uses it, with its settings, and nothing else. What it
//! publishes is what amibus publishes, made ready in memory before the clock runs.

mod kafka;
mod nats;
mod zeromq;

use std::io;

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::{
    buses::Bus,
    child::{say, told},
    pace::Pacer,
    ready,
    traffic::{STAMP_BYTES, STAMP_KEY, text},
};

/// `raw BUS ADDRESS PREFIX RECORDING COUNT RATE`: says `ready`; told to go, it publishes, at a rate of 0 as fast as it can,
/// and says `published SUM`, the sum of the stamps.
pub(crate) async fn run(
    (bus, address, prefix): (Bus, &str, &str),
    recording: &str,
    count: u64,
    rate: u64,
) -> io::Result<()> {
    let messages = ready::messages(recording, prefix, count)?;
    let mut pace = Pace::new(rate);
    match bus {
        Bus::Nats => nats::core(address, messages, &mut pace).await?,
        Bus::JetStream => nats::stream(address, messages, &mut pace).await?,
        Bus::Kafka => kafka::run(address, messages, &mut pace)?,
        Bus::ZeroMq => zeromq::run(address, messages, &mut pace).await?,
    }
    say(&format!("published {}", pace.pacer.map_or(0, |pacer| pacer.sum)))?;
    // What it holds in memory is let go with the process.
    told().map(|_| ())
}

/// When each message goes; at a rate, with the moment in it.
struct Pace {
    pacer: Option<Pacer>,
    given: u64,
    finder: memmem::Finder<'static>,
}

impl Pace {
    fn new(rate: u64) -> Self {
        let pacer = (rate > 0).then(|| Pacer::new(rate));
        Self { pacer, given: 0, finder: memmem::Finder::new(STAMP_KEY) }
    }

    fn is_steady(&self) -> bool {
        self.pacer.is_some()
    }

    /// The body that is due next. Waits as a thread does: nothing else runs on the one that publishes.
    fn due(&mut self, body: Bytes) -> Bytes {
        let Some(pacer) = &mut self.pacer else { return body };
        if self.given.is_multiple_of(pacer.grain()) {
            pacer.wait();
        }
        self.given += 1;
        let mut stamped = BytesMut::from(body);
        if let Some(at) = self.finder.find(&stamped).map(|at| at + STAMP_KEY.len())
            && let Some(place) = stamped.get_mut(at..at + STAMP_BYTES)
        {
            place.copy_from_slice(text(pacer.stamp()).as_bytes());
        }
        stamped.freeze()
    }
}

/// Everything is there; waits until it may begin.
async fn ready() -> io::Result<()> {
    say("ready")?;
    tokio::task::spawn_blocking(told).await.map_err(io::Error::other)??;
    Ok(())
}
