//! Kafka away for long at a high rate: amibus stays small, NATS does not notice, and Kafka gets everything afterwards.

use std::thread;
use std::time::{Duration, Instant};

use super::brokers::{Which, brokers};
use super::consumer::all;
use super::extent::{RATE, is_long, seconds};
use super::flood::Simulated;
use super::judge::Message;
use super::rig::{PATIENCE, Rig};
use super::table::Row;

/// Resident memory that amibus may take.
const RESIDENT_KIB_MAX: u64 = 100 * 1024;
/// Latency that counts as unchanged: twice what it was, and so much on top for a busy machine.
const LATENCY_SLACK_MICROS: i64 = 20_000;
/// How much slower than it came the backlog may go: it must be gone in this many times the outage.
const DRAIN_FACTOR: u32 = 3;

#[test]
fn kafka_is_away_for_long() {
    let mut brokers = brokers();
    let (rate, outage) = (if is_long() { 10_000 } else { RATE }, seconds(20, 600));
    let mut row = Row::begin(&format!("Kafka away for {outage:?} at {rate}/s"), 1);
    let source = Simulated::start();
    let mut rig = Rig::start(&brokers, "away-kafka", &source.source(), None);
    let flooding = source.flood(rate);
    thread::sleep(seconds(6, 20));
    let [before, _] = rig.stored();
    brokers.kill(Which::Kafka);
    let resident = watch_memory(&rig, outage);
    let [during, _] = rig.stored();
    let latency = [0..before, before..during].map(|part| median_lag(&rig.consumers[0].messages[part]));
    brokers.restart(Which::Kafka);
    let begun = Instant::now();
    rig.wait_until_current(outage * DRAIN_FACTOR + PATIENCE);
    let drained = begun.elapsed();
    flooding.end();
    rig.settle(PATIENCE * 2, || source.mark());
    let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
    row.note(format!("RSS {} to {} KiB", resident.first, resident.most));
    row.note(format!("median latency on NATS {} us, then {} us", latency[0], latency[1]));
    row.note(format!("drained in {:.1} s", drained.as_secs_f64()));
    row.note(format!("dropped by the log: {}", verdicts[1].dropped_gaps));
    row.end(&verdicts);
    assert!(resident.most < RESIDENT_KIB_MAX, "amibus grew to {} KiB", resident.most);
    assert!(latency[1] < latency[0] * 2 + LATENCY_SLACK_MICROS, "NATS got slower: {latency:?} us");
}

/// Resident memory in KiB.
struct Resident {
    first: u64,
    most: u64,
}

fn watch_memory(rig: &Rig, time: Duration) -> Resident {
    let until = Instant::now() + time;
    let first = rig.resident_kib();
    let mut most = first;
    while Instant::now() < until {
        most = most.max(rig.resident_kib());
        thread::sleep(Duration::from_millis(200));
    }
    Resident { first, most }
}

/// The median of the time from the source to the consumer, in microseconds.
fn median_lag(messages: &[Message]) -> i64 {
    let mut lags: Vec<i64> = messages.iter().filter_map(Message::lag_micros).collect();
    lags.sort_unstable();
    *lags.get(lags.len() / 2).expect("NATS brought events")
}
