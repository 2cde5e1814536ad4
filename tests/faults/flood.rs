//! The source for rates: numbered events of a simulated Asterisk, in the test process.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use amibus_sim::{Flood, Sim, SimOptions};
use tokio::runtime::Runtime;

use super::judge::{Message, Run, Sent, What};
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
        let stop = Arc::new(AtomicBool::new(false));
        let (runtime, sim, told) = (Arc::clone(&self.runtime), Arc::clone(&self.sim), Arc::clone(&self.told));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                told.run(&runtime, &sim, events_per_second, events_per_second);
            }
        });
        Flooding { stop, thread: Some(thread) }
    }

    /// Sends a few more events, and answers their tag.
    pub(super) fn mark(&self) -> String {
        self.told.run(&self.runtime, &self.sim, MARK_EVENTS * 10, MARK_EVENTS)
    }

    /// Everything that was sent, in order. A login in the middle of a run takes numbers too; which ones, is told by
    /// what was seen on either side of it.
    pub(super) fn runs<'a>(&self, seen: impl Iterator<Item = &'a Message>) -> Vec<Run> {
        let mut runs = self.told.runs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let vague =
            |run: &Run| run.events.first().and_then(|sent| sent.number).is_some_and(|(low, high)| low < high);
        let mut told: HashMap<&str, BTreeMap<usize, u64>> =
            runs.iter().filter(|run| vague(run)).map(|run| (run.tag.as_str(), BTreeMap::new())).collect();
        for message in seen {
            if let What::Event { tag, n, number: Some(number), .. } = &message.what
                && let Some(known) = told.get_mut(tag.as_str())
            {
                known.insert(usize::try_from(*n).unwrap_or(usize::MAX), *number);
            }
        }
        let told: HashMap<String, _> = told.into_iter().map(|(tag, known)| (tag.to_owned(), known)).collect();
        for run in &mut runs {
            if let Some(known) = told.get(&run.tag) {
                narrow(&mut run.events, known);
            }
        }
        runs
    }
}

impl Told {
    /// Sends one run, and keeps account of it.
    fn run(&self, runtime: &Runtime, sim: &Sim, events_per_second: u64, total: u64) -> String {
        let tag = format!("run-{}", self.next_tag.fetch_add(1, Ordering::Relaxed));
        let flood = Flood { tag: tag.clone(), events_per_second, total, calls: CALLS, ..Flood::default() };
        let first = sim.next_sequence();
        let begun = now_micros();
        runtime.block_on(sim.flood_with(&flood));
        let took = now_micros() - begun;
        let others = (sim.next_sequence() - first).saturating_sub(total);
        let sent = |n| Sent {
            number: Some((first + n, first + n + others)),
            at_micros: begun + took * n / total.max(1),
        };
        let run = Run { tag: tag.clone(), events: (0..total).map(sent).collect() };
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

/// Numbers ascend by one at least: what is known of one event narrows down the others.
fn narrow(events: &mut [Sent], known: &BTreeMap<usize, u64>) {
    let mut least = 0;
    for (n, sent) in events.iter_mut().enumerate() {
        let Some((low, high)) = &mut sent.number else { continue };
        *low = (*low).max(least);
        if let Some(number) = known.get(&n).filter(|number| (*low..=*high).contains(number)) {
            (*low, *high) = (*number, *number);
        }
        least = *low + 1;
    }
    let mut most = u64::MAX;
    for (low, high) in events.iter_mut().rev().filter_map(|sent| sent.number.as_mut()) {
        *high = (*high).min(most).max(*low);
        most = high.saturating_sub(1);
    }
}

#[test]
fn a_login_within_a_run_is_found_by_what_was_seen() {
    let sent = |n: u64| Sent { number: Some((100 + n, 102 + n)), at_micros: 0 };
    let mut events: Vec<Sent> = (0..10).map(sent).collect();
    // 3, 4 and 5 were not seen, and two logins happened there.
    let seen = [0, 1, 2, 6, 7, 8, 9].map(|n| (n, 100 + n as u64 + if n > 5 { 2 } else { 0 }));
    narrow(&mut events, &BTreeMap::from(seen));
    let numbers: Vec<(u64, u64)> = events.iter().filter_map(|sent| sent.number).collect();
    assert_eq!(numbers[..3], [(100, 100), (101, 101), (102, 102)]);
    assert_eq!(numbers[3..6], [(103, 105), (104, 106), (105, 107)]);
    assert_eq!(numbers[6..], [(108, 108), (109, 109), (110, 110), (111, 111)]);
}

fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
