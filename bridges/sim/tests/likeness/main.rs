//! The simulated Asterisk against a real one: the same actions to both, the same answers from both.
//!
//! What a server may choose is masked before comparing: times, challenges, numbers of channels, and the words
//! that differ with the laboratory's configuration. Needs a real Asterisk 22 (`tests/services/install asterisk`).

#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use amibus_services::{Asterisk, AsteriskOptions, Version};
use amibus_sim::{Sim, SimOptions, User};

const PATIENCE: Duration = Duration::from_secs(20);
/// Actions whose answers, lists included, must be the same but for masked values.
const SAME_ANSWER: &[&str] = &[
    "Action: Events\nEventMask: on",
    "Action: Events\nEventMask: off",
    "Action: Events\nEventMask: user,call",
    "Action: Events\nEventMask: bogus",
    "Action: Events\nEventMask:",
    "Action: Events",
    "Action: Ping",
    "Action: Nonsense",
    "Action: Challenge\nAuthType: MD5",
    "Action: Challenge\nAuthType: SHA256",
    "Action: CoreStatus",
    "Action: CoreSettings",
    "Action: CoreShowChannels",
    "Action: QueueStatus\nQueue: nosuch",
    "Action: QueueSummary\nQueue: nosuch",
    "Action: Getvar",
    "Action: Getvar\nVariable: NOSUCH",
    "Action: Getvar\nVariable: G\nChannel: none",
    "Action: Setvar",
    "Action: Setvar\nVariable: G\nValue: a: b",
    "Action: Getvar\nVariable: G",
    "Action: Setvar\nVariable: G\nChannel: none\nValue: 1",
    "Action: UserEvent\nUserEvent: U",
    "Action: Hangup",
    "Action: Hangup\nChannel: none",
    "Action: Command\nCommand: no such command",
    "Action: Command",
    "Action: Originate\nApplication: Wait",
    "Action: Originate\nChannel: noslash\nApplication: Wait",
    "Action: Originate\nChannel: Local/1000@flows",
    "Action: Originate\nChannel: Local/1000@flows\nContext: flows\nExten: 1000",
    "Action: Originate\nChannel: Local/1000@flows\nContext: flows\nExten: nope\nPriority: 1\nAsync: true",
    "Action: Originate\nChannel: Local/1000@flows\nApplication: Wait\nTimeout: soon",
    "ACTION:Ping\nactionid:   no-blank",
    "Action: Login\nUsername: full\nSecret: wrong",
    "Action: Logoff",
];
/// Headers whose values a server may choose.
const MASKED: &[&str] = &[
    "Timestamp",
    "SequenceNumber",
    "File",
    "Line",
    "Func",
    "Challenge",
    "CoreStartupDate",
    "CoreStartupTime",
    "CoreReloadDate",
    "CoreReloadTime",
    "CoreCurrentCalls",
    "CoreProcessedCalls",
    "AsteriskVersion",
    "CoreMaxFilehandles",
    "CoreHTTPenabled",
    "SystemName",
    "CoreRunUser",
    "CoreRunGroup",
    "Output",
    "Uptime",
    "LastReload",
];

struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Client {
    fn logged_in(addr: SocketAddr, events: &str) -> Self {
        let stream = TcpStream::connect(addr).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut client = Self { stream, bytes: Vec::new() };
        assert_eq!(client.until(b"\r\n"), "Asterisk Call Manager/11.0.0\n");
        client.send(&format!("Action: Login\nUsername: full\nSecret: full-pass\nEvents: {events}"));
        assert!(client.message().contains("Authentication accepted"));
        client
    }

    fn send(&mut self, action: &str) {
        let bytes = format!("{action}\n\n").replace('\n', "\r\n");
        self.stream.write_all(bytes.as_bytes()).expect("the connection is up");
    }

    fn message(&mut self) -> String {
        let message = self.until(b"\r\n\r\n");
        message.trim_start_matches('\n').to_owned()
    }

    /// The messages up to and with the first that holds `part`.
    fn through(&mut self, part: &str) -> Vec<String> {
        let mut messages = vec![self.message()];
        while !messages.last().is_some_and(|message| message.contains(part)) {
            messages.push(self.message());
        }
        messages
    }

    fn until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.bytes.windows(end.len()).position(|window| window == end) {
                let block: Vec<u8> = self.bytes.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&block).replace("\r\n", "\n");
            }
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).expect("more bytes within the tests' patience");
            assert!(count > 0, "end of file after {}", String::from_utf8_lossy(&self.bytes));
            self.bytes.extend_from_slice(&buffer[..count]);
        }
    }
}

