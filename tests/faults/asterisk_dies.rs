//! Real Asterisks that are killed, restarted and cut off under load: what was not seen is announced.

use std::thread;
use std::time::Duration;

use amibus_services::Version;

use super::asterisk::Real;
use super::brokers::brokers;
use super::consumer::all;
use super::extent::{Chance, is_long, seconds, times};
use super::judge::Run;
use super::netns;
use super::rig::{PATIENCE, Rig};
use super::table::Row;

/// Bursts that never end while a fault lasts.
const FOR_LONG: u32 = 1_000_000;
/// Bursts that end a flood.
const MARK: u32 = 2;

#[test]
fn asterisk_22_dies_and_is_cut_off() {
    dies(Version::V22);
}

#[test]
fn asterisk_16_dies_and_is_cut_off() {
    dies(Version::V16);
}

/// One amibus goes through all faults; each is judged with what came before.
fn dies(version: Version) {
    if is_long()
        && netns::done_inside(&format!("asterisk_dies::asterisk_{}_dies_and_is_cut_off", version.name()))
    {
        return;
    }
    let brokers = brokers();
    let mut chance = Chance::new();
    let mut real = Real::start(version, brokers.way.as_ref());
    let mut rig = Rig::start(&brokers, &format!("asterisk-{}", version.name()), &real.source(), None);
    for fault in ["kill -9", "graceful restart", "half-open cut from"] {
        let (times, cut) = (times(1, 10), seconds(6, 60));
        let mut row = Row::begin(&format!("{fault} Asterisk {}", version.name()), times);
        row.note(format!("seed {}", chance.seed()));
        real.flood(FOR_LONG);
        for _ in 0..times {
            rig.wait_for_progress();
            thread::sleep(chance.pause(1_000, 3_000));
            let ups = rig.ups();
            match fault {
                "kill -9" => real.asterisk.kill(),
                "graceful restart" => real.asterisk.stop(),
                _ => {
                    real.wire.half_open();
                    thread::sleep(cut);
                    real.wire.mend();
                }
            }
            if real.asterisk.pid().is_none() {
                thread::sleep(Duration::from_millis(200));
                real.asterisk.restart();
                real.wait_for_witness();
            }
            rig.wait("the link is up again", PATIENCE, |rig| rig.ups() > ups);
            if fault != "half-open cut from" {
                real.flood(FOR_LONG);
            }
        }
        rig.wait_for_progress();
        real.asterisk.cli("channel request hangup all");
        rig.settle(PATIENCE, || real.flood(MARK));
        row.note(format!(
            "up to {} numbers a second, and as many events of Asterisk's own",
            fastest(&real.runs(all(&rig.consumers)))
        ));
        let verdicts = rig.verdicts(|seen| real.runs(all(seen)));
        row.end(&verdicts);
    }
}

/// Numbers a second in the fastest run of more than a second.
fn fastest(runs: &[Run]) -> u64 {
    let rate = |run: &Run| {
        let (first, last) = (run.events.first()?.at_micros, run.events.last()?.at_micros);
        let micros = last.saturating_sub(first);
        (micros > 1_000_000).then(|| run.events.len() as u64 * 1_000_000 / micros)
    };
    runs.iter().filter_map(rate).max().unwrap_or_default()
}
