//! A batch of Originates at the pace that a trunk bears, measured in Asterisk, and what is not behind it.

use amibus_services::Version;

use super::brokers::brokers;
use super::extent::is_long;
use super::flow::{Bus, originates, pings};
use super::judge::Demands;
use super::pbx::Pbx;
use super::rig::Rig;
use super::table::Row;

/// The pace, in calls a second.
const RATE: usize = 20;
/// A call that Asterisk begins a little late and the next one in time are closer than they were sent.
const LATE_CALLS: usize = 2;
/// How fast the batch is published.
const PUBLISHED_A_SECOND: u32 = 500;
const PINGS_A_SECOND: u32 = 2;
const PING_LIMIT_MICROS: u64 = 1_000_000;

#[test]
fn a_batch_keeps_the_pace_and_pings_are_not_behind_it() {
    let brokers = brokers();
    // So long a call that both limits bind.
    let (count, at_once, seconds) = if is_long() { (10_000, 30, "1.4") } else { (100, 5, "0.3") };
    let fault = format!("{count} Originates at {RATE} a second and {at_once} at once");
    let mut row = Row::begin(&fault, 1);
    let pace = format!(
        "[[command.pace]]\nname = \"trunk\"\nchannels = [\"Local/*@calls/n\"]\ncalls_per_second = {RATE}\n\
         concurrent_calls = {at_once}\n"
    );
    let mut rig = Rig::start(&brokers, "pace", Pbx::start(Version::V22), &pace);
    rig.send(&brokers, Bus::JetStream, &originates("paced", count, seconds), PUBLISHED_A_SECOND);
    let most_seconds = count / RATE + count / at_once;
    rig.send(
        &brokers,
        Bus::Nats,
        &pings("beside", most_seconds.min(count / RATE) * PINGS_A_SECOND as usize),
        PINGS_A_SECOND,
    );
    let verdict =
        rig.verdict(Demands { calls_outlive_faults: true, all_answered: true, several: false, apart: false });
    let latencies = rig.last_latencies();
    let slowest = latencies.iter().map(|latency| latency.unwrap_or(u64::MAX)).max().unwrap_or(u64::MAX);
    row.note(format!("{} pings, the slowest {} ms", latencies.len(), slowest / 1_000));
    row.note(format!("amibus took up to {} MiB of memory", rig.peak_memory_mib()));
    row.end(&verdict);
    assert!(verdict.at_once <= at_once, "{} calls at once", verdict.at_once);
    assert!(verdict.a_second <= RATE + LATE_CALLS, "{} calls within a second", verdict.a_second);
    assert!(slowest < PING_LIMIT_MICROS, "a ping took {slowest} us: {latencies:?}");
}
