//! Other people's clients with the glue that their users write (`benches/peers`), beside amibus to the same bus: events for a
//! second of processor time, and how many of the recorded events came through whole.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use amibus_services::{Process, Program};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    Options,
    buses::{self, Bus, Server},
    child::{Role, cpu_seconds},
    rig::{self, READY, SETTLED},
    sheet::Sheet,
};

const EVENTS: u64 = 30_000;
const EVENTS_SHORT: u64 = 3_000;
/// Amibus needs more of them to take a time that can be measured.
const TIMES_AMIBUS: u64 = 6;
const REPEATS: usize = 2;
const RECORDINGS: [&str; 3] = ["load500-22", "lists-22", "userevents-16"];
/// Nothing comes any more when nothing has come for so long.
const QUIET: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(120);
/// pyst2 ends at the first `ChanVariable` on Python 3, so it and amibus beside it get events without any.
const PLAIN: &str = "plain";
const NUMBERED: &str = "numbered";

/// Who brings events to a bus.
#[derive(Clone, Copy)]
struct Contender {
    name: &'static str,
    bus: Bus,
    load: &'static str,
    /// None for amibus; else the words after which port, address and prefix follow.
    words: Option<&'static [&'static str]>,
}

const CONTENDERS: [Contender; 6] = [
    Contender { name: "amibus, NATS", bus: Bus::Nats, load: NUMBERED, words: None },
    Contender {
        name: "panoramisk, nats-py",
        bus: Bus::Nats,
        load: NUMBERED,
        words: Some(&["python/bin/python", "panoramisk_nats.py"]),
    },
    Contender {
        name: "asterisk-manager, nats (npm)",
        bus: Bus::Nats,
        load: NUMBERED,
        words: Some(&["node", "asterisk-manager-nats.js"]),
    },
    Contender {
        name: "asterisk-rs, async-nats",
        bus: Bus::Nats,
        load: NUMBERED,
        words: Some(&["asterisk-rs/release/asterisk-rs-nats"]),
    },
    Contender { name: "amibus, ZeroMQ, no ChanVariable", bus: Bus::ZeroMq, load: PLAIN, words: None },
    Contender {
        name: "pyst2, pyzmq, no ChanVariable",
        bus: Bus::ZeroMq,
        load: PLAIN,
        words: Some(&["python/bin/python", "pyst2_zmq.py"]),
    },
];

pub(crate) async fn all(options: &Options) -> io::Result<Sheet> {
    let events = options.count(EVENTS, EVENTS_SHORT);
    let repeats = options.repeats(REPEATS);
    installed()?;
    let settings = json!({ "recording": options.recording, "events": events });
    let title =
        format!("Peers: {events} events of {}, {repeats} times each; recordings once", options.recording);
    let mut sheet = Sheet::new(title, settings);
    let nats = Server::start(Bus::Nats);
    let server = |bus| if bus == Bus::Nats { &nats } else { &Server::None };
    for repeat in 0..repeats {
        let mut ours = f64::NAN;
        for one in &CONTENDERS {
            let count = if one.words.is_none() { events * TIMES_AMIBUS } else { events };
            let prefix = format!("p{repeat}x{}", prefix_of(one));
            let found = match run(one, server(one.bus), &prefix, (&options.recording, count)).await {
                Ok(found) => found,
                Err(error) => {
                    sheet.void(format!("{}: {error}", one.name));
                    continue;
                }
            };
            let per_second = found.came as f64 / found.cpu_seconds;
            if one.words.is_none() {
                ours = per_second;
                if found.came < count {
                    sheet.void(format!("{}: {} of {count} came", one.name, found.came));
                }
            }
            sheet.add(one.name, "events a CPU-second", 0, per_second);
            sheet.add(one.name, "amibus is x times", 1, ours / per_second);
            sheet.add(one.name, "events/s", 0, found.came as f64 / found.seconds);
            sheet.add(one.name, "% came", 1, found.came as f64 / count as f64 * 100.0);
        }
    }
    for one in &CONTENDERS {
        for recording in RECORDINGS {
            if let Err(error) = whole(&mut sheet, one, server(one.bus), recording).await {
                sheet.void(format!("{}, {recording}: {error}", one.name));
            }
        }
    }
    Ok(sheet)
}

/// Adds how many events of a recording came, and how many of them intact.
async fn whole(
    sheet: &mut Sheet,
    one: &Contender,
    server: &Server,
    recording: &'static str,
) -> io::Result<()> {
    let scratch = Program::prepare("judge");
    let (sent, came) = (scratch.directory().join("sent"), scratch.directory().join("came"));
    let prefix = format!("whole{}", prefix_of(one));
    let once = Contender { load: "once", ..*one };
    run_into(&once, server, &prefix, (recording, &sent.display().to_string(), u64::MAX), Some(&came)).await?;
    let output = Command::new(installed()?.join("python/bin/python"))
        .arg(source().join("judge.py"))
        .arg(if one.words.is_none() { "amibus" } else { "peer" })
        .args([&sent, &came])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [events, intact] = *numbers else {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    };
    let columns: [&'static str; 2] = match recording {
        "load500-22" => ["load500-22", "load500-22 intact"],
        "lists-22" => ["lists-22", "lists-22 intact"],
        _ => ["userevents-16", "userevents-16 intact"],
    };
    sheet.add(one.name, columns[0], 0, events);
    sheet.add(one.name, columns[1], 0, intact);
    if one.words.is_none() && intact < events {
        sheet.void(format!("{}: {intact} of {events} of {recording} came intact", one.name));
    }
    Ok(())
}

