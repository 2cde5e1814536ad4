//! One run of each publisher after the other, for each bus.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use amibus_services::{Process, Program};
use tokio::time::sleep;

use crate::{
    Options,
    buses::{self, Bus, Server},
    child::{Role, cpu_seconds, peak_megabytes},
    common::spread::Spread,
};

/// Until a process is there.
const READY: Duration = Duration::from_secs(60);
const READY_SECONDS: u64 = 60;
/// Until everything has come: far more than it takes.
const WHOLE: Duration = Duration::from_secs(300);
/// Everything has begun by then: subscriptions are in force, snapshots are over.
const SETTLED: Duration = Duration::from_secs(1);
/// Two publishers send the same if their bytes differ by less than this part; times and numbers have other digits.
const SAME: f64 = 0.02;

/// One publisher, once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    /// Of processors, by the publisher alone.
    pub(crate) cpu_seconds: f64,
    pub(crate) server_cpu_seconds: f64,
    pub(crate) peak_megabytes: f64,
    /// What the consumer got.
    pub(crate) bytes: f64,
}

/// Both publishers on one bus, run by run.
pub(crate) struct Measured {
    pub(crate) bus: Bus,
    pub(crate) amibus: Vec<Run>,
    pub(crate) raw: Vec<Run>,
}

impl Measured {
    /// Amibus's throughput as a part of the raw publisher's, of runs that followed each other.
    pub(crate) fn ratio(&self) -> Spread {
        Spread::of(self.amibus.iter().zip(&self.raw).map(|(ours, raw)| raw.seconds / ours.seconds))
    }
}

pub(crate) async fn all(options: &Options) -> io::Result<Vec<Measured>> {
    let mut all = Vec::new();
    for bus in &options.buses {
        let server = Server::start(*bus);
        let mut measured = Measured { bus: *bus, amibus: Vec::new(), raw: Vec::new() };
        for repeat in 0..options.repeats {
            let raw = run(options, *bus, &server, &format!("raw{repeat}"), true).await?;
            let ours = run(options, *bus, &server, &format!("ami{repeat}"), false).await?;
            if (raw.bytes / ours.bytes - 1.0).abs() > SAME {
                let text =
                    format!("void: {} bytes came of amibus, {} of the raw publisher", ours.bytes, raw.bytes);
                return Err(io::Error::other(text));
            }
            measured.raw.push(raw);
            measured.amibus.push(ours);
        }
        all.push(measured);
    }
    Ok(all)
}

async fn run(options: &Options, bus: Bus, server: &Server, prefix: &str, raw: bool) -> io::Result<Run> {
    let count = options.events.to_string();
    let mut amibus = Program::prepare("amibus");
    let address = server.address(amibus.port(1));
    buses::prepare(bus, &address, prefix).await?;
    let words = match raw {
        true => vec!["raw", bus.name(), &address, prefix, &options.recording, &count],
        false => vec!["sim", &options.recording, &count],
    };
    let mut source = Role::start(&words)?;
    match (raw, bus) {
        (true, Bus::ZeroMq) => drop(source.expect("bound", READY)?),
        (true, _) => drop(source.expect("ready", READY)?),
        (false, _) => start(&mut amibus, bus, &address, prefix, &source.expect("port", READY)?)?,
    }
    let consumer = Role::start(&["consume", bus.name(), &address, prefix, &count])?;
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
    let verdict = consumer.line(WHOLE)?;
    let seconds = began.elapsed().as_secs_f64();
    let Some(bytes) = verdict.strip_prefix("whole ").and_then(|bytes| bytes.parse().ok()) else {
        return Err(io::Error::other(format!("{} by {prefix}: {verdict}", bus.name())));
    };
    let run = Run {
        seconds,
        cpu_seconds: used(Some(publisher)) - before.0,
        server_cpu_seconds: used(server.pid()) - before.1,
        peak_megabytes: peak_megabytes(publisher),
        bytes,
    };
    drop((consumer, source));
    amibus.stop();
    buses::clear(bus, &address, prefix).await?;
    Ok(run)
}

fn start(amibus: &mut Program, bus: Bus, address: &str, prefix: &str, sim: &str) -> io::Result<()> {
    let file = amibus.directory().join("amibus.toml");
    fs::write(&file, buses::configuration(bus, amibus, address, prefix, sim))?;
    let program = env!("CARGO_BIN_EXE_amibus").to_owned();
    let command = vec![program, "run".to_owned(), "-c".to_owned(), file.display().to_string()];
    amibus.start(command, READY_SECONDS, is_ready);
    Ok(())
}

fn is_ready(amibus: &Process) -> bool {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", amibus.port(0)))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}
