//! The work on the files, in steps that the threads take in turn and tests take one by one.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::{
    fs::{Disk, Filesystem},
    lane::Lane,
    ledger::{Ledger, LedgerFile},
    log::{Log, Segment, Unsynced},
    options::Options,
    pending::Chunk,
    state::{RESERVE_MAX, RESERVE_MIN, RESERVE_TIMES, State},
};

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
    /// Tells the writer that there is something to write.
    pub(super) work: Condvar,
    /// Tells the keeper that a ledger is wanted, and whoever finishes that a thread has ended.
    pub(super) keep: Condvar,
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
            work: Condvar::new(),
            keep: Condvar::new(),
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
        let wrote = match written {
            Ok(()) => {
                state.written = chunk.end;
                state.pending.written(chunk);
                if state.failing.take().is_some() {
                    info!(dir = %self.dir.display(), "the spool is written again");
                    state.degraded = false;
                }
                if state.ledger_is_wanted() {
                    self.keep.notify_all();
                }
                Wrote::Chunk
            }
            Err(failed) => {
                state.pending.failed();
                if state.failing.replace(failed.to_string()).is_none() {
                    error!(dir = %self.dir.display(), error = %failed, "cannot write the spool; events are in memory only");
                    self.keep.notify_all();
                }
                Wrote::Failed
            }
        };
        drop(state);
        self.wake_lanes();
        wrote
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
        if !stored || ledger != keeper.last {
            let slot = keeper.file.store(ledger.clone()).inspect_err(|_| {
                // Either slot may say so by now.
                self.lock().ahead.iter_mut().for_each(|ahead| *ahead &= ledger.ahead);
            })?;
            let mut state = self.lock();
            if let Some(ahead) = state.ahead.get_mut(slot) {
                *ahead = ledger.ahead;
            }
            if let Some(reserved) = state.reserved.get_mut(slot) {
                *reserved = ledger.reserved;
            }
            for (name, lane) in self.names.iter().zip(&mut state.lanes) {
                if let (Some(stored), Some(cursor)) = (lane.stored.get_mut(slot), ledger.cursors.get(name)) {
                    *stored = *cursor;
                }
            }
            keeper.last = ledger;
            drop(state);
            // Some may have waited for numbers.
            self.wake_lanes();
        }
        if failing {
            let mut state = self.lock();
            state.degraded = state.failing.is_some() && state.ahead == [true; 2];
            drop(state);
            self.wake_lanes();
        }
        Ok(())
    }

    /// Makes durable what was written.
    pub(super) fn sync_step(&self) -> io::Result<()> {
        let unsynced = || self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        let job = std::mem::replace(&mut *unsynced(), Unsynced::nothing());
        if job.is_empty() {
            return Ok(());
        }
        job.sync(&self.fs).inspect_err(|_| unsynced().join(job))
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
