//! Two amibus in one Kafka group that share no claims, one of them killed again and again, or stopped for longer than the
//! group waits: what it had begun is found so by the other one.

use std::thread;

use amibus_services::Version;

use super::brokers::brokers;
use super::extent::{Chance, is_long, times};
use super::judge::Demands;
use super::pbx::Pbx;
use super::rig::{APART, Bus, Rig, originates};
use super::table::Row;

/// How long a call lasts, in seconds: longer than the group waits for a member, and one of the two is away after that.
const CALL_SECONDS: u32 = 25;
/// Between two kills, in milliseconds.
const BETWEEN_MILLIS: (u64, u64) = (200, 2_000);
/// How long the one that was killed is away, in milliseconds: for half of these the group gives its partitions away.
const AWAY_MILLIS: (u64, u64) = (3_000, 10_000);
/// How long one is stopped, in milliseconds: longer than its session of 6 s.
const STOPPED_MILLIS: (u64, u64) = (7_000, 9_000);
/// Every so many rounds one is stopped and not killed.
const STOP_EVERY: u32 = 4;
const PROGRESS: usize = 3;

#[test]
fn one_of_two_without_a_bucket_is_killed() {
    let brokers = brokers();
    let times = times(4, 100);
    let mut row = Row::begin("kill -9 of one of two amibus in a Kafka group, without a bucket", times);
    let mut chance = Chance::new();
    row.note(format!("seed {}", chance.seed()));
    let mut rig = Rig::start(&brokers, "apart", Pbx::start(Version::V22), APART);
    rig.start_second(&brokers, APART);
    let (count, rate) = if is_long() { (12_000, 8) } else { (400, 8) };
    rig.send(&brokers, Bus::Kafka, &originates("apart", count, CALL_SECONDS), rate);
    let (mut kills, mut rounds, mut stops) = (0, 0, 0);
    while kills < times {
        rig.wait_for_progress(PROGRESS);
        thread::sleep(chance.pause(BETWEEN_MILLIS.0, BETWEEN_MILLIS.1));
        rounds += 1;
        if rounds % STOP_EVERY == 0 {
            stops += 1;
            rig.stop_one(stops % 2 == 0, chance.pause(STOPPED_MILLIS.0, STOPPED_MILLIS.1));
        } else {
            kills += 1;
            rig.kill_one(kills % 2 == 0, chance.pause(AWAY_MILLIS.0, AWAY_MILLIS.1));
        }
    }
    row.note(format!("{stops} times one was stopped for some 8 s beside that"));
    row.note(format!("{} commands were found begun by another one", rig.found_begun()));
    row.end(&rig.verdict(Demands {
        calls_outlive_faults: true,
        all_answered: true,
        several: true,
        apart: true,
    }));
}
