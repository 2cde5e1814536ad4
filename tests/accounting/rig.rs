//! A simulated Asterisk, amibus as a program, a real NATS server with JetStream, and somebody who listens on ZeroMQ.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use amibus_services::{Nats, NatsOptions, Program};
use amibus_sim::{Flood, Sim, SimOptions};
use tokio::runtime::Runtime;

use super::{
    identity::{self, Lane},
    scraper::get,
};

/// How long anything that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const START_SECONDS: u64 = 30;
const POLL: Duration = Duration::from_millis(20);
/// What this NATS server takes at most: some messages are larger.
pub(super) const NATS_MAX_PAYLOAD_BYTES: usize = 16 << 10;
/// How many calls the events of a flood belong to.
const CALLS: u64 = 8;

pub(super) struct Rig {
    runtime: Arc<Runtime>,
    pub(super) sim: Arc<Sim>,
    pub(super) nats: Nats,
    pub(super) amibus: Program,
    _tail: Program,
}

/// A flood that goes on until it is dropped.
pub(super) struct Flooding {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Rig {
    /// Starts all of it; `more` is added to amibus's configuration.
    pub(super) fn start(spool_max: &str, more: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = Arc::new(runtime.expect("a runtime"));
        let options = SimOptions { sequence_numbers: true, ..SimOptions::default() };
        let sim = Arc::new(runtime.block_on(Sim::start(options)).expect("a simulated Asterisk"));
        let config = format!("max_payload: {NATS_MAX_PAYLOAD_BYTES}");
        let nats = Nats::start(&NatsOptions { jetstream: true, config });
        let mut amibus = Program::prepare("amibus");
        let file = amibus.directory().join("amibus.toml");
        let text = configuration(&amibus, &sim, &nats, spool_max, more);
        std::fs::write(&file, text).expect("the configuration is written");
        let program = env!("CARGO_BIN_EXE_amibus");
        let file = file.display().to_string();
        amibus.start(command(&[program, "run", "-c", &file]), START_SECONDS, ready);
        let mut tail = Program::prepare("tail");
        let command = command(&[program, "tail", "-c", &file, "--bus", "zeromq"]);
        tail.start(command, START_SECONDS, |tail| tail.log_tail().contains("subscribed"));
        Self { runtime, sim, nats, amibus, _tail: tail }
    }

    /// Kills amibus and starts it again.
    pub(super) fn kill_amibus(&mut self) {
        self.amibus.kill();
        self.start_amibus();
    }

    /// Starts amibus, which does not run.
    pub(super) fn start_amibus(&mut self) {
        self.amibus.restart(START_SECONDS, |process| get(process.port(0), "/live").is_some());
    }

    /// Floods at this rate until it is dropped, in runs of half a second.
    pub(super) fn flood(&self, events_per_second: u64) -> Flooding {
        let stop = Arc::<AtomicBool>::default();
        let (runtime, sim, stopped) = (Arc::clone(&self.runtime), Arc::clone(&self.sim), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                runtime.block_on(sim.flood_with(&Flood {
                    events_per_second,
                    total: events_per_second / 2,
                    calls: CALLS,
                    ..Flood::default()
                }));
            }
        });
        Flooding { stop, thread: Some(thread) }
    }

    /// Sends so many events at this rate.
    pub(super) fn send(&self, total: u64, events_per_second: u64) {
        let flood = Flood { events_per_second, total, calls: CALLS, ..Flood::default() };
        self.runtime.block_on(self.sim.flood_with(&flood));
    }

    /// The lanes now, NATS's first; none while amibus does not answer.
    pub(super) fn lanes(&self) -> Option<[Lane; 2]> {
        let (_, text) = get(self.amibus.port(0), "/metrics")?;
        let mut lanes = identity::check(&text).unwrap_or_else(|wrong| panic!("{wrong}"));
        lanes.sort_by(|one, other| one.bus.cmp(&other.bus));
        lanes.try_into().ok()
    }

    /// Waits until the lanes are as `done` wants them.
    pub(super) fn wait(&self, what: &str, mut done: impl FnMut(&[Lane; 2]) -> bool) -> [Lane; 2] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let lanes = self.lanes();
            match lanes {
                Some(lanes) if done(&lanes) => return lanes,
                _ => {}
            }
            assert!(Instant::now() < deadline, "{what}: {lanes:?}\n{}", self.amibus.log_tail());
            thread::sleep(POLL);
        }
    }
}

impl Drop for Flooding {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ready(process: &amibus_services::Process) -> bool {
    get(process.port(0), "/ready").is_some_and(|(status, _)| status == 200)
}

fn command(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn configuration(amibus: &Program, sim: &Sim, nats: &Nats, spool_max: &str, more: &str) -> String {
    format!(
        r#"
[[server]]
name = "pbx1"
url = "ami://{}"
username = "amibus"
secret = "amibus"
reconnect_max = "1s"

[spool]
dir = "{}/spool"
max_bytes = "{spool_max}"

[bus.zeromq]
publish = "tcp://127.0.0.1:{}"

[bus.nats]
url = "{}"
stream = "AMI"

[http]
listen = "127.0.0.1:{}"
{more}"#,
        sim.addr(),
        amibus.directory().display(),
        amibus.port(1),
        nats.url(),
        amibus.port(0),
    )
}
