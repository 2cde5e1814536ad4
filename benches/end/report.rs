//! The figures as a table and as JSON.

use std::io;

use serde_json::{Value, json};

use crate::{
    Options,
    common::{machine, spread::Spread, table},
    measure::{Measured, Run},
};

pub(crate) fn print(options: &Options, measured: &[Measured]) -> io::Result<()> {
    let heads = [
        "",
        "amibus events/s",
        "raw events/s",
        "ratio",
        "CPU s/M",
        "raw CPU s/M",
        "server CPU s/M",
        "peak MB",
    ];
    let rows: Vec<Vec<String>> = measured
        .iter()
        .map(|one| {
            let figures = Figures::of(options, one);
            vec![
                one.bus.name().to_owned(),
                figures.amibus.per_second.show(0),
                figures.raw.per_second.show(0),
                figures.ratio.show(2),
                figures.amibus.cpu.show(1),
                figures.raw.cpu.show(1),
                figures.amibus.server_cpu.show(1),
                figures.amibus.peak.show(0),
            ]
        })
        .collect();
    let title = format!("{} events of {}, {} times each", options.events, options.recording, options.repeats);
    table::print(&title, &heads, &rows)
}

struct Figures {
    amibus: Side,
    raw: Side,
    ratio: Spread,
}

struct Side {
    per_second: Spread,
    /// Seconds of processors for a million events.
    cpu: Spread,
    server_cpu: Spread,
    peak: Spread,
}

impl Figures {
    fn of(options: &Options, one: &Measured) -> Self {
        let millions = options.events as f64 / 1e6;
        let side = |runs: &[Run]| Side {
            per_second: Spread::of(runs.iter().map(|run| options.events as f64 / run.seconds)),
            cpu: Spread::of(runs.iter().map(|run| run.cpu_seconds / millions)),
            server_cpu: Spread::of(runs.iter().map(|run| run.server_cpu_seconds / millions)),
            peak: Spread::of(runs.iter().map(|run| run.peak_megabytes)),
        };
        Self { amibus: side(&one.amibus), raw: side(&one.raw), ratio: one.ratio() }
    }
}

pub(crate) fn json(options: &Options, measured: &[Measured]) -> Value {
    let buses = measured.iter().map(|one| {
        let figures = Figures::of(options, one);
        let side = |side: &Side| {
            json!({
                "events_per_second": side.per_second.json(),
                "cpu_seconds_a_million": side.cpu.json(),
                "server_cpu_seconds_a_million": side.server_cpu.json(),
                "peak_megabytes": side.peak.json(),
            })
        };
        json!({
            "bus": one.bus.name(),
            "amibus": side(&figures.amibus),
            "raw": side(&figures.raw),
            "ratio": figures.ratio.json(),
        })
    });
    json!({
        "machine": machine::describe(),
        "recording": options.recording,
        "events": options.events,
        "repeats": options.repeats,
        "buses": buses.collect::<Vec<Value>>(),
    })
}
