//! A broker that stops answering under load: stopped, cut off without a word, and refused.

use std::thread;

use super::brokers::{Brokers, Which, brokers};
use super::consumer::all;
use super::extent::{RATE, seconds, times};
use super::flood::Simulated;
use super::rig::{PATIENCE, Rig};
use super::table::Row;

/// What is done to the broker, and undone.
struct Fault {
    name: &'static str,
    short_seconds: u64,
    begin: fn(&Brokers, Which),
    end: fn(&Brokers, Which),
}

const STOPPED: Fault =
    Fault { name: "SIGSTOP", short_seconds: 8, begin: Brokers::pause, end: Brokers::resume };
const HALF_OPEN: Fault = Fault {
    name: "half-open cut from",
    short_seconds: 8,
    begin: |brokers, which| brokers.wire(which).half_open(),
    end: |brokers, which| brokers.wire(which).mend(),
};
const REFUSED: Fault = Fault {
    name: "refused by",
    short_seconds: 4,
    begin: |brokers, which| brokers.wire(which).refuse(),
    end: |brokers, which| brokers.wire(which).mend(),
};

#[test]
fn nats_is_stopped_and_cut_off() {
    hangs("hang-nats", Which::Nats);
}

#[test]
fn kafka_is_stopped_and_cut_off() {
    hangs("hang-kafka", Which::Kafka);
}

/// One amibus goes through all three; each is judged with what came before.
fn hangs(name: &str, which: Which) {
    let brokers = brokers();
    let source = Simulated::start();
    let mut rig = Rig::start(&brokers, name, &source.source(), None);
    for fault in [STOPPED, HALF_OPEN, REFUSED] {
        let (times, time) = (times(1, 10), seconds(fault.short_seconds, 60));
        let mut row = Row::begin(&format!("{} {} for {time:?}", fault.name, which.name()), times);
        let flooding = source.flood(RATE);
        for _ in 0..times {
            rig.wait_until_current(PATIENCE * 3);
            (fault.begin)(&brokers, which);
            thread::sleep(time);
            (fault.end)(&brokers, which);
            rig.wait_for_progress();
        }
        flooding.end();
        rig.settle(PATIENCE * 3, || source.mark());
        let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
        let dropped: Vec<u64> = verdicts.iter().map(|verdict| verdict.dropped_gaps).collect();
        row.note(format!("dropped by the log: {dropped:?}"));
        row.end(&verdicts);
    }
}
