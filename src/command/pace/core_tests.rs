//! The invariants of pace, on times that are made up.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::command::pace::limit::limit;

const A: Set = 1;
const B: Set = 2;

fn ready(limits: &[Limit]) -> Core<u64> {
    let mut core = Core::new(limits, Duration::ZERO);
    core.set_ready(true);
    core.cannot_compare();
    core
}

fn at_once(name: &str, calls: usize) -> Limit {
    Limit { concurrent_calls: Some(calls), ..limit(name) }
}

fn channel(n: u64) -> String {
    format!("amibus-{n}")
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn running(core: &Core<u64>) -> Vec<usize> {
    core.gauges().map(|gauges| gauges.running).collect()
}

#[test]
fn nothing_is_granted_before_the_calls_of_a_former_process_are_known() {
    let rate = Limit { calls_per_second: Some(1.0), ..limit("rate") };
    let mut core = Core::new(&[at_once("a", 2), rate], Duration::ZERO);
    core.wait(A, 1, &channel(1), 1);
    core.wait(B, 2, &channel(2), 2);
    assert_eq!(core.grant(secs(5)), None, "the server is away");
    core.set_ready(true);
    assert_eq!(core.grant(secs(5)), Some(2), "a rate alone does not count calls");
    assert_eq!(core.grant(secs(5)), None);
    let live: HashSet<String> = [channel(7), channel(8)].into();
    core.ask();
    core.end(&channel(8));
    let found = [(channel(7), A, secs(60)), (channel(8), A, secs(60))];
    assert!(!core.compare(&live, &found, secs(5), secs(6)));
    assert_eq!(running(&core), [1, 1], "what hung up while Asterisk was asked is over");
    assert_eq!(core.grant(secs(6)), Some(1));
    core.wait(A, 3, &channel(3), 3);
    assert_eq!(core.grant(secs(6)), None);
    assert!(core.end(&channel(7)));
    assert_eq!(core.grant(secs(6)), Some(3));
}

#[test]
fn a_failed_call_counts_until_its_channel_hung_up_where_it_has_one() {
    let mut core = ready(&[at_once("a", 2)]);
    for n in 1..=2 {
        core.wait(A, n, &channel(n), n);
        assert_eq!(core.grant(secs(1)), Some(n));
        core.sent(&channel(n), secs(1));
        core.failed(&channel(n), secs(1));
    }
    core.appeared(&channel(2), secs(1));
    core.wait(A, 3, &channel(3), 3);
    assert_eq!(core.grant(secs(1)), None, "a Newchannel may follow");
    assert_eq!(core.wake(secs(1)), Some(secs(1) + super::super::calls::FAILED_SETTLES));
    assert_eq!(core.grant(secs(2)), Some(3));
    assert_eq!(running(&core), [2]);
    core.failed(&channel(2), secs(2));
    assert_eq!(core.grant(secs(9)), None);
    assert_eq!(running(&core), [2], "it has a channel");
}

#[test]
fn a_call_that_asterisk_does_not_list_is_over_unless_it_is_too_young() {
    let mut core = ready(&[at_once("a", 9)]);
    for (n, sent) in [(1, 1), (2, 15), (3, 1)] {
        core.wait(A, n, &channel(n), n);
        core.grant(secs(sent));
        core.sent(&channel(n), secs(sent));
    }
    core.wait(A, 4, &channel(4), 4);
    core.grant(secs(1));
    let live = [channel(3)].into();
    assert!(core.compare(&live, &[], secs(20), secs(21)), "call 2 is young");
    assert_eq!(running(&core), [3], "1 is over; 4 is being sent");
    assert!(!core.compare(&live, &[], secs(26), secs(26)));
    assert_eq!(running(&core), [2]);
}

#[test]
fn a_call_is_not_counted_longer_than_its_limits_say() {
    let short = Limit { longest_call: secs(60), ..at_once("short", 5) };
    let mut core = ready(&[short, at_once("long", 5)]);
    core.wait(A | B, 1, &channel(1), 1);
    core.grant(secs(0));
    core.sent(&channel(1), secs(0));
    core.find(&channel(2), A, secs(59), secs(0));
    assert_eq!((core.expire(secs(2)), running(&core)), (1, vec![1, 1]));
    assert_eq!((core.expire(secs(61)), running(&core)), (1, vec![0, 1]));
    core.end(&channel(1));
    assert_eq!(running(&core), [0, 0]);
}

#[test]
fn what_is_not_sent_gives_its_place_back() {
    let mut core = ready(&[at_once("a", 1)]);
    for n in 1..=3 {
        core.wait(A, n, &channel(n), n);
    }
    assert_eq!((core.grant(secs(1)), core.grant(secs(1))), (Some(1), None));
    core.leave(A, 2, &channel(2));
    assert_eq!(core.gauges().next().map(|gauges| gauges.waiting), Some(1));
    core.leave(A, 1, &channel(1));
    assert_eq!(core.grant(secs(1)), Some(3));
}

#[test]
fn what_piled_up_behind_a_slow_disk_is_not_written_at_once() {
    let mut core = ready(&[Limit { calls_per_second: Some(100.0), burst: 2, ..limit("a") }]);
    let mut granted = Vec::new();
    for n in 1..=200 {
        core.wait(A, n, &channel(n), n);
    }
    for millis in 0..2000 {
        granted.extend(core.grant(Duration::from_millis(millis)));
    }
    assert_eq!(granted.len(), 27, "a quarter of a second ahead, and the burst");
    let (mut now, mut written) = (secs(2), Vec::new());
    for n in granted {
        while let Err(at) = core.write(A, &channel(n), now) {
            now = at;
        }
        written.push(now);
    }
    assert_rate(&written, 100.0, 2.0);
    assert!(core.grant(now).is_some(), "the next may go on");
}

fn assert_rate(times: &[Duration], rate: f64, burst: f64) {
    for (n, from) in times.iter().enumerate() {
        for (m, until) in times.iter().enumerate().skip(n) {
            let most = rate * (*until - *from).as_secs_f64() + burst;
            assert!((m - n + 1) as f64 <= most + 1e-6, "{} in {:?}", m - n + 1, *until - *from);
        }
    }
}

/// What happens at a time: an Originate of some set arrives, someone leaves, or time goes by.
#[derive(Clone, Debug)]
enum Step {
    Arrives(Set, u64),
    Leaves(usize),
    Passes(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1u64..8, 1u64..20_000).prop_map(|(set, life)| Step::Arrives(set, life)),
        1 => (0usize..50).prop_map(Step::Leaves),
        3 => (1u64..2_000).prop_map(Step::Passes),
    ];
    proptest::collection::vec(step, 1..300)
}