struct Found {
    /// Without what the login brought.
    came: u64,
    /// Until the last one came.
    seconds: f64,
    cpu_seconds: f64,
}

async fn run(
    one: &Contender,
    server: &Server,
    prefix: &str,
    (recording, count): (&str, u64),
) -> io::Result<Found> {
    run_into(one, server, prefix, (recording, &count.to_string(), count), None).await
}

async fn run_into(
    one: &Contender,
    server: &Server,
    prefix: &str,
    (recording, words, count): (&str, &str, u64),
    file: Option<&Path>,
) -> io::Result<Found> {
    let mut amibus = Program::prepare("amibus");
    let address = server.address(amibus.port(1));
    let mut sim = Role::start(&["sim", one.load, recording, words])?;
    let port = sim.numbers("port", READY)?;
    let file = file.map(|file| file.display().to_string());
    let mut consume = vec!["consume", "any", one.bus.name(), &address, prefix, "0"];
    consume.extend(file.as_deref());
    let consumer = Role::start(&consume)?;
    if one.bus == Bus::Nats {
        consumer.expect("ready", READY)?;
    }
    let peer = match one.words {
        None => {
            let sections = buses::section(one.bus, &address, prefix);
            rig::start(&mut amibus, prefix, &port, &sections)?;
            None
        }
        Some(words) => {
            let port = port.first().copied().unwrap_or_default().to_string();
            let mut peer = Program::prepare("peer");
            rig::begin(&mut peer, command(words, &[&port, &address, prefix])?, says_ready)?;
            Some(peer)
        }
    };
    if one.bus == Bus::ZeroMq {
        // It connects once somebody publishes.
        consumer.expect("ready", READY)?;
    }
    sleep(SETTLED).await;
    let mut before_any = 0;
    while let Ok(numbers) = consumer.numbers("came", Duration::ZERO) {
        before_any = numbers.first().copied().unwrap_or_default();
    }
    let pid = peer.as_ref().unwrap_or(&amibus).pid().unwrap_or_default();
    let before = cpu_seconds(pid);
    let began = Instant::now();
    sim.tell("go")?;
    let (came, seconds) = count_until_quiet(&consumer, before_any.saturating_add(count), began);
    let cpu_seconds = cpu_seconds(pid) - before;
    drop((peer, sim, consumer));
    amibus.stop();
    Ok(Found { came: came.saturating_sub(before_any), seconds, cpu_seconds })
}

/// What a consumer says, until it has `count` or says the same for long.
fn count_until_quiet(consumer: &Role, count: u64, began: Instant) -> (u64, f64) {
    let (mut came, mut last) = (0, began);
    while came < count && last.elapsed() < QUIET && began.elapsed() < MOST {
        let Ok(numbers) = consumer.numbers("came", QUIET) else { break };
        let now = numbers.first().copied().unwrap_or(came);
        if now > came {
            (came, last) = (now, Instant::now());
        }
    }
    (came, (last - began).as_secs_f64())
}

fn command(words: &[&str], arguments: &[&str]) -> io::Result<Vec<String>> {
    let installed = installed()?;
    let path = |word: &&str| match source().join(word) {
        script if script.exists() => script.display().to_string(),
        _ => match installed.join(word) {
            file if file.exists() => file.display().to_string(),
            _ => (*word).to_owned(),
        },
    };
    let modules = format!("NODE_PATH={}", installed.join("npm/node_modules").display());
    let arguments = arguments.iter().map(|word| (*word).to_owned());
    Ok(["env".to_owned(), modules].into_iter().chain(words.iter().map(path)).chain(arguments).collect())
}

fn says_ready(peer: &Process) -> bool {
    fs::read_to_string(peer.log()).is_ok_and(|log| log.lines().any(|line| line == "ready"))
}

fn prefix_of(one: &Contender) -> usize {
    CONTENDERS.iter().position(|other| other.name == one.name).unwrap_or(0)
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers")
}

/// Where `benches/peers/install` has put them.
fn installed() -> io::Result<PathBuf> {
    let folder =
        env::var_os("BENCH_PEERS").map_or_else(|| source().join("../../target/peers"), PathBuf::from);
    match fs::exists(folder.join("installed"))? {
        true => folder.canonicalize(),
        false => Err(io::Error::other(format!("{} is missing: run benches/peers/install", folder.display()))),
    }
}
