//! The whole spool with its threads, on the real disk.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::rig::{decode, message, number, small};
use crate::spool::{
    Batch, OpenError, Options, Reader, Reason, Spool,
    inspect::{ReplayError, inspect, replay, verify},
    open,
    scan::{Since, payloads},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(dir: &tempfile::TempDir, options: Options, buses: &[&str]) -> Arc<Spool> {
    open(dir.path(), options, buses).expect("opens").start(decode()).expect("threads")
}

fn append(spool: &Spool, size: usize) -> u64 {
    number(&spool.append(|n| message(super::rig::body(7, n, n, size)).expect("a message")))
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.messages.iter().map(number).collect()
}

async fn read(reader: &mut Reader, count: usize) -> Vec<u64> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = reader.batch(count - all.len(), 1 << 20);
        let batch = tokio::time::timeout(PATIENCE, batch).await.expect("in time").expect("open");
        assert_eq!(batch.lost, None);
        all.extend(numbers(&batch));
    }
    all
}

#[tokio::test]
async fn lanes_read_independently() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, small(), &["fast", "slow"]);
    let (mut fast, mut slow) = (spool.reader(0), spool.reader(1));
    for expected in 1..=5 {
        assert_eq!(append(&spool, 10), expected);
    }
    assert_eq!(read(&mut fast, 3).await, [1, 2, 3]);
    fast.commit(3);
    assert_eq!(read(&mut fast, 2).await, [4, 5]);
    assert_eq!((spool.backlog(0).waiting, spool.backlog(1).waiting), (2, 5));
    assert_eq!(read(&mut slow, 5).await, [1, 2, 3, 4, 5]);
    slow.commit(5);
    assert_eq!((spool.backlog(1).waiting, spool.backlog(1).oldest), (0, None));
    let oldest = spool.backlog(0).oldest.expect("two wait");
    assert!(oldest <= SystemTime::now());
}

#[tokio::test]
async fn a_lane_that_lags_reads_the_files_and_catches_up() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, small(), &["fast", "slow"]);
    let (mut fast, mut slow) = (spool.reader(0), spool.reader(1));
    for _ in 0..300 {
        append(&spool, 100);
        read(&mut fast, 1).await;
        fast.commit(1);
    }
    assert!(spool.status().segments > 5, "{:?}", spool.status());
    assert_eq!(spool.backlog(1).waiting, 300);
    assert_eq!(read(&mut slow, 300).await, (1..=300).collect::<Vec<_>>());
    append(&spool, 100);
    assert_eq!(read(&mut slow, 1).await, [301]);
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes_but_never_empty() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, small(), &["one"]);
    for _ in 0..2 {
        append(&spool, 5000);
        append(&spool, 10);
    }
    let mut reader = spool.reader(0);
    for expected in 1..=4 {
        let batch = reader.batch(9, 1000).await.expect("open");
        assert_eq!(numbers(&batch), [expected]);
    }
}

#[tokio::test]
async fn dropping_the_future_takes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, Options { cache_bytes: 0, ..small() }, &["one"]);
    let mut reader = spool.reader(0);
    for _ in 0..200 {
        append(&spool, 100);
    }
    let mut all = Vec::new();
    while all.len() < 200 {
        // Polled once and dropped, in the middle of reading a file or not.
        let dropped = poll_once(reader.batch(10, 1 << 20)).await;
        all.extend(dropped.iter().flat_map(numbers));
        if all.len() < 200 {
            let batch = tokio::time::timeout(PATIENCE, reader.batch(10, 1 << 20)).await.expect("in time");
            all.extend(numbers(&batch.expect("open")));
        }
    }
    assert_eq!(all, (1..=200).collect::<Vec<_>>());
}

async fn poll_once<T>(future: impl Future<Output = Option<T>>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        let ready = match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => None,
        };
        std::task::Poll::Ready(ready)
    })
    .await
}

#[tokio::test]
async fn a_closed_spool_is_read_to_its_end_and_goes_on_after() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, small(), &["one", "two"]);
    let identity = spool.identity();
    for _ in 0..50 {
        append(&spool, 100);
    }
    spool.close();
    let mut reader = spool.reader(0);
    assert_eq!(read(&mut reader, 50).await.len(), 50);
    reader.commit(50);
    assert!(reader.batch(9, 1000).await.is_none());
    assert!(spool.finish(PATIENCE));
    let opened = open(dir.path(), small(), &["one", "two"]).expect("free again");
    let recovery = opened.recovery().clone();
    assert!(recovery.clean && !recovery.new_identity && recovery.lost.is_none(), "{recovery:?}");
    assert_eq!((recovery.next, opened.identity()), (51, identity));
    let spool = opened.start(decode()).expect("threads");
    assert_eq!(append(&spool, 100), 51);
    assert_eq!(read(&mut spool.reader(0), 1).await, [51]);
    assert_eq!(read(&mut spool.reader(1), 51).await, (1..=51).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_one_process_has_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, small(), &["one"]);
    assert!(matches!(open(dir.path(), small(), &["one"]), Err(OpenError::InUse(_))));
    assert!(matches!(replay(dir.path(), "one", 1), Err(ReplayError::InUse(_))));
    assert!(spool.finish(PATIENCE));
    assert!(open(dir.path(), small(), &["one"]).is_ok());
}

