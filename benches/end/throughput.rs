//! As fast as it goes: amibus and the raw publisher in turn, on each bus.

use std::{io, thread, time::Instant};

use amibus_services::Program;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    Options,
    buses::{self, Bus, Server},
    child::{Role, cpu_seconds, idle_seconds, peak_megabytes},
    rig::{self, READY, SETTLED, WHOLE},
    sheet::Sheet,
};

const EVENTS: u64 = 200_000;
const EVENTS_SHORT: u64 = 20_000;
const REPEATS: usize = 9;
/// Two publishers send the same if their bytes differ by less than this part; times and numbers have other digits.
const SAME: f64 = 0.02;

/// One publisher, once.
struct Run {
    seconds: f64,
    used: Used<f64>,
    peak_megabytes: f64,
    /// What the consumer got.
    bytes: f64,
    /// How many events came in the place (of Kafka, the partition) where most did: the same keys go to the same ones.
    most: u64,
}

impl Run {
    /// Whether both published the same.
    fn is_like(&self, other: &Self) -> bool {
        (other.bytes / self.bytes - 1.0).abs() < SAME && self.most == other.most
    }
}

/// Something of each process that a run has. Where there is no amibus the source is the publisher; without a server of its own
/// a bus has none.
#[derive(Clone, Copy)]
struct Used<T> {
    source: T,
    amibus: T,
    server: T,
    consumer: T,
    /// Of the machine, whoever had it.
    idle: T,
}

impl Used<Option<u32>> {
    /// Seconds of processors so far.
    fn seconds(self) -> Used<f64> {
        let of = |pid: Option<u32>| pid.map_or(0.0, cpu_seconds);
        Used {
            source: of(self.source),
            amibus: of(self.amibus),
            server: of(self.server),
            consumer: of(self.consumer),
            idle: idle_seconds(),
        }
    }
}

impl Used<f64> {
    fn since(self, before: Self) -> Self {
        Self {
            source: self.source - before.source,
            amibus: self.amibus - before.amibus,
            server: self.server - before.server,
            consumer: self.consumer - before.consumer,
            idle: self.idle - before.idle,
        }
    }

    fn all(self) -> f64 {
        self.source + self.amibus + self.server + self.consumer
    }
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
        (Ok(raw), Ok(ours)) if ours.is_like(&raw) => (raw, ours),
        (Ok(raw), Ok(ours)) => {
            let text = format!(
                "{name}: {} bytes came of amibus, {} of the raw publisher; at most {} and {} events in one place",
                ours.bytes, raw.bytes, ours.most, raw.most
            );
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
    for (row, run, is_raw) in [(name.to_owned(), &ours, false), (format!("{name} raw"), &raw, true)] {
        let cores = thread::available_parallelism().map_or(f64::NAN, |cores| cores.get() as f64);
        let mut add = |figure, digits, sample| sheet.add(&row, figure, digits, sample);
        add("events/s", 0, events / run.seconds);
        add("ratio", 2, raw.seconds / run.seconds);
        // The source is what publishes where amibus is not.
        let (publisher, simulator) = match is_raw {
            true => (run.used.source, 0.0),
            false => (run.used.amibus, run.used.source),
        };
        add("CPU s/M", 2, publisher / millions);
        add("simulator s/M", 2, simulator / millions);
        add("server s/M", 2, run.used.server / millions);
        add("consumer s/M", 2, run.used.consumer / millions);
        add("all s/M", 2, run.used.all() / millions);
        add("% of cores", 0, 100.0 * run.used.all() / (cores * run.seconds));
        add("% idle", 0, 100.0 * run.used.idle / (cores * run.seconds));
        add("peak MB", 0, run.peak_megabytes);
    }
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
    let processes = Used {
        source: Some(source.pid()),
        amibus: amibus.pid(),
        server: server.pid(),
        consumer: Some(consumer.pid()),
        idle: None,
    };
    let before = processes.seconds();
    let began = Instant::now();
    source.tell("go")?;
    let &[bytes, most] = consumer.numbers("whole", WHOLE)?.as_slice() else {
        return Err(io::Error::other("the consumer does not say what came"));
    };
    let seconds = began.elapsed().as_secs_f64();
    let run = Run {
        seconds,
        used: processes.seconds().since(before),
        peak_megabytes: peak_megabytes(processes.amibus.unwrap_or_else(|| source.pid())),
        bytes: bytes as f64,
        most,
    };
    drop((consumer, source));
    amibus.stop();
    buses::clear(bus, &address, prefix).await?;
    Ok(run)
}
