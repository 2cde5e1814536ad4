//! The role of Asterisk: it pours recorded events to amibus as fast as amibus reads.

use std::{io, time::Duration};

use amibus_sim::{Sim, SimOptions};
use bytes::Bytes;

use crate::{
    child::{say, told},
    traffic::Traffic,
};

/// Events that are written as one.
const BATCH_EVENTS: u64 = 512;
/// Chunks that are made ahead.
const READY_CHUNKS: usize = 16;
/// How long amibus may not read before its session is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// `sim RECORDING COUNT`: says `port N`; told to go, it pours, and says `poured`.
pub(crate) async fn run(recording: &str, count: u64) -> io::Result<()> {
    let traffic = Traffic::of(recording)?;
    let sim = Sim::start(SimOptions { write_timeout: WRITE_TIMEOUT, ..SimOptions::default() }).await?;
    say(&format!("port {}", sim.addr().port()))?;
    tokio::task::spawn_blocking(told).await.map_err(io::Error::other)??;
    // One thread numbers the events, another writes them.
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
    say(&format!("poured {}", sim.stats().slow_sessions_dropped))?;
    tokio::task::spawn_blocking(told).await.map_err(io::Error::other)??;
    Ok(())
}
