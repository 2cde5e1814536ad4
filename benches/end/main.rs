//! Events from Asterisk's socket to a consumer of each bus, beside publishing the same messages ready-made:
//! `cargo bench --bench end`.
//!
//! Everything is a process of its own: a simulated Asterisk that pours recorded events as fast as amibus reads, amibus
//! as it is built for use, the bus's server, a counting consumer, and the raw publisher. The two publishers take turns. A
//! run counts only if the consumer saw every event, once and in order.
//!
//! `--events N`, `--repeats N`, `--recording NAME`, `--bus NAME` (again for several) and `--json FILE` choose what is done.

mod buses;
mod child;
#[path = "../common/mod.rs"]
mod common;
mod consume;
mod measure;
mod raw;
mod ready;
mod report;
mod sim;
mod tally;
mod traffic;

use std::{error::Error, fs, path::PathBuf};

use buses::Bus;

const EVENTS: u64 = 300_000;
const REPEATS: usize = 5;
const RECORDING: &str = "load500-22";

/// What is to be measured.
pub(crate) struct Options {
    pub(crate) events: u64,
    pub(crate) repeats: usize,
    pub(crate) recording: String,
    pub(crate) buses: Vec<Bus>,
    pub(crate) json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["sim", recording, count] => sim::run(recording, count.parse()?).await?,
        ["raw", bus, address, prefix, recording, count] => {
            raw::run(Bus::of(bus)?, address, prefix, recording, count.parse()?).await?;
        }
        ["consume", bus, address, prefix, count] => {
            consume::run(Bus::of(bus)?, address, prefix, count.parse()?).await?;
        }
        _ => {
            let options = Options::parse(&words)?;
            let measured = measure::all(&options).await?;
            report::print(&options, &measured)?;
            if let Some(file) = &options.json {
                fs::write(file, report::json(&options, &measured).to_string() + "\n")?;
            }
        }
    }
    Ok(())
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Box<dyn Error>> {
        let recording = RECORDING.to_owned();
        let mut options = Self { events: EVENTS, repeats: REPEATS, recording, buses: Vec::new(), json: None };
        for pair in words.chunks(2) {
            match *pair {
                ["--events", value] => options.events = value.parse()?,
                ["--repeats", value] => options.repeats = value.parse()?,
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
}
