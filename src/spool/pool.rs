//! The threads that work for all spools of the process.
//!
//! Whatever there is to be done for a spool is a [`Job`], which a [`Pool`] gives a turn when it is called or when its
//! moment has come. A job is in the queue once at most and with one thread at a time. Turns are taken in the order of
//! the calls, and a job that has more to do queues anew behind the others, so that none starves.
//!
//! One thread is enough as long as turns are short. A turn that takes longer than [`TICK`] is held up by the disk: its
//! thread is left to it, and another one takes its place. Where the first in the queue has waited that long, there is
//! more to do than one thread gets done, and one more helps. There are `most` of them at most: so many disks that hang,
//! each under another spool, hold up none of the others; but all spools of a process lie in one folder, so that a disk
//! that hangs for so many hangs for all. Of threads with nothing to do [`SPARES`] stay.
//!
//! # Clock
//! Each pool has one more thread, which works for nobody, so that nothing holds it up. It queues jobs whose moment has
//! come, and sees to it that the queue moves, every [`TICK`] while any thread is at work. While none is, it sleeps until
//! the next moment.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::{error, warn};

/// How exactly moments are kept, and after how long another thread comes to help.
const TICK: Duration = Duration::from_millis(10);
/// The most threads that stay with nothing to do.
const SPARES: usize = 4;

/// Work that is done in turns.
pub(super) trait Job: Send {
    /// Does one turn's work, and says when the next one is.
    fn turn(&mut self) -> Next;

    /// The turn panicked; says when the next one is.
    fn panicked(&mut self) -> Next;
}

/// When a job is to have its next turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// After those that wait already.
    Now,
    /// At this moment, or when it is called before.
    At(Instant),
    /// Never.
    Ended,
}

/// Threads and what they work on.
pub(super) struct Pool {
    name: &'static str,
    /// The least time between two rounds of one thread, so that what comes meanwhile is done at once.
    pace: Duration,
    most: usize,
    queue: Mutex<Queue>,
    /// Tells threads that there is something in the queue.
    work: Condvar,
    /// Tells the clock that a thread is at work.
    clock: Condvar,
}

struct Queue {
    jobs: BTreeMap<u64, Slot>,
    added: u64,
    /// Whose turn it is next, and since when each waits.
    ready: VecDeque<(u64, Instant)>,
    due: BTreeSet<(Instant, u64)>,
    /// Which job each thread has, since when, and whether another thread has taken its place.
    turns: Vec<(u64, Instant, bool)>,
    threads: usize,
    /// Threads that wait for work.
    idle: usize,
    /// How many of these are to wake.
    called: usize,
    has_clock: bool,
    /// The clock looks every [`TICK`].
    watched: bool,
}

struct Slot {
    /// With a thread otherwise.
    job: Option<Box<dyn Job>>,
    queued: bool,
    /// Called while a thread has it.
    again: bool,
    due: Option<Instant>,
}

/// Calls one job of a pool.
#[derive(Clone)]
pub(super) struct Caller {
    pool: &'static Pool,
    id: u64,
}

impl Caller {
    /// Gives the job a turn as soon as may be: one that begins after this call.
    pub(super) fn call(&self) {
        let mut queue = self.pool.lock();
        queue.call(self.id);
        self.pool.wake(&mut queue);
    }
}

impl Pool {
    /// At most so many threads, and the clock.
    pub(super) const fn new(name: &'static str, pace: Duration, most: usize) -> Self {
        let queue = Queue {
            jobs: BTreeMap::new(),
            added: 0,
            ready: VecDeque::new(),
            due: BTreeSet::new(),
            turns: Vec::new(),
            threads: 0,
            idle: 0,
            called: 0,
            has_clock: false,
            watched: false,
        };
        Self { name, pace, most, queue: Mutex::new(queue), work: Condvar::new(), clock: Condvar::new() }
    }

    /// Has the threads there without which nothing goes on.
    pub(super) fn start(&'static self) -> io::Result<()> {
        let mut queue = self.lock();
        if !queue.has_clock {
            self.spawn("spool-clock", Self::tick)?;
            queue.has_clock = true;
        }
        if queue.threads == 0 {
            self.grow(&mut queue)?;
        }
        Ok(())
    }

    /// Takes a job, which gets its first turn at once. The pool must have been started.
    pub(super) fn add(&'static self, job: impl Job + 'static) -> Caller {
        let mut queue = self.lock();
        queue.added += 1;
        let id = queue.added;
        queue.jobs.insert(id, Slot { job: Some(Box::new(job)), queued: false, again: false, due: None });
        queue.call(id);
        self.wake(&mut queue);
        Caller { pool: self, id }
    }

    /// How many there are, beside the clock.
    #[cfg(test)]
    pub(super) fn threads(&self) -> usize {
        self.lock().threads
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread work, if none does. One that does looks into the queue again. Where all are held up, the clock sees
    /// to it.
    fn wake(&self, queue: &mut Queue) {
        if queue.at_work() == 0 {
            self.call_one(queue);
        }
        if !queue.watched {
            queue.watched = true;
            self.clock.notify_one();
        }
    }

    /// Wakes an idle thread; `false` when there is none.
    fn call_one(&self, queue: &mut Queue) -> bool {
        let is_one = queue.idle > queue.called;
        if is_one {
            queue.called += 1;
            self.work.notify_one();
        }
        is_one
    }

    fn spawn(&'static self, name: &str, run: fn(&'static Self)) -> io::Result<()> {
        thread::Builder::new().name(name.to_owned()).spawn(move || run(self)).map(drop)
    }

