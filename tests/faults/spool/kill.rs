//! kill -9 of amibus at random moments.

use std::thread;
use std::time::Duration;

use crate::brokers::brokers;
use crate::consumer::all;
use crate::extent::{Chance, RATE, times};
use crate::flood::Simulated;
use crate::rig::{PATIENCE, Rig};
use crate::table::Row;

use super::start_again;

/// In half of the rounds amibus dies again before it has found its feet.
const EARLY_MILLIS: u64 = 400;
/// In the others it dies after a while of work.
const LATE_MILLIS: u64 = 2_500;

#[test]
fn spool_amibus_is_killed() {
    let brokers = brokers();
    let times = times(5, 200);
    let mut row = Row::begin("kill -9 amibus", times);
    let mut chance = Chance::new();
    row.note(format!("seed {}", chance.seed()));
    let source = Simulated::start();
    let mut rig = Rig::start(&brokers, "kill-amibus", &source.source(), None);
    let flooding = source.flood(RATE);
    for round in 0..times {
        if round % 2 == 0 {
            rig.wait_for_progress();
            thread::sleep(chance.pause(EARLY_MILLIS, LATE_MILLIS));
        } else {
            thread::sleep(chance.pause(0, EARLY_MILLIS));
        }
        rig.amibus.kill();
        start_again(&mut rig);
    }
    rig.wait_for_progress();
    thread::sleep(Duration::from_secs(1));
    flooding.end();
    rig.settle(PATIENCE, || source.mark());
    let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
    row.end(&verdicts);
}
