//! The role of one Asterisk: it pours events to its reader as fast as this reads.

use std::{fs, io, time::Duration};

use amibus_sim::{Sim, SimOptions};
use bytes::Bytes;

use crate::{
    child::{say, told},
    traffic::{Traffic, recorded},
};

/// Events that are written as one.
const BATCH_EVENTS: u64 = 512;
/// Chunks that are made ahead.
const READY_CHUNKS: usize = 16;
/// How long a reader may not read before its session is dropped: longer than a garbage collector takes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// What is poured.
pub(crate) enum Load {
    /// So many numbered events.
    Numbered { traffic: Traffic, count: u64 },
    /// The recording's own events, once, just as they are.
    Once(Vec<Vec<u8>>),
}

impl Load {
    /// `numbered`, `plain` (numbered, without `ChanVariable`) or `once`; what is poured once is also written into the file
    /// that stands in place of a count.
    pub(crate) fn of(kind: &str, recording: &str, count: &str) -> io::Result<Self> {
        let number = || count.parse().map_err(io::Error::other);
        match kind {
            "numbered" => Ok(Self::Numbered { traffic: Traffic::of(recording)?, count: number()? }),
            "plain" => {
                Ok(Self::Numbered { traffic: Traffic::without_variables(recording)?, count: number()? })
            }
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
        Load::Numbered { traffic, count } => numbered(&sim, traffic, count).await?,
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

/// One thread numbers the events, another writes them.
async fn numbered(sim: &Sim, traffic: Traffic, count: u64) -> io::Result<u64> {
    let (sender, mut chunks) = tokio::sync::mpsc::channel::<(Bytes, u64)>(READY_CHUNKS);
    let maker = tokio::task::spawn_blocking(move || {
        let mut first = 0;
        while first < count {
            let batch = BATCH_EVENTS.min(count - first);
            if sender.blocking_send((traffic.numbered(first, batch).into(), batch)).is_err() {
                break;
            }
            first += batch;
        }
    });
    while let Some((chunk, events)) = chunks.recv().await {
        sim.pour(&chunk, events).await;
    }
    maker.await.map_err(io::Error::other)?;
    Ok(count)
}