    fn grow(&'static self, queue: &mut Queue) -> io::Result<()> {
        self.spawn(self.name, Self::serve)?;
        queue.threads += 1;
        Ok(())
    }

    /// What each thread does: rounds of turns, with a rest before each one that would follow too closely. Where something
    /// came while it rested, it rests after the next round too, so that nobody has to wake it; otherwise it waits to be
    /// woken, once and not twice for each round.
    fn serve(&'static self) {
        let (mut began, mut busy) = (Instant::now(), false);
        let mut queue = self.lock();
        loop {
            let round = queue.ready.len();
            if round > 0 {
                began = Instant::now();
            }
            for _ in 0..round {
                let Some((id, mut job)) = queue.take() else { break };
                drop(queue);
                let next = catch_unwind(AssertUnwindSafe(|| job.turn())).unwrap_or_else(|_| {
                    error!(pool = self.name, "a turn panicked");
                    catch_unwind(AssertUnwindSafe(|| job.panicked())).unwrap_or(Next::Ended)
                });
                // What ends is dropped here, for that may touch the disk.
                let job = Some(job).filter(|_| next != Next::Ended);
                queue = self.lock();
                queue.put_back(id, job, next);
            }
            if busy || !queue.ready.is_empty() {
                queue = self.rest(queue, began);
                busy = !queue.ready.is_empty();
                continue;
            }
            if queue.idle - queue.called >= SPARES {
                queue.threads -= 1;
                return;
            }
            queue.idle += 1;
            let waited = self.work.wait_while(queue, |queue| queue.called == 0);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
            queue.called -= 1;
            busy = began.elapsed() < self.pace;
            if busy {
                queue = self.rest(queue, began);
            }
        }
    }

    /// Rests until the next round may begin.
    fn rest<'a>(&'a self, queue: MutexGuard<'a, Queue>, began: Instant) -> MutexGuard<'a, Queue> {
        drop(queue);
        thread::sleep(self.pace.saturating_sub(began.elapsed()));
        self.lock()
    }

    /// What the clock does.
    fn tick(&'static self) {
        let (mut queue, mut warned) = (self.lock(), false);
        loop {
            let now = Instant::now();
            queue.fall_due(now);
            let held_up = queue.leave_aside(now);
            let nobody = queue.at_work() == 0 && (held_up || !queue.ready.is_empty());
            let late = queue.ready.front().is_some_and(|(_, since)| now.duration_since(*since) >= TICK);
            // One that is held up is replaced before there is something to do.
            let helped = !(nobody || late)
                || (queue.idle > 0 && queue.ready.is_empty())
                || self.call_one(&mut queue)
                || queue.threads >= self.most;
            if !helped
                && let Err(error) = self.grow(&mut queue)
                && !std::mem::replace(&mut warned, true)
            {
                warn!(pool = self.name, %error, "no further thread");
            }
            let busy = queue.is_busy();
            queue.watched = busy;
            let wait = match queue.due.first() {
                _ if busy => TICK,
                Some((due, _)) => due.saturating_duration_since(now),
                None => Duration::MAX,
            };
            let waited = self.clock.wait_timeout_while(queue, wait, |queue| queue.watched == busy);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    /// Threads that will look into the queue within [`TICK`].
    fn at_work(&self) -> usize {
        let aside = self.turns.iter().filter(|(_, _, aside)| *aside).count();
        self.threads + self.called - self.idle - aside
    }

    fn is_busy(&self) -> bool {
        self.called > 0 || self.threads > self.idle || !self.ready.is_empty()
    }

    fn call(&mut self, id: u64) {
        let Some(slot) = self.jobs.get_mut(&id) else { return };
        if slot.job.is_none() {
            slot.again = true;
        } else if !slot.queued {
            slot.queued = true;
            if let Some(due) = slot.due.take() {
                self.due.remove(&(due, id));
            }
            self.ready.push_back((id, Instant::now()));
        }
    }

    /// The job whose turn it is.
    fn take(&mut self) -> Option<(u64, Box<dyn Job>)> {
        let (id, _) = self.ready.pop_front()?;
        let slot = self.jobs.get_mut(&id)?;
        slot.queued = false;
        let job = slot.job.take()?;
        self.turns.push((id, Instant::now(), false));
        Some((id, job))
    }

    /// A turn is over; `None` where the job has ended.
    fn put_back(&mut self, id: u64, job: Option<Box<dyn Job>>, next: Next) {
        self.turns.retain(|(one, _, _)| *one != id);
        let Some(slot) = self.jobs.get_mut(&id).filter(|_| job.is_some()) else {
            self.jobs.remove(&id);
            return;
        };
        slot.job = job;
        match next {
            Next::At(due) if !std::mem::take(&mut slot.again) && due > Instant::now() => {
                slot.due = Some(due);
                self.due.insert((due, id));
            }
            _ => {
                slot.again = false;
                self.call(id);
            }
        }
    }

    /// Queues the jobs whose moment has come.
    fn fall_due(&mut self, now: Instant) {
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.call(id);
        }
    }

    /// Leaves threads to turns that take long; says whether any thread is.
    fn leave_aside(&mut self, now: Instant) -> bool {
        for (_, began, aside) in &mut self.turns {
            *aside |= now.duration_since(*began) >= TICK;
        }
        self.turns.iter().any(|(_, _, aside)| *aside)
    }
}
