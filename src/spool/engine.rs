//! The work on the files, in steps that [`turns`](super::turns) are made of and tests take one by one.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::{
    fs::{Disk, Filesystem},
    lane::Lane,
    ledger::{Ledger, LedgerFile, Slot},
    log::{Log, Segment, Unsynced},
    options::Options,
    pending::Chunk,
    pool::Caller,
    state::{RESERVE_MAX, RESERVE_MIN, RESERVE_TIMES, State},
    together::Shared,
};

/// How long a spool waits for a sync that another one makes for all, before it has its own.
const UNDERWAY_FOR: Duration = Duration::from_secs(1);

/// What everybody who works on one spool shares.
pub(super) struct Engine<F: Filesystem> {
    pub(super) fs: F,
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) names: Vec<String>,
    pub(super) identity: u64,
    pub(super) origin: u64,
    pub(super) boot: [u8; 16],
    pub(super) state: Mutex<State>,
    /// Who writes, once there is somebody.
    pub(super) writer: OnceLock<Caller>,
    /// Who syncs and keeps the ledger, likewise.
    pub(super) keeper: OnceLock<Caller>,
    /// Tells whoever finishes that everything has ended.
    pub(super) over: Condvar,
    pub(super) ready: Vec<Notify>,
    /// Tells those who wait for their records to be written.
    pub(super) passed: Notify,
    pub(super) unsynced: Mutex<Unsynced<F>>,
    pub(super) file_lock: Mutex<Option<F::Lock>>,
}

impl Engine<Disk> {
    /// Without buses and files.
    pub(super) fn nowhere() -> Self {
        let options = Options::default();
        let mut state = State::new(&options, 1, Vec::new(), Vec::new());
        state.ended = true;
        Self {
            fs: Disk,
            dir: PathBuf::new(),
            options,
            names: Vec::new(),
            identity: 0,
            origin: 0,
            boot: [0; 16],
            state: Mutex::new(state),
            writer: OnceLock::new(),
            keeper: OnceLock::new(),
            over: Condvar::new(),
            ready: Vec::new(),
            passed: Notify::new(),
            unsynced: Mutex::new(Unsynced::nothing()),
            file_lock: Mutex::new(None),
        }
    }
}

/// What a step of the writer did.
#[derive(Debug)]
pub(super) enum Wrote {
    Nothing,
    Chunk,
    Failed,
}

/// What the keeper has.
pub(super) struct Keeper<F: Filesystem> {
    pub(super) file: LedgerFile<F>,
    pub(super) last: Ledger,
    /// Cursors of buses that are not configured.
    pub(super) others: BTreeMap<String, u64>,
}

impl<F: Filesystem + Clone> Engine<F> {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another process may open the spool from now on.
    pub(super) fn give_free(&self) {
        *self.file_lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// There is something to write.
    pub(super) fn call_writer(&self) {
        self.writer.get().into_iter().for_each(Caller::call);
    }

    /// A ledger is wanted, or the writer has ended.
    pub(super) fn call_keeper(&self) {
        self.keeper.get().into_iter().for_each(Caller::call);
    }

    pub(super) fn wake_lanes(&self) {
        self.ready.iter().for_each(Notify::notify_one);
        self.passed.notify_waiters();
    }

    /// Writes one chunk.
    pub(super) fn write_step(&self, log: &mut Log<F>) -> Wrote {
        let (chunk, roll, reserved, cursors) = {
            let mut state = self.lock();
            let Some(chunk) = state.pending.begin() else { return Wrote::Nothing };
            let cursors: Vec<u64> = state.lanes.iter().map(Lane::committed).collect();
            (chunk, std::mem::take(&mut state.roll), state.reserved(), cursors)
        };
        let cursors = self.names.iter().cloned().zip(cursors).collect();
        let mark = Ledger { next: chunk.end, reserved, cursors, ..self.ledger() };
        let sealed = if roll { log.seal() } else { Ok(()) };
        let written = sealed.and_then(|()| self.write(log, &chunk, &mark));
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).join(log.take_unsynced());
        let mut state = self.lock();
        self.list(&mut state, log);
        let (wrote, wanted) = match written {
            Ok(()) => {
                state.written = chunk.end;
                state.pending.written(chunk);
                if state.failing.take().is_some() {
                    info!(dir = %self.dir.display(), "the spool is written again");
                    state.degraded = false;
                }
                (Wrote::Chunk, state.ledger_is_wanted())
            }
            Err(failed) => {
                state.roll |= roll;
                (Wrote::Failed, self.failed(&mut state, &failed.to_string()))
            }
        };
        drop(state);
        if wanted {
            self.call_keeper();
        }
        self.wake_lanes();
        wrote
    }

