//! The threads that all spools share, with jobs that only count, hang and panic.

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use crate::spool::pool::{Caller, Job, Next, Pool};

const PATIENCE: Duration = Duration::from_secs(30);
const PACE: Duration = Duration::from_micros(250);
/// More than a turn waits where nothing is held up, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A pool that outlives the test, as that of the process does.
fn pool(most: usize) -> &'static Pool {
    let pool: &'static Pool = Box::leak(Box::new(Pool::new("test", PACE, most)));
    pool.start().expect("threads");
    pool
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not {what} in time");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A job of which a test says what it does.
struct Does<T>(T);

impl<T: FnMut() -> Next + Send> Job for Does<T> {
    fn turn(&mut self) -> Next {
        (self.0)()
    }

    fn panicked(&mut self) -> Next {
        later()
    }
}

fn later() -> Next {
    Next::At(Instant::now() + LONG)
}

/// Counts its turns.
fn counting(pool: &'static Pool) -> (Caller, Arc<AtomicU64>) {
    let turns = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&turns);
    let caller = pool.add(Does(move || {
        count.fetch_add(1, SeqCst);
        later()
    }));
    (caller, turns)
}

/// Jobs wait here until they are let go.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn wait(&self) {
        let open = self.0.0.lock().expect("held shortly");
        drop(self.0.1.wait_while(open, |open| !*open).expect("held shortly"));
    }

    fn open(&self) {
        *self.0.0.lock().expect("held shortly") = true;
        self.0.1.notify_all();
    }
}

/// A job that waits at a gate each turn.
fn held_up(pool: &'static Pool, gate: &Gate) -> Caller {
    let gate = gate.clone();
    pool.add(Does(move || {
        gate.wait();
        later()
    }))
}

