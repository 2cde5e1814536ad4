//! The same events from ever more servers, and all servers lost and back at once.

use std::{io, time::Duration};

use amibus_services::Program;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    Options,
    buses::{self, Bus, Server},
    child::{Role, peak_megabytes},
    rig::{Load, Rig, SETTLED, tracer},
    sheet::Sheet,
    trace::Trace,
};

const SERVERS: [u16; 4] = [1, 10, 100, 1_000];
const SERVERS_SHORT: [u16; 3] = [1, 10, 100];
const RATE: u64 = 10_000;
const SECONDS: u64 = 6;
const REPEATS: usize = 2;
/// Connections are refused for so long.
const AWAY: Duration = Duration::from_secs(5);
/// Until all are back.
const BACK: Duration = Duration::from_secs(90);

pub(crate) async fn all(options: &Options) -> io::Result<Sheet> {
    let (seconds, repeats) = (options.count(SECONDS, 1), options.repeats(REPEATS));
    let bus = Bus::JetStream;
    let title = format!(
        "{RATE} events/s from ever more servers to {}, {seconds} s, {repeats} times each",
        bus.name()
    );
    let settings = json!({
        "recording": options.recording, "rate": RATE, "seconds": seconds, "bus": bus.name(),
        "away_seconds": AWAY.as_secs(),
    });
    let mut sheet = Sheet::new(title, settings);
    let server = Server::start(bus);
    let load = Load { recording: &options.recording, rate: RATE, seconds };
    for repeat in 0..repeats {
        let mut one_server = f64::NAN;
        for servers in if options.short { &SERVERS_SHORT[..] } else { &SERVERS[..] } {
            let prefix = format!("of{servers}x{repeat}");
            match run((bus, &server), *servers, &prefix, load).await {
                Ok(found) => {
                    if *servers == 1 {
                        one_server = found.micros;
                    }
                    add(&mut sheet, *servers, &found, one_server);
                }
                Err(error) => sheet.void(format!("{servers} servers: {error}")),
            }
        }
    }
    Ok(sheet)
}

struct Found {
    /// Of processors, an event.
    micros: f64,
    p99: f64,
    peak_megabytes: f64,
    back_seconds: f64,
    most_logins: f64,
    most_tries: f64,
    peak_after: f64,
}

fn add(sheet: &mut Sheet, servers: u16, found: &Found, of_one: f64) {
    let row = format!("{servers} servers");
    sheet.add(&row, "CPU us an event", 2, found.micros);
    sheet.add(&row, "times one server's", 2, found.micros / of_one);
    sheet.add(&row, "p99 ms", 2, found.p99);
    sheet.add(&row, "peak MB", 1, found.peak_megabytes);
    sheet.add(&row, "all back after s", 1, found.back_seconds);
    sheet.add(&row, "most logins in a second", 0, found.most_logins);
    sheet.add(&row, "most connections to one", 0, found.most_tries);
    sheet.add(&row, "peak MB then", 1, found.peak_after);
}

async fn run((bus, server): (Bus, &Server), servers: u16, prefix: &str, load: Load<'_>) -> io::Result<Found> {
    let amibus = Program::prepare("amibus");
    let address = server.address(amibus.port(1));
    buses::prepare(bus, &address, prefix).await?;
    let sections = buses::section(bus, &address, prefix);
    let mut rig = Rig::start(amibus, servers, load.recording, prefix, &sections)?;
    let file = rig.amibus.directory().join("trace");
    let consumer: Role = tracer(bus, &address, prefix, load.rate * load.seconds, &file)?;
    sleep(SETTLED).await;
    let poured = rig.pour(load, std::slice::from_ref(&consumer))?;
    let trace = Trace::read(&file)?;
    trace.check(poured.events, poured.sum)?;
    let [p99] = trace.latency(0..u64::MAX, [0.99]);
    rig.sims.tell("lose")?;
    rig.sims.expect("lost", BACK)?;
    sleep(AWAY).await;
    rig.sims.tell("back")?;
    let [millis, logins, tries] = *rig.sims.numbers("back", BACK)? else {
        return Err(io::Error::other("back how?"));
    };
    sleep(SETTLED).await;
    let peak_after = peak_megabytes(rig.amibus.pid().unwrap_or_default());
    rig.amibus.stop();
    buses::clear(bus, &address, prefix).await?;
    Ok(Found {
        micros: poured.cpu_seconds / poured.events as f64 * 1e6,
        p99,
        peak_megabytes: poured.peak_megabytes,
        back_seconds: millis as f64 / 1e3,
        most_logins: logins as f64,
        most_tries: tries as f64,
        peak_after,
    })
}
