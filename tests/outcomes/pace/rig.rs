//! Asterisk 22, NATS with JetStream and one amibus between them, for one test after another.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use amibus_services::{Asterisk, AsteriskOptions, Nats, Program, Python, Version};

use super::{proxy::Proxy, witness::Witness};
use crate::e2e::get;

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds until amibus is ready.
const READY_SECONDS: u64 = 60;
/// How many seconds the calls live over which amibus is started again.
pub(super) const LIVE_SECONDS: u64 = 20;

/// Each group's calls live for so many seconds.
const LIVES: [(&str, u64); 4] = [("a", 1), ("b", 1), ("c", 8), ("d", LIVE_SECONDS)];

pub(super) struct Rig {
    pub(super) witness: Witness,
    pub(super) proxy: Proxy,
    amibus: Program,
    nats: Nats,
    _asterisk: Asterisk,
    _sent: Vec<Python>,
}

/// Pings through the stream of commands, one after another.
pub(super) struct Pings(Python);

/// The rig, alone.
pub(super) fn rig() -> MutexGuard<'static, Rig> {
    static RIG: OnceLock<Mutex<Rig>> = OnceLock::new();
    RIG.get_or_init(|| Mutex::new(Rig::start())).lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much the first test does: the short form, or the long one with `AMIBUS_TEST_PACE=long` (about nine minutes).
pub(super) struct Extent {
    pub(super) calls: usize,
    pub(super) per_second: u32,
    pub(super) at_once: usize,
}

pub(super) fn extent() -> Extent {
    match std::env::var("AMIBUS_TEST_PACE").as_deref() {
        Ok("long") => Extent { calls: 10_000, per_second: 20, at_once: 30 },
        Ok("short" | "") | Err(_) => Extent { calls: 60, per_second: 10, at_once: 5 },
        Ok(other) => panic!("AMIBUS_TEST_PACE is {other:?}; it may be short or long"),
    }
}

impl Extent {
    /// How long it may take: twice what its limits give.
    pub(super) fn patience(&self) -> Duration {
        let rate = self.per_second.min(u32::try_from(self.at_once).expect("few"));
        PATIENCE + Duration::from_secs(2 * self.calls as u64 / u64::from(rate))
    }
}

impl Rig {
    fn start() -> Self {
        let dialplan: String = LIVES
            .iter()
            .map(|(group, seconds)| {
                format!("exten => _{group}.,1,Answer()\n same => n,Wait({seconds})\n same => n,Hangup()\n")
            })
            .collect();
        let dialplan = format!("[pace]\n{dialplan}exten => held,1,Wait(600)\n");
        let asterisk =
            Asterisk::start(Version::V22, &AsteriskOptions { dialplan, ..AsteriskOptions::default() });
        let nats = Nats::jetstream();
        let (witness, proxy) = (Witness::of(asterisk.ami_port()), Proxy::to(asterisk.ami_port()));
        let mut amibus = Program::prepare("amibus");
        let file = amibus.directory().join("amibus.toml");
        std::fs::write(&file, configuration(&amibus, &proxy, &nats)).expect("the configuration is written");
        let program = env!("CARGO_BIN_EXE_amibus").to_owned();
        let command = vec![program, "run".into(), "-c".into(), file.display().to_string()];
        amibus.start(command, READY_SECONDS, |process| is_ready(process.port(0)));
        Self { witness, proxy, amibus, nats, _asterisk: asterisk, _sent: Vec::new() }
    }

    /// Publishes so many Originates of a group.
    pub(super) fn originate(&mut self, group: &str, calls: usize) {
        let python = Python::spawn(script(), &["originate", &self.nats.url(), group, &calls.to_string()]);
        python.lines_until(PATIENCE, |line| line == "done");
        self._sent.push(python);
    }

    /// Begins to ping.
    pub(super) fn ping(&self) -> Pings {
        let python = Python::spawn(script(), &["ping", &self.nats.url()]);
        let first = python.line(PATIENCE).expect("a first Ping");
        assert!(first.parse::<f64>().is_ok(), "{first}");
        Pings(python)
    }

    pub(super) fn until(&self, what: &str, fits: impl Fn(&Witness) -> bool) {
        self.until_within(PATIENCE, what, fits);
    }

    pub(super) fn until_within(&self, patience: Duration, what: &str, fits: impl Fn(&Witness) -> bool) {
        let deadline = Instant::now() + patience;
        while !fits(&self.witness) {
            assert!(Instant::now() < deadline, "{what}: not in time\n{}", self.amibus.log_tail());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn metrics(&self) -> String {
        get(self.amibus.port(0), "/metrics").expect("amibus answers").1
    }

    pub(super) fn kill_and_start_again(&mut self) {
        self.amibus.kill();
        self.amibus.restart(READY_SECONDS, |process| is_ready(process.port(0)));
    }
}

impl Pings {
    /// The longest that one took so far.
    pub(super) fn slowest(self) -> Duration {
        let deadline = Instant::now() + Duration::from_secs(2);
        let mut slowest = 0f64;
        while let Some(line) = self.0.line(PATIENCE) {
            slowest = slowest.max(line.parse().expect("seconds"));
            if Instant::now() > deadline {
                break;
            }
        }
        Duration::from_secs_f64(slowest)
    }
}

fn configuration(amibus: &Program, proxy: &Proxy, nats: &Nats) -> String {
    let extent = extent();
    let limit = |group: &str, rate: &str, calls: usize| {
        format!(
            "[[command.pace]]\nname = \"{group}\"\nchannels = [\"Local/{group}*@pace/n\"]\n{rate}concurrent_calls = {calls}\n"
        )
    };
    format!(
        r#"
[[server]]
name = "pbx1"
url = "ami://127.0.0.1:{}"
username = "full"
secret = "full-pass"
reconnect_max = "1s"

[spool]
dir = "{}/spool"

[bus.nats]
url = "{}"
stream = "AMI"
commands = true
commands_stream = "AMI_COMMANDS"
ack_wait = "5s"

[command]
default_deadline = "2h"

[[command.allow]]
actions = ["Ping"]

[[command.allow]]
actions = ["Originate"]
fields.Channel = ["Local/*@pace/n"]
fields.Context = ["pace"]

{}{}{}{}
[http]
listen = "127.0.0.1:{}"
"#,
        proxy.port,
        amibus.directory().display(),
        nats.url(),
        limit("a", &format!("calls_per_second = {}\n", extent.per_second), extent.at_once),
        limit("b", "", 2),
        limit("c", "", 3),
        limit("d", "", 3),
        amibus.port(0),
    )
}

fn is_ready(port: u16) -> bool {
    get(port, "/ready").is_some_and(|(status, _)| status == 200)
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outcomes/pace/send.py")
}
