//! Two amibus on one JetStream command stream, one of them killed again and again, or stopped for longer than the stream
//! waits: what it had in its hands is delivered to the other one.

use super::brokers::brokers;
use super::extent::times;
use super::flow::Bus;
use super::judge::Demands;
use super::pair::Pair;

#[test]
fn one_of_two_is_killed() {
    let brokers = brokers();
    let pair = Pair {
        fault: "kill -9 of one of two amibus on a JetStream command stream",
        kills: times(6, 100),
        name: "two",
        bus: Bus::JetStream,
        more: "",
        // Longer than one of them is away, and until it counts as gone.
        call_seconds: 15,
        rate: 12,
        long_commands: 8_000,
        // For half of these the other one takes over.
        away_millis: (0, 7_000),
        // Its commands are delivered again after 2 s, and its claims last for 4 s.
        stopped_millis: (2_500, 3_200),
        begun_at: None,
    };
    let (rig, mut row) = pair.run(&brokers);
    let verdict =
        rig.verdict(Demands { calls_outlive_faults: true, all_answered: true, several: true, apart: false });
    let claims = rig.claimed_elsewhere();
    row.note(format!("{claims} commands were delivered to one that the other had claimed"));
    row.end(&verdict);
    // Whoever is stopped has a command in its hands, or has asked for the next one: the stream gives it out again, and
    // both have it once it goes on.
    assert!(claims > 0, "the two never met, so nothing was shown");
}
