//! One amibus between one source and the two durable buses, and what their consumers saw.

use std::env;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use amibus_services::{Process, Program};

use super::accounting;
use super::brokers::Brokers;
use super::consumer::Consumer;
use super::judge::{Bus, Run, Verdict, What};
use super::netns;

/// How long anything that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const START_SECONDS: u64 = 30;
/// With nothing new for so long, it is looked whether all is there.
const QUIET: Duration = Duration::from_millis(1_500);
/// With nothing new for so long, nothing will come any more: longer than amibus's longest wait between two tries.
const SILENT: Duration = Duration::from_secs(12);
/// How long a backlog of a minute may take, also on a machine that is busy with much else.
pub(super) const CATCHING_UP: Duration = Duration::from_secs(600);
/// An event of this age is up to date.
const CURRENT: Duration = Duration::from_secs(2);
const SCRAPE_EVERY: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(50);

/// Where amibus finds its source.
pub(super) struct Source<'a> {
    pub(super) address: String,
    pub(super) user: &'a str,
    pub(super) secret: &'a str,
}

/// amibus at work.
pub(super) struct Rig {
    pub(super) amibus: Program,
    pub(super) consumers: [Consumer; 2],
    resident_kib_max: u64,
    scraped: Instant,
    scrapes: u64,
}

/// What the judge says of both buses, NATS first, and what it took.
pub(super) struct Verdicts {
    pub(super) of_buses: [Verdict; 2],
    /// The most resident memory of amibus so far, in KiB.
    pub(super) resident_kib_max: u64,
    /// How often the metrics were read, and all added up.
    pub(super) scrapes: u64,
}

impl Deref for Verdicts {
    type Target = [Verdict; 2];
    fn deref(&self) -> &[Verdict; 2] {
        &self.of_buses
    }
}

