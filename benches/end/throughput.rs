//! As fast as it goes: amibus and the raw publisher in turn, on each bus.

use std::{io, time::Instant};

use amibus_services::Program;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    Options,
    buses::{self, Bus, Server},
    child::{Role, cpu_seconds, peak_megabytes},
    rig::{self, READY, SETTLED, WHOLE},
    sheet::Sheet,
};

const EVENTS: u64 = 200_000;
const EVENTS_SHORT: u64 = 20_000;
const REPEATS: usize = 5;
/// Two publishers send the same if their bytes differ by less than this part; times and numbers have other digits.
const SAME: f64 = 0.02;

/// One publisher, once.
struct Run {
    seconds: f64,
    /// Of processors, by the publisher alone.
    cpu_seconds: f64,
    server_cpu_seconds: f64,
    peak_megabytes: f64,
    /// What the consumer got.
    bytes: f64,
}

pub(crate) async fn all(options: &Options) -> io::Result<Sheet> {
    let events = options.count(EVENTS, EVENTS_SHORT);
    let repeats = options.repeats(REPEATS);
    let title = format!("End to end: {events} events of {}, {repeats} times each", options.recording);
    let settings = json!({ "recording": options.recording, "events": events });
    let mut sheet = Sheet::new(title, settings);
    for bus in &options.buses {
        let server = Server::start(*bus);
        for repeat in 0..repeats {
            let raw = run(options, events, (*bus, &server), &format!("raw{repeat}"), true).await;
            let ours = run(options, events, (*bus, &server), &format!("ami{repeat}"), false).await;
            add(&mut sheet, *bus, events, raw, ours);
        }
    }
    Ok(sheet)
}

fn add(sheet: &mut Sheet, bus: Bus, events: u64, raw: io::Result<Run>, ours: io::Result<Run>) {
    let (events, millions, name) = (events as f64, events as f64 / 1e6, bus.name());
    let (raw, ours) = match (raw, ours) {
        (Ok(raw), Ok(ours)) if (raw.bytes / ours.bytes - 1.0).abs() < SAME => (raw, ours),
        (Ok(raw), Ok(ours)) => {
            let text =
                format!("{name}: {} bytes came of amibus, {} of the raw publisher", ours.bytes, raw.bytes);
            return sheet.void(text);
        }
        (raw, ours) => {
            for (who, run) in [("raw", raw), ("amibus", ours)] {
                if let Err(error) = run {
                    sheet.void(format!("{name}, {who}: {error}"));
                }
            }
            return;
        }
    };
    sheet.add(name, "amibus events/s", 0, events / ours.seconds);
    sheet.add(name, "raw events/s", 0, events / raw.seconds);
    sheet.add(name, "ratio", 2, raw.seconds / ours.seconds);
    sheet.add(name, "CPU s/M", 2, ours.cpu_seconds / millions);
    sheet.add(name, "raw CPU s/M", 2, raw.cpu_seconds / millions);
    sheet.add(name, "server CPU s/M", 2, ours.server_cpu_seconds / millions);
    sheet.add(name, "raw server CPU s/M", 2, raw.server_cpu_seconds / millions);
    sheet.add(name, "peak MB", 0, ours.peak_megabytes);
}

async fn run(
    options: &Options,
    events: u64,
    (bus, server): (Bus, &Server),
    prefix: &str,
    raw: bool,
) -> io::Result<Run> {
    let (count, recording) = (events.to_string(), options.recording.as_str());
    let mut amibus = Program::prepare("amibus");
    let address = server.address(amibus.port(1));
    buses::prepare(bus, &address, prefix).await?;
    let words = match raw {
        true => vec!["raw", bus.name(), &address, prefix, recording, &count, "0"],
        false => vec!["sim", "numbered", recording, &count],
    };
    let mut source = Role::start(&words)?;
    match (raw, bus) {
        (true, Bus::ZeroMq) => drop(source.expect("bound", READY)?),
        (true, _) => drop(source.expect("ready", READY)?),
        (false, _) => {
            let port = source.numbers("port", READY)?;
            let sections = buses::section(bus, &address, prefix);
            rig::start(&mut amibus, prefix, &port, &sections)?;
        }
    }
    let consumer = Role::start(&["consume", "count", bus.name(), &address, prefix, &count])?;
    consumer.expect("ready", READY)?;
    if raw && bus == Bus::ZeroMq {
        source.expect("ready", READY)?;
    }
    sleep(SETTLED).await;
    let publisher = if raw { source.pid() } else { amibus.pid().unwrap_or_default() };
    let used = |pid: Option<u32>| pid.map_or(0.0, cpu_seconds);
    let before = (used(Some(publisher)), used(server.pid()));
    let began = Instant::now();
    source.tell("go")?;
    let bytes = consumer.numbers("whole", WHOLE)?;
    let seconds = began.elapsed().as_secs_f64();
    let run = Run {
        seconds,
        cpu_seconds: used(Some(publisher)) - before.0,
        server_cpu_seconds: used(server.pid()) - before.1,
        peak_megabytes: peak_megabytes(publisher),
        bytes: bytes.first().copied().unwrap_or_default() as f64,
    };
    drop((consumer, source));
    amibus.stop();
    buses::clear(bus, &address, prefix).await?;
    Ok(run)
}
