//! What the threads do for one spool, a turn at a time: its writer writes, its keeper syncs and stores the ledger. A slow
//! sync never holds up the writer.

use std::{
    io,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use tracing::warn;

use super::{
    engine::{Engine, Keeper, Kept, Wrote},
    fs::Filesystem,
    log::Log,
    open::Opened,
    pool::{Job, Next, Pool},
    state::State,
};

/// How often cursors are stored, and what is no longer needed removed.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);
/// The least time between two writes, so that what is appended meanwhile is written as one.
const WRITE_EVERY: Duration = Duration::from_micros(250);
/// The wait after a write that the disk refused, or that panicked.
const WRITE_RETRY: Duration = Duration::from_millis(250);
/// How long a spool waits until it asks whether the sync of another one was done for it too.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// The most threads that write, and the most that sync.
const MOST_THREADS: usize = 64;

static WRITERS: Pool = Pool::new("spool-write", WRITE_EVERY, MOST_THREADS);
static KEEPERS: Pool = Pool::new("spool-keep", Duration::ZERO, MOST_THREADS);

/// Begins to work for a spool. It ends when the spool is `finishing` and everything is written that can be.
pub(super) fn begin<F: Filesystem + Clone>(opened: Opened<F>) -> io::Result<Arc<Engine<F>>> {
    WRITERS.start()?;
    KEEPERS.start()?;
    let Opened { engine, log, keeper, .. } = opened;
    let now = Instant::now();
    let keeping = Keeping {
        engine: Arc::clone(&engine),
        keeper,
        begun: None,
        synced: now,
        stored: now,
        ends: false,
        refused: false,
    };
    // Before there is a writer, which calls it.
    engine.keeper.get_or_init(|| KEEPERS.add(keeping));
    let writing = Writing { engine: Arc::clone(&engine), log, cleaned: now };
    engine.writer.get_or_init(|| WRITERS.add(writing));
    Ok(engine)
}

struct Writing<F: Filesystem> {
    engine: Arc<Engine<F>>,
    log: Log<F>,
    cleaned: Instant,
}

impl<F: Filesystem + Clone> Job for Writing<F> {
    fn turn(&mut self) -> Next {
        let wrote = self.engine.write_step(&mut self.log);
        if self.cleaned.elapsed() >= HOUSEKEEPING_EVERY {
            self.cleaned = Instant::now();
            self.engine.clean_step(&mut self.log, SystemTime::now());
        }
        self.next(&wrote)
    }

    fn panicked(&mut self) -> Next {
        let mut state = self.engine.lock();
        // What it may have written already lies behind the end of its segment then.
        state.roll = true;
        let first = self.engine.failed(&mut state, "the writer panicked");
        drop(state);
        if first {
            self.engine.call_keeper();
        }
        self.engine.wake_lanes();
        self.next(&Wrote::Failed)
    }
}

impl<F: Filesystem + Clone> Writing<F> {
    fn next(&self, wrote: &Wrote) -> Next {
        let mut state = self.engine.lock();
        match wrote {
            Wrote::Nothing | Wrote::Chunk if !state.pending.is_empty() => Next::Now,
            _ if state.finishing => {
                state.writer_ended = true;
                drop(state);
                self.engine.call_keeper();
                Next::Ended
            }
            Wrote::Nothing | Wrote::Chunk => {
                // Seen by the next append, for nothing is appended in between.
                state.writer_waits = true;
                Next::At(self.cleaned + HOUSEKEEPING_EVERY)
            }
            Wrote::Failed => Next::At(Instant::now() + WRITE_RETRY),
        }
    }
}

/// The spools that have something written and wait for it to be durable.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Waits;

impl Waits {
    fn new() -> Self {
        WAITING.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Keeping<F: Filesystem> {
    engine: Arc<Engine<F>>,
    keeper: Keeper<F>,
    /// What is written and not yet known to be durable.
    begun: Option<(Kept<F>, Waits)>,
    synced: Instant,
    stored: Instant,
    /// It has begun its last turn.
    ends: bool,
    /// The disk refused the last time.
    refused: bool,
}

impl<F: Filesystem + Clone> Job for Keeping<F> {
    /// What is due is written in one turn and synced in the next, which comes behind those of all others that are due: one
    /// sync may do for all.
    fn turn(&mut self) -> Next {
        if let Some((kept, _)) = &mut self.begun {
            let waiting = WAITING.load(Ordering::Relaxed);
            let Some(outcome) = self.engine.end_keep(&mut self.keeper, kept, waiting) else {
                return Next::At(Instant::now() + ASK_AGAIN);
            };
            self.begun = None;
            return self.next(false, &outcome);
        }
        let state = self.engine.lock();
        let (last, urgent) = (state.writer_ended, self.is_urgent(&state));
        drop(state);
        if !urgent && Instant::now() < self.due() {
            return Next::At(self.due());
        }
        self.synced = Instant::now();
        if last {
            self.ends = true;
            // Only what is durable by now may be called so in the slot that is written next.
            let synced = self.engine.sync_step();
            let outcome = self.engine.store_step(&mut self.keeper, last).and(synced);
            return self.next(last, &outcome);
        }
        let store = urgent || self.synced >= moment_after(self.stored, HOUSEKEEPING_EVERY);
        if store {
            self.stored = self.synced;
        }
        let mut kept = self.engine.begin_keep(&self.keeper, store);
        if !kept.is_something() {
            let outcome = self.engine.end_keep(&mut self.keeper, &mut kept, 0).unwrap_or(Ok(()));
            return self.next(false, &outcome);
        }
        self.begun = Some((kept, Waits::new()));
        Next::Now
    }

    fn panicked(&mut self) -> Next {
        self.engine.forget_keep(self.begun.take().map(|(kept, _)| kept));
        self.next(self.ends, &Err(io::Error::other("the keeper panicked")))
    }
}

impl<F: Filesystem + Clone> Keeping<F> {
    fn is_urgent(&self, state: &State) -> bool {
        state.writer_ended || (!self.refused && state.ledger_is_wanted())
    }

    fn due(&self) -> Instant {
        let every = match self.engine.options.sync_each() {
            true => HOUSEKEEPING_EVERY,
            false => self.engine.options.flush_interval.min(HOUSEKEEPING_EVERY),
        };
        moment_after(self.synced, every)
    }

    fn next(&mut self, last: bool, outcome: &io::Result<()>) -> Next {
        match outcome {
            Err(error) if !self.refused => {
                warn!(dir = %self.engine.dir.display(), %error, "cannot sync the spool");
            }
            _ => {}
        }
        self.refused = outcome.is_err();
        if last {
            self.engine.give_free();
            self.engine.lock().ended = true;
            self.engine.over.notify_all();
            self.engine.passed.notify_waiters();
            return Next::Ended;
        }
        match self.is_urgent(&self.engine.lock()) {
            true => Next::Now,
            false => Next::At(self.due()),
        }
    }
}

/// The next of the moments after `last` that follow each other by `every`: the same ones for all spools.
fn moment_after(last: Instant, every: Duration) -> Instant {
    static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);
    let since = last.saturating_duration_since(*BEGINNING).as_nanos();
    let every = every.as_nanos().max(1);
    last + Duration::from_nanos(u64::try_from(every - since % every).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spools_are_due_at_the_same_moments() {
        const EVERY: Duration = Duration::from_millis(300);
        let begun = moment_after(Instant::now(), EVERY);
        for millis in 0..299 {
            let last = begun + Duration::from_millis(millis);
            assert_eq!(moment_after(last, EVERY), begun + EVERY, "{millis} ms");
        }
        assert_eq!(moment_after(begun + EVERY, EVERY), begun + 2 * EVERY);
    }
}