#[tokio::test]
async fn over_its_bytes_the_oldest_goes_and_is_announced_to_the_bus_that_missed_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, Options { max_bytes: 64 << 10, ..small() }, &["fast", "slow"]);
    let (mut fast, mut slow) = (spool.reader(0), spool.reader(1));
    for expected in 1..=1000 {
        append(&spool, 100);
        assert_eq!(read(&mut fast, 1).await, [expected]);
        fast.commit(1);
    }
    assert!(spool.status().bytes <= 64 << 10, "{:?}", spool.status());
    let (fast, backlog) = (spool.backlog(0), spool.backlog(1));
    assert_eq!((fast.dropped, fast.waiting, backlog.dropped + backlog.waiting), (0, 0, 1000));
    assert!(backlog.dropped > 100, "{backlog:?}");
    let lost = slow.batch(9, 1 << 20).await.expect("open").lost.expect("lost some");
    assert_eq!((lost.first, lost.last, lost.reason), (1, backlog.dropped, Reason::Dropped));
    assert_eq!(read(&mut slow, 1000 - lost.count() as usize).await[0], lost.last + 1);
}

#[tokio::test]
async fn what_is_lost_is_announced_again_until_it_is_committed() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { max_bytes: 64 << 10, ..small() };
    let spool = start(&dir, options.clone(), &["one"]);
    for _ in 0..1000 {
        append(&spool, 100);
        while spool.status().unwritten_bytes > 16 << 10 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while spool.status().unwritten_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut reader = spool.reader(0);
    let lost = reader.batch(9, 1 << 20).await.expect("open").lost.expect("lost some");
    // Told, and the process ends before the bus has it.
    assert!(spool.finish(PATIENCE));
    drop((reader, spool));
    let spool = start(&dir, options.clone(), &["one"]);
    let mut reader = spool.reader(0);
    let again = reader.batch(9, 1 << 20).await.expect("open").lost.expect("again");
    assert_eq!((again.first, again.last), (lost.first, lost.last));
    assert_eq!(numbers(&reader.batch(1, 1 << 20).await.expect("open")), [lost.last + 1]);
    reader.commit(1);
    assert!(spool.finish(PATIENCE));
    drop((reader, spool));
    let spool = start(&dir, options, &["one"]);
    let batch = spool.reader(0).batch(1, 1 << 20).await.expect("open");
    assert_eq!((numbers(&batch), batch.lost), (vec![lost.last + 2], None));
}

