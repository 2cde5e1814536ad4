//! Kafka away for a minute while events go on, with JetStream beside it.

use std::{
    io,
    time::{Duration, Instant},
};

use amibus_services::{Kafka, Nats, NatsOptions, Program};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    Options,
    buses::{self, Bus, PATIENT_NATS},
    child::peak_megabytes,
    pace::now_micros,
    rig::{READY, Rig, SETTLED, WHOLE, none_dropped, seconds, tracer},
    sheet::Sheet,
    trace::Trace,
};

const RATE: u64 = 10_000;
const RATE_SHORT: u64 = 1_000;
const BEFORE_SECONDS: u64 = 10;
const AWAY_SECONDS: u64 = 60;
/// How long events go on after it came back, at least.
const AFTER_SECONDS: u64 = 40;
/// The first moments are nobody's latency.
const WARM_MICROS: u64 = 2_000_000;
/// An event that comes within so long is not part of what had waited.
const CURRENT_MICROS: u64 = 500_000;
const PREFIX: &str = "outage";

pub(crate) async fn all(options: &Options) -> io::Result<Sheet> {
    let rate = options.count(RATE, RATE_SHORT);
    let [before, away, after] =
        if options.short { [4, 3, 12] } else { [BEFORE_SECONDS, AWAY_SECONDS, AFTER_SECONDS] };
    let settings = json!({ "recording": options.recording, "rate": rate, "away_seconds": away });
    let title = format!("Kafka away for {away} s at {rate} events/s, JetStream beside it");
    let mut sheet = Sheet::new(title, settings);
    for repeat in 0..options.repeats(3) {
        if let Err(error) = run(&mut sheet, options, rate, [before, away, after]).await {
            sheet.void(format!("run {repeat}: {error}"));
        }
    }
    Ok(sheet)
}

async fn run(
    sheet: &mut Sheet,
    options: &Options,
    rate: u64,
    [before, away, after]: [u64; 3],
) -> io::Result<()> {
    let mut kafka = Kafka::plain();
    let nats = Nats::start(&NatsOptions { jetstream: true, config: PATIENT_NATS.to_owned() });
    let both = [(Bus::JetStream, nats.url()), (Bus::Kafka, kafka.brokers())];
    let mut sections = String::new();
    for (bus, address) in &both {
        buses::prepare(*bus, address, PREFIX).await?;
        sections += &buses::section(*bus, address, PREFIX);
    }
    let mut rig = Rig::start(Program::prepare("amibus"), 1, &options.recording, PREFIX, &sections)?;
    let total = before + away + after;
    let files = ["live", "away"].map(|name| rig.amibus.directory().join(name));
    let [live, gone] = [0, 1].map(|at: usize| {
        let (bus, address) = &both[at];
        tracer(*bus, address, PREFIX, rate * total, &files[at])
    });
    let (live, gone) = (live?, gone?);
    sleep(SETTLED).await;
    rig.sims.tell(&format!("pour {rate} {total}"))?;
    sleep(Duration::from_secs(before)).await;
    let pid = rig.amibus.pid().unwrap_or_default();
    let calm_megabytes = peak_megabytes(pid);
    let killed = now_micros();
    kafka.kill();
    sleep(Duration::from_secs(away)).await;
    let begun = Instant::now();
    kafka.restart();
    let restart_seconds = seconds(begun);
    let [events, sum, dropped, _] = *rig.sims.numbers("poured", Duration::from_secs(total) + READY)? else {
        return Err(io::Error::other("poured what?"));
    };
    none_dropped(dropped)?;
    live.expect("done", WHOLE)?;
    gone.expect("done", WHOLE)?;
    let [live, gone] = [Trace::read(&files[0])?, Trace::read(&files[1])?];
    let megabytes = peak_megabytes(pid);
    rig.amibus.stop();
    live.check(events, sum)?;
    let (gone, repeats) = gone.without_repeats();
    gone.check(events, sum)?;
    let drain = Drain::of(&gone, killed)?;
    let name = format!("{rate}/s");
    sheet.add(&name, "drained/s", 0, drain.per_second());
    sheet.add(&name, "times the live rate", 1, drain.per_second() / rate as f64);
    sheet.add(&name, "drained in s", 1, drain.micros() as f64 / 1e6);
    sheet.add(&name, "broker's start s", 1, restart_seconds);
    sheet.add(&name, "repeats", 0, repeats as f64);
    let first = live.arrivals.iter().map(|one| one.sent).min().unwrap_or(0) + WARM_MICROS;
    let parts = [0.5, 0.99];
    let calm = live.latency(first..killed, parts);
    let out = live.latency(killed..drain.began, parts);
    let draining = live.latency(drain.began..drain.ended, parts);
    for (at, names) in [
        ["other bus p50 ms", "in the outage", "while draining"],
        ["other bus p99 ms", "p99 in the outage", "p99 while draining"],
    ]
    .into_iter()
    .enumerate()
    {
        for (name_of, part) in names.into_iter().zip([calm, out, draining]) {
            sheet.add(&name, name_of, 2, part[at]);
        }
        let times = ["times p50 draining", "times p99 draining"][at];
        sheet.add(&name, times, 1, draining[at] / calm[at]);
    }
    sheet.add(&name, "peak MB before", 1, calm_megabytes);
    sheet.add(&name, "peak MB", 1, megabytes);
    Ok(())
}

/// From the first event that had waited to the first that had not.
struct Drain {
    began: u64,
    ended: u64,
    events: u64,
}

impl Drain {
    fn of(trace: &Trace, killed: u64) -> io::Result<Self> {
        let waited = |one: &&crate::trace::Arrival| {
            one.sent > killed && one.came.saturating_sub(one.sent) > CURRENT_MICROS
        };
        let drained = trace.arrivals.iter().filter(waited);
        let began = drained.clone().map(|one| one.came).min();
        let ended = drained.clone().map(|one| one.came).max();
        match (began, ended) {
            (Some(began), Some(ended)) if ended > began => {
                Ok(Self { began, ended, events: drained.count() as u64 })
            }
            _ => Err(io::Error::other("nothing had to wait for the broker")),
        }
    }

    fn micros(&self) -> u64 {
        self.ended - self.began
    }

    fn per_second(&self) -> f64 {
        self.events as f64 / self.micros() as f64 * 1e6
    }
}
