//! Numbers that go missing, come late and begin anew, in made-up time.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proptest::prelude::*;

use super::{
    LAST_NUMBERS, Seen,
    holes::{GRACE, GRACE_NUMBERS, OPEN_MAX, RANGES_A_ROUND, ROUND},
};
use crate::link::Gap;

pub(super) const BOOT: Option<&str> = Some("2026-11-21T12:00:00");
const MILLI: u64 = 1000;
pub(super) const SECOND: u64 = 1_000_000;

pub(super) fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_micros(micros)
}

fn stamp(micros: u64) -> Option<u64> {
    Some(1_800_000_000 * SECOND + micros)
}

/// Events are read a millisecond after they were sent.
pub(super) fn event(seen: &mut Seen, number: u32, micros: u64) -> Vec<Gap> {
    seen.event(Some(number), stamp(micros), at(micros + MILLI))
}

fn fresh() -> Seen {
    let mut seen = Seen::new(true);
    let connected = seen.connected(BOOT, Some(at(0)), at(0));
    assert_eq!((connected.resumed, connected.again, connected.gap), (false, false, None));
    seen
}

fn gap(reason: &'static str, range: Option<(u64, u64)>, from: u64, until: u64) -> Gap {
    let missed = range.map(|(first, last)| last - first + 1);
    Gap { reason, missed, range, from: at(from), until: at(until) }
}

#[test]
fn a_hole_is_told_after_the_grace_with_its_neighbours_times() {
    let mut seen = fresh();
    assert!(event(&mut seen, 10, SECOND).is_empty());
    assert!(event(&mut seen, 14, 2 * SECOND).is_empty(), "11 to 13 may yet come");
    assert!(seen.is_waiting());
    let told = event(&mut seen, 15, 3 * SECOND);
    assert_eq!(told, [gap("skipped", Some((11, 13)), SECOND, 2 * SECOND)]);
    assert!(event(&mut seen, 12, 3 * SECOND).is_empty(), "too late: published, and that is all");
    assert!(!seen.is_waiting());
    assert!(event(&mut seen, 17, 4 * SECOND).is_empty());
    let told = seen.due(at(4 * SECOND + MILLI) + GRACE);
    assert_eq!(told, [gap("skipped", Some((16, 16)), 3 * SECOND, 4 * SECOND)], "nothing has to come");
}

#[test]
fn out_of_order_is_no_gap() {
    let mut seen = fresh();
    for (n, number) in [5, 8, 7, 6, 10, 9, 11].into_iter().enumerate() {
        assert!(event(&mut seen, number, n as u64 * MILLI).is_empty());
    }
    assert!(!seen.is_waiting());
    event(&mut seen, 20, SECOND);
    event(&mut seen, 15, SECOND);
    assert_eq!(
        seen.settle(at(SECOND)),
        [gap("skipped", Some((12, 14)), 0, SECOND), gap("skipped", Some((16, 19)), 0, SECOND)],
        "at the end of a session nothing is waited for"
    );
}

#[test]
fn a_reconnect_is_always_told_with_numbers_where_some_are_missing() {
    let mut seen = fresh();
    event(&mut seen, 10, SECOND);
    let connected = seen.connected(BOOT, Some(at(9 * SECOND)), at(60 * SECOND));
    assert!(connected.resumed && connected.again);
    assert_eq!(connected.gap, None, "the next number tells how much");
    assert!(event(&mut seen, 14, 10 * SECOND).is_empty());
    assert!(event(&mut seen, 13, 10 * SECOND).is_empty(), "out of order");
    assert_eq!(seen.settle(at(0)), [gap("disconnected", Some((11, 12)), SECOND, 9 * SECOND)]);

    seen.connected(BOOT, Some(at(20 * SECOND)), at(60 * SECOND));
    let told = event(&mut seen, 15, 21 * SECOND);
    assert_eq!(
        told,
        [gap("disconnected", None, 10 * SECOND, 20 * SECOND)],
        "Asterisk numbers nothing for nobody"
    );

    seen.connected(BOOT, Some(at(30 * SECOND)), at(60 * SECOND));
    assert_eq!(seen.give_up(), Some(gap("disconnected", None, 21 * SECOND, 30 * SECOND)), "no event came");
    seen.connected(BOOT, Some(at(40 * SECOND)), at(60 * SECOND));
    let told: Vec<Gap> = (0..40).flat_map(|_| seen.event(None, None, at(61 * SECOND))).collect();
    assert_eq!(told, [gap("disconnected", None, 30 * SECOND, 40 * SECOND)], "Asterisk numbers no more");
}

#[test]
fn numbers_that_all_came_late_leave_a_gap_without_them() {
    let mut seen = fresh();
    event(&mut seen, 10, SECOND);
    seen.connected(BOOT, Some(at(9 * SECOND)), at(9 * SECOND));
    assert!(event(&mut seen, 12, 10 * SECOND).is_empty());
    assert_eq!(event(&mut seen, 11, 10 * SECOND), [gap("disconnected", None, SECOND, 9 * SECOND)]);
}