#[tokio::test]
async fn a_new_bus_starts_at_the_oldest_and_one_that_left_holds_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, small(), &["here", "leaves"]);
    let mut here = spool.reader(0);
    for _ in 0..200 {
        append(&spool, 100);
    }
    read(&mut here, 200).await;
    here.commit(200);
    assert!(spool.finish(PATIENCE));
    let segments = inspect(dir.path()).expect("readable").segments;
    assert!(segments.len() > 5 && segments[0].first == 1, "the bus that left held them: {segments:?}");
    drop((here, spool));
    let spool = start(&dir, small(), &["here", "new"]);
    assert_eq!(read(&mut spool.reader(1), 200).await[0], 1);
    spool.reader(1).commit(200);
    let deadline = std::time::Instant::now() + PATIENCE;
    while spool.status().segments > 1 {
        assert!(std::time::Instant::now() < deadline, "{:?}", spool.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(spool.finish(PATIENCE));
    let left = inspect(dir.path()).expect("readable");
    assert_eq!((left.cursors["leaves"].next, left.cursors["new"].next, left.next), (1, 201, 201));
    drop(spool);
    // And should it come back, it is told what it missed.
    let spool = start(&dir, small(), &["leaves"]);
    let lost = spool.reader(0).batch(1, 1).await.expect("open").lost.expect("missed");
    assert_eq!((lost.first, lost.last), (1, left.segments[0].first - 1));
}

#[tokio::test]
async fn a_person_can_look_and_have_it_sent_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, small(), &["one", "two"]);
    for _ in 0..100 {
        append(&spool, 100);
    }
    let mut reader = spool.reader(0);
    read(&mut reader, 100).await;
    reader.commit(100);
    assert!(spool.finish(PATIENCE));
    drop((reader, spool));
    let found = verify(dir.path()).expect("readable");
    assert_eq!((found.records, found.holes.len(), found.damages.len()), (100, 0, 0));
    let seen = inspect(dir.path()).expect("readable");
    assert_eq!((seen.next, seen.clean, seen.cursors["two"].behind), (101, true, 100));
    assert_eq!(seen.segments.last().map(|last| last.end), Some(101));
    assert!(matches!(replay(dir.path(), "three", 5), Err(ReplayError::Bus { .. })));
    assert!(matches!(replay(dir.path(), "one", 101), Err(ReplayError::Gone { oldest: 1, last: 100, .. })));
    assert_eq!(replay(dir.path(), "one", 91).expect("set back"), 10);
    let spool = start(&dir, small(), &["one", "two"]);
    assert_eq!(read(&mut spool.reader(0), 10).await, (91..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn old_records_go() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { max_age: Some(Duration::from_millis(200)), ..small() };
    let spool = start(&dir, options, &["one"]);
    for _ in 0..20 {
        append(&spool, 100);
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    while spool.backlog(0).dropped < 20 {
        assert!(std::time::Instant::now() < deadline, "{:?}", spool.backlog(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let batch = spool.reader(0).batch(1, 1).await.expect("open");
    assert_eq!(batch.lost.map(|lost| (lost.first, lost.last)), Some((1, 20)));
    assert_eq!(append(&spool, 100), 21);
}

#[test]
fn nowhere_numbers_messages_and_keeps_none() {
    let spool = Spool::nowhere();
    assert_eq!((append(&spool, 10), append(&spool, 10)), (1, 2));
    assert_eq!((spool.status().unwritten_bytes, spool.finish(Duration::ZERO)), (0, true));
}

#[tokio::test]
async fn a_spool_whose_records_all_went_still_knows_when_the_last_came() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, small(), &["one"]);
    let before = SystemTime::now() - Duration::from_millis(1);
    for _ in 0..100 {
        append(&spool, 100);
    }
    assert!(spool.finish(PATIENCE));
    drop(spool);
    let opened = open(dir.path(), small(), &["one"]).expect("opens");
    let last = opened.recovery().last.expect("known");
    assert!((before..SystemTime::now()).contains(&last));
    drop(opened);
    // A last segment that was begun and holds nothing yet.
    let names = std::fs::read_dir(dir.path())
        .expect("a folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest = names.filter(|name| name.ends_with(".seg")).max().expect("segments");
    let next = crate::spool::format::segment_name(101);
    assert_ne!(newest, next);
    std::fs::write(dir.path().join(next), crate::spool::format::header(101)).expect("written");
    let opened = open(dir.path(), small(), &["one"]).expect("opens");
    let recovery = opened.recovery();
    assert!(recovery.last.is_some_and(|at| at >= before && at <= last), "{recovery:?}");
    assert_eq!((recovery.next, recovery.damages.len()), (101, 0));
}

/// The numbers of the records in the files, from `number` on, and the number behind the last one.
fn found(dir: &tempfile::TempDir, number: u64) -> (Vec<u64>, u64) {
    let (mut all, decode) = (Vec::new(), decode());
    let behind = payloads(dir.path(), Since::number(number), |payload| {
        let message = decode(payload.to_vec().into()).expect("a message");
        all.push(super::rig::number(&message));
        ControlFlow::Continue(())
    });
    (all, behind.expect("reads"))
}

#[tokio::test]
async fn what_is_kept_for_look_ups_stays_after_every_bus_had_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = start(&dir, Options { pinned: true, ..small() }, &["one"]);
    let mut reader = spool.reader(0);
    for _ in 0..300 {
        append(&spool, 100);
    }
    assert_eq!(spool.next(), 301);
    read(&mut reader, 300).await;
    reader.commit(300);
    // Longer than the ledger takes in both slots, and the removal behind it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(found(&dir, 0), ((1..=300).collect(), 301), "nobody said what may go");
    assert_eq!(found(&dir, 250), ((250..=300).collect(), 301));
    assert_eq!(found(&dir, 400), (Vec::new(), 301));
    spool.keep_from(200);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while found(&dir, 0).0.len() > 150 {
        assert!(tokio::time::Instant::now() < deadline, "nothing goes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (left, _) = found(&dir, 0);
    assert!(left.first().is_some_and(|first| *first <= 200), "{:?}", left.first());
    // Its limit holds all the same, to within a segment.
    let large = 20 << 10;
    for _ in 0..100 {
        append(&spool, large);
        read(&mut reader, 1).await;
        reader.commit(1);
    }
    assert!(spool.status().bytes <= small().max_bytes + 2 * large as u64, "{:?}", spool.status());
}
