//! The role of a consumer of a bus, by the bus's own client.

mod any;
mod kafka;
mod nats;
mod zeromq;

use std::{io, path::Path};

use any::{Any, First};

use crate::{buses::Bus, child::say, pace::now_micros, tally::Tally, trace::Tracer};

/// What is done with what comes.
pub(crate) trait Sink: Send {
    /// Takes one message, which came in `place` (a partition or a server, where order is kept) and is `bytes` long with all
    /// its headers; true once everything came.
    fn take(&mut self, place: i32, body: &[u8], bytes: usize) -> bool;
}

/// `consume count|trace|any|first BUS ADDRESS PREFIX COUNT [FILE]`: says `ready`, and then, once everything came, `whole
/// BYTES MOST` or what was wrong (count), `done` when the file is written (trace), how many came every moment (any), or
/// when the first came (first).
pub(crate) async fn run(
    kind: &str,
    place: (Bus, &str, &str),
    count: u64,
    file: Option<&str>,
) -> io::Result<()> {
    match (kind, file) {
        ("count", _) => {
            let mut tally = Tally::new(count);
            receive(place, &mut tally).await?;
            say(&tally.verdict())
        }
        ("trace", Some(file)) => {
            let mut tracer = Tracer::new(count);
            receive(place, &mut tracer).await?;
            tracer.write(Path::new(file))?;
            say("done")
        }
        ("any", file) => receive(place, &mut Any::new(file.map(Path::new))?).await,
        ("first", _) => {
            receive(place, &mut First).await?;
            say(&format!("came {}", now_micros()))
        }
        _ => Err(io::Error::other(format!("{kind}: no such consumer"))),
    }
}

async fn receive((bus, address, prefix): (Bus, &str, &str), sink: &mut dyn Sink) -> io::Result<()> {
    match bus {
        Bus::Nats => nats::core(address, prefix, sink).await,
        Bus::JetStream => nats::stream(address, prefix, sink).await,
        Bus::Kafka => kafka::run(address, prefix, sink),
        Bus::ZeroMq => zeromq::run(address, prefix, sink).await,
    }
}