/// Calls with their lives in milliseconds, on three limits that cross.
struct World {
    core: Core<u64>,
    now: Duration,
    arrived: BTreeMap<u64, (Set, u64)>,
    waiting: BTreeMap<Set, BTreeSet<u64>>,
    live: BTreeMap<u64, Duration>,
    granted: Vec<(Duration, u64)>,
}

impl World {
    const CONCURRENT: [Option<usize>; 3] = [Some(3), Some(2), None];
    const RATES: [Option<(f64, u32)>; 3] = [None, Some((2.0, 2)), Some((5.0, 1))];

    fn new() -> Self {
        let limits: Vec<Limit> = Self::CONCURRENT
            .iter()
            .zip(Self::RATES)
            .map(|(concurrent, rate)| Limit {
                concurrent_calls: *concurrent,
                calls_per_second: rate.map(|(rate, _)| rate),
                burst: rate.map_or(1, |(_, burst)| burst),
                ..limit("x")
            })
            .collect();
        let (arrived, waiting, live) = Default::default();
        Self { core: ready(&limits), now: Duration::ZERO, arrived, waiting, live, granted: Vec::new() }
    }

    fn grant(&mut self) {
        while let Some(n) = self.core.grant(self.now) {
            let (set, life) = self.arrived[&n];
            let line = self.waiting.get_mut(&set).expect("it waited");
            assert_eq!(line.pop_first(), Some(n), "first come first served within a set");
            self.core.write(set, &channel(n), self.now + secs(1000)).expect("long ago");
            self.core.sent(&channel(n), self.now);
            self.live.insert(n, self.now + Duration::from_millis(life));
            self.granted.push((self.now, n));
        }
        for (place, most) in Self::CONCURRENT.iter().enumerate() {
            let about = |n: &&u64| self.arrived[*n].0 & (1 << place) != 0;
            let running = self.live.keys().filter(about).count();
            assert!(most.is_none_or(|most| running <= most), "{running} at once of limit {place}");
            assert_eq!(self.core.gauges().nth(place).map(|gauges| gauges.running), Some(running));
        }
    }