#[test]
fn a_gap_whose_numbers_came_late_covers_what_was_not_known_all_the_same() {
    let mut seen = fresh();
    event(&mut seen, 10, SECOND);
    seen.uncounted_from = Some(5);
    seen.connected(BOOT, Some(at(9 * SECOND)), at(9 * SECOND));
    assert!(event(&mut seen, 12, 10 * SECOND).is_empty());
    let covers = Gap { missed: None, ..gap("disconnected", Some((5, 12)), SECOND, 9 * SECOND) };
    assert_eq!(event(&mut seen, 11, 10 * SECOND), [covers]);
}

#[test]
fn the_last_numbers_are_noticed_once() {
    let mut seen = fresh();
    event(&mut seen, LAST_NUMBERS - 1, SECOND);
    assert!(!seen.begins_the_last_numbers());
    event(&mut seen, LAST_NUMBERS, 2 * SECOND);
    assert!(seen.begins_the_last_numbers());
    event(&mut seen, LAST_NUMBERS + 1, 3 * SECOND);
    assert!(!seen.begins_the_last_numbers());
    seen.connected(Some("another"), Some(at(4 * SECOND)), at(4 * SECOND));
    event(&mut seen, LAST_NUMBERS, 5 * SECOND);
    assert!(seen.begins_the_last_numbers(), "of another life");
}

#[test]
fn a_restart_of_asterisk_is_told_without_numbers_which_begin_anew() {
    let mut seen = fresh();
    event(&mut seen, 1000, SECOND);
    let connected = seen.connected(Some("2026-11-21T13:00:00"), Some(at(9 * SECOND)), at(9 * SECOND));
    assert!(!connected.resumed);
    assert_eq!(connected.gap, Some(gap("disconnected", None, SECOND, 9 * SECOND)));
    assert!(event(&mut seen, 3, 10 * SECOND).is_empty());
    assert!(event(&mut seen, 4, 13 * SECOND).is_empty());
    assert!(seen.settle(at(20 * SECOND)).is_empty());
    assert!(seen.lend(4), "an id may be made of it again");
    seen.connected(None, Some(at(21 * SECOND)), at(21 * SECOND));
    assert!(!seen.lend(5), "nothing tells which life this is");
}

#[test]
fn without_timestamps_the_clock_is_ours() {
    let mut seen = fresh();
    seen.event(None, None, at(5 * SECOND));
    let connected = seen.connected(None, Some(at(500 * SECOND)), at(8 * SECOND));
    assert_eq!(connected.gap, Some(gap("disconnected", None, 5 * SECOND, 8 * SECOND)));
}

#[test]
fn the_interval_holds_what_was_sent_before_the_last_that_was_read() {
    let mut seen = fresh();
    event(&mut seen, 1, 10 * SECOND);
    event(&mut seen, 3, 10 * SECOND + 300 * MILLI);
    let connected = seen.connected(None, Some(at(10 * SECOND + 200 * MILLI)), at(11 * SECOND));
    let gap = connected.gap.expect("told");
    assert_eq!(gap.from, at(10 * SECOND));
    assert!(gap.from <= gap.until, "whatever the clocks say");
}

#[test]
fn many_holes_are_bundled_and_the_count_stays_exact() {
    let mut seen = fresh();
    let (mut told, mut now) = (Vec::new(), SECOND);
    // Every second number is missing, for a minute: 600 of them.
    for n in 0..600 {
        told.extend(event(&mut seen, n * 2, now));
        now += 100 * MILLI;
    }
    assert!(seen.begins_to_miss_many());
    assert!(!seen.begins_to_miss_many(), "said once");
    told.extend(seen.settle(at(now)));
    let (single, bundled): (Vec<&Gap>, Vec<&Gap>) = told.iter().partition(|gap| gap.missed == Some(1));
    assert_eq!(single.len() as u32, RANGES_A_ROUND, "as they are, at first");
    assert!(
        bundled.len() as u64 <= 60 * SECOND / u64::try_from(ROUND.as_micros()).unwrap() + 1,
        "{bundled:?}"
    );
    assert_eq!(told.iter().filter_map(|gap| gap.missed).sum::<u64>(), 599);
    assert!(told.iter().all(|gap| gap.from < gap.until && gap.missed.is_some()));
    let ranges: Vec<(u64, u64)> = told.iter().filter_map(|gap| gap.range).collect();
    assert!(ranges.windows(2).all(|two| two[0].1 < two[1].0), "{ranges:?}");
}

#[test]
fn who_sees_only_some_events_is_not_told_of_the_others() {
    let mut seen = Seen::new(false);
    seen.connected(BOOT, None, at(0));
    for n in 0..100 {
        assert!(event(&mut seen, n * 3, u64::from(n) * SECOND).is_empty());
    }
    assert!(!seen.is_waiting());
    seen.connected(BOOT, Some(at(200 * SECOND)), at(0));
    event(&mut seen, 400, 201 * SECOND);
    let told = seen.settle(at(300 * SECOND));
    assert_eq!(
        told,
        [Gap { missed: None, ..gap("disconnected", Some((298, 399)), 99 * SECOND, 200 * SECOND) }],
        "among these, nobody knows how many"
    );
}

