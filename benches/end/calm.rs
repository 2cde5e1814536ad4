//! What amibus takes while nothing happens, and how soon it is there.

use std::{io, time::Duration};

use amibus_services::Program;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    Options,
    buses::{self, Bus, Server},
    child::{Role, cpu_seconds, peak_megabytes},
    pace::now_micros,
    rig::{self, READY, Rig, SETTLED},
    sheet::Sheet,
};

const SERVERS: u16 = 10;
const IDLE_SECONDS: u64 = 15;
const IDLE_REPEATS: usize = 1;
const STARTS: usize = 7;
/// Events a second that a starting amibus finds.
const DRIP: u64 = 1_000;

pub(crate) async fn all(options: &Options) -> io::Result<Sheet> {
    let mut sheet =
        Sheet::new(format!("Idle with {SERVERS} servers, and started"), json!({ "servers": SERVERS }));
    let seconds = options.count(IDLE_SECONDS, 2);
    for bus in &options.buses {
        let server = Server::start(*bus);
        for repeat in 0..options.repeats(IDLE_REPEATS) {
            match idle(*bus, &server, &format!("idle{repeat}"), seconds).await {
                Ok((share, megabytes)) => {
                    sheet.add(bus.name(), "idle, % of a core", 2, share * 100.0);
                    sheet.add(bus.name(), "idle peak MB", 1, megabytes);
                }
                Err(error) => sheet.void(format!("{}, idle: {error}", bus.name())),
            }
        }
        for repeat in 0..options.repeats(STARTS) {
            match start(*bus, &server, &format!("start{repeat}")).await {
                Ok(took) => sheet.add(bus.name(), "start to first event, s", 3, took.as_secs_f64()),
                Err(error) => sheet.void(format!("{}, start: {error}", bus.name())),
            }
        }
    }
    Ok(sheet)
}

/// The part of a core that amibus takes with all servers connected, and its peak of memory.
async fn idle(bus: Bus, server: &Server, prefix: &str, seconds: u64) -> io::Result<(f64, f64)> {
    let amibus = Program::prepare("amibus");
    let address = server.address(amibus.port(1));
    buses::prepare(bus, &address, prefix).await?;
    let sections = buses::section(bus, &address, prefix);
    let mut rig = Rig::start(amibus, SERVERS, "load500-22", prefix, &sections)?;
    sleep(SETTLED * 2).await;
    let pid = rig.amibus.pid().unwrap_or_default();
    let before = cpu_seconds(pid);
    sleep(Duration::from_secs(seconds)).await;
    let found = ((cpu_seconds(pid) - before) / seconds as f64, peak_megabytes(pid));
    rig.amibus.stop();
    buses::clear(bus, &address, prefix).await?;
    Ok(found)
}

/// From starting the program, by a shell that watches it, until a consumer has the first event.
async fn start(bus: Bus, server: &Server, prefix: &str) -> io::Result<Duration> {
    let mut amibus = Program::prepare("amibus");
    let address = server.address(amibus.port(1));
    buses::prepare(bus, &address, prefix).await?;
    let mut sims = Role::start(&["sims", "1", "load500-22"])?;
    let ports = sims.numbers("ports", READY)?;
    let sections = buses::section(bus, &address, prefix);
    let command = rig::configured(&amibus, prefix, &ports, &sections)?;
    sims.tell(&format!("drip {DRIP}"))?;
    let consumer = Role::start(&["consume", "first", bus.name(), &address, prefix, "1"])?;
    if bus != Bus::ZeroMq {
        consumer.expect("ready", READY)?;
        sleep(SETTLED).await;
    }
    let began = now_micros();
    rig::begin(&mut amibus, command, |_| true)?;
    if bus == Bus::ZeroMq {
        consumer.expect("ready", READY)?;
    }
    let came = consumer.numbers("came", READY)?;
    amibus.kill();
    buses::clear(bus, &address, prefix).await?;
    Ok(Duration::from_micros(came.first().copied().unwrap_or_default().saturating_sub(began)))
}
