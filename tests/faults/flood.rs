//! The source for rates: numbered events of a simulated Asterisk, in the test process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use amibus_sim::{Flood, Sim, SimOptions};
use tokio::runtime::Runtime;

use super::judge::{Message, Run, Sent};
use super::netns;
use super::rig::Source;

/// How many calls the events of a run belong to.
const CALLS: u64 = 8;
/// How many events end a flood.
const MARK_EVENTS: u64 = 32;

/// A simulated Asterisk that numbers its events.
pub(super) struct Simulated {
    runtime: Arc<Runtime>,
    sim: Arc<Sim>,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    runs: Mutex<Vec<Run>>,
    next_tag: AtomicU64,
}

/// A flood that goes on until it is ended.
pub(super) struct Flooding {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Simulated {
    /// Starts it.
    pub(super) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let options = SimOptions { sequence_numbers: true, ..SimOptions::default() };
        let sim = runtime.block_on(Sim::start(options)).expect("a port for the simulated Asterisk");
        Self { runtime: Arc::new(runtime), sim: Arc::new(sim), told: Arc::default() }
    }

    /// The port that it listens on.
    pub(super) fn port(&self) -> u16 {
        self.sim.addr().port()
    }

    /// Where amibus finds it.
    pub(super) fn source(&self) -> Source<'static> {
        Source { address: netns::address(self.port()), user: "amibus", secret: "amibus" }
    }

    /// Floods at this rate, in runs of about a second.
    pub(super) fn flood(&self, events_per_second: u64) -> Flooding {
        self.flood_padded(events_per_second, Flood::default().pad_bytes)
    }

    /// The same with events that are longer by about `pad_bytes`.
    pub(super) fn flood_padded(&self, events_per_second: u64, pad_bytes: usize) -> Flooding {
        let stop = Arc::new(AtomicBool::new(false));
        let (runtime, sim, told) = (Arc::clone(&self.runtime), Arc::clone(&self.sim), Arc::clone(&self.told));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                told.run(&runtime, &sim, events_per_second, events_per_second, pad_bytes);
            }
        });
        Flooding { stop, thread: Some(thread) }
    }

    /// Sends a few more events, and answers their tag.
    pub(super) fn mark(&self) -> String {
        self.told.run(&self.runtime, &self.sim, MARK_EVENTS * 10, MARK_EVENTS, 0)
    }

    /// Everything that was sent, in order; it needs not be asked of who saw it.
    pub(super) fn runs<'a>(&self, _seen: impl Iterator<Item = &'a Message>) -> Vec<Run> {
        self.told.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Told {
    /// Sends one run, and keeps account of it.
    fn run(
        &self,
        runtime: &Runtime,
        sim: &Sim,
        events_per_second: u64,
        total: u64,
        pad_bytes: usize,
    ) -> String {
        let tag = format!("run-{}", self.next_tag.fetch_add(1, Ordering::Relaxed));
        let flood = Flood { tag: tag.clone(), events_per_second, total, calls: CALLS, pad_bytes };
        let mut events = Vec::new();
        runtime.block_on(sim.flood_told(&flood, |told| {
            events.push(Sent { number: Some(told.sequence), at_micros: told.at_micros });
        }));
        let run = Run { tag: tag.clone(), events };
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
        tag
    }
}

impl Flooding {
    /// Ends it with its present run.
    pub(super) fn end(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Flooding {
    fn drop(&mut self) {
        self.finish();
    }
}
