//! Many spools, which share few threads.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    rig::{body, decode, message, number},
    slow::{REFUSED, Slow},
};
use crate::spool::{OpenError, Options, Recovery, Spool, open::open_on};

const PATIENCE: Duration = Duration::from_secs(30);

fn start(fs: &Slow, dir: &Path) -> Result<Arc<Spool<Slow>>, OpenError> {
    let opened = open_on(fs.clone(), dir, Options::default(), &["one"], [1; 16])?;
    Ok(opened.start(decode()).expect("threads"))
}

fn append(spool: &Spool<Slow>) -> u64 {
    spool.append(|n| message(body(1, n, n, 600)).expect("a message"));
    spool.next() - 1
}

#[tokio::test]
async fn one_whose_disk_hangs_holds_up_none_of_the_others() {
    let (dir, sound, hangs) = (tempfile::tempdir().expect("a folder"), Slow::default(), Slow::default());
    let hung = start(&hangs, &dir.path().join("hung")).expect("opens");
    let others: Vec<_> = (0..100).map(|n| dir.path().join(n.to_string())).collect();
    let spools: Vec<_> = others.iter().map(|dir| start(&sound, dir).expect("opens")).collect();
    hangs.hang(true);
    let held_up = append(&hung);
    for _ in 0..10 {
        for spool in &spools {
            let number = append(spool);
            assert!(spool.written(number).await);
        }
    }
    // Its writer hangs; by now its keeper does as well.
    assert!(!hung.written(held_up).await);
    assert!(!hung.finish(Duration::from_millis(100)));
    for (spool, dir) in spools.iter().zip(&others) {
        assert!(spool.finish(PATIENCE));
        start(&sound, dir).expect("free");
    }
    hangs.hang(false);
    assert!(hung.settled(held_up).await);
    assert!(hung.finish(PATIENCE));
}

#[tokio::test]
async fn spools_that_are_dropped_with_something_to_write_end_in_order() {
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
    let dirs: Vec<_> = (0..50).map(|n| dir.path().join(n.to_string())).collect();
    for dir in &dirs {
        let spool = start(&fs, dir).expect("opens");
        append(&spool);
    }
    for dir in &dirs {
        let again = loop {
            match open_on(fs.clone(), dir, Options::default(), &["one"], [1; 16]) {
                Err(OpenError::InUse(_)) => thread::sleep(Duration::from_millis(1)),
                opened => break opened.expect("opens"),
            }
        };
        // Nothing is missing, and nothing was left to be found out.
        assert_eq!((again.recovery().next, again.recovery().lost.clone()), (2, None));
    }
}

#[tokio::test]
async fn a_panic_in_one_is_as_a_refusal_of_its_disk() {
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
    let other = start(&Slow::default(), &dir.path().join("other")).expect("opens");
    let spool = start(&fs, &dir.path().join("panics")).expect("opens");
    fs.panic(true);
    let number = append(&spool);
    // Told from memory, for the ledger says so; and that shows.
    assert!(!spool.settled(number).await);
    assert!(spool.status().failing.is_some());
    let sound = append(&other);
    assert!(other.written(sound).await);
    fs.panic(false);
    assert!(spool.in_a_file(number).await);
    assert_eq!(spool.status().failing, None);
    assert!(spool.finish(PATIENCE) && other.finish(PATIENCE));
}