    /// A write has failed; says whether the ledger should say so at once.
    pub(super) fn failed(&self, state: &mut State, why: &str) -> bool {
        state.pending.failed();
        let is_first = state.failing.replace(why.to_owned()).is_none();
        if is_first {
            error!(dir = %self.dir.display(), error = why, "cannot write the spool; events are in memory only");
        }
        is_first
    }

    /// What the ledger and the mark say all along.
    fn ledger(&self) -> Ledger {
        let synced = self.options.sync_each();
        Ledger { identity: self.identity, origin: self.origin, boot: self.boot, synced, ..Ledger::default() }
    }

    /// Writes a chunk, and the mark behind it: only then may lanes be given it.
    fn write(&self, log: &mut Log<F>, chunk: &Arc<Chunk>, mark: &Ledger) -> io::Result<()> {
        while log.bytes() + chunk.bytes.len() as u64 > self.options.max_bytes && self.evict(log, "max_bytes")
        {
        }
        loop {
            let written = log
                .append(chunk)
                .and_then(|()| log.mark_or_undo(chunk, self.options.sync_each(), mark.clone()));
            match written {
                Err(error) if is_full(&error) && self.evict(log, "the disk is full") => {}
                other => return other,
            }
        }
    }

    /// Removes the oldest segment, read or not. What was not read is lost before the file is gone.
    fn evict(&self, log: &mut Log<F>, cause: &str) -> bool {
        let mut state = self.lock();
        self.list(&mut state, log);
        let Some(oldest) = log.segments().front().filter(|_| log.segments().len() > 1) else { return false };
        let first = oldest.first;
        state.evict_oldest();
        let dropped: Vec<u64> = state.lanes.iter().map(Lane::dropped).collect();
        drop(state);
        warn!(dir = %self.dir.display(), first, cause, ?dropped, buses = ?self.names, "the oldest segment goes");
        self.wake_lanes();
        log.remove_oldest()
    }

