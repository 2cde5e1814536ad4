//! Hostile commands on every bus, proven by what real Asterisk saw: the bytes that came to it, taken apart as it takes
//! them apart, and what its dialplan was given.

mod cases;
mod dangerous;
mod originates;
mod rig;
mod tap;
mod wire;

use std::{collections::BTreeMap, thread};

use base64::{Engine, engine::general_purpose::STANDARD};
use cases::{Case, Expect};
use originates::{CHANNEL_ID, VALUES};
use rig::{Rig, header};
use serde_json::Value;
use wire::Taken;

const BUSES: [&str; 4] = ["zeromq", "nats", "jetstream", "kafka"];

/// What amibus sends of itself, with the headers that it may have.
const OWN: [(&str, &[&str]); 7] = [
    ("Challenge", &["AuthType"]),
    ("Login", &["AuthType", "Username", "Key", "Events"]),
    ("Ping", &[]),
    ("CoreSettings", &[]),
    ("CoreStatus", &[]),
    ("CoreShowChannels", &[]),
    ("Logoff", &[]),
];

/// A good command follows so many hostile ones.
const HOSTILE_IN_A_ROW: usize = 4;

type Command = ((&'static str, &'static str), Vec<u8>);

#[test]
fn nothing_reaches_asterisk_that_was_not_allowed() {
    let rig = Rig::start();
    let cases = cases::all();
    thread::scope(|scope| {
        for bus in BUSES {
            let (rig, cases) = (&rig, &cases);
            scope.spawn(move || send_all(rig, bus, &of(bus, cases)));
        }
    });
    asterisk_took_only(&rig, expected(&cases));
    the_dialplan_saw_only(&rig, &cases);
    let hostile = BUSES.map(|bus| of(bus, &cases).len());
    let commands = hostile.iter().map(|count| count + count.div_ceil(HOSTILE_IN_A_ROW)).sum();
    each_is_audited_once(&rig, commands);
}

/// The cases that make sense on a bus.
fn of<'a>(bus: &str, cases: &'a [Case]) -> Vec<&'a Case> {
    let has_topics = matches!(bus, "nats" | "jetstream");
    cases.iter().filter(|case| has_topics || !case.needs_topic).collect()
}