/// Of files alone, and as a whole.
fn synced(fs: &Slow) -> [u64; 2] {
    [0, 1].map(|at: usize| fs.synced[at].load(Ordering::Relaxed))
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not {what} in time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_spools_are_synced_at_once_and_none_waits_for_that_to_write() {
    const SPOOLS: u64 = 100;
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::whole());
    let dirs = (0..SPOOLS).map(|n| dir.path().join(n.to_string()));
    let spools: Vec<_> = dirs.map(|dir| start(&fs, &dir).expect("opens")).collect();
    // Each second all of them have something to sync, in two files each.
    let [alone, together] = synced(&fs);
    let began = Instant::now();
    while synced(&fs)[1] < together + 3 {
        assert!(began.elapsed() < PATIENCE, "{:?}", synced(&fs));
        for spool in &spools {
            let number = append(spool);
            assert!(spool.written(number).await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let [alone, together] = [synced(&fs)[0] - alone, synced(&fs)[1] - together];
    assert!(alone < together * SPOOLS / 2, "{alone} files by themselves beside {together} whole syncs");
    // While it hangs, it is written all the same, and what waits for it goes on once it does not.
    fs.hang_syncs(true);
    let asked = synced(&fs)[1];
    for _ in 0..20 {
        for spool in &spools {
            let number = append(spool);
            assert!(spool.written(number).await);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(synced(&fs)[1] <= asked + 1, "{:?} and {asked}", synced(&fs));
    fs.hang_syncs(false);
    until("a sync of all", || synced(&fs)[1] > asked + 1).await;
    // Nor does one end in order whose sync hangs, before it does no more.
    fs.hang_syncs(true);
    for spool in &spools {
        append(spool);
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(!spools[0].finish(Duration::from_millis(100)));
    fs.hang_syncs(false);
    for spool in &spools {
        assert!(spool.finish(PATIENCE));
    }
}

#[tokio::test]
async fn what_was_to_be_synced_when_the_keeper_panicked_is_synced_later() {
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
    let spool = start(&fs, &dir.path().join("panics")).expect("opens");
    fs.syncs_panic.store(true, Ordering::Relaxed);
    let number = append(&spool);
    assert!(spool.written(number).await);
    until("a panic", || fs.panicked.load(Ordering::Relaxed) > 0).await;
    // The segment, and the ledger, which says how far it is.
    let [before, _] = synced(&fs);
    fs.syncs_panic.store(false, Ordering::Relaxed);
    until("both synced", || synced(&fs)[0] >= before + 2).await;
    assert!(spool.finish(PATIENCE));
}

/// Opens a spool anew, in which nothing was lost but what `end` and the numbers behind it stand for, and finds each of those
/// before once.
async fn has_all_before(fs: &Slow, dir: &Path, end: u64) -> Recovery {
    let opened = open_on(fs.clone(), dir, Options::default(), &["one"], [1; 16]).expect("free");
    let recovery = opened.recovery().clone();
    assert!(recovery.lost.as_ref().is_none_or(|lost| lost.first == end), "{recovery:?}");
    let spool = opened.start(decode()).expect("threads");
    let (mut reader, mut next) = (spool.reader(0), 1);
    while next < end {
        let batch = tokio::time::timeout(PATIENCE, reader.batch(100, 1 << 20)).await.expect("in time");
        let batch = batch.expect("open");
        assert_eq!(batch.lost, None);
        for message in batch.messages {
            assert_eq!(number(&message), next);
            next += 1;
        }
    }
    assert_eq!(next, end);
    recovery
}

#[tokio::test]
async fn what_the_writer_panicked_behind_is_written_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut spools = Vec::new();
    // It is the first of its segment or not, and the end of the segment can be synced or not.
    for (before, refuses) in [(0, false), (2, false), (0, true), (2, true)] {
        let (dir, fs) = (dir.path().join(format!("{before}-{refuses}")), Slow::default());
        let spool = start(&fs, &dir).expect("opens");
        for _ in 0..before {
            let number = append(&spool);
            assert!(spool.written(number).await);
        }
        fs.marks_panic.store(true, Ordering::Relaxed);
        let number = append(&spool);
        until("a panic", || spool.status().failing.is_some()).await;
        fs.refuses_syncs.store(refuses, Ordering::Relaxed);
        fs.marks_panic.store(false, Ordering::Relaxed);
        if refuses {
            until("refused", || spool.status().failing.is_some_and(|why| why == REFUSED)).await;
            fs.refuses_syncs.store(false, Ordering::Relaxed);
        }
        assert!(spool.in_a_file(number).await);
        append(&spool);
        spools.push((spool, dir, fs));
    }
    // What is not needed any more is removed meanwhile.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for (spool, dir, fs) in spools {
        let end = spool.next();
        assert!(spool.finish(PATIENCE));
        let recovery = has_all_before(&fs, &dir, end).await;
        assert_eq!((recovery.clean, recovery.lost, recovery.next), (true, None, end), "{}", dir.display());
    }
}

#[tokio::test]
async fn a_panic_in_the_last_turn_ends_it_as_a_kill_does() {
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
    for (marks, syncs) in [(true, false), (false, true)] {
        let dir = dir.path().join(format!("{marks}"));
        let spool = start(&fs, &dir).expect("opens");
        let number = append(&spool);
        assert!(spool.written(number).await);
        fs.marks_panic.store(marks, Ordering::Relaxed);
        fs.syncs_panic.store(syncs, Ordering::Relaxed);
        append(&spool);
        assert!(spool.finish(PATIENCE), "it ends");
        fs.marks_panic.store(false, Ordering::Relaxed);
        fs.syncs_panic.store(false, Ordering::Relaxed);
        let recovery = has_all_before(&fs, &dir, 3).await;
        assert!(!recovery.clean);
        // What no mark tells of may have gone out from memory, and more behind it.
        assert_eq!(recovery.lost.is_some(), marks, "{recovery:?}");
    }
}