    /// Removes what every lane is done with, and what is too old.
    pub(super) fn clean_step(&self, log: &mut Log<F>, now: SystemTime) {
        let done = {
            let mut state = self.lock();
            self.list(&mut state, log);
            state.done_before()
        };
        while log.segments().get(1).is_some_and(|second| second.first <= done) {
            self.lock().segments.pop_front();
            log.remove_oldest();
        }
        if let Some(age) = self.options.max_age {
            let old = |at: SystemTime, age| at.checked_add(age).is_some_and(|until| until < now);
            if log.segments().back().is_some_and(|last| old(last.from, age / 8)) {
                // Tried again at the next step, as what follows.
                let _ = log.seal();
            }
            if log.segments().back().is_some_and(|last| old(last.until, age)) {
                let written = self.lock().written;
                let _ = log.renew(written, now);
            }
            while log.segments().front().is_some_and(|oldest| old(oldest.until, age))
                && self.evict(log, "max_age")
            {}
        }
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).join(log.take_unsynced());
        self.list(&mut self.lock(), log);
    }

    /// Tells the lanes which segments there are. All but the last stay as they are.
    fn list(&self, state: &mut State, log: &Log<F>) {
        let ends = |list: &VecDeque<Segment>| {
            (list.len(), list.front().map(|segment| segment.first), list.back().map(|segment| segment.first))
        };
        let same = ends(&state.segments) == ends(log.segments());
        match (state.segments.back_mut(), log.segments().back()) {
            (Some(listed), Some(last)) if same => listed.clone_from(last),
            _ => state.segments.clone_from(log.segments()),
        }
    }

    /// Stores the cursors, if they have moved, and whatever else the next start must know. `last` says that nobody
    /// will write or read any more.
    pub(super) fn store_step(&self, keeper: &mut Keeper<F>, last: bool) -> io::Result<()> {
        let begun = self.begin_store(keeper, last)?;
        let synced = begun.slot.as_ref().map_or(Ok(()), |(slot, _)| self.fs.sync(&slot.file));
        self.end_store(keeper, begun, &synced);
        synced
    }

    /// Writes what is to be stored.
    fn begin_store(&self, keeper: &Keeper<F>, last: bool) -> io::Result<Stored<F>> {
        let synced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let (ledger, failing, stored) = {
            let state = self.lock();
            let lanes = self.names.iter().cloned().zip(state.lanes.iter().map(Lane::committed));
            let (failing, ahead) = (state.failing.is_some(), state.is_ahead());
            let next = if ahead || last { state.end } else { state.written };
            let clean = last && synced && state.pending.is_empty();
            let ledger = Ledger {
                clean,
                ahead: ahead || (last && !state.pending.is_empty()),
                next,
                reserved: if clean { next } else { reserve(next, &keeper.last) },
                cursors: keeper.others.clone().into_iter().chain(lanes).collect(),
                ..self.ledger()
            };
            // Twice, so that both slots have it: only then may segments go, and numbers be given out.
            let stored = state.lanes.iter().all(|lane| lane.stored == [lane.committed(); 2])
                && state.reserved == [ledger.reserved; 2]
                && state.ahead == [ledger.ahead; 2];
            (ledger, failing, stored)
        };
        if stored && ledger == keeper.last {
            return Ok(Stored { slot: None, failing });
        }
        match keeper.file.begin(ledger.clone()) {
            Ok(slot) => Ok(Stored { slot: Some((slot, ledger)), failing }),
            Err(error) => {
                self.may_not_say(&ledger);
                Err(error)
            }
        }
    }

    /// A slot may say so by now or not.
    fn may_not_say(&self, ledger: &Ledger) {
        self.lock().ahead.iter_mut().for_each(|ahead| *ahead &= ledger.ahead);
    }

    /// What was written for it is durable, or that failed.
    fn end_store(&self, keeper: &mut Keeper<F>, begun: Stored<F>, synced: &io::Result<()>) {
        let Stored { slot, failing } = begun;
        match slot {
            Some((_, ledger)) if synced.is_err() => return self.may_not_say(&ledger),
            None => {}
            Some((slot, ledger)) => {
                let slot = keeper.file.stored(&slot);
                let mut state = self.lock();
                if let Some(ahead) = state.ahead.get_mut(slot) {
                    *ahead = ledger.ahead;
                }
                if let Some(reserved) = state.reserved.get_mut(slot) {
                    *reserved = ledger.reserved;
                }
                for (name, lane) in self.names.iter().zip(&mut state.lanes) {
                    if let (Some(stored), Some(cursor)) =
                        (lane.stored.get_mut(slot), ledger.cursors.get(name))
                    {
                        *stored = *cursor;
                    }
                }
                keeper.last = ledger;
                drop(state);
                // Some may have waited for numbers.
                self.wake_lanes();
            }
        }
        if failing {
            let mut state = self.lock();
            state.degraded = state.failing.is_some() && state.ahead == [true; 2];
            drop(state);
            self.wake_lanes();
        }
    }

    /// Makes durable what was written.
    pub(super) fn sync_step(&self) -> io::Result<()> {
        let job = self.take_unsynced();
        if job.is_empty() {
            return Ok(());
        }
        job.sync(&self.fs).inspect_err(|_| self.give_back(job))
    }

    fn take_unsynced(&self) -> Unsynced<F> {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *unsynced, Unsynced::nothing())
    }

    fn give_back(&self, job: Unsynced<F>) {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner).join(job);
    }

    /// Begins what [`Self::sync_step`] does, and [`Self::store_step`] if the ledger is to be stored as well: everything
    /// but the sync, which many spools can have at once.
    pub(super) fn begin_keep(&self, keeper: &Keeper<F>, store: bool) -> Kept<F> {
        let stored = match store {
            true => self.begin_store(keeper, false),
            false => Ok(Stored { slot: None, failing: false }),
        };
        Kept { job: self.take_unsynced(), stored: Some(stored), since: Instant::now() }
    }

    /// Goes on with that, `waiting` spools being as far. `None`: another one syncs for all; again shortly.
    pub(super) fn end_keep(
        &self,
        keeper: &mut Keeper<F>,
        kept: &mut Kept<F>,
        waiting: usize,
    ) -> Option<io::Result<()>> {
        let slot = kept.slot().map(Arc::clone);
        let any = slot.as_ref().or(kept.job.files().next());
        let whole = any.map_or(Shared::Done, |any| self.fs.sync_whole(&self.dir, any, kept.since, waiting));
        let (written, ledger) = match whole {
            Shared::Underway if kept.since.elapsed() < UNDERWAY_FOR => return None,
            Shared::Done => (Ok(()), Ok(())),
            // Either may be refused; the ledger is what says so of the other.
            Shared::Underway | Shared::Alone => {
                (kept.job.sync(&self.fs), slot.map_or(Ok(()), |slot| self.fs.sync(&slot)))
            }
        };
        let job = std::mem::replace(&mut kept.job, Unsynced::nothing());
        if written.is_err() {
            self.give_back(job);
        }
        let stored = kept.stored.take().map_or(Ok(()), |stored| {
            self.end_store(keeper, stored?, &ledger);
            ledger
        });
        Some(stored.and(written))
    }

    /// Nothing is known of what the keeper did last, or of what it had begun.
    pub(super) fn forget_keep(&self, kept: Option<Kept<F>>) {
        if let Some(kept) = kept {
            self.give_back(kept.job);
        }
        // Either slot may say anything.
        self.lock().ahead = [false; 2];
    }
}

