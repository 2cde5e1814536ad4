//! The role of one Asterisk: it pours events to its reader as fast as this reads.

use std::{fs, io, time::Duration};

use amibus_sim::{Sim, SimOptions};
use bytes::Bytes;

use crate::{
    child::{say, told},
    traffic::{Traffic, recorded},
};

/// Events that are given to be written as one.
const BATCH_EVENTS: u64 = 2048;
/// How long a reader may not read before its session is dropped: longer than a garbage collector takes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// What is poured.
pub(crate) enum Load {
    /// Numbered events, ready to be written, and how many each chunk of them holds. All are made before the clock runs, as those
    /// of the raw publisher are.
    Numbered(Vec<(Bytes, u64)>),
    /// The recording's own events, once, just as they are.
    Once(Vec<Vec<u8>>),
}

impl Load {
    /// `numbered`, `plain` (numbered, without `ChanVariable`) or `once`; what is poured once is also written into the file
    /// that stands in place of a count.
    pub(crate) fn of(kind: &str, recording: &str, count: &str) -> io::Result<Self> {
        match kind {
            "numbered" => numbered(&Traffic::of(recording)?, count),
            "plain" => numbered(&Traffic::without_variables(recording)?, count),
            "once" => {
                let events = recorded(recording);
                fs::write(count, events.concat())?;
                Ok(Self::Once(events))
            }
            _ => Err(io::Error::other(format!("{kind}: no such load"))),
        }
    }
}

/// `sim LOAD RECORDING COUNT`: says `port N`; told to go, it pours once somebody is logged in, and says `poured EVENTS`.
pub(crate) async fn run(load: Load) -> io::Result<()> {
    let sim = Sim::start(SimOptions { write_timeout: WRITE_TIMEOUT, ..SimOptions::default() }).await?;
    say(&format!("port {}", sim.addr().port()))?;
    tokio::task::spawn_blocking(told).await.map_err(io::Error::other)??;
    while sim.sessions() == 0 {
        tokio::time::sleep(PAUSE).await;
    }
    let poured = match load {
        Load::Numbered(chunks) => {
            for (chunk, events) in &chunks {
                sim.pour(chunk, *events).await;
            }
            chunks.iter().map(|(_, events)| events).sum()
        }
        Load::Once(events) => {
            for event in &events {
                sim.pour(&Bytes::copy_from_slice(event), 1).await;
            }
            events.len() as u64
        }
    };
    say(&format!("poured {poured}"))?;
    tokio::task::spawn_blocking(told).await.map_err(io::Error::other)??;
    Ok(())
}

/// So many events in chunks of [`BATCH_EVENTS`].
fn numbered(traffic: &Traffic, count: &str) -> io::Result<Load> {
    let count: u64 = count.parse().map_err(io::Error::other)?;
    let chunk = |first| {
        let events = BATCH_EVENTS.min(count - first);
        (traffic.numbered(first, events).into(), events)
    };
    Ok(Load::Numbered((0..count).step_by(BATCH_EVENTS as usize).map(chunk).collect()))
}
