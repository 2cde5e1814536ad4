//! amibus between one Asterisk and both durable buses, with senders and consumers, and the faults written down.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use amibus_services::{Process, Program, Python};

use super::brokers::Brokers;
use super::flow::{Bus, Flow, PING, PLENTY, originates};
use super::judge::{Deaf, Delivery, Demands, Evidence, Fault, Place, Verdict, judge};
use super::pbx::Pbx;
use super::stores;
use super::wiretap::micros;

/// How long anything that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long anything may take that depends on who was killed.
const SETTLED: Duration = Duration::from_secs(180);
/// With nothing new for so long, nothing will come any more: longer than a call that is lost is looked for.
const SILENT: Duration = Duration::from_secs(75);
/// With nothing new for so long after all have an outcome, nothing more is expected.
const QUIET: Duration = Duration::from_secs(3);
const START_SECONDS: u64 = 30;
const POLL: Duration = Duration::from_millis(50);

/// For the configuration: claims are not shared.
pub(super) const APART: &str = "# apart\n";
/// The same: commands come from ZeroMQ too.
pub(super) const ZEROMQ: &str = "# zeromq\n";
/// Where amibus listens, by its own ports.
const HTTP: u16 = 0;
const ZEROMQ_PUBLISH: u16 = 1;
const ZEROMQ_COMMANDS: u16 = 2;

/// All of it.
pub(super) struct Rig {
    pub(super) amibus: Program,
    /// Another one on the same command stream.
    second: Option<Program>,
    pub(super) pbx: Pbx,
    name: String,
    consumers: [(Python, PathBuf); 2],
    flows: Vec<Flow>,
    faults: Vec<Fault>,
    directory: PathBuf,
}

impl Rig {
    /// Starts all of it. `name` is the first word of its topics, so that no two rigs meet. `more` is added to the
    /// configuration.
    pub(super) fn start(brokers: &Brokers, name: &str, pbx: Pbx, more: &str) -> Self {
        let mut amibus = Program::prepare("amibus");
        let directory = amibus.directory().to_owned();
        let file = directory.join("amibus.toml");
        fs::write(&file, configuration(brokers, name, &pbx, &amibus, more))
            .expect("the configuration is written");
        amibus.start(command(&directory, None), START_SECONDS, is_ready);
        let consumer = |bus: &str, address: &str| {
            let store = directory.join(format!("{bus}.tsv"));
            let words = [bus, address, name, name, &store.display().to_string()];
            let python = Python::spawn(script("outcomes.py"), &words);
            assert_eq!(python.line(PATIENCE).as_deref(), Some("ready"));
            (python, store)
        };
        let consumers = [consumer("nats", &brokers.nats.url()), consumer("kafka", &brokers.kafka_address())];
        Self {
            amibus,
            second: None,
            pbx,
            name: name.to_owned(),
            consumers,
            flows: Vec::new(),
            faults: Vec::new(),
            directory,
        }
    }

    /// Starts another amibus that takes from the same streams, with a journal and a log of its own.
    pub(super) fn start_second(&mut self, brokers: &Brokers, more: &str) {
        let mut second = Program::prepare("second");
        let directory = second.directory().to_owned();
        let text = configuration(brokers, &self.name, &self.pbx, &second, more);
        fs::write(directory.join("amibus.toml"), text).expect("the configuration is written");
        second.start(command(&directory, None), START_SECONDS, is_ready);
        self.second = Some(second);
    }

    /// kill -9 of one of two, and a new start after a while.
    pub(super) fn kill_one(&mut self, second: bool, away: Duration) {
        let from = micros();
        let one = if second { self.second.as_mut().expect("it was started") } else { &mut self.amibus };
        one.kill();
        thread::sleep(away);
        one.start(command(one.directory(), None), START_SECONDS, is_ready);
        self.faults.push(Fault { from, until: micros() });
    }

    /// One of two is stopped for a while, and goes on.
    pub(super) fn stop_one(&mut self, second: bool, away: Duration) {
        let from = micros();
        let one = if second { self.second.as_ref().expect("it was started") } else { &self.amibus };
        one.pause();
        thread::sleep(away);
        one.resume();
        self.faults.push(Fault { from, until: micros() });
    }

    /// Starts the second one, which has no command yet, so that it ends at a step.
    pub(super) fn let_second_end_at(&mut self, step: &str) {
        let second = self.second.as_mut().expect("it was started");
        second.kill();
        second.start(command(second.directory(), Some(step)), START_SECONDS, is_ready);
    }

    /// Waits until it has ended there and the first one has found what it had begun; then it is started again.
    pub(super) fn wait_until_begun_is_found(&mut self) {
        let from = micros();
        let second = self.second.as_ref().expect("it was started");
        wait("the end of the second one at its step", PATIENCE, || has_ended(second));
        wait("the other one finds what it had begun", PATIENCE, || self.found_begun() > 0);
        let second = self.second.as_mut().expect("it was started");
        second.kill();
        second.start(command(second.directory(), None), START_SECONDS, is_ready);
        self.faults.push(Fault { from, until: micros() });
    }