/// What is being stored.
struct Stored<F: Filesystem> {
    /// What was written, and where; nothing where all is stored already.
    slot: Option<(Slot<F>, Ledger)>,
    /// The disk refused writes by then.
    failing: bool,
}

/// What is to be synced.
pub(super) struct Kept<F: Filesystem> {
    job: Unsynced<F>,
    /// The ledger, until it is told what became of it.
    stored: Option<io::Result<Stored<F>>>,
    /// When all of it had been written.
    since: Instant,
}

impl<F: Filesystem> Kept<F> {
    fn slot(&self) -> Option<&Arc<F::File>> {
        let (slot, _) = self.stored.as_ref()?.as_ref().ok()?.slot.as_ref()?;
        Some(&slot.file)
    }

    /// Whether there is anything to sync.
    pub(super) fn is_something(&self) -> bool {
        !self.job.is_empty() || self.slot().is_some()
    }
}

/// What the ledger is to say next of the numbers that no bus was given. It ascends, since lanes go on meanwhile.
fn reserve(next: u64, last: &Ledger) -> u64 {
    let more = next.saturating_sub(last.next).saturating_mul(RESERVE_TIMES).clamp(RESERVE_MIN, RESERVE_MAX);
    if last.reserved >= next + more / 2 { last.reserved } else { next + more }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
