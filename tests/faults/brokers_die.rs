//! kill -9 of a broker under load: nothing is lost, and nothing is announced as dropped.

use std::thread;

use super::brokers::{Which, brokers};
use super::consumer::all;
use super::extent::{Chance, RATE, times};
use super::flood::Simulated;
use super::rig::{CATCHING_UP, Rig};
use super::table::Row;

#[test]
fn nats_is_killed() {
    dies("die-nats", Which::Nats, times(3, 50));
}

#[test]
fn kafka_is_killed() {
    dies("die-kafka", Which::Kafka, times(2, 50));
}

fn dies(name: &str, which: Which, times: u32) {
    let mut brokers = brokers();
    let mut row = Row::begin(&format!("kill -9 {}", which.name()), times);
    let mut chance = Chance::new();
    row.note(format!("seed {}", chance.seed()));
    let source = Simulated::start();
    let mut rig = Rig::start(&brokers, name, &source.source(), None);
    let flooding = source.flood(RATE);
    for _ in 0..times {
        rig.wait_until_current(CATCHING_UP);
        thread::sleep(chance.pause(200, 1_200));
        brokers.kill(which);
        thread::sleep(chance.pause(0, 500));
        brokers.restart(which);
    }
    flooding.end();
    rig.settle(CATCHING_UP, || source.mark());
    let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
    for verdict in verdicts.iter() {
        assert_eq!(verdict.dropped_gaps, 0, "there was room: {verdict:?}");
    }
    row.end(&verdicts);
}
