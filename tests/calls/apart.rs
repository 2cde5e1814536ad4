//! Two amibus in one Kafka group that share no claims, one of them killed again and again, or stopped for longer than the
//! group waits: what it had begun is found so by the other one.

use super::brokers::brokers;
use super::extent::times;
use super::flow::Bus;
use super::judge::Demands;
use super::pair::Pair;
use super::rig::APART;

#[test]
fn one_of_two_without_a_bucket_is_killed() {
    let brokers = brokers();
    let pair = Pair {
        fault: "kill -9 of one of two amibus in a Kafka group, without a bucket",
        kills: times(4, 100),
        name: "apart",
        bus: Bus::Kafka,
        more: APART,
        // Longer than the group waits for a member, and one of the two is away after that.
        call_seconds: 25,
        rate: 8,
        long_commands: 12_000,
        // For half of these the group gives its partitions away.
        away_millis: (3_000, 10_000),
        // Longer than its session of 6 s.
        stopped_millis: (7_000, 9_000),
        // Before anything of them is written: so it happens whatever the kills meet.
        begun_at: Some("sending_recorded"),
    };
    let (rig, mut row) = pair.run(&brokers);
    let verdict =
        rig.verdict(Demands { calls_outlive_faults: true, all_answered: true, several: true, apart: true });
    let begun = rig.found_begun();
    assert!(begun > 0, "nothing that one had begun came to the other one");
    row.note(format!("{begun} commands were found begun by another one"));
    row.end(&verdict);
}