    /// How many commands one amibus found begun by another one.
    pub(super) fn found_begun(&self) -> usize {
        let logs = self.second.iter().chain([&self.amibus]).map(|one| one.log());
        let text = logs.map(|log| fs::read_to_string(log).expect("a log")).collect::<String>();
        let words = ["a call that another amibus began was found", "an amibus had begun to send it"];
        text.lines().filter(|line| words.iter().any(|words| line.contains(words))).count()
    }

    /// How many commands one amibus answered that the other one had run, or had begun.
    pub(super) fn claimed_elsewhere(&self) -> usize {
        let logs = self.second.iter().chain([&self.amibus]).map(|one| one.log());
        let text = logs.map(|log| fs::read_to_string(log).expect("a log")).collect::<String>();
        text.lines().filter(|line| line.contains("shared_by")).count()
    }

    /// Publishes these commands (JSON) over a bus at a pace, and goes on while it does.
    pub(super) fn send(&mut self, brokers: &Brokers, bus: Bus, commands: &[String], rate: u32) {
        let address = match bus {
            Bus::Nats | Bus::JetStream => brokers.nats.url(),
            Bus::Kafka => brokers.kafka_address(),
            Bus::ZeroMq => format!("tcp://127.0.0.1:{}", self.amibus.port(ZEROMQ_COMMANDS)),
        };
        let plan = self.directory.join(format!("plan-{}", self.flows.len()));
        self.flows.push(Flow::start(bus, &address, &self.name, &plan, commands, rate));
    }

    /// As [`Self::send`], of calls that last so many seconds, until the flows are ended.
    pub(super) fn send_until_ended(
        &mut self,
        brokers: &Brokers,
        bus: Bus,
        name: &str,
        seconds: u32,
        rate: u32,
    ) {
        self.send(brokers, bus, &originates(name, PLENTY, seconds), rate);
    }

    /// Ends the flows, each once it has published `least` commands.
    pub(super) fn end_flows(&mut self, least: usize) {
        self.flows.iter_mut().for_each(|flow| flow.end_after(least, SETTLED));
    }

    /// How many commands have an outcome on both buses.
    pub(super) fn told(&self) -> usize {
        self.consumers.iter().map(|(_, file)| stores::told_commands(file)).min().unwrap_or(0)
    }

    /// The most memory that amibus has had, in MiB (`VmHWM`).
    pub(super) fn peak_memory_mib(&self) -> u64 {
        let pid = self.amibus.pid().expect("amibus runs");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
    }

    /// How many replies the newest sender got.
    pub(super) fn last_replies(&self) -> usize {
        self.flows.last().map_or(0, |flow| flow.stored(0).1.len())
    }

    /// Ends the newest sender, which has its answers: some hundred of them would take the machine for themselves.
    pub(super) fn dismiss_last(&mut self) {
        self.flows.last_mut().expect("there is one").dismiss();
    }

    /// Waits until so many more commands have an outcome on both buses.
    pub(super) fn wait_for_progress(&self, more: usize) {
        let wanted = self.told() + more;
        wait("progress on both buses", SETTLED, || self.told() >= wanted);
    }

    /// kill -9 of amibus, and a new start.
    pub(super) fn kill_amibus(&mut self) {
        let from = micros();
        self.amibus.kill();
        self.start_amibus(None);
        self.faults.push(Fault { from, until: micros() });
    }

    /// Starts amibus, which does not run, so that it ends at a step, or never.
    pub(super) fn start_amibus(&mut self, failpoint: Option<&str>) {
        self.amibus.start(command(&self.directory, failpoint), START_SECONDS, |process| {
            // One that ends at a step may do so before it is ready.
            failpoint.is_some() && has_ended(process) || is_ready(process)
        });
    }

    /// Waits until amibus has ended by itself at a step, and clears it away.
    pub(super) fn wait_for_the_end(&mut self, step: &str) {
        let from = micros();
        wait(&format!("the end at {step}"), PATIENCE, || has_ended(&self.amibus));
        let words = format!("the failpoint {step} ends this process");
        let log = fs::read_to_string(self.amibus.log()).expect("the log of amibus");
        assert!(log.contains(&words), "it did not end at {step}:\n{}", self.amibus.log_tail());
        self.amibus.kill();
        self.faults.push(Fault { from, until: micros() });
    }

    /// Writes down what is done here as a fault.
    pub(super) fn fault<T>(&mut self, what: impl FnOnce(&mut Self) -> T) -> T {
        let from = micros();
        let done = what(self);
        self.faults.push(Fault { from, until: micros() });
        done
    }

