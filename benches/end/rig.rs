//! A paced run: simulated Asterisks, amibus, a bus, and a consumer that keeps when each event was sent and came.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use amibus_services::{Process, Program};
use tokio::time::sleep;

use crate::{
    buses::{self, Bus, Server},
    child::{Role, cpu_seconds, peak_megabytes},
    trace::Trace,
};

/// Until a process is there.
pub(crate) const READY: Duration = Duration::from_secs(60);
const READY_SECONDS: u64 = 60;
/// Until everything has come, beyond the time of sending: far more than it takes.
pub(crate) const WHOLE: Duration = Duration::from_secs(60);
/// Everything has begun by then: subscriptions are in force, snapshots are over.
pub(crate) const SETTLED: Duration = Duration::from_secs(1);
/// So much later for each server.
const SETTLED_A_SERVER: Duration = Duration::from_millis(2);
/// How often a run that is not over is looked at.
const LOOK: Duration = Duration::from_secs(1);
const PROGRAM: &str = env!("CARGO_BIN_EXE_amibus");

/// So many events a second for so long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) recording: &'a str,
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
}

impl Load<'_> {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Asterisks and amibus between them and one bus or several.
pub(crate) struct Rig {
    pub(crate) amibus: Program,
    pub(crate) sims: Role,
}

/// What a pour came to.
pub(crate) struct Poured {
    pub(crate) events: u64,
    /// Of all stamps, wrapping.
    pub(crate) sum: u64,
    /// How late the source was at most.
    pub(crate) behind: Duration,
    /// By amibus, until the consumers had everything.
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_megabytes: f64,
}

impl Rig {
    /// Starts as many Asterisks, and amibus with these sections for its buses, and waits until it is ready. ZeroMQ publishes
    /// on the program's second port.
    pub(crate) fn start(
        mut amibus: Program,
        servers: u16,
        recording: &str,
        prefix: &str,
        sections: &str,
    ) -> io::Result<Self> {
        let mut sims = Role::start(&["sims", &servers.to_string(), recording])?;
        let ports = sims.numbers("ports", READY)?;
        start(&mut amibus, prefix, &ports, sections)?;
        sims.tell("full")?;
        sims.expect("full", READY)?;
        thread::sleep(SETTLED_A_SERVER * servers.into());
        Ok(Self { amibus, sims })
    }

    /// Pours, and waits until all consumers have everything.
    pub(crate) fn pour(&mut self, load: Load<'_>, consumers: &[Role]) -> io::Result<Poured> {
        let pid = self.amibus.pid().unwrap_or_default();
        let before = cpu_seconds(pid);
        self.sims.tell(&format!("pour {} {}", load.rate, load.seconds))?;
        let told = self.sims.numbers("poured", load.time() * 2 + READY)?;
        let [events, sum, dropped, behind] = *told else { return Err(io::Error::other("poured what?")) };
        none_dropped(dropped)?;
        for consumer in consumers {
            self.wait_for(consumer)?;
        }
        Ok(Poured {
            events,
            sum,
            behind: Duration::from_micros(behind),
            cpu_seconds: cpu_seconds(pid) - before,
            peak_megabytes: peak_megabytes(pid),
        })
    }

    /// Waits until this consumer has everything, or never will.
    fn wait_for(&mut self, consumer: &Role) -> io::Result<()> {
        let began = Instant::now();
        loop {
            match consumer.expect("done", LOOK) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && began.elapsed() < WHOLE => {}
                found => return found.map(drop),
            }
            // The last events are written after all were given to be written.
            self.sims.tell("dropped")?;
            none_dropped(self.sims.numbers("dropped", READY)?.first().copied().unwrap_or_default())?;
        }
    }
}

/// A session that was dropped has lost events.
pub(crate) fn none_dropped(sessions: u64) -> io::Result<()> {
    match sessions {
        0 => Ok(()),
        _ => Err(io::Error::other(format!(
            "a write waited too long for amibus: {sessions} sessions were dropped"
        ))),
    }
}

