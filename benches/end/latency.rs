//! From Asterisk's socket to a consumer, at rates that leave everything time, beside the raw publisher's call to a consumer.
//! Everything runs on one machine, so there is one clock.

use std::io;

use serde_json::json;

use crate::{
    Options,
    buses::{Bus, Server},
    rig::{self, Load},
    sheet::Sheet,
    trace::Trace,
};

const RATES: [u64; 2] = [1_000, 10_000];
const SECONDS: u64 = 5;
const REPEATS: usize = 5;
/// The first moments, in which caches and connections warm up, are nobody's latency.
const WARM_MICROS: u64 = 500_000;

pub(crate) async fn all(options: &Options) -> io::Result<Sheet> {
    let (seconds, repeats) = (options.count(SECONDS, 1), options.repeats(REPEATS));
    let settings = json!({ "recording": options.recording, "seconds": seconds });
    let title = format!("Latency in ms, socket to consumer, {seconds} s, {repeats} times each");
    let mut sheet = Sheet::new(title, settings);
    for bus in &options.buses {
        let server = Server::start(*bus);
        for repeat in 0..repeats {
            for rate in RATES {
                let load = Load { recording: &options.recording, rate, seconds };
                one(&mut sheet, (*bus, &server), &repeat.to_string(), load).await;
            }
        }
    }
    Ok(sheet)
}

async fn one(sheet: &mut Sheet, (bus, server): (Bus, &Server), repeat: &str, load: Load<'_>) {
    let rate = load.rate;
    let raw = rig::raw(bus, server, &format!("raw{rate}x{repeat}"), load).await;
    let ours = rig::through_amibus(bus, server, &format!("ami{rate}x{repeat}"), load).await;
    let row = format!("{}, {rate}/s", bus.name());
    match (raw, ours) {
        (Ok(raw), Ok((ours, _))) if raw.most_in_one_place() != ours.most_in_one_place() => {
            let [raw, ours] = [raw, ours].map(|trace| trace.most_in_one_place());
            sheet.void(format!("{row}: {ours} events of amibus in one place, {raw} of the raw publisher"));
        }
        (Ok(raw), Ok((ours, _))) => {
            let (raw, ours) = (waits(&raw), waits(&ours));
            let names = ["p50", "p99", "p99.9"].into_iter().zip(ours);
            names.for_each(|(name, value)| sheet.add(&row, name, 2, value));
            let names = ["raw p50", "raw p99", "raw p99.9"].into_iter().zip(raw);
            names.for_each(|(name, value)| sheet.add(&row, name, 2, value));
            sheet.add(&row, "added p50", 2, ours[0] - raw[0]);
            sheet.add(&row, "added p99", 2, ours[1] - raw[1]);
        }
        (raw, ours) => {
            for (who, error) in [("raw", raw.err()), ("amibus", ours.err())] {
                if let Some(error) = error {
                    sheet.void(format!("{row}, {who}: {error}"));
                }
            }
        }
    }
}

fn waits(trace: &Trace) -> [f64; 3] {
    let first = trace.arrivals.iter().map(|one| one.sent).min().unwrap_or(0);
    trace.latency(first + WARM_MICROS..u64::MAX, [0.5, 0.99, 0.999])
}
