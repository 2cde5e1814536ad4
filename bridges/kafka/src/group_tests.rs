//! Acknowledges, commits that fail, and partitions that go and come back.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::*;

const TOPIC: &str = "ami.command";

fn holding(partition: i32) -> Group {
    let group = Group::default();
    group.assigned([partition].into_iter());
    group.resume(partition, Some(0), "");
    group
}

fn commit(group: &Group, of: Option<&[i32]>) -> Option<Commit> {
    group.commit(TOPIC, *group.dirty(of).first()?)
}

fn positions(commit: &Commit) -> Vec<(i32, Offset, String)> {
    let elements = commit.offsets.elements();
    elements.iter().map(|e| (e.partition(), e.offset(), e.metadata().to_owned())).collect()
}

/// The greatest span that the partition is full with.
fn spans(group: &Group) -> i64 {
    let full = (1..100).take_while(|span| group.full(*span, false).0.contains(&0));
    full.last().unwrap_or(0)
}

#[test]
fn a_partition_that_is_full_holds_up_no_other() {
    let group = Group::default();
    group.assigned([0, 1].into_iter());
    for partition in [0, 1] {
        group.resume(partition, Some(0), "");
    }
    let _claims = [0, 1, 2].map(|offset| group.comes(0, offset).expect("new"));
    assert_eq!(group.full(3, false), ([0].into(), [1].into()));
    assert_eq!(group.full(4, false), ([].into(), [0, 1].into()));
    assert_eq!(group.full(4, true), ([0, 1].into(), [].into()), "no room for any");
}

#[test]
fn an_acknowledge_is_answered_by_the_commit_that_tells_it() {
    let group = holding(2);
    let (first, second) = (group.comes(2, 0).expect("new"), group.comes(2, 1).expect("new"));
    assert!(commit(&group, None).is_none(), "nothing is done");
    let mut answer = group.acknowledge(second);
    let list = commit(&group, None).expect("something is done");
    assert_eq!(positions(&list), [(2, Offset::Offset(0), "amibus2 Bg".to_owned())]);
    assert!(answer.try_recv().is_err(), "not committed yet");
    let mut later = group.acknowledge(first);
    group.committed(&Ok(()), &list);
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert!(later.try_recv().is_err(), "that was done after the commit was written");
    let list = commit(&group, None).expect("the other one");
    assert_eq!(positions(&list), [(2, Offset::Offset(2), String::new())]);
}

#[test]
fn a_failed_commit_is_said_again_with_what_came_meanwhile() {
    let group = holding(0);
    let claim = group.comes(0, 0).expect("new");
    let mut answer = group.acknowledge(claim);
    let list = commit(&group, None).expect("something is done");
    group.committed(&Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::RebalanceInProgress)), &list);
    assert!(answer.try_recv().is_err() && group.is_busy());
    assert!(commit(&group, None).is_none(), "not at once");
    let list = commit(&group, Some(&[0])).expect("before it goes, at once");
    group.committed(&Ok(()), &list);
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    assert!(!group.is_busy());
}

#[test]
fn handles_of_an_earlier_time_do_nothing() {
    let group = holding(0);
    let (old, other) = (group.comes(0, 0).expect("new"), group.comes(0, 1).expect("new"));
    group.revoked(0);
    group.assigned([0].into_iter());
    group.resume(0, Some(0), "");
    let again = group.comes(0, 0).expect("it comes again");
    let refused = group.acknowledge(old).try_recv().expect("an answer at once");
    assert_eq!(refused.map_err(|fault| fault.decision), Err(Decision::Skip));
    group.give_back(other);
    assert!(group.rewinds(Instant::now()).is_empty());
    assert!(commit(&group, None).is_none(), "the old handle has committed nothing");
    group.acknowledge(again);
    assert!(commit(&group, None).is_some());
}

#[test]
fn who_waits_is_told_when_the_partition_goes() {
    let group = holding(0);
    let claim = group.comes(0, 0).expect("new");
    let mut answer = group.acknowledge(claim);
    let _ = commit(&group, None);
    group.revoked(0);
    assert!(matches!(answer.try_recv(), Ok(Err(_))));
    assert!(group.comes(0, 1).is_none(), "not ours");
}

