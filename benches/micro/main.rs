//! How fast the parts of an event's way are, beside what they could be: `cargo bench --bench micro`.
//!
//! Everything runs on the recordings of real Asterisks, in one thread, the contenders in turn within each round; a figure
//! is the median of the rounds. Time is the thread's own (`CLOCK_THREAD_CPUTIME_ID`), so that other work on the machine
//! disturbs little; only the spool, which has threads of its own, is measured by the wall's clock.
//!
//! `--seconds N` measures about so long for each recording, `--json FILE` writes the figures there too, `--peer PROGRAM`
//! puts somebody else's parser beside them (what benches/peers/install makes of benches/peers/asterisk-rs), and
//! `--once CONTENDER RECORDING TIMES` does one thing so often and nothing else, for a profiler.

#[path = "../common/mod.rs"]
mod common;
mod contenders;
mod measure;
mod naive;
mod ours;
mod peer;
mod report;
mod spool;

use std::{
    error::Error,
    fs,
    hint::black_box,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use amibus_services::corpus::corpus;

use contenders::Contender;
use peer::Peer;

/// The recordings that figures are given for.
const RECORDINGS: [&str; 3] = ["load500-22", "lists-22", "userevents-16"];
const SECONDS: u64 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse()?;
    if let Some((contender, recording, times)) = &options.once {
        return once(contender, recording, *times);
    }
    let mut results = Vec::new();
    for name in RECORDINGS {
        let bytes = corpus(&format!("{name}.s2c"));
        naive::check(&bytes)?;
        let time = Duration::from_secs(options.seconds);
        results.push(measure::recording(name, &bytes, time, options.peer.as_ref())?);
    }
    let spool = spool::measure(&corpus("load500-22.s2c"), options.seconds)?;
    report::print(&results, &spool)?;
    if let Some(file) = options.json {
        fs::write(file, report::json(&results, &spool).to_string() + "\n")?;
    }
    Ok(())
}

/// One contender alone, for callgrind; prints how many messages the recording has.
fn once(contender: &str, recording: &str, times: u64) -> Result<(), Box<dyn Error>> {
    let bytes = corpus(&format!("{recording}.s2c"));
    let contender =
        Contender::ALL.into_iter().find(|one| one.name() == contender).ok_or("no such contender")?;
    let mut found = 0;
    for _ in 0..times {
        (found, _) = black_box(contender.run(&bytes));
    }
    writeln!(io::stdout(), "{found}")?;
    Ok(())
}

#[derive(Default)]
struct Options {
    seconds: u64,
    json: Option<PathBuf>,
    peer: Option<Peer>,
    once: Option<(String, String, u64)>,
}

impl Options {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut options = Self { seconds: SECONDS, ..Self::default() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut next = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--seconds" => options.seconds = next()?.parse()?,
                "--json" => options.json = Some(next()?.into()),
                "--peer" => options.peer = Some(Peer::new(next()?.into())),
                "--once" => options.once = Some((next()?, next()?, next()?.parse()?)),
                _ => return Err(format!("{word}: there is --seconds, --json, --peer and --once").into()),
            }
        }
        Ok(options)
    }
}
