//! Events from Asterisk's socket to a consumer of each bus: `cargo bench --bench end -- MEASUREMENT`.
//!
//! Everything is a process of its own: simulated Asterisks that send recorded events, amibus as it is built for use, the bus's
//! server, a consumer, and what amibus is compared with. The contenders take turns. A run counts only if the consumer
//! saw every event, once and in order; a measurement with a run that was not so fails, after its table.
//!
//! | measurement | what it tells |
//! |---|---|
//! | `throughput` | events a second, processor time and memory beside the raw publisher |
//! | `latency` | socket to consumer at 1,000 and 10,000 events a second, beside the raw publisher |
//! | `sustained` | whether one server at 50,000 to 100,000 events a second ever has to wait |
//! | `scale` | the cost of an event from 1 to 1,000 servers, and all of them lost and back |
//! | `outage` | a bus away for a minute: the drain after it, and the other bus meanwhile |
//! | `calm` | idle, and from the start to the first event |
//! | `peers` | other people's clients (`benches/peers`) |
//!
//! `--short` takes seconds and is no measurement. `--events N` (seconds where a rate is given; of `outage`, the rate), `--repeats N`,
//! `--recording NAME`, `--bus NAME` (again for several) and `--json FILE` choose what is done.

mod buses;
mod calm;
mod child;
#[path = "../common/mod.rs"]
mod common;
mod consume;
mod latency;
mod outage;
mod pace;
mod peers;
mod raw;
mod ready;
mod rig;
mod scale;
mod sheet;
mod sim;
mod sims;
mod sustained;
mod tally;
mod throughput;
mod trace;
mod traffic;

use std::{error::Error, path::PathBuf};

use buses::Bus;

/// The raw publishers have what amibus has.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const RECORDING: &str = "load500-22";

/// What is to be measured.
pub(crate) struct Options {
    pub(crate) short: bool,
    pub(crate) recording: String,
    pub(crate) buses: Vec<Bus>,
    count: Option<u64>,
    repeats: Option<usize>,
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["sim" | "sims" | "raw" | "consume", ..] = *words.as_slice() {
        child::listen();
    }
    match *words.as_slice() {
        ["sim", load, recording, count] => sim::run(sim::Load::of(load, recording, count)?).await?,
        ["sims", count, recording] => sims::run(count.parse()?, recording).await?,
        ["raw", bus, address, prefix, recording, count, rate] => {
            raw::run((Bus::of(bus)?, address, prefix), recording, count.parse()?, rate.parse()?).await?;
        }
        ["consume", kind, bus, address, prefix, count, ref file @ ..] => {
            let file = file.first().copied();
            consume::run(kind, (Bus::of(bus)?, address, prefix), count.parse()?, file).await?;
        }
        [measurement, ref rest @ ..] => {
            let options = Options::parse(rest)?;
            let sheet = match measurement {
                "throughput" => throughput::all(&options).await?,
                "latency" => latency::all(&options).await?,
                "sustained" => sustained::all(&options).await?,
                "scale" => scale::all(&options).await?,
                "outage" => outage::all(&options).await?,
                "calm" => calm::all(&options).await?,
                "peers" => peers::all(&options).await?,
                _ => return Err(format!("{measurement}: {HELP}").into()),
            };
            sheet.finish(options.json.as_deref())?;
        }
        [] => return Err(HELP.into()),
    }
    Ok(())
}

const HELP: &str = "what is measured is throughput, latency, sustained, scale, outage, calm or peers";

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            short: words.contains(&"--short"),
            recording: RECORDING.to_owned(),
            buses: Vec::new(),
            count: None,
            repeats: None,
            json: None,
        };
        let words: Vec<&str> = words.iter().copied().filter(|word| *word != "--short").collect();
        for pair in words.chunks(2) {
            match *pair {
                ["--events", value] => options.count = Some(value.parse()?),
                ["--repeats", value] => options.repeats = Some(value.parse()?),
                ["--recording", value] => value.clone_into(&mut options.recording),
                ["--bus", value] => options.buses.push(Bus::of(value)?),
                ["--json", value] => options.json = Some(value.into()),
                _ => return Err(format!("{}: see the head of benches/end/main.rs", pair.join(" ")).into()),
            }
        }
        if options.buses.is_empty() {
            options.buses = Bus::ALL.into();
        }
        Ok(options)
    }

    /// Events or seconds: what was asked for, or else this much, or the second in short.
    pub(crate) fn count(&self, usual: u64, short: u64) -> u64 {
        self.count.unwrap_or(if self.short { short } else { usual })
    }

    pub(crate) fn repeats(&self, usual: usize) -> usize {
        self.repeats.unwrap_or(if self.short { 1 } else { usual })
    }
}