/// The message with what a server may choose taken out: masked values and the eight digits of channel numbers.
fn masked(message: &str) -> String {
    let mut out = String::new();
    for line in message.lines() {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        match MASKED.contains(&name) {
            true => out += &format!("{name}: *\n"),
            false => out += &format!("{name}: {}\n", without_channel_numbers(value)),
        }
    }
    out
}

fn without_channel_numbers(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some(at) = rest.find('-') {
        let number = rest.get(at + 1..at + 9).unwrap_or_default();
        out += &rest[..=at];
        rest = &rest[at + 1..];
        if number.len() == 8 && number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            out += "########";
            rest = &rest[8..];
        }
    }
    out + rest
}

fn real() -> (Asterisk, SocketAddr) {
    let options = AsteriskOptions { debug_seq: true, ..AsteriskOptions::default() };
    let asterisk = Asterisk::start(Version::V22, &options);
    let addr = SocketAddr::from(([127, 0, 0, 1], asterisk.ami_port()));
    (asterisk, addr)
}

fn options() -> SimOptions {
    SimOptions {
        users: vec![User::new("full", "full-pass")],
        sequence_numbers: true,
        channel_variables: vec!["LABTAG".to_owned(), "CALLERID(num)".to_owned()],
        ..SimOptions::default()
    }
}

/// Every answer to [`SAME_ANSWER`]; a Ping after each action tells where its answer ends.
fn answers(addr: SocketAddr) -> Vec<String> {
    let mut client = Client::logged_in(addr, "off");
    let mut answers = Vec::new();
    for (index, action) in SAME_ANSWER.iter().enumerate() {
        let (head, rest) = action.split_once('\n').map_or((*action, ""), |(head, rest)| (head, rest));
        let gap = if rest.is_empty() { "" } else { "\n" };
        client.send(&format!("{head}\nActionID: a{index}{gap}{rest}"));
        if *action == "Action: Logoff" {
            answers.push(masked(&client.message()));
            break;
        }
        client.send("Action: Events\nActionID: end\nEventMask: off");
        let mut messages = client.through("ActionID: end");
        // The login's own security event, which comes through Stasis when it comes.
        messages.retain(|message| !message.starts_with("Event: SuccessfulAuth\n"));
        answers.push(messages.iter().map(|message| masked(message)).collect::<Vec<_>>().join("\n"));
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_answer_alike() {
    let (_asterisk, addr) = real();
    let sim = Sim::start(options()).await.expect("a free port");
    let (theirs, ours) = (answers(addr), answers(sim.addr()));
    for ((action, theirs), ours) in SAME_ANSWER.iter().zip(&theirs).zip(&ours) {
        assert_eq!(theirs, ours, "real (left) and simulated (right) after {action}");
    }
    assert_eq!(theirs.len(), SAME_ANSWER.len());
}

/// The first message of each event name that the near half of one answered call gives.
fn call(addr: SocketAddr) -> BTreeMap<String, String> {
    let mut client = Client::logged_in(addr, "call,dialplan");
    client.send(
        "Action: Originate\nActionID: o\nChannel: Local/1000@flows\nApplication: Wait\nData: 30\nAsync: true\n\
         ChannelId: like\nVariable: LABTAG=mine\nCallerID: \"Some One's\" <4711>",
    );
    let mut first = BTreeMap::new();
    let mut hangups = 0;
    while hangups < 2 || !first.contains_key("OriginateResponse") {
        let message = client.message();
        let Some(name) = message.lines().next().and_then(|line| line.strip_prefix("Event: ")) else {
            continue;
        };
        hangups += usize::from(name == "Hangup");
        // The far half has a thread of its own: which half is first is a matter of luck.
        if message.contains("\nUniqueid: like;2\n") {
            continue;
        }
        // The laboratory's dialplan has an `h` extension, in which a channel spends its last moment.
        let place =
            |line: &&str| name == "Hangup" && (line.starts_with("Exten: ") || line.starts_with("Priority: "));
        let told: Vec<&str> = message.lines().filter(|line| !place(line)).collect();
        first.entry(name.to_owned()).or_insert_with(|| masked(&told.join("\n")));
    }
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_originated_call_is_told_alike() {
    let (_asterisk, addr) = real();
    let sim = Sim::start(options()).await.expect("a free port");
    let (theirs, ours) = (call(addr), call(sim.addr()));
    for name in ["Newchannel", "OriginateResponse", "LocalBridge", "DialBegin", "Hangup", "NewCallerid"] {
        assert_eq!(theirs.get(name), ours.get(name), "{name}, real (left) and simulated (right)");
    }
    let unknown: Vec<&String> = ours.keys().filter(|name| !theirs.contains_key(*name)).collect();
    let only_ringing = ["DialState".to_owned()];
    assert!(
        unknown.iter().all(|name| only_ringing.contains(name)),
        "events that a real call has not: {unknown:?}"
    );
}
