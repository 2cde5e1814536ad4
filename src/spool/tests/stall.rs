//! A disk that is slow, hangs, or is full.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;

use super::{
    model::{Death, Model},
    rig::{BUSES, DIR, Rig, body, decode, message, number, small},
    slow::Slow,
};
use crate::spool::{
    OpenError, Options, Reader, Reason, Spool,
    engine::{Wrote, is_full},
    inspect::verify_on,
    open::open_on,
};

use crate::spool::shell::WRITTEN_WITHIN;

const PATIENCE: Duration = Duration::from_secs(30);
/// What the reader of Asterisk may be held up.
const STALL_MOST: Duration = Duration::from_millis(300);

fn start(fs: &Slow, dir: &Path, options: Options) -> Arc<Spool<Slow>> {
    let opened = open_on(fs.clone(), dir, options, &["one"], [1; 16]).expect("opens");
    opened.start(decode()).expect("threads")
}

/// How long the machine itself held up a thread that only sleeps, at most.
struct Noise(Arc<AtomicBool>, std::thread::JoinHandle<Duration>);

impl Noise {
    fn listen() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let before = Instant::now();
                std::thread::sleep(Duration::from_millis(1));
                longest = longest.max(before.elapsed());
            }
            longest
        });
        Self(stop, thread)
    }

    /// Whether an append was held up by more than that.
    fn check(self, longest: Duration) {
        self.0.store(true, Ordering::Relaxed);
        let noise = self.1.join().expect("it only sleeps");
        assert!(longest < STALL_MOST + 2 * noise, "{longest:?}, and the machine {noise:?}");
    }
}

