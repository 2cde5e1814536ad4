//! A broker that stops answering under load: stopped, cut off without a word, and refused.

use std::thread;

use super::brokers::{Brokers, Which, brokers};
use super::consumer::all;
use super::extent::{RATE, is_long, seconds, times};
use super::flood::Simulated;
use super::netns;
use super::rig::{CATCHING_UP, Rig};
use super::table::Row;

/// What is done to the broker, and undone.
struct Fault {
    name: &'static str,
    word: &'static str,
    short_seconds: u64,
    begin: fn(&Brokers, Which),
    end: fn(&Brokers, Which),
}

const STOPPED: Fault =
    Fault { name: "SIGSTOP", word: "stopped", short_seconds: 8, begin: Brokers::pause, end: Brokers::resume };
const HALF_OPEN: Fault = Fault {
    name: "half-open cut from",
    word: "half-open",
    short_seconds: 8,
    begin: |brokers, which| brokers.wire(which).half_open(),
    end: |brokers, which| brokers.wire(which).mend(),
};
const REFUSED: Fault = Fault {
    name: "refused by",
    word: "refused",
    short_seconds: 4,
    begin: |brokers, which| brokers.wire(which).refuse(),
    end: |brokers, which| brokers.wire(which).mend(),
};

#[test]
fn nats_is_stopped() {
    hangs(Which::Nats, &STOPPED);
}

#[test]
fn kafka_is_stopped() {
    hangs(Which::Kafka, &STOPPED);
}

#[test]
fn nats_is_half_open() {
    cut_off("nats_is_half_open", Which::Nats, &HALF_OPEN);
}

#[test]
fn kafka_is_half_open() {
    cut_off("kafka_is_half_open", Which::Kafka, &HALF_OPEN);
}

#[test]
fn nats_refuses() {
    cut_off("nats_refuses", Which::Nats, &REFUSED);
}

#[test]
fn kafka_refuses() {
    cut_off("kafka_refuses", Which::Kafka, &REFUSED);
}

/// The long form cuts between namespaces, the short one in a proxy.
fn cut_off(test: &str, which: Which, fault: &Fault) {
    if !is_long() || !netns::done_inside(&format!("brokers_hang::{test}")) {
        hangs(which, fault);
    }
}

fn hangs(which: Which, fault: &Fault) {
    let brokers = brokers();
    let (times, time) = (times(1, 10), seconds(fault.short_seconds, 60));
    let mut row = Row::begin(&format!("{} {} for {time:?}", fault.name, which.name()), times);
    let source = Simulated::start();
    let name = format!("{}-{which:?}", fault.word).to_lowercase();
    let mut rig = Rig::start(&brokers, &name, &source.source(), None);
    let flooding = source.flood(RATE);
    for _ in 0..times {
        rig.wait_until_current(CATCHING_UP);
        (fault.begin)(&brokers, which);
        thread::sleep(time);
        (fault.end)(&brokers, which);
        rig.wait_for_progress();
    }
    flooding.end();
    rig.settle(CATCHING_UP, || source.mark());
    let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
    let dropped: Vec<u64> = verdicts.iter().map(|verdict| verdict.dropped_gaps).collect();
    row.note(format!("dropped by the log: {dropped:?}"));
    row.end(&verdicts);
}