    fn pass(&mut self, until: Duration) {
        loop {
            let ends = self.live.values().min().copied();
            let next = [ends, self.core.wake(self.now)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = next;
            let over: Vec<u64> = self.live.iter().filter(|(_, end)| **end <= next).map(|(n, _)| *n).collect();
            for n in over {
                self.live.remove(&n);
                assert!(self.core.end(&channel(n)));
            }
            self.grant();
        }
        self.now = until;
        self.grant();
    }

    fn is_anyone_waiting(&self) -> bool {
        self.waiting.values().any(|line| !line.is_empty())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn never_above_a_limit_in_order_and_nobody_is_forgotten(steps in steps()) {
        let mut world = World::new();
        for (n, step) in (0u64..).zip(steps) {
            match step {
                Step::Arrives(set, life) => {
                    world.arrived.insert(n, (set, life));
                    world.waiting.entry(set).or_default().insert(n);
                    world.core.wait(set, n, &channel(n), n);
                    world.grant();
                }
                Step::Leaves(which) => {
                    let found = world.waiting.iter().flat_map(|(set, line)| line.iter().map(|n| (*set, *n)));
                    if let Some((set, n)) = found.collect::<Vec<_>>().get(which).copied() {
                        world.waiting.get_mut(&set).expect("it waits").remove(&n);
                        world.core.leave(set, n, &channel(n));
                        world.grant();
                    }
                }
                Step::Passes(millis) => world.pass(world.now + Duration::from_millis(millis)),
            }
        }
        let end = world.now + secs(3600);
        world.pass(end);
        prop_assert!(!world.is_anyone_waiting());
        for (place, rate) in World::RATES.iter().enumerate() {
            let Some((rate, burst)) = rate else { continue };
            let about = |n: &u64| world.arrived[n].0 & (1 << place) != 0;
            let times: Vec<_> = world.granted.iter().filter(|(_, n)| about(n)).map(|(at, _)| *at).collect();
            assert_rate(&times, *rate, f64::from(*burst));
        }
    }

    #[test]
    fn who_waits_for_two_crossing_limits_has_its_turn_though_others_keep_both_full(
        lives in proptest::collection::vec(100u64..20_000, 20),
    ) {
        let mut core = ready(&[at_once("a", 1), at_once("b", 1)]);
        let (mut now, mut live, mut crossing) = (Duration::ZERO, BTreeMap::new(), None);
        let mut next = 1..;
        let mut lives = lives.into_iter().cycle();
        core.wait(A, 0, &channel(0), 0);
        core.wait(A | B, 1_000_000, &channel(1_000_000), 1_000_000);
        // Nobody who came before the one that waits for both, and always somebody who came after.
        for _ in 0..2_000 {
            for set in [A, B] {
                let ticket = 2_000_000 + next.next().unwrap_or(0);
                core.wait(set, ticket, &channel(ticket), ticket);
            }
            while let Some(n) = core.grant(now) {
                if n == 1_000_000 {
                    crossing = Some(now);
                }
                core.sent(&channel(n), now);
                live.insert(n, now + Duration::from_millis(lives.next().unwrap_or(1)));
            }
            let Some((&first, &end)) = live.iter().min_by_key(|(_, end)| **end) else { break };
            now = end;
            live.remove(&first);
            core.end(&channel(first));
        }
        prop_assert!(crossing.is_some_and(|at| at < secs(600)), "{crossing:?}");
    }
}
