//! What a bus that is away costs the other one, and how it catches up.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use amibus_services::Python;

use super::{
    rig::{PATIENCE, Rig},
    scraper::{Scrape, Scraper},
};

const EVENTS_PER_SECOND: u64 = 2_000;
const AWAY: Duration = Duration::from_secs(20);
/// How long live traffic goes on while the backlog drains, at most: a busy machine may be no faster than that.
const LIVE_DRAIN: Duration = Duration::from_secs(40);
/// What the oldest message on a bus that works may be old, on a machine that does other things too.
const LIVE_SECONDS: f64 = 5.0;
/// How long leaving may take: what `shutdown.drain` allows, and closing.
const LEAVES_WITHIN: Duration = Duration::from_secs(8);
/// Bounds what a backlog of 40,000 messages may cost in memory; the messages alone are twice that.
const MAX_GROWTH_KIB: u64 = 48 << 10;

#[test]
#[expect(clippy::print_stdout, reason = "the measurement is for whoever runs it")]
fn a_bus_that_was_away_catches_up_while_live_traffic_goes_on() {
    let mut rig = Rig::start("1GiB", "");
    let (file, _consumer) = consumer(&rig);
    let scraper = Scraper::start(rig.amibus.port(0));
    let flooding = rig.flood(EVENTS_PER_SECOND);
    rig.wait("events flow", |lanes| lanes.iter().all(|lane| lane.published > EVENTS_PER_SECOND));
    let resident = resident_kib(&rig);
    rig.nats.kill();
    let away = Instant::now();
    thread::sleep(AWAY);
    let grown = resident_kib(&rig).saturating_sub(resident);
    rig.nats.restart();
    let back = Instant::now();
    rig.wait("the backlog is gone, or it is time to stop", |[nats, _]| {
        nats.waiting < EVENTS_PER_SECOND / 4 || back.elapsed() > LIVE_DRAIN
    });
    let drained = Instant::now();
    drop(flooding);
    let done = rig.wait("the rest", |lanes| lanes.iter().all(|lane| lane.waiting == 0));

    let scrapes = scraper.scrapes();
    let rate = drain_rate(&scrapes, back);
    let worst = worst_age(&scrapes, "zeromq", away, drained);
    println!(
        "NATS away for {AWAY:?} at {EVENTS_PER_SECOND}/s: drained at {rate:.0}/s ({:.1} times the live rate) in {:?}; \
         meanwhile the oldest message waiting for ZeroMQ was at most {worst:.3} s old, and memory grew by {grown} KiB",
        rate / EVENTS_PER_SECOND as f64,
        drained - back,
    );
    assert!(rate > EVENTS_PER_SECOND as f64 / 4.0, "it hardly drains: {rate}/s");
    assert!(worst < LIVE_SECONDS, "the other bus waited for {worst} s");
    assert!(grown < MAX_GROWTH_KIB, "memory grew by {grown} KiB");
    for lane in &done {
        assert_eq!((lane.dropped, lane.dead_lettered), (0, 0), "{lane:?}");
    }
    stored_in_order(&rig, &file, 0);
}

/// Leaves in time with a bus away, loses nothing by it, and goes on where it was.
#[test]
fn what_is_left_at_sigterm_waits_for_the_next_start() {
    let mut rig = Rig::start("1GiB", "[shutdown]\ndrain = \"2s\"\n");
    let (file, _consumer) = consumer(&rig);
    let flooding = rig.flood(EVENTS_PER_SECOND);
    rig.wait("events flow", |lanes| lanes.iter().all(|lane| lane.published > EVENTS_PER_SECOND));
    rig.nats.kill();
    rig.wait("a backlog", |[nats, _]| nats.waiting > EVENTS_PER_SECOND);
    drop(flooding);
    let before = rig.wait("the other bus has all", |[_, zeromq]| zeromq.waiting == 0);
    let begun = Instant::now();
    rig.amibus.stop();
    assert!(begun.elapsed() < LEAVES_WITHIN, "it left after {:?}", begun.elapsed());
    rig.nats.restart();
    rig.start_amibus();
    // The last message of all, a second after the session began.
    let is_told = || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("\tdisconnected\t"));
    rig.wait("the gap", |_| is_told());
    let after = rig.wait("the rest", |lanes| lanes.iter().all(|lane| lane.own > 0 && lane.waiting == 0));
    let [nats, zeromq] = &after;
    // The end of the session was told as it left; on the way to ZeroMQ nothing was left.
    assert!(nats.recovered > before[0].waiting, "{before:?} {after:?}");
    assert_eq!((zeromq.recovered, nats.dropped), (0, 0), "{after:?}");
    stored_in_order(&rig, &file, before[0].published);
}

/// Stores what is in the stream.
fn consumer(rig: &Rig) -> (PathBuf, Python) {
    let file = rig.amibus.directory().join("stored.tsv");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/consume.py");
    let words = ["nats", &rig.nats.url(), "ami", "AMI", &file.display().to_string()];
    let consumer = Python::spawn(script, &words);
    assert_eq!(consumer.line(PATIENCE).as_deref(), Some("ready"));
    (file, consumer)
}

/// Every message that NATS was given, by the processes before and by this one, is in the stream once, in the order of the
/// log. Counted anew with each look: the end of a session has something to say too, a moment after its last event.
fn stored_in_order(rig: &Rig, file: &Path, before: u64) {
    let mut sequences = Vec::new();
    rig.wait("as much is stored as was published", |[nats, _]| {
        sequences = stored(file);
        nats.waiting == 0 && sequences.len() as u64 == before + nats.published
    });
    let wrong = sequences.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(wrong, None, "not in order, not all, or more than once");
}

fn stored(file: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| line.split('\t').nth(2).and_then(|word| word.parse().ok()).expect("a sequence"))
        .collect()
}

/// Messages a second on NATS while most of its backlog went: from the first scrape in which it took any again to the one
/// where a tenth was left.
fn drain_rate(scrapes: &[Scrape], back: Instant) -> f64 {
    let points: Vec<(Instant, u64, u64)> = scrapes
        .iter()
        .filter(|scrape| scrape.at >= back)
        .filter_map(|scrape| {
            let lane = scrape.lanes.iter().find(|lane| lane.bus == "nats")?;
            Some((scrape.at, lane.published, lane.waiting))
        })
        .collect();
    let most = points.iter().map(|point| point.2).max().expect("scrapes");
    let stuck = points.first().expect("scrapes").1;
    let first = points.iter().rfind(|point| point.1 == stuck).expect("a first one");
    let last = points.iter().find(|point| point.0 > first.0 && point.2 < most / 10).expect("it drained");
    (last.1 - first.1) as f64 / (last.0 - first.0).as_secs_f64()
}

fn worst_age(scrapes: &[Scrape], bus: &str, from: Instant, until: Instant) -> f64 {
    let within = scrapes.iter().filter(|scrape| (from..until).contains(&scrape.at));
    let ages: BTreeMap<String, f64> = within.fold(BTreeMap::new(), |mut worst, scrape| {
        for (bus, age) in &scrape.oldest {
            let slot = worst.entry(bus.clone()).or_insert(0.0_f64);
            *slot = slot.max(*age);
        }
        worst
    });
    ages.get(bus).copied().expect("the bus is scraped")
}

fn resident_kib(rig: &Rig) -> u64 {
    let pid = rig.amibus.pid().expect("amibus runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("amibus lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("VmRSS")
}