impl Rig {
    /// Starts all of it. `name` is the first word of its topics and the name of its stream, so that no two rigs meet.
    /// Events are kept in `spool`, or in amibus's own directory.
    pub(super) fn start(brokers: &Brokers, name: &str, source: &Source<'_>, spool: Option<&Path>) -> Self {
        let mut amibus = Program::prepare("amibus");
        let spool = spool.map_or_else(|| amibus.directory().join("spool"), Path::to_path_buf);
        let file = amibus.directory().join("amibus.toml");
        let text = configuration(brokers, name, source, &spool, amibus.port(0));
        std::fs::write(&file, text).expect("the configuration is written");
        let program =
            env::var("AMIBUS_TEST_FAULTS_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_amibus").to_owned());
        let mut command = brokers.way.as_ref().map(|way| way.enter()).unwrap_or_default();
        command.extend([program, "run".into(), "-c".into(), file.display().to_string()]);
        amibus.start(command, START_SECONDS, |process| {
            get(process, "/ready").is_some_and(|(status, _)| status == 200)
        });
        let directory = amibus.directory().to_owned();
        let consumer = |bus, address: &str| Consumer::start(bus, address, name, name, &directory);
        let consumers =
            [consumer(Bus::JetStream, &brokers.nats.url()), consumer(Bus::Kafka, &brokers.kafka_address())];
        Self { amibus, consumers, resident_kib_max: 0, scraped: Instant::now(), scrapes: 0 }
    }

    /// Resident memory of amibus, in KiB.
    ///
    /// # Panics
    /// Where it does not run.
    pub(super) fn resident_kib(&self) -> u64 {
        self.resident("VmRSS:").expect("amibus lives")
    }

    fn resident(&self, field: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.amibus.pid()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line?.split_whitespace().next()?.parse().ok()
    }

    /// Reads what both consumers have stored, and looks at amibus's memory and at its account.
    pub(super) fn read(&mut self) {
        self.resident_kib_max = self.resident_kib_max.max(self.resident("VmHWM:").unwrap_or(0));
        if self.scraped.elapsed() > SCRAPE_EVERY {
            self.scraped = Instant::now();
            self.scrape();
        }
        self.consumers.iter_mut().for_each(Consumer::read);
    }

    /// Where amibus answers, each event that it read is accounted for.
    fn scrape(&mut self) {
        let Some((200, text)) = get(&self.amibus, "/metrics") else { return };
        // It answers before its spools are open; then there is nothing to add up.
        if !accounting::lanes(&text).is_ok_and(|lanes| lanes.is_empty()) {
            accounting::check(&text).unwrap_or_else(|words| panic!("the account does not add up: {words}"));
            self.scrapes += 1;
        }
    }

    /// How many messages each consumer has stored.
    pub(super) fn stored(&mut self) -> [usize; 2] {
        self.read();
        self.consumers.each_ref().map(|consumer| consumer.messages.len())
    }

    /// How many times the link has been told to be up, on NATS.
    pub(super) fn ups(&mut self) -> usize {
        self.read();
        self.consumers[0].messages.iter().filter(|m| matches!(m.what, What::Up { .. })).count()
    }

    /// Waits until `done`.
    pub(super) fn wait(&mut self, what: &str, within: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + within;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} did not happen within {within:?}; {}", self.state());
            thread::sleep(POLL);
        }
    }

    /// Lets time pass, and goes on reading.
    pub(super) fn wait_while(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.read();
            thread::sleep(POLL);
        }
    }

    /// Waits until every bus has brought something new.
    pub(super) fn wait_for_progress(&mut self) {
        let before = self.stored();
        self.wait("progress on both buses", PATIENCE, |rig| {
            rig.stored().iter().zip(before).all(|(now, before)| *now > before)
        });
    }

    /// Waits until both buses bring what has just been sent, while events go on.
    ///
    /// # Panics
    /// Where that takes much longer than a machine needs that has nothing else to do.
    pub(super) fn wait_until_current(&mut self, within: Duration) {
        self.wait("being up to date on both buses", within, |rig| {
            rig.read();
            rig.consumers.iter().all(|consumer| consumer.lag() < CURRENT)
        });
    }

    /// Waits until Kafka is up to date. Answers the greatest age, in seconds, that anything waiting for NATS had meanwhile
    /// in amibus: on a small machine the consumer of NATS may fall behind for its own sake.
    pub(super) fn wait_until_kafka_is_current(&mut self, within: Duration) -> f64 {
        let mut oldest = 0_f64;
        self.wait("being up to date on Kafka", within, |rig| {
            rig.read();
            oldest = oldest.max(rig.oldest_waiting("nats").unwrap_or(0.0));
            rig.consumers[1].lag() < CURRENT
        });
        oldest
    }

    /// How long the oldest message that waits for this bus has waited, in seconds.
    fn oldest_waiting(&self, bus: &str) -> Option<f64> {
        let (_, text) = get(&self.amibus, "/metrics")?;
        let bus = format!("bus=\"{bus}\"");
        let named = |line: &&str| line.starts_with("amibus_oldest_waiting_seconds{") && line.contains(&bus);
        text.lines().find(named)?.rsplit(' ').next()?.parse().ok()
    }

    /// Waits until both have seen the end of the source, and until all is there or nothing comes any more.
    ///
    /// `mark` has the source send a few more events under the tag that it answers.
    pub(super) fn settle(&mut self, within: Duration, mut mark: impl FnMut() -> String) {
        let deadline = Instant::now() + within;
        let mut marks = Vec::new();
        let from = self.stored();
        let mut next = Instant::now();
        loop {
            if Instant::now() >= next {
                marks.push(mark());
                next = Instant::now() + Duration::from_secs(2);
            }
            thread::sleep(POLL);
            self.read();
            let seen = |(consumer, from): (&Consumer, usize)| marks.iter().any(|tag| consumer.has(from, tag));
            if self.consumers.iter().zip(from).all(seen) {
                return;
            }
            assert!(Instant::now() < deadline, "the end was not seen within {within:?}; {}", self.state());
        }
    }

    /// What the judge says of both buses, once all is there or nothing comes any more.
    ///
    /// `account` is what the source says that it sent, given what was seen.
    pub(super) fn verdicts(&mut self, account: impl Fn(&[Consumer; 2]) -> Vec<Run>) -> Verdicts {
        loop {
            self.read();
            let quiet = self.consumers.each_ref().map(|consumer| consumer.progress.elapsed());
            if quiet.iter().all(|time| *time > QUIET) {
                let runs = account(&self.consumers);
                let verdicts = self.consumers.each_ref().map(|consumer| consumer.verdict(&runs));
                let silent = quiet.iter().all(|time| *time > SILENT);
                if silent || verdicts.iter().all(Verdict::is_clean) {
                    let (resident_kib_max, scrapes) = (self.resident_kib_max, self.scrapes);
                    return Verdicts { of_buses: verdicts, resident_kib_max, scrapes };
                }
            }
            thread::sleep(POLL * 4);
        }
    }

    /// For a person: where everybody stands.
    fn state(&self) -> String {
        let ready = get(&self.amibus, "/ready");
        let of = |consumer: &Consumer| (consumer.bus, consumer.messages.len(), consumer.progress.elapsed());
        let metrics = get(&self.amibus, "/metrics").map_or(String::new(), |(_, text)| text);
        let counts = |line: &&str| line.starts_with("amibus_messages_") || line.starts_with("amibus_oldest");
        let counts: Vec<&str> = metrics.lines().filter(counts).collect();
        let stored = self.consumers.each_ref().map(of);
        format!("stored, and how long ago the last: {stored:?}, amibus says {ready:?}\n{}", counts.join("\n"))
    }
}

/// Signs of life are asked for often, so that a cut of seconds is noticed.
fn configuration(brokers: &Brokers, name: &str, source: &Source<'_>, spool: &Path, http: u16) -> String {
    let spool: PathBuf = spool.to_owned();
    format!(
        r#"
prefix = "{name}"

[[server]]
name = "pbx"
url = "ami://{address}"
username = "{user}"
secret = "{secret}"
connect_timeout = "2s"
ping_interval = "1s"
ping_deadline = "2s"
reconnect_max = "1s"

[spool]
dir = "{spool}"

[bus.nats]
url = "{nats}"
stream = "{name}"

[bus.kafka]
brokers = "{kafka}"

[http]
listen = "{host}:{http}"
"#,
        address = source.address,
        user = source.user,
        secret = source.secret,
        spool = spool.display(),
        nats = brokers.nats_url(),
        host = netns::amibus_host(),
        kafka = brokers.kafka_address(),
    )
}

/// `GET path` from amibus: status and body. `None` while nobody listens.
pub(super) fn get(process: &Process, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect((netns::amibus_host(), process.port(0))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