#[test]
fn who_holds_commands_of_a_partition_that_goes_is_told() {
    let group = holding(0);
    let claim = group.comes(0, 0).expect("new");
    let going = group.withdrawal(&claim).expect("it is ours");
    assert_eq!((*going.borrow(), group.open(&[0])), (false, 1));
    group.going(&[1]);
    assert!(!*going.borrow(), "another partition");
    group.going(&[0]);
    assert!(*going.borrow());
    group.give_back(claim);
    assert_eq!(group.open(&[0]), 0);
    group.revoked(0);
    assert!(group.withdrawal(&claim).is_none() && going.has_changed().is_err(), "gone");
}

#[test]
fn a_commit_that_ends_after_its_partition_went_and_came_back_tells_nobody() {
    let group = holding(0);
    let first = group.comes(0, 0).expect("new");
    drop(group.acknowledge(first));
    let late = commit(&group, None).expect("something is done");
    group.revoked(0);
    group.assigned([0].into_iter());
    group.resume(0, Some(0), "");
    let again = group.comes(0, 0).expect("it was not committed when that was asked");
    let mut answer = group.acknowledge(again);
    let _of_now = commit(&group, None).expect("the same once more");
    group.committed(&Ok(()), &late);
    assert!(answer.try_recv().is_err(), "its own commit is still on its way");
}

#[test]
fn going_back_that_failed_is_due_again_and_holds_up_no_span() {
    let group = holding(0);
    let claims: Vec<Claim> = (0..3).filter_map(|offset| group.comes(0, offset)).collect();
    group.give_back(claims[1]);
    assert_eq!(group.rewinds(Instant::now()), [(0, 1)]);
    group.sought(0, 1, false);
    assert_eq!(spans(&group), 3, "nothing is read again, so no more shall come");
    assert_eq!(group.rewinds(Instant::now()), [(0, 1)], "due again");
    group.sought(0, 1, true);
    assert_eq!((group.rewinds(Instant::now()), spans(&group)), (Vec::new(), 0));
    assert!(group.comes(0, 1).is_some() && group.comes(0, 2).is_none());
    assert_eq!((group.comes(0, 3).is_some(), spans(&group)), (true, 4), "that rewind has ended");
}

#[test]
fn each_partition_has_its_turn_while_commands_go_on_ending() {
    let group = Group::default();
    group.assigned([0, 1].into_iter());
    let claims = [0, 1].map(|partition| {
        group.resume(partition, Some(0), "");
        (0..10).filter_map(|offset| group.comes(partition, offset)).collect::<Vec<_>>()
    });
    let ends = |offset: usize| claims.each_ref().map(|claims| drop(group.acknowledge(claims[offset])));
    ends(0);
    let mut committed = Vec::new();
    for (partition, offset) in group.dirty(None).into_iter().zip(1..) {
        let list = group.commit(TOPIC, partition).expect("it has something");
        // While that commit is on its way, more is done in both.
        ends(offset);
        group.committed(&Ok(()), &list);
        committed.push(partition);
    }
    committed.sort_unstable();
    assert_eq!(committed, [0, 1]);
    assert_eq!(group.dirty(None).len(), 2, "what was done meanwhile has its turn next time");
}

#[test]
fn a_begin_is_answered_by_its_commit_and_refused_once_the_partition_goes() {
    let group = holding(0);
    let claims: Vec<Claim> = (0..3).filter_map(|offset| group.comes(0, offset)).collect();
    let mut first = group.begin(claims[1]);
    let list = commit(&group, None).expect("something is begun");
    assert_eq!(positions(&list), [(0, Offset::Offset(0), "amibus2 Aw".to_owned())]);
    assert!(group.owes(&[0]), "it is on its way");
    let mut second = group.begin(claims[2]);
    group.committed(&Ok(()), &list);
    assert_eq!(first.try_recv(), Ok(Ok(())));
    assert!(second.try_recv().is_err());
    group.going(&[0]);
    assert!(matches!(second.try_recv(), Ok(Err(_))));
    assert!(matches!(group.begin(claims[0]).try_recv(), Ok(Err(_))));
}

