//! Any order of coming, finishing, giving back and crashing.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;

/// What is begun and done by the metadata.
fn committed(tracker: &Tracker) -> (Vec<i64>, Vec<i64>) {
    let Marks { begun, done } = marks::decode(&tracker.metadata(), tracker.position()).expect("ours");
    (begun.into_iter().collect(), done.into_iter().collect())
}

#[test]
fn what_is_begun_is_marked_until_it_is_done() {
    let mut tracker = Tracker::resume(Some(10), "");
    for offset in 10..14 {
        tracker.comes(offset);
    }
    assert!(tracker.begin(10) && tracker.begin(12) && tracker.begin(13));
    tracker.unbegin(13);
    assert_eq!(committed(&tracker), (vec![10, 12], vec![]));
    let mut next = Tracker::resume(Some(tracker.position()), &tracker.metadata());
    let begun: Vec<bool> = (10..14)
        .map(|offset| {
            assert_eq!(next.comes(offset), Coming::New);
            next.is_begun(offset)
        })
        .collect();
    assert_eq!(begun, [true, false, true, false]);
    assert!(tracker.finish(12));
    assert_eq!(committed(&tracker), (vec![10], vec![12]));
    assert!(tracker.finish(10) && !tracker.is_begun(10));
    assert_eq!((tracker.position(), committed(&tracker)), (11, (vec![], vec![12])));
    assert!(!tracker.begin(12) && !tracker.begin(20), "not in anybody's hands");
}

#[test]
fn what_lies_too_far_behind_the_first_that_is_not_done_cannot_begin_yet() {
    let mut tracker = Tracker::resume(Some(0), "");
    let last = marks::WINDOW;
    for offset in [0, last - 1, last] {
        tracker.comes(offset);
    }
    assert!(tracker.begin(last - 1) && !tracker.begin(last));
    tracker.finish(0);
    assert!(tracker.begin(last));
    assert_eq!((tracker.position(), committed(&tracker)), (last - 1, (vec![last - 1, last], vec![])));
}

#[test]
fn what_was_given_back_stays_marked() {
    let mut tracker = Tracker::resume(Some(0), "");
    tracker.comes(0);
    tracker.comes(1);
    assert!(tracker.begin(1));
    tracker.give_back(1);
    assert_eq!(rewind(&mut tracker), Some(1));
    assert_eq!((tracker.comes(1), tracker.is_begun(1)), (Coming::New, true));
}

#[test]
fn only_the_unbroken_part_is_committed() {
    let mut tracker = Tracker::resume(Some(10), "");
    for offset in 10..15 {
        assert_eq!(tracker.comes(offset), Coming::New);
    }
    assert!(tracker.finish(11) && tracker.finish(12) && tracker.finish(14));
    assert_eq!((tracker.position(), committed(&tracker)), (10, (vec![], vec![11, 12, 14])));
    assert!(tracker.finish(10));
    assert_eq!((tracker.position(), committed(&tracker)), (13, (vec![], vec![14])));
    assert!(tracker.finish(13));
    assert_eq!((tracker.position(), tracker.metadata().as_str()), (15, ""));
    assert!(!tracker.finish(13), "done once");
}

#[test]
fn offsets_that_never_come_hold_up_nothing() {
    let mut tracker = Tracker::resume(None, "");
    assert_eq!(tracker.comes(3), Coming::New);
    assert_eq!(tracker.comes(8), Coming::New);
    assert!(tracker.finish(3));
    assert_eq!(tracker.position(), 8);
}

#[test]
fn a_partition_that_was_made_again_starts_anew() {
    let mut tracker = Tracker::resume(Some(100), "");
    assert_eq!(tracker.comes(100), Coming::New);
    assert_eq!(tracker.comes(0), Coming::Reset);
    assert!(!tracker.finish(100));
    assert!(tracker.finish(0));
    assert_eq!(tracker.position(), 1);
}

#[test]
fn what_comes_from_before_the_position_is_done_and_what_is_known_behind_it_stays() {
    // Begun are 101 and 102, done is 104.
    let metadata = "amibus2 rg";
    let mut tracker = Tracker::resume(Some(100), metadata);
    assert_eq!((tracker.comes(98), tracker.position()), (Coming::Known, 100));
    assert_eq!((tracker.metadata().as_str(), tracker.span()), (metadata, -1));
    let coming: Vec<(Coming, bool)> = (99..105).map(|at| (tracker.comes(at), tracker.is_begun(at))).collect();
    use Coming::{Known, New};
    let of = [(Known, false), (New, false), (New, true), (New, true), (New, false), (Known, false)];
    assert_eq!((coming.as_slice(), tracker.position()), (&of[..], 100));
}

#[test]
fn what_was_given_back_comes_again_and_nothing_else() {
    let mut tracker = Tracker::resume(Some(0), "");
    for offset in 0..5 {
        tracker.comes(offset);
    }
    tracker.finish(2);
    tracker.give_back(1);
    tracker.give_back(3);
    assert_eq!(rewind(&mut tracker), Some(1));
    let coming: Vec<Coming> = (1..7).map(|offset| tracker.comes(offset)).collect();
    use Coming::{Known, New};
    assert_eq!(coming, [New, Known, New, Known, New, New]);
    assert_eq!(rewind(&mut tracker), None);
}