#[test]
fn a_forged_number_from_far_ahead_makes_no_gap() {
    let mut seen = fresh();
    event(&mut seen, 1, 0);
    event(&mut seen, 2_000_000_000, 1);
    event(&mut seen, 2, 2);
    assert!(!seen.is_waiting());
    event(&mut seen, 5_000_000, 3);
    event(&mut seen, 5_000_001, 4);
    assert_eq!(seen.settle(at(5))[0].range, Some((3, 4_999_999)), "a true jump is confirmed by the next");
}

#[test]
fn what_the_log_lost_of_the_past_is_no_hole_in_the_numbers() {
    let mut seen = fresh();
    event(&mut seen, 1, 0);
    seen.holes.pass_over();
    event(&mut seen, 5, 0);
    assert!(!seen.is_waiting());
    event(&mut seen, 7, 0);
    assert_eq!(seen.settle(at(1))[0].range, Some((6, 6)));
}

#[test]
fn what_is_waited_for_is_bounded() {
    let mut seen = fresh();
    let mut told = 0;
    for n in 0..=OPEN_MAX as u32 + 10 {
        let gaps = event(&mut seen, n * 2, 0);
        told += gaps.iter().filter_map(|gap| gap.missed).sum::<u64>();
    }
    assert!(told > 0, "the oldest is told before its time");
    let mut seen = fresh();
    event(&mut seen, 1, 0);
    event(&mut seen, 3, 0);
    assert!((4..4 + GRACE_NUMBERS).any(|n| !event(&mut seen, n, 0).is_empty()), "numbers tell the time too");
}

#[derive(Clone, Debug)]
struct Life {
    /// Each number of it: whether it comes, and how much later than its turn, in places.
    numbers: Vec<(bool, u8)>,
    /// Sessions end after these places.
    ends: BTreeSet<usize>,
}

fn life() -> impl Strategy<Value = Life> {
    let number = (prop::bool::weighted(0.8), prop_oneof![4 => Just(0_u8), 1 => 0_u8..6]);
    let numbers = prop::collection::vec(number, 2..120);
    (numbers, prop::collection::btree_set(1_usize..120, 0..3))
        .prop_map(|(numbers, ends)| Life { numbers, ends })
}

/// The numbers in the order in which they come.
fn arrivals(life: &Life) -> Vec<u32> {
    let mut order: Vec<(usize, u32)> = Vec::new();
    for (place, (comes, late)) in life.numbers.iter().enumerate() {
        if *comes {
            order.push((place + usize::from(*late), u32::try_from(place).unwrap()));
        }
    }
    order.sort();
    order.into_iter().map(|(_, number)| number).collect()
}

proptest! {
    /// Over lives of Asterisk, sessions and reorderings: told is what is missing between the first and the last number
    /// that were seen of a life, each once, and nothing else.
    #[test]
    fn told_is_what_is_missing(lives in prop::collection::vec(life(), 1..4)) {
        let mut seen = Seen::new(true);
        let mut now = SECOND;
        for (n, life) in lives.iter().enumerate() {
            let boot = format!("boot-{n}");
            let again = seen.connected(Some(&boot), Some(at(now)), at(now)).again;
            prop_assert_eq!(again, n > 0);
            let (mut exact, mut bundled) = (BTreeSet::new(), 0);
            let mut count = |told: Vec<Gap>| {
                for gap in told {
                    assert!(gap.from <= gap.until);
                    let (Some((first, last)), Some(missed)) = (gap.range, gap.missed) else { continue };
                    if missed == last - first + 1 {
                        (first..=last).for_each(|number| assert!(exact.insert(number), "{number} twice"));
                    } else {
                        bundled += missed;
                    }
                }
            };
            let (mut came, mut highest) = (BTreeSet::new(), None);
            for (place, number) in arrivals(life).into_iter().enumerate() {
                now += 10 * MILLI;
                if highest.is_none() || life.ends.contains(&place) {
                    if highest.is_some() {
                        count(seen.settle(at(now)));
                        count(seen.give_up().into_iter().collect());
                        seen.connected(Some(&boot), Some(at(now)), at(now));
                    }
                    highest = highest.max(Some(number));
                }
                came.insert(number);
                count(event(&mut seen, number, now));
            }
            count(seen.settle(at(now)));
            count(seen.give_up().into_iter().collect());
            // What came after its session had ended was told with it.
            let (Some(&last), Some(first)) = (came.last(), arrivals(life).first().copied()) else { continue };
            let missing: BTreeSet<u64> =
                (first..last).filter(|number| !came.contains(number)).map(u64::from).collect();
            let late = life.ends.len() * 8;
            let told = exact.len() as u64 + bundled;
            prop_assert!(told >= missing.len() as u64, "{} told, {:?}", told, missing);
            prop_assert!(told <= (missing.len() + late) as u64, "{} told, {:?}", told, missing);
            if bundled == 0 {
                prop_assert!(missing.is_subset(&exact), "{:?} {:?}", exact, missing);
                if life.ends.is_empty() {
                    prop_assert_eq!(&exact, &missing);
                }
            }
        }
    }
}
