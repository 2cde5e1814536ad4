//! Two Asterisks, two brokers, one amibus bridging all, and what three Python consumers saw.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use amibus_services::{Asterisk, AsteriskOptions, Kafka, Nats, Process, Program, Python, Version};
use serde_json::Value;

/// How long anything that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Seconds until amibus is ready with all its servers and buses.
const READY_SECONDS: u64 = 60;

/// What a consumer of one bus saw, in its order.
pub(super) struct Consumer {
    pub(super) bus: &'static str,
    python: Python,
    pub(super) seen: Vec<Value>,
}

impl Consumer {
    fn start(bus: &'static str, arguments: &[&str]) -> Self {
        let arguments: Vec<&str> = std::iter::once(bus).chain(arguments.iter().copied()).collect();
        let python = Python::spawn(script("consume.py"), &arguments);
        let first = python.line(PATIENCE).expect("the consumer says that it is ready");
        assert!(first.contains("ready"), "{first}");
        Self { bus, python, seen: Vec::new() }
    }

    /// Reads on until a message fits; its place among those seen. Looks from `from` on.
    pub(super) fn find(&mut self, from: usize, what: &str, fits: impl Fn(&Value) -> bool) -> usize {
        let deadline = Instant::now() + PATIENCE;
        let mut at = from;
        loop {
            if let Some(found) = self.seen.get(at) {
                if fits(&found["body"]) {
                    return at;
                }
                at += 1;
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{}: {what} was not seen", self.bus);
            let line = self.python.line(left).unwrap_or_else(|| panic!("the consumer of {} ended", self.bus));
            self.seen.push(serde_json::from_str(&line).expect("a line of JSON"));
        }
    }
}

pub(super) struct Stack {
    pub(super) asterisk22: Asterisk,
    pub(super) asterisk16: Asterisk,
    pub(super) nats: Nats,
    pub(super) kafka: Kafka,
    pub(super) amibus: Program,
    pub(super) consumers: [Consumer; 3],
}

/// The stack, alone. A test that failed leaves it to the next one as it is.
pub(super) fn stack() -> MutexGuard<'static, Stack> {
    static STACK: OnceLock<Mutex<Stack>> = OnceLock::new();
    STACK.get_or_init(|| Mutex::new(Stack::start())).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stack {
    fn start() -> Self {
        let numbered = AsteriskOptions { debug_seq: true, ..AsteriskOptions::default() };
        let asterisk22 = Asterisk::start(Version::V22, &numbered);
        let asterisk16 = Asterisk::start(Version::V16, &AsteriskOptions::default());
        let nats = Nats::jetstream();
        let kafka = Kafka::plain();
        let mut amibus = Program::prepare("amibus");
        let file = amibus.directory().join("amibus.toml");
        let text = configuration(&amibus, &asterisk22, &asterisk16, &nats, &kafka);
        std::fs::write(&file, text).expect("the configuration is written");
        std::fs::write(amibus.directory().join("secret"), "full-pass\n").expect("the secret is written");
        let program = env!("CARGO_BIN_EXE_amibus").to_owned();
        amibus.start(
            vec![program, "run".into(), "-c".into(), file.display().to_string()],
            READY_SECONDS,
            |process| get(process.port(0), "/ready").is_some_and(|(status, _)| status == 200),
        );
        let publish = format!("tcp://127.0.0.1:{}", amibus.port(1));
        let consumers = [
            Consumer::start("zeromq", &[&publish]),
            Consumer::start("nats", &[&nats.url(), "AMI"]),
            Consumer::start("kafka", &[&kafka.brokers()]),
        ];
        Self { asterisk22, asterisk16, nats, kafka, amibus, consumers }
    }

    /// Where the named bus takes commands, as `command.py` wants it.
    pub(super) fn commands_at(&self, bus: &str) -> String {
        match bus {
            "zeromq" => format!("tcp://127.0.0.1:{}", self.amibus.port(2)),
            "nats" | "jetstream" => self.nats.url(),
            _ => self.kafka.brokers(),
        }
    }

    /// Sends commands over a bus by its Python client, each `SERVER ACTION BODY`; the replies, parsed.
    pub(super) fn send(&self, bus: &str, commands: &[String]) -> Vec<Value> {
        let address = self.commands_at(bus);
        let mut arguments = vec![bus, address.as_str()];
        arguments.extend(commands.iter().map(String::as_str));
        let python = Python::spawn(script("command.py"), &arguments);
        let mut lines = python.lines_until(PATIENCE * 2, |line| line == "done");
        lines.pop();
        let replies: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect("a reply is JSON")).collect();
        assert_eq!(replies.len(), commands.len(), "{bus}: every command is answered");
        replies
    }

    /// Waits until amibus says that everything it needs is there.
    pub(super) fn wait_until_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = get(self.amibus.port(0), "/ready");
            if answer.as_ref().is_some_and(|(status, _)| *status == 200) {
                return;
            }
            assert!(Instant::now() < deadline, "not ready again: {answer:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn configuration(amibus: &Process, a22: &Asterisk, a16: &Asterisk, nats: &Nats, kafka: &Kafka) -> String {
    let directory = amibus.directory().display();
    format!(
        r#"
[[server]]
name = "pbx22"
url = "ami://127.0.0.1:{}"
username = "full"
secret = "full-pass"
reconnect_max = "2s"

[[server]]
name = "pbx16"
url = "amis://localhost:{}"
username = "full"
secret = {{ file = "{directory}/secret" }}
login = "plain"
tls.ca = "{}"
reconnect_max = "2s"

[spool]
dir = "{directory}/spool"

[bus.zeromq]
publish = "tcp://127.0.0.1:{}"
commands = "tcp://127.0.0.1:{}"

[bus.nats]
url = "{}"
stream = "AMI"
commands = true
commands_stream = "AMI_COMMANDS"

[bus.kafka]
brokers = "{}"
commands = true

[[command.allow]]
actions = ["Ping", "CoreShowChannels", "QueueStatus", "FAXStats", "QueueRule"]

[[command.allow]]
actions = ["Originate"]
fields.Channel = ["Local/*@phones", "Bogus/*"]
fields.Context = ["flows"]

[[command.allow]]
actions = ["Hangup"]
servers = ["pbx22"]

[http]
listen = "127.0.0.1:{}"
"#,
        a22.ami_port(),
        a16.amis_port(),
        a16.ca_file().display(),
        amibus.port(1),
        amibus.port(2),
        nats.url(),
        kafka.brokers(),
        amibus.port(0),
    )
}

/// `GET path` from amibus: status and body. `None` while nobody listens.
pub(crate) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(name)
}