/// Appends at about `rate` a second; answers the longest that one took.
async fn load(spool: &Spool<Slow>, count: u64, rate: u64) -> Duration {
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    for done in 0..count {
        let before = Instant::now();
        spool.append(|n| message(body(1, n, n, 600)).expect("a message"));
        longest = longest.max(before.elapsed());
        let due = Duration::from_micros(done * 1_000_000 / rate);
        if done % 64 == 0 && began.elapsed() < due {
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    longest
}

async fn read_all(reader: &mut Reader<Slow>, count: u64) {
    let mut next = 1;
    while next <= count {
        let batch = tokio::time::timeout(PATIENCE, reader.batch(1000, 1 << 20)).await.expect("in time");
        let batch = batch.expect("open");
        assert_eq!(batch.lost, None);
        for message in &batch.messages {
            assert_eq!(number(message), next);
            next += 1;
        }
        reader.commit(batch.messages.len());
    }
}

#[tokio::test]
async fn a_slow_sync_does_not_hold_up_the_reader_of_asterisk() {
    for flush_interval in [Duration::ZERO, Duration::from_millis(100)] {
        let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
        let spool = start(&fs, dir.path(), Options { flush_interval, ..Options::default() });
        // Longer than an append may take, so that one that waits for it shows.
        fs.sync_millis.store(1000, Ordering::Relaxed);
        let (mut reader, noise) = (spool.reader(0), Noise::listen());
        let (longest, ()) = tokio::join!(load(&spool, 3_000, 10_000), read_all(&mut reader, 3_000));
        noise.check(longest);
        fs.sync_millis.store(0, Ordering::Relaxed);
        assert!(spool.finish(PATIENCE));
    }
}

#[tokio::test]
async fn a_disk_that_hangs_for_five_seconds_costs_nothing() {
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
    let spool = start(&fs, dir.path(), Options::default());
    let mut reader = spool.reader(0);
    load(&spool, 100, 10_000).await;
    fs.hang(true);
    let noise = Noise::listen();
    noise.check(load(&spool, 50_000, 10_000).await);
    assert!(spool.status().unwritten_bytes > 30_000_000, "{:?}", spool.status());
    fs.hang(false);
    read_all(&mut reader, 50_100).await;
    assert!(spool.finish(PATIENCE));
}

#[tokio::test]
async fn whoever_waits_for_a_record_to_be_written_waits_for_the_disk_and_not_for_ever() {
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
    let spool = start(&fs, dir.path(), Options::default());
    load(&spool, 10, 10_000).await;
    assert!(spool.written(10).await);
    fs.hang(true);
    load(&spool, 1, 10_000).await;
    let began = Instant::now();
    let waited = tokio::time::timeout(PATIENCE, spool.written(11)).await.expect("bounded");
    assert!(!waited && began.elapsed() >= WRITTEN_WITHIN, "{:?}", began.elapsed());
    let written = spool.written(11);
    fs.hang(false);
    assert!(written.await);
    assert!(spool.finish(PATIENCE));
    assert!(!spool.written(12).await, "nothing comes after the end");
}

#[tokio::test]
async fn a_disk_that_hangs_for_longer_costs_the_oldest_and_that_is_announced() {
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
    let options = Options { buffer_bytes: 1 << 20, cache_bytes: 0, ..Options::default() };
    let spool = start(&fs, dir.path(), options);
    let mut reader = spool.reader(0);
    load(&spool, 10, 10_000).await;
    read_all(&mut reader, 10).await;
    assert!(!spool.is_behind());
    fs.hang(true);
    load(&spool, 10_000, 1_000_000).await;
    assert!(spool.status().unwritten_bytes <= 1 << 20, "{:?}", spool.status());
    assert!(spool.is_behind());
    fs.hang(false);
    let (mut next, mut lost) = (11, 0);
    while next <= 10_010 {
        let batch = tokio::time::timeout(PATIENCE, reader.batch(1000, 1 << 20)).await.expect("in time");
        let batch = batch.expect("open");
        if let Some(gap) = &batch.lost {
            assert_eq!((gap.first, gap.reason), (next, Reason::Dropped));
            next = gap.last + 1;
            lost += gap.count();
        }
        for message in &batch.messages {
            assert_eq!(number(message), next);
            next += 1;
        }
        reader.commit(batch.messages.len());
    }
    assert!(lost > 5_000, "{lost}");
    assert!(!spool.is_behind(), "all of it is written");
    assert_eq!((spool.backlog(0).dropped, spool.backlog(0).waiting), (lost, 0));
}

/// As a lane asks that has messages on its way: it does not wait.
#[tokio::test]
async fn a_disk_that_refuses_reads_for_a_second_costs_nothing_however_often_it_is_asked() {
    let (dir, fs) = (tempfile::tempdir().expect("a folder"), Slow::default());
    let spool = start(&fs, dir.path(), Options { cache_bytes: 0, ..Options::default() });
    let mut reader = spool.reader(0);
    load(&spool, 100, 10_000).await;
    assert!(spool.in_a_file(100).await);
    fs.refuses_reads.store(true, Ordering::Relaxed);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let asked = reader.batch(1000, 1 << 20).now_or_never();
        assert!(asked.is_none(), "{:?}: {asked:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fs.refuses_reads.store(false, Ordering::Relaxed);
    read_all(&mut reader, 100).await;
    assert!(spool.finish(PATIENCE));
}

/// A hundred records, of which the slow bus has taken none.
fn filled(fs: &Model) -> Rig {
    let mut rig = Rig::open(fs, small(), &BUSES, 1).expect("alive");
    for salt in 0..100 {
        rig.append(salt, 300);
        rig.write();
    }
    rig.drain(0);
    assert!(rig.sync() && rig.store());
    rig
}

#[test]
fn on_a_full_disk_the_oldest_segments_go_and_publishing_goes_on() {
    let fs = Model::new(1);
    let mut rig = filled(&fs);
    fs.set_free(Some(1000));
    for salt in 0..100 {
        let (number, _) = rig.append(salt, 300);
        rig.write();
        assert_eq!(rig.drain(0).numbers(), [number]);
    }
    let dropped = rig.engine.lock().backlog(1).dropped;
    assert!((80..110).contains(&dropped), "{dropped}: as many went as came, but for whole segments");
    let seen = rig.drain(1);
    assert_eq!(seen.lost.iter().map(|lost| (lost.first, lost.last)).collect::<Vec<_>>(), [(1, dropped)]);
    assert!(seen.lost.iter().all(|lost| lost.reason == Reason::Dropped));
    assert_eq!(seen.numbers(), (dropped + 1..=200).collect::<Vec<_>>());
    fs.set_free(None);
    assert!(verify_on(&fs, DIR.as_ref()).expect("readable").damages.is_empty());
}

#[test]
fn on_a_full_disk_it_starts_all_the_same() {
    let fs = Model::new(1);
    let mut rig = filled(&fs);
    assert!(rig.store());
    fs.crash(Death::Kill);
    fs.set_free(Some(0));
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    // Nothing goes before something else needs its room.
    let seen = rig.drain(1);
    assert_eq!((seen.numbers(), seen.lost), ((1..=100).collect::<Vec<_>>(), Vec::new()));
    let (number, _) = rig.append(0, 300);
    rig.write();
    assert_eq!((rig.drain(1).numbers(), rig.engine.lock().failing.clone()), (vec![number], None));
}

#[test]
fn on_a_full_disk_it_starts_with_the_one_segment_that_it_has() {
    let fs = Model::new(1);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let identity = rig.engine.identity;
    rig.append(0, 100);
    rig.write();
    fs.crash(Death::Kill);
    fs.set_free(Some(0));
    for boot in [1, 2] {
        let opened = open_on(fs.clone(), Path::new(DIR), small(), &BUSES, [boot; 16]);
        // Another life of the machine leaves a hole, and that needs room.
        let full = matches!(&opened, Err(OpenError::Io { source, .. }) if is_full(source));
        assert_eq!((opened.is_ok(), full), (boot == 1, boot == 2));
        fs.crash(Death::Kill);
    }
    fs.set_free(None);
    let mut rig = Rig::open(&fs, small(), &BUSES, 2).expect("alive");
    assert_ne!(rig.engine.identity, identity);
    assert_eq!(rig.drain(0).numbers(), [1]);
}

#[test]
fn a_disk_that_refuses_does_not_slow_down_what_is_read() {
    let fs = Model::new(1);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let is_behind = |rig: &Rig| rig.engine.lock().is_behind();
    fs.set_free(Some(0));
    for salt in 0..100 {
        rig.append(salt, 400);
    }
    assert!(is_behind(&rig), "it is not known yet that it refuses");
    assert!(matches!(rig.engine.write_step(&mut rig.log), Wrote::Failed));
    assert!(!is_behind(&rig), "nothing is gained by waiting");
    fs.set_free(None);
    rig.write();
    assert!(!is_behind(&rig) && rig.engine.lock().pending.is_empty());
}

#[test]
fn on_a_full_disk_with_nothing_to_give_events_go_out_from_memory() {
    let fs = Model::new(1);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    rig.append(0, 100);
    rig.write();
    assert_eq!(rig.drain(0).numbers(), [1]);
    fs.set_free(Some(0));
    for salt in 0..50 {
        rig.append(salt, 100);
    }
    assert!(matches!(rig.engine.write_step(&mut rig.log), Wrote::Failed));
    assert!(rig.drain(0).messages.is_empty(), "not before the ledger says so");
    // Which is written in place, and takes no room.
    assert!(rig.store());
    assert_eq!(
        (rig.drain(0).next, rig.engine.lock().settled(2)),
        (None, None),
        "one slot alone may be damaged"
    );
    assert!(rig.store());
    assert_eq!(rig.drain(0).numbers(), (2..=51).collect::<Vec<_>>());
    let settled = |number| rig.engine.lock().settled(number);
    assert_eq!(
        (settled(1), settled(2), settled(51), settled(52)),
        (Some(true), Some(false), Some(false), None)
    );
    let identity = rig.engine.identity;
    // There is room again.
    fs.set_free(None);
    rig.write();
    assert_eq!(rig.drain(1).numbers(), (1..=51).collect::<Vec<_>>());
    assert!(rig.engine.lock().ledger_is_wanted(), "or a kill would leave open what went out");
    assert!(rig.store() && rig.store() && !rig.engine.lock().ledger_is_wanted());
    fs.crash(Death::Kill);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    assert_eq!((rig.engine.identity, rig.drain(0).lost), (identity, Vec::new()));
}

#[test]
fn what_went_out_from_memory_only_is_not_numbered_again_after_a_kill() {
    [0, 1].into_iter().for_each(from_memory_only);
}

fn from_memory_only(spoilt: usize) {
    let fs = Model::new(1);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let identity = rig.engine.identity;
    rig.append(0, 100);
    rig.write();
    fs.set_free(Some(0));
    for salt in 0..50 {
        rig.append(salt, 100);
    }
    assert!(matches!(rig.engine.write_step(&mut rig.log), Wrote::Failed));
    assert!(rig.store() && rig.store());
    assert_eq!(rig.drain(0).messages.len(), 51);
    // More than the ledger knows of.
    rig.append(50, 100);
    assert_eq!(rig.drain(0).numbers(), [52]);
    fs.set_free(None);
    fs.crash(Death::Kill);
    // Whichever slot of the ledger cannot be read, the other says that more went out than was written.
    fs.spoil("ledger", |bytes| bytes[4096 * spoilt + 100] ^= 1);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    assert_ne!(rig.engine.identity, identity);
    let lost = rig.drain(1).lost;
    // As far as numbers were reserved, for nobody knows how many of them went out.
    assert!(matches!(lost.as_slice(), [one] if one.first == 2 && one.last > 52), "{lost:?}");
}

#[test]
fn nor_when_only_some_of_it_was_written_before_the_kill() {
    let fs = Model::new(1);
    let mut rig = Rig::open(&fs, Options { cache_bytes: 0, ..small() }, &BUSES, 1).expect("alive");
    let identity = rig.engine.identity;
    fs.set_free(Some(0));
    for salt in 0..10 {
        rig.append(salt, 100);
    }
    assert!(matches!(rig.engine.write_step(&mut rig.log), Wrote::Failed));
    assert!(rig.store() && rig.store());
    assert_eq!(rig.drain(0).messages.len(), 10);
    for salt in 10..20 {
        rig.append(salt, 100);
    }
    assert_eq!(rig.drain(0).messages.len(), 10);
    // The ledger knows of ten, and just these are written.
    fs.set_free(None);
    while rig.engine.lock().written < 11 {
        assert!(matches!(rig.engine.write_step(&mut rig.log), Wrote::Chunk));
    }
    assert_eq!(rig.engine.lock().written, 11);
    fs.crash(Death::Kill);
    let rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let lost =
        rig.recovery.lost.clone().expect("11 to 20 went out to one bus, and the other does not get them");
    assert!(lost.first == 11 && lost.last > 20 && rig.recovery.next == lost.last + 1, "{lost:?}");
    assert_ne!(rig.engine.identity, identity);
}
