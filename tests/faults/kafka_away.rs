//! Kafka away for long at a high rate: amibus stays small, NATS does not notice, and Kafka gets everything afterwards.

use std::fmt::{Display, Formatter, Result};
use std::thread;
use std::time::Instant;

use super::brokers::{Which, brokers};
use super::consumer::all;
use super::extent::{RATE, is_long, seconds};
use super::flood::Simulated;
use super::judge::Message;
use super::rig::{CATCHING_UP, Rig};
use super::table::Row;

/// Resident memory that amibus may take.
const RESIDENT_KIB_MAX: u64 = 100 * 1024;
/// Latency that counts as unchanged: twice what it was, and so much on top for a busy machine.
const LATENCY_SLACK_MICROS: i64 = 20_000;
const P99_SLACK_MICROS: i64 = 100_000;
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
    // The first seconds, with all that begins in them, are nobody's latency.
    thread::sleep(seconds(4, 10));
    rig.wait_until_current(CATCHING_UP);
    let [begin, _] = rig.stored();
    thread::sleep(seconds(6, 60));
    let [before, _] = rig.stored();
    brokers.kill(Which::Kafka);
    let first = rig.resident_kib();
    rig.wait_while(outage);
    let [during, kafka_before] = rig.stored();
    brokers.restart(Which::Kafka);
    let begun = Instant::now();
    let waited = rig.wait_until_kafka_is_current(outage * DRAIN_FACTOR + CATCHING_UP);
    let drained = begun.elapsed();
    let kafka_took = rig.stored()[1] - kafka_before;
    flooding.end();
    rig.settle(CATCHING_UP, || source.mark());
    let [calm, away] = [begin..before, before..during].map(|part| Lag::of(&rig.consumers[0].messages[part]));
    let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
    row.note(format!("RSS {:.1} MiB when Kafka went", first as f64 / 1024.0));
    row.note(format!("latency on NATS {calm}, then {away}"));
    row.note(format!(
        "drained in {:.1} s, {:.0}/s",
        drained.as_secs_f64(),
        kafka_took as f64 / drained.as_secs_f64()
    ));
    row.note(format!("nothing waited for NATS longer than {waited:.2} s meanwhile"));
    row.note(format!("dropped by the log: {}", verdicts[1].dropped_gaps));
    let resident = verdicts.resident_kib_max;
    row.end(&verdicts);
    assert!(resident < RESIDENT_KIB_MAX, "amibus grew to {resident} KiB");
    assert!(away.median < calm.median * 2 + LATENCY_SLACK_MICROS, "NATS got slower: {calm}, then {away}");
    assert!(away.p99 < calm.p99 * 2 + P99_SLACK_MICROS, "NATS got slower: {calm}, then {away}");
}

/// Time from the source to the consumer, in microseconds.
struct Lag {
    median: i64,
    p99: i64,
}

impl Lag {
    fn of(messages: &[Message]) -> Self {
        let mut lags: Vec<i64> = messages.iter().filter_map(Message::lag_micros).collect();
        lags.sort_unstable();
        let at = |percent| *lags.get(lags.len() * percent / 100).expect("NATS brought events");
        Self { median: at(50), p99: at(99) }
    }
}

impl Display for Lag {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "p50 {:.1} ms, p99 {:.1} ms", self.median as f64 / 1e3, self.p99 as f64 / 1e3)
    }
}