#[test]
fn what_waits_for_its_begin_when_the_partition_goes_is_not_run_and_the_next_commit_says_so() {
    let group = holding(0);
    let claims: Vec<Claim> = (0..4).filter_map(|offset| group.comes(0, offset)).collect();
    // The first is run; the second is asked for once more before it would be, with the third.
    let mut begun = [0, 1].map(|n: usize| group.begin(claims[n]));
    group.committed(&Ok(()), &commit(&group, None).expect("both"));
    assert!(begun.iter_mut().all(|answer| answer.try_recv() == Ok(Ok(()))));
    let mut refused = [1, 2].map(|n: usize| group.begin(claims[n]));
    let flying = commit(&group, None).expect("the third");
    assert_eq!(positions(&flying), [(0, Offset::Offset(0), "amibus2 DQ".to_owned())]);
    group.going(&[0]);
    assert!(refused.iter_mut().all(|answer| matches!(answer.try_recv(), Ok(Err(_)))));
    group.committed(&Ok(()), &flying);
    assert!(group.owes(&[0]));
    let last = commit(&group, Some(&[0])).expect("they were not begun");
    assert_eq!(positions(&last), [(0, Offset::Offset(0), "amibus2 AQ".to_owned())], "only the first was");
    group.committed(&Ok(()), &last);
    assert!(!group.owes(&[0]));
}

#[test]
fn what_is_taken_back_after_its_begin_was_confirmed_is_told_once() {
    let group = holding(0);
    let claim = group.comes(0, 0).expect("new");
    drop(group.begin(claim));
    group.take_back(claim);
    let _nothing = commit(&group, None);
    let mut answer = group.begin(claim);
    group.committed(&Ok(()), &commit(&group, None).expect("it is begun"));
    assert_eq!(answer.try_recv(), Ok(Ok(())));
    group.going(&[0]);
    assert!(!group.owes(&[0]), "nothing waited");
    group.take_back(claim);
    let last = commit(&group, Some(&[0])).expect("it was not run");
    assert_eq!(positions(&last), [(0, Offset::Offset(0), String::new())]);
    group.committed(&Ok(()), &last);
    group.take_back(claim);
    assert!(!group.owes(&[0]), "it is told");
}

#[test]
fn when_the_member_has_ended_nobody_waits() {
    let group = holding(0);
    let (first, second) = (group.comes(0, 0).expect("new"), group.comes(0, 1).expect("new"));
    let going = group.withdrawal(&first).expect("ours");
    let mut waiting = [group.begin(first), group.acknowledge(second)];
    group.end();
    assert!(waiting.iter_mut().all(|answer| matches!(answer.try_recv(), Ok(Err(_)))));
    assert!(going.has_changed().is_err() && !group.holds_any(), "it has gone");
}

#[test]
fn what_was_begun_before_is_told_and_not_begun_again() {
    let group = Group::default();
    group.assigned([0].into_iter());
    group.resume(0, Some(0), "amibus2 Aw");
    let begun = [0, 1].map(|offset| group.comes(0, offset).expect("new"));
    assert_eq!(begun.map(|claim| claim.begun), [false, true]);
    assert!(matches!(group.begin(begun[1]).try_recv(), Ok(Err(_))));
}

#[test]
fn records_that_came_too_early_are_read_again() {
    let group = Group::default();
    group.assigned([0].into_iter());
    group.not_read(0, 7);
    group.not_read(0, 8);
    assert!(group.is_unread(0) && group.is_fresh(0));
    assert_eq!(group.rewinds(Instant::now()), [(0, 7)]);
    group.sought(0, 7, false);
    assert_eq!(group.rewinds(Instant::now()), [(0, 7)], "due again");
    group.sought(0, 7, true);
    assert!(!group.is_unread(0) && group.rewinds(Instant::now()).is_empty());
    group.resume(0, Some(7), "");
    assert!(group.comes(0, 7).is_some());
}