#[test]
fn each_call_is_followed_by_a_turn_and_a_job_has_one_at_a_time() {
    const JOBS: usize = 300;
    const CALLS: usize = 20_000;
    let pool = pool(4);
    let overlaps = Arc::new(AtomicUsize::new(0));
    let job = |_| {
        let (asked, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (asks, sees, busy) = (Arc::clone(&asked), Arc::clone(&seen), AtomicBool::new(false));
        let overlaps = Arc::clone(&overlaps);
        let caller = pool.add(Does(move || {
            overlaps.fetch_add(usize::from(busy.swap(true, SeqCst)), SeqCst);
            sees.store(asks.load(SeqCst), SeqCst);
            busy.store(false, SeqCst);
            later()
        }));
        (caller, asked, seen)
    };
    let jobs: Vec<_> = (0..JOBS).map(job).collect();
    thread::scope(|scope| {
        for salt in 0..4 {
            let jobs = &jobs;
            scope.spawn(move || {
                for call in 0..CALLS {
                    let (caller, asked, _) = &jobs[(call * (2 * salt + 1) + salt) % JOBS];
                    asked.fetch_add(1, SeqCst);
                    caller.call();
                }
            });
        }
    });
    until("all seen", || jobs.iter().all(|(_, asked, seen)| asked.load(SeqCst) == seen.load(SeqCst)));
    assert_eq!(overlaps.load(SeqCst), 0);
}

#[test]
fn many_jobs_need_one_thread() {
    let pool = pool(64);
    let jobs: Vec<_> = (0..1_000).map(|_| counting(pool)).collect();
    until("each had its first turn", || jobs.iter().all(|(_, turns)| turns.load(SeqCst) > 0));
    // A busy machine may have had others help.
    assert!(pool.threads() < 64, "{}", pool.threads());
}

#[test]
fn whatever_hangs_holds_up_itself_alone_up_to_as_many_as_there_are_threads() {
    const MOST: usize = 4;
    let (pool, gate) = (pool(MOST), Gate::default());
    let others: Vec<_> = (0..50).map(|_| counting(pool)).collect();
    let goes_on = |hung: usize| {
        let before: Vec<u64> = others.iter().map(|(_, turns)| turns.load(SeqCst)).collect();
        others.iter().for_each(|(caller, _)| caller.call());
        let had = || others.iter().zip(&before).all(|((_, turns), before)| turns.load(SeqCst) > *before);
        until(&format!("going on beside {hung}"), had);
    };
    let mut hung = Vec::new();
    for count in 1..MOST {
        hung.push(held_up(pool, &gate));
        goes_on(count);
        // And once it has been seen that they hang.
        thread::sleep(Duration::from_millis(50));
        goes_on(count);
    }
    hung.push(held_up(pool, &gate));
    // All hang: what is asked for now waits for one of them, and is not forgotten.
    thread::sleep(Duration::from_millis(100));
    let (caller, turns) = &others[0];
    let before = turns.load(SeqCst);
    caller.call();
    thread::sleep(Duration::from_millis(200));
    assert_eq!((turns.load(SeqCst), pool.threads()), (before, MOST));
    gate.open();
    goes_on(0);
}

#[test]
fn one_that_always_has_more_to_do_does_not_keep_the_others_from_theirs() {
    let pool = pool(1);
    let stop = Arc::new(AtomicBool::new(false));
    for _ in 0..3 {
        let stop = Arc::clone(&stop);
        pool.add(Does(move || if stop.load(SeqCst) { Next::Ended } else { Next::Now }));
    }
    let (caller, turns) = counting(pool);
    for turn in 1..100 {
        caller.call();
        until("its turn", || turns.load(SeqCst) >= turn);
    }
    stop.store(true, SeqCst);
}

#[test]
fn a_turn_comes_at_its_moment_or_when_it_is_called_before() {
    const AFTER: Duration = Duration::from_millis(200);
    let pool = pool(2);
    let (tell, told) = channel();
    let tell: Sender<Instant> = tell;
    let caller = pool.add(Does(move || {
        tell.send(Instant::now()).expect("the test listens");
        Next::At(Instant::now() + AFTER)
    }));
    let turn = || told.recv_timeout(PATIENCE).expect("in time");
    let (first, second) = (turn(), turn());
    assert!(second - first >= AFTER, "{:?}", second - first);
    // Called at once after a turn: well before its moment, unless the machine is that busy.
    let called = (0..20).any(|_| {
        let before = turn();
        caller.call();
        turn() - before < AFTER
    });
    assert!(called);
}

#[test]
fn what_has_ended_is_dropped_and_called_in_vain() {
    let (pool, held) = (pool(2), Arc::new(()));
    let holds = Arc::clone(&held);
    let caller = pool.add(Does(move || {
        let _ = &holds;
        Next::Ended
    }));
    until("dropped", || Arc::strong_count(&held) == 1);
    caller.call();
    let (_, turns) = counting(pool);
    until("its turn", || turns.load(SeqCst) == 1);
}

#[test]
fn a_panic_ends_nothing() {
    let pool = pool(1);
    let (other, turns) = counting(pool);
    let tries = Arc::new(AtomicU64::new(0));
    let tried = Arc::clone(&tries);
    let caller = pool.add(Does(move || -> Next {
        tried.fetch_add(1, SeqCst);
        panic!("as a test wants it")
    }));
    for turn in 1..5 {
        until("tried", || tries.load(SeqCst) >= turn);
        let before = turns.load(SeqCst);
        other.call();
        until("the other's turn", || turns.load(SeqCst) > before);
        caller.call();
    }
}

#[test]
fn threads_that_nobody_needs_end() {
    let (pool, gate) = (pool(8), Gate::default());
    let held: Vec<_> = (0..6).map(|_| held_up(pool, &gate)).collect();
    until("there are more", || pool.threads() > 6);
    gate.open();
    until("some have ended", || pool.threads() <= 4);
    held.iter().for_each(Caller::call);
    let (_, turns) = counting(pool);
    until("its turn", || turns.load(SeqCst) == 1);
}

/// However the calls fall, a thread rests between two rounds.
#[test]
fn one_thread_takes_its_turns_no_faster_than_its_pace() {
    const CALLS: usize = 600;
    let pool = pool(1);
    let taken = Arc::new(Mutex::new(Vec::new()));
    let takes = Arc::clone(&taken);
    let caller = pool.add(Does(move || {
        takes.lock().expect("held shortly").push(Instant::now());
        later()
    }));
    // Calls that come while it rests, and such as find it asleep.
    for pause in [PACE / 4, PACE / 4, 3 * PACE].into_iter().cycle().take(CALLS) {
        caller.call();
        let called = Instant::now();
        while called.elapsed() < pause {
            std::hint::spin_loop();
        }
    }
    let taken = taken.lock().expect("held shortly");
    let short = taken.windows(2).filter(|pair| pair[1] - pair[0] < PACE / 2).count();
    // A thread that the system holds up just before it looks at the clock seems to be early the next time.
    assert!(taken.len() > 10 && short < taken.len() / 8, "{short} of {} too early", taken.len());
}
