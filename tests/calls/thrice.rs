//! The same commands delivered three times each, in shuffled order, over two buses at once.

use amibus_services::Version;

use super::brokers::brokers;
use super::extent::{Chance, is_long};
use super::flow::{Bus, originates};
use super::judge::Demands;
use super::pbx::Pbx;
use super::rig::Rig;
use super::table::Row;

const DELIVERIES: usize = 3;
const CALL_SECONDS: u32 = 1;
/// Deliveries a second, over each bus.
const RATE: u32 = 60;

#[test]
fn what_is_delivered_thrice_is_dialled_once() {
    let brokers = brokers();
    let count = if is_long() { 1_000 } else { 200 };
    let mut row = Row::begin("each command delivered 3 times, shuffled, over two buses at once", 1);
    let mut chance = Chance::new();
    row.note(format!("seed {}", chance.seed()));
    let mut rig = Rig::start(&brokers, "thrice", Pbx::start(Version::V22), "");
    let mut deliveries = vec![originates("thrice", count, CALL_SECONDS); DELIVERIES].concat();
    // Fisher and Yates.
    for last in (1..deliveries.len()).rev() {
        deliveries.swap(last, chance.below(last as u64 + 1) as usize);
    }
    let (one, other) = deliveries.split_at(deliveries.len() / 2);
    rig.send(&brokers, Bus::JetStream, one, RATE);
    rig.send(&brokers, Bus::Kafka, other, RATE);
    let verdict =
        rig.verdict(Demands { calls_outlive_faults: true, all_answered: true, several: false, apart: false });
    assert_eq!(verdict.commands, count);
    row.note(format!("{} deliveries, each answered", deliveries.len()));
    row.end(&verdict);
}
