//! Pace on real Asterisk: the calls are counted from Asterisk's own events, by a session that amibus knows nothing of.

mod proxy;
mod rig;
mod simulated;
mod witness;

use std::time::{Duration, Instant};

use rig::{Extent, LIVE_SECONDS, rig};

/// How much later than it was written a call may begin, as Asterisk stamps it, than another one: on a busy machine its threads
/// wait for their turn.
const JITTER_SECONDS: f64 = 0.3;

/// 60 calls at 10 a second and 5 at once, each of a second; meanwhile another group, and a Ping behind all that waits.
#[test]
fn never_above_a_limit_while_other_groups_and_actions_go_on() {
    let rig = &mut *rig();
    let extent = rig::extent();
    let Extent { calls, at_once, .. } = extent;
    let pings = rig.ping();
    rig.originate("a", calls);
    rig.until("the first call", |witness| witness.begun("a") > 0);
    rig.originate("b", 5);
    rig.until("calls of another group", |witness| witness.begun("b") == 5);
    assert!(rig.witness.begun("a") < calls, "the first group is still waiting");
    let metrics = rig.metrics();
    for line in [
        "amibus_pace_calls{server=\"pbx1\",limit=\"a\"} ",
        "amibus_pace_waiting{server=\"pbx1\",limit=\"a\"} ",
        "amibus_pace_granted_total{server=\"pbx1\",limit=\"b\"} 5",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    rig.until_within(extent.patience(), "all calls", |witness| {
        witness.begun("a") == calls && witness.live("a") == 0
    });
    assert!(rig.witness.most_live("a") <= at_once, "{} at once", rig.witness.most_live("a"));
    assert!(rig.witness.most_live("b") <= 2, "{} at once", rig.witness.most_live("b"));
    in_time(&rig.witness.begins("a"), f64::from(extent.per_second), 1.0);
    let slowest = pings.slowest();
    assert!(slowest < Duration::from_secs(1), "a Ping took {slowest:?}");
}

#[test]
fn calls_that_ended_while_nobody_looked_are_let_go() {
    let rig = &mut *rig();
    rig.originate("c", 6);
    rig.until("three live calls", |witness| witness.live("c") == 3);
    rig.proxy.cut();
    rig.until("their end", |witness| witness.live("c") == 0);
    assert_eq!(rig.witness.begun("c"), 3);
    rig.proxy.mend();
    rig.until("the others", |witness| witness.begun("c") == 6);
    assert_eq!(rig.witness.most_live("c"), 3);
}

#[test]
fn live_calls_count_after_a_restart() {
    let rig = &mut *rig();
    rig.originate("d", 5);
    rig.until("three live calls", |witness| witness.live("d") == 3);
    let begun = Instant::now();
    rig.kill_and_start_again();
    rig.until("the others", |witness| witness.begun("d") == 5);
    assert!(begun.elapsed() > Duration::from_secs(LIVE_SECONDS - 5), "they waited for the first ones");
    assert_eq!(rig.witness.most_live("d"), 3);
    rig.until("their end", |witness| witness.live("d") == 0);
    assert_eq!(rig.witness.begun("d"), 5, "no call is dialled twice");
}

/// Never more in a second or any longer time than the rate gives, and a burst.
fn in_time(begins: &[f64], rate: f64, burst: f64) {
    for (n, from) in begins.iter().enumerate() {
        for (m, until) in begins.iter().enumerate().skip(n).filter(|(_, until)| **until - from >= 1.0) {
            let most = rate * (until - from + JITTER_SECONDS) + burst;
            assert!((m - n + 1) as f64 <= most, "{} calls in {:.3} s", m - n + 1, until - from);
        }
    }
}
