//! Two amibus on one JetStream command stream, one of them killed again and again, or stopped for longer than the stream
//! waits: what it had in its hands is delivered to the other one.

use std::thread;

use amibus_services::Version;

use super::brokers::brokers;
use super::extent::{Chance, is_long, times};
use super::judge::Demands;
use super::pbx::Pbx;
use super::rig::{Bus, Rig, originates};
use super::table::Row;

/// How long a call lasts, in seconds: longer than one of them is away, and until it counts as gone.
const CALL_SECONDS: u32 = 15;
/// Between two kills, in milliseconds.
const BETWEEN_MILLIS: (u64, u64) = (200, 2_000);
/// How long the one that was killed is away, in milliseconds: for half of these the other one takes over.
const AWAY_MILLIS: (u64, u64) = (0, 7_000);
/// How long one is stopped, in milliseconds: its commands are delivered again after 2 s, and its claims last for 4 s.
const STOPPED_MILLIS: (u64, u64) = (2_500, 3_200);
/// Every so many rounds one is stopped and not killed.
const STOP_EVERY: u32 = 5;
const PROGRESS: usize = 3;

#[test]
fn one_of_two_is_killed() {
    let brokers = brokers();
    let times = times(6, 100);
    let mut row = Row::begin("kill -9 of one of two amibus on a JetStream command stream", times);
    let mut chance = Chance::new();
    row.note(format!("seed {}", chance.seed()));
    let mut rig = Rig::start(&brokers, "two", Pbx::start(Version::V22), "");
    rig.start_second(&brokers, "");
    let (count, rate) = if is_long() { (8_000, 12) } else { (300, 12) };
    rig.send(&brokers, Bus::JetStream, &originates("two", count, CALL_SECONDS), rate);
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
    row.note(format!("{stops} times one was stopped for some 3 s beside that"));
    let claims = rig.claimed_elsewhere();
    row.note(format!("{claims} commands were delivered to one that the other had claimed"));
    row.end(&rig.verdict(Demands {
        calls_outlive_faults: true,
        all_answered: true,
        several: true,
        apart: false,
    }));
    assert!(claims > 0, "the two never met, so nothing was shown");
}
