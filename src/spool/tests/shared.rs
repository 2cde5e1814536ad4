//! Many spools, which share few threads.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    rig::{body, decode, message},
    slow::Slow,
};
use crate::spool::{OpenError, Options, Spool, open::open_on};

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