#[derive(Clone, Debug)]
enum Step {
    Come,
    Finish(usize),
    Begin(usize),
    GiveBack(usize),
    Rewind,
    /// One that fails, and takes effect after the next command all the same where it says so.
    FailedRewind(bool),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Come),
        4 => (0..50usize).prop_map(Step::Finish),
        3 => (0..50usize).prop_map(Step::Begin),
        1 => (0..50usize).prop_map(Step::GiveBack),
        1 => Just(Step::Rewind),
        1 => proptest::bool::ANY.prop_map(Step::FailedRewind),
        1 => Just(Step::Crash),
    ]
}

/// A partition with gaps, the tracker, and what really happened.
struct Model {
    offsets: Vec<i64>,
    /// The consumer's place in `offsets`.
    at: usize,
    tracker: Tracker,
    open: Vec<i64>,
    done: BTreeSet<i64>,
    begun: BTreeSet<i64>,
}

impl Model {
    fn come(&mut self) -> Result<(), TestCaseError> {
        let Some(offset) = self.offsets.get(self.at).copied() else { return Ok(()) };
        self.at += 1;
        match self.tracker.comes(offset) {
            Coming::New => {
                prop_assert!(!self.done.contains(&offset), "{offset} was done and came again");
                prop_assert!(!self.open.contains(&offset), "{offset} is in two hands");
                prop_assert_eq!(self.tracker.is_begun(offset), self.begun.contains(&offset), "{}", offset);
                self.open.push(offset);
            }
            Coming::Known => {
                prop_assert!(self.done.contains(&offset) || self.open.contains(&offset), "{offset} lost")
            }
            Coming::Reset => prop_assert!(false, "nothing was made again"),
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Option<i64> {
        let index = n.checked_rem(self.open.len())?;
        Some(self.open.swap_remove(index))
    }

    fn seek(&mut self, offset: i64) {
        self.at = self.offsets.iter().position(|known| *known >= offset).unwrap_or(self.offsets.len());
    }

    fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Come => self.come()?,
            Step::Finish(n) => {
                if let Some(offset) = self.take(*n) {
                    prop_assert!(self.tracker.finish(offset));
                    self.done.insert(offset);
                }
            }
            Step::Begin(n) => {
                if let Some(offset) = self.take(*n) {
                    prop_assert!(self.tracker.begin(offset));
                    self.begun.insert(offset);
                    self.open.push(offset);
                }
            }
            Step::GiveBack(n) => {
                if let Some(offset) = self.take(*n) {
                    self.tracker.give_back(offset);
                }
            }
            Step::Rewind => {
                if let Some(offset) = rewind(&mut self.tracker) {
                    self.seek(offset);
                }
            }
            Step::FailedRewind(late) => {
                let place = self.tracker.place();
                self.tracker.not_sought();
                self.come()?;
                // Where the command is still to come again, as librdkafka would go back to it.
                if let Some(place) = place.filter(|place| *late && self.tracker.place() == Some(*place)) {
                    self.seek(place);
                }
            }
            Step::Crash => {
                let (position, metadata) = (self.tracker.position(), self.tracker.metadata());
                self.open.clear();
                self.seek(position);
                self.tracker = Tracker::resume(Some(position), &metadata);
            }
        }
        let position = self.tracker.position();
        let first_undone = self.offsets.iter().find(|offset| !self.done.contains(offset));
        prop_assert!(first_undone.is_none_or(|first| position <= *first), "committed past {first_undone:?}");
        Ok(())
    }
}

fn rewind(tracker: &mut Tracker) -> Option<i64> {
    let place = tracker.place()?;
    tracker.sought(place);
    Some(place)
}

#[test]
fn a_command_that_is_gone_from_the_log_is_not_awaited_for_ever() {
    let mut tracker = Tracker::resume(None, "");
    for offset in 0..4 {
        assert_eq!(tracker.comes(offset), Coming::New);
    }
    tracker.give_back(1);
    tracker.give_back(3);
    assert!(!tracker.is_rewinding(), "not before it has gone back");
    assert_eq!(rewind(&mut tracker), Some(1));
    assert!(tracker.is_rewinding());
    // The log starts at 2 meanwhile, and 3 comes, is given back, and is to come once more.
    assert_eq!((tracker.comes(2), tracker.comes(3)), (Coming::Known, Coming::New));
    tracker.give_back(3);
    assert_eq!(tracker.comes(4), Coming::New);
    assert!(!tracker.is_rewinding());
    assert_eq!(tracker.place(), Some(3));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_committed_before_it_is_done_and_only_the_undone_comes_again(
        gaps in vec(1..4i64, 1..40),
        steps in vec(step(), 0..200),
    ) {
        let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
        let tracker = Tracker::resume(None, "");
        let mut model = Model { offsets, at: 0, tracker, open: Vec::new(), done: BTreeSet::new(), begun: BTreeSet::new() };
        for step in &steps {
            model.apply(step)?;
        }
        // In the end everything can be done, and then everything is committed.
        for _ in 0..3 {
            while let Some(offset) = model.open.pop() {
                model.tracker.finish(offset);
                model.done.insert(offset);
            }
            model.apply(&Step::Rewind)?;
            for _ in 0..=model.offsets.len() {
                model.apply(&Step::Come)?;
            }
        }
        prop_assert!(model.open.is_empty());
        prop_assert_eq!(model.done.len(), model.offsets.len());
        prop_assert_eq!(model.tracker.position(), model.offsets.last().map_or(0, |last| last + 1));
    }
}