/// One paced run through amibus over one bus: a trace of every event, whole and in order, or an error that says why it is void.
pub(crate) async fn through_amibus(
    bus: Bus,
    server: &Server,
    prefix: &str,
    load: Load<'_>,
) -> io::Result<(Trace, Poured)> {
    let amibus = Program::prepare("amibus");
    let address = server.address(amibus.port(1));
    buses::prepare(bus, &address, prefix).await?;
    let sections = buses::section(bus, &address, prefix);
    let mut rig = Rig::start(amibus, 1, load.recording, prefix, &sections)?;
    let file = rig.amibus.directory().join("trace");
    let consumer = tracer(bus, &address, prefix, load.rate * load.seconds, &file)?;
    sleep(SETTLED).await;
    let poured = rig.pour(load, std::slice::from_ref(&consumer))?;
    let trace = Trace::read(&file)?;
    rig.amibus.stop();
    buses::clear(bus, &address, prefix).await?;
    trace.check(poured.events, poured.sum)?;
    Ok((trace, poured))
}

/// The same without amibus.
pub(crate) async fn raw(bus: Bus, server: &Server, prefix: &str, load: Load<'_>) -> io::Result<Trace> {
    let ports = Program::prepare("raw");
    let address = server.address(ports.port(1));
    buses::prepare(bus, &address, prefix).await?;
    let count = load.rate * load.seconds;
    let (events, rate) = (count.to_string(), load.rate.to_string());
    let mut publisher = Role::start(&["raw", bus.name(), &address, prefix, load.recording, &events, &rate])?;
    publisher.expect(if bus == Bus::ZeroMq { "bound" } else { "ready" }, READY)?;
    let file = ports.directory().join("trace");
    let consumer = tracer(bus, &address, prefix, count, &file)?;
    if bus == Bus::ZeroMq {
        publisher.expect("ready", READY)?;
    }
    sleep(SETTLED).await;
    publisher.tell("go")?;
    let sum = publisher.numbers("published", load.time() * 2 + READY)?;
    consumer.expect("done", WHOLE)?;
    let trace = Trace::read(&file)?;
    buses::clear(bus, &address, prefix).await?;
    trace.check(count, sum.first().copied().unwrap_or_default())?;
    Ok(trace)
}

/// A consumer that is ready to keep so many arrivals.
pub(crate) fn tracer(bus: Bus, address: &str, prefix: &str, count: u64, file: &Path) -> io::Result<Role> {
    let (count, file) = (count.to_string(), file.display().to_string());
    let consumer = Role::start(&["consume", "trace", bus.name(), address, prefix, &count, &file])?;
    consumer.expect("ready", READY)?;
    Ok(consumer)
}

/// Starts amibus for the servers on these ports, with these sections for its buses, and waits until it is ready.
pub(crate) fn start(amibus: &mut Program, prefix: &str, ports: &[u64], sections: &str) -> io::Result<()> {
    let command = configured(amibus, prefix, ports, sections)?;
    begin(amibus, command, is_ready)
}

/// Writes that configuration down, and answers how amibus is started with it.
pub(crate) fn configured(
    amibus: &Program,
    prefix: &str,
    ports: &[u64],
    sections: &str,
) -> io::Result<Vec<String>> {
    let file = amibus.directory().join("amibus.toml");
    fs::write(&file, buses::configuration(amibus, prefix, ports, sections))?;
    Ok([PROGRAM, "run", "-c", &file.display().to_string()].map(str::to_owned).into())
}

/// Starts a program that ends with this one. Where it does not become ready, this run is void, and not all of them.
pub(crate) fn begin(
    program: &mut Program,
    command: Vec<String>,
    ready: impl FnMut(&Process) -> bool,
) -> io::Result<()> {
    let name = command.first().cloned().unwrap_or_default();
    let start = AssertUnwindSafe(|| program.start(command, READY_SECONDS, ready));
    catch_unwind(start).map_err(|_| io::Error::other(format!("{name} did not become ready")))
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

/// Seconds since.
pub(crate) fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}