    /// How long the reply took to each command of the newest sender, in microseconds; `None` where none has come.
    pub(super) fn last_latencies(&self) -> Vec<Option<u64>> {
        let Some(flow) = self.flows.last() else { return Vec::new() };
        let (deliveries, replies, _) = flow.stored(0);
        let reply = |delivery: &Delivery| {
            let told = replies.iter().find(|told| told.place == Place::Reply(delivery.number))?;
            Some(told.at?.saturating_sub(delivery.at))
        };
        deliveries.iter().map(reply).collect()
    }

    /// Everything that was seen so far.
    pub(super) fn evidence(&self) -> Evidence {
        let mut evidence = Evidence {
            calls: self.pbx.calls(),
            sent: self.pbx.tap.sent(),
            faults: self.faults.clone(),
            ..Evidence::default()
        };
        let mut number = 0;
        for flow in &self.flows {
            let (deliveries, replies, next) = flow.stored(number);
            evidence.deliveries.extend(deliveries);
            evidence.told.extend(replies);
            let after = next.max(number + flow.commands() as u64);
            let deaf = flow.deaf().into_iter().map(|fault| Deaf { sender: number..after, fault });
            evidence.deaf.extend(deaf);
            number = after;
        }
        for ((_, file), place) in self.consumers.iter().zip(stores::PLACES) {
            stores::consumer(file, place, &mut evidence);
        }
        evidence.told.retain(|told| !told.command.starts_with(PING));
        evidence.deliveries.retain(|delivery| !delivery.command.starts_with(PING));
        evidence
    }

    /// What the judge says, once all have an outcome and nothing new comes, or nothing will come any more.
    pub(super) fn verdict(&self, demands: Demands) -> Verdict {
        self.flows.iter().for_each(|flow| flow.wait_until_sent(SETTLED));
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let evidence = self.evidence();
            let now = evidence.told.len() + evidence.calls.len();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            if since.elapsed() > QUIET {
                let verdict = judge(&evidence, demands);
                if verdict.is_clean() || since.elapsed() > SILENT {
                    return verdict;
                }
            }
            thread::sleep(POLL * 10);
        }
    }
}

/// Waits until `done`.
pub(super) fn wait(what: &str, within: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not happen within {within:?}");
        thread::sleep(POLL);
    }
}

/// Whether amibus has ended by itself.
fn has_ended(process: &Process) -> bool {
    process.pid().is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

fn is_ready(process: &Process) -> bool {
    get(process, "/ready").is_some_and(|(status, _)| status == 200)
}

fn command(directory: &Path, failpoint: Option<&str>) -> Vec<String> {
    let program = env::var("AMIBUS_TEST_FAULTS_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_amibus").to_owned());
    let file = directory.join("amibus.toml").display().to_string();
    let mut words = vec!["env".to_owned()];
    words.extend(failpoint.map(|step| format!("AMIBUS_FAILPOINT={step}")));
    words.extend([program, "run".into(), "-c".into(), file]);
    words
}

/// Signs of life are asked for often, and what nobody works on is delivered again soon.
fn configuration(brokers: &Brokers, name: &str, pbx: &Pbx, amibus: &Program, more: &str) -> String {
    let address = |port| format!("tcp://127.0.0.1:{}", amibus.port(port));
    let zeromq = format!(
        "[bus.zeromq]\npublish = \"{}\"\ncommands = \"{}\"\n",
        address(ZEROMQ_PUBLISH),
        address(ZEROMQ_COMMANDS)
    );
    format!(
        r#"
prefix = "{name}"

[[server]]
name = "pbx"
url = "ami://127.0.0.1:{asterisk}"
username = "full"
secret = "full-pass"
connect_timeout = "2s"
ping_interval = "1s"
ping_deadline = "2s"
reconnect_max = "1s"

[spool]
dir = "{spool}"

[bus.nats]
url = "{nats}"
stream = "{name}"
commands = true
commands_stream = "{name}-commands"
{bucket}
ack_wait = "2s"

[bus.kafka]
brokers = "{kafka}"
commands = true
group = "{name}"
librdkafka = {{ "session.timeout.ms" = "6000", "heartbeat.interval.ms" = "500" }}

{zeromq}
[command]
claim_takeover = "4s"
default_deadline = "1h"

[[command.allow]]
actions = ["Originate"]
fields.Context = ["calls"]
fields.Channel = ["Local/*@calls/n"]

[[command.allow]]
actions = ["Ping"]

[http]
listen = "127.0.0.1:{http}"
{more}
"#,
        zeromq = if more == ZEROMQ { &*zeromq } else { "" },
        bucket = if more == APART { "claims_bucket = \"\"" } else { "" },
        asterisk = pbx.wire.port(),
        spool = amibus.directory().join("spool").display(),
        nats = brokers.nats_url(),
        kafka = brokers.kafka_address(),
        http = amibus.port(HTTP),
    )
}

/// `GET path` from amibus: status and body. `None` while nobody listens.
pub(super) fn get(process: &Process, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", process.port(HTTP))).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/calls").join(name)
}
