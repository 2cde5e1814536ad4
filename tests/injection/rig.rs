//! A real Asterisk 22 behind a tap, all buses, one amibus, and somebody who sees what Asterisk says of itself.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use amibus_services::{Asterisk, AsteriskOptions, Kafka, Nats, Process, Program, Python, Version};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::tap::Tap;

/// How long anything that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const READY_SECONDS: u64 = 60;
const POLL: Duration = Duration::from_millis(20);

/// The dialplan that tells what it was given, in a form that nothing can forge.
const DIALPLAN: &str = "
[judge]
exten => s,1,Answer()
 same => n,Wait(2)
 same => n,Hangup()
exten => far,1,UserEvent(Judge,Id: ${JUDGE_ID},Value: ${BASE64_ENCODE(${JUDGE_VALUE})})
 same => n,Hangup()
";

pub(super) struct Rig {
    pub(super) asterisk: Asterisk,
    pub(super) tap: Tap,
    pub(super) events: Events,
    nats: Nats,
    kafka: Kafka,
    pub(super) amibus: Program,
}

/// Everything that Asterisk told a session of its own.
pub(super) struct Events(Arc<Mutex<Vec<u8>>>);

impl Events {
    /// Logs in past the tap.
    fn of(asterisk: &Asterisk) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", asterisk.ami_port())).expect("a connection");
        stream.write_all(b"Action: Login\r\nUsername: full\r\nSecret: full-pass\r\n\r\n").expect("a login");
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let all = Arc::clone(&seen);
        thread::spawn(move || {
            let mut chunk = vec![0; 1 << 16];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..count]);
            }
        });
        Self(seen)
    }

    /// The messages so far whose first line is `Event: name`.
    pub(super) fn named(&self, name: &str) -> Vec<String> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&seen).into_owned();
        let first = format!("Event: {name}\r\n");
        text.split("\r\n\r\n")
            .map(|message| format!("{message}\r\n"))
            .filter(|m| m.starts_with(&first))
            .collect()
    }

    /// Waits until there are so many of them.
    pub(super) fn wait(&self, name: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.named(name);
            if seen.len() >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "{} of {count} events {name}", seen.len());
            thread::sleep(POLL);
        }
    }
}

/// The value of a header in a message of [`Events`].
pub(super) fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

impl Rig {
    pub(super) fn start() -> Self {
        let options = AsteriskOptions { dialplan: DIALPLAN.to_owned(), ..AsteriskOptions::default() };
        let kafka = thread::spawn(Kafka::plain);
        let asterisk = Asterisk::start(Version::V22, &options);
        let tap = Tap::start(asterisk.ami_port());
        let events = Events::of(&asterisk);
        let nats = Nats::jetstream();
        let kafka = kafka.join().expect("kafka");
        let mut amibus = Program::prepare("amibus");
        let file = amibus.directory().join("amibus.toml");
        std::fs::write(&file, configuration(&amibus, tap.port(), &nats, &kafka)).expect("written");
        let program = env!("CARGO_BIN_EXE_amibus").to_owned();
        let command = vec![program, "run".into(), "-c".into(), file.display().to_string()];
        amibus.start(command, READY_SECONDS, |process| {
            crate::e2e::get(process.port(0), "/ready").is_some_and(|(status, _)| status == 200)
        });
        Self { asterisk, tap, events, nats, kafka, amibus }
    }

    /// Sends all these over a bus, one after another; each `(server and action of its topic, body)`. The replies, parsed.
    pub(super) fn send(&self, bus: &str, commands: &[((&str, &str), Vec<u8>)]) -> Vec<Value> {
        let list: Vec<Value> = commands
            .iter()
            .map(|((server, action), body)| {
                json!({ "server": server, "action": action, "body": STANDARD.encode(body) })
            })
            .collect();
        let file = self.amibus.directory().join(format!("{bus}.json"));
        std::fs::write(&file, Value::from(list).to_string()).expect("written");
        let address = match bus {
            "zeromq" => format!("tcp://127.0.0.1:{}", self.amibus.port(2)),
            "kafka" => self.kafka.brokers(),
            _ => self.nats.url(),
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injection/send.py");
        let python = Python::spawn(script, &[bus, &address, &file.display().to_string()]);
        let mut lines = python.lines_until(PATIENCE * 5, |line| line == "done");
        lines.pop();
        assert_eq!(lines.len(), commands.len(), "{bus}: every command is answered");
        let reply = |line: &String| {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            let reply = line["reply"].as_str().expect("a reply");
            serde_json::from_str(reply).unwrap_or_else(|error| panic!("{bus}: {error}: {reply}"))
        };
        lines.iter().map(reply).collect()
    }
}

fn configuration(amibus: &Process, ami: u16, nats: &Nats, kafka: &Kafka) -> String {
    let directory = amibus.directory().display();
    format!(
        r#"
[[server]]
name = "pbx1"
url = "ami://127.0.0.1:{ami}"
username = "full"
secret = "full-pass"
snapshot = ["CoreShowChannels"]

[spool]
dir = "{directory}/spool"

[log]
format = "json"

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
actions = ["*"]

[[command.allow]]
actions = ["Originate"]
fields.Channel = ["Local/s@judge/n"]
fields.Context = ["judge"]

# What these may do is in fields, none of which is bound here.
[[command.allow]]
actions = ["AGI", "Command", "GetConfig", "GetConfigJSON", "Getvar", "MixMonitor", "Status", "UpdateConfig"]

[[command.allow]]
actions = ["UserEvent"]

[[command.allow]]
actions = ["Setvar"]
fields.Variable = ["JUDGE_GLOBAL"]

[http]
listen = "127.0.0.1:{}"
"#,
        amibus.port(1),
        amibus.port(2),
        nats.url(),
        kafka.brokers(),
        amibus.port(0),
    )
}