/// Each case, and a good command behind each few.
fn send_all(rig: &Rig, bus: &'static str, cases: &[&Case]) {
    let mut commands: Vec<Command> = Vec::new();
    for (number, few) in cases.chunks(HOSTILE_IN_A_ROW).enumerate() {
        commands.extend(few.iter().map(|case| (case.topic, with_bus(&case.body, bus))));
        let mark = good(bus, number);
        let body =
            format!(r#"{{"id":"{mark}","server":"pbx1","action":"Ping","fields":{{"Mark":"{mark}"}}}}"#);
        commands.push((("pbx1", "Ping"), body.into_bytes()));
    }
    let mut replies = rig.send(bus, &commands).into_iter();
    let mut next = || replies.next().expect("every command is answered");
    for few in cases.chunks(HOSTILE_IN_A_ROW) {
        for case in few {
            answered(&format!("{bus}: {}", case.name), case, &next());
        }
        let good = next();
        let last = few.last().map_or("", |case| &case.name);
        assert_eq!(good["data"]["outcome"], "executed", "{bus}, behind {last}: {good}");
    }
}

fn answered(what: &str, case: &Case, answer: &Value) {
    let data = &answer["data"];
    match &case.expect {
        Expect::Rejected(codes) => {
            assert_eq!(data["outcome"], "rejected", "{what}: {answer}");
            let code = data["error"]["code"].as_str().unwrap_or_default();
            assert!(codes.contains(&code), "{what}: {codes:?} were expected: {answer}");
            assert!(
                data["error"]["message"].as_str().is_some_and(|words| words.len() > 10),
                "{what}: {answer}"
            );
        }
        Expect::Runs(..) => assert_eq!(data["outcome"], "executed", "{what}: {answer}"),
    }
}

fn good(bus: &str, number: usize) -> String {
    format!("good-{bus}-{number}")
}

fn with_bus(body: &[u8], bus: &str) -> Vec<u8> {
    let token = b"%BUS%";
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.windows(token.len()).position(|window| window == token) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(bus.as_bytes());
        rest = &rest[at + token.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// What Asterisk must take, and how often.
fn expected(cases: &[Case]) -> BTreeMap<(String, Vec<(String, String)>), usize> {
    let mut all = BTreeMap::new();
    for bus in BUSES {
        for number in 0..of(bus, cases).len().div_ceil(HOSTILE_IN_A_ROW) {
            let good = vec![("Mark".to_owned(), good(bus, number))];
            *all.entry(("Ping".to_owned(), good)).or_default() += 1;
        }
        for case in of(bus, cases) {
            if let Expect::Runs(action, headers) = &case.expect {
                let headers = headers.iter().map(|(name, value)| (name.clone(), value.replace("%BUS%", bus)));
                *all.entry((action.clone(), headers.collect())).or_default() += 1;
            }
        }
    }
    all
}

fn asterisk_took_only(rig: &Rig, mut expected: BTreeMap<(String, Vec<(String, String)>), usize>) {
    let mut ids = std::collections::BTreeSet::new();
    for sent in rig.tap.sent() {
        for taken in wire::read(&sent).unwrap_or_else(|wrong| panic!("what Asterisk was sent: {wrong}")) {
            let first = ids.insert(taken.action_id.clone());
            assert!(first && taken.action_id.starts_with(b"amibus-"), "its ActionID: {}", taken.shown());
            if is_own(&taken) {
                continue;
            }
            let what = known(&taken);
            let left = what.and_then(|what| expected.get_mut(&what));
            match left {
                Some(left @ 1..) => *left -= 1,
                _ => panic!("Asterisk was sent what nobody may send, or sent it twice: {}", taken.shown()),
            }
        }
    }
    let missing: Vec<_> = expected.iter().filter(|(_, left)| **left > 0).collect();
    assert!(missing.is_empty(), "Asterisk was not sent {missing:?}");
}

fn is_own(taken: &Taken) -> bool {
    let own = OWN.iter().find(|(action, _)| action.as_bytes() == taken.action);
    own.is_some_and(|(_, names)| {
        taken.headers.iter().all(|(name, _)| names.iter().any(|own| own.as_bytes() == name.as_slice()))
    })
}

/// As the cases spell it; the ChannelId that amibus chose is checked here and left empty.
fn known(taken: &Taken) -> Option<(String, Vec<(String, String)>)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let mut headers = Vec::new();
    for (name, value) in &taken.headers {
        let (name, mut value) = (text(name)?, text(value)?);
        if name == CHANNEL_ID {
            let digits = value.strip_prefix("amibus-")?;
            (digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())).then_some(())?;
            value.clear();
        }
        headers.push((name, value));
    }
    Some((text(&taken.action)?, headers))
}

fn the_dialplan_saw_only(rig: &Rig, cases: &[Case]) {
    let right =
        cases.iter().filter(|case| matches!(&case.expect, Expect::Runs(action, _) if action == "Originate"));
    assert_eq!(right.count(), VALUES.len());
    let calls = VALUES.len() * BUSES.len();
    let judged = rig.events.wait("UserEvent", calls);
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for event in &judged {
        assert_eq!(header(event, "UserEvent"), Some("Judge"), "{event}");
        let id = header(event, "Id").expect("an id").to_owned();
        let value = STANDARD.decode(header(event, "Value").expect("a value")).expect("base64");
        assert_eq!(values.insert(id, String::from_utf8(value).expect("text")), None, "{event}");
    }
    for bus in BUSES {
        for (number, (value, _)) in VALUES.iter().enumerate() {
            let id = format!("value-{number}-{bus}");
            assert_eq!(values.remove(&id).as_deref(), Some(*value), "{id}");
        }
    }
    assert!(values.is_empty(), "the dialplan ran for {values:?}");
    // Two ends of a Local channel each, and nothing else was ever dialled or run.
    let channels = rig.events.named("Newchannel");
    assert_eq!(channels.len(), calls * 2);
    for step in rig.events.named("Newexten") {
        assert_eq!(header(&step, "Context"), Some("judge"), "{step}");
    }
    let left = std::fs::read_dir(rig.asterisk.directory()).expect("its directory");
    let names = left.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let pwned: Vec<String> = names.filter(|name| name.starts_with("pwned")).collect();
    assert!(pwned.is_empty(), "a shell ran: {pwned:?}");
}

fn each_is_audited_once(rig: &Rig, commands: usize) {
    let log = std::fs::read_to_string(rig.amibus.log()).expect("the log of amibus");
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let audit: Vec<Value> = lines.filter(|line| line["verdict"].is_string()).collect();
    assert_eq!(audit.len(), commands, "a line of audit for each command");
    for line in &audit {
        let known = matches!(line["verdict"].as_str(), Some("allowed" | "forbidden" | "unjudged"));
        assert!(known && line["bus"].is_string() && line["outcome"].is_string(), "{line}");
        let forbidden = line["code"] == "forbidden";
        assert_eq!(line["verdict"] == "forbidden", forbidden, "{line}");
        let executed = line["outcome"] == "executed";
        assert!(!executed || line["verdict"] == "allowed", "{line}");
    }
}
