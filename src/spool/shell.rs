//! The spool as the rest of amibus sees it.

use std::{
    future::{Future as _, pending, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{Arc, PoisonError},
    task::Poll,
    time::Duration,
};

use amibus_contract::{Bytes, Message};
use futures_util::future::{MaybeDone, maybe_done};
use tokio::task::JoinHandle;

use super::{
    account::{Account, Tally},
    engine::Engine,
    fs::{Disk, Filesystem},
    lane::{Backlog, Batch, Place},
    open::Opened,
    read::{FileReader, Got},
    state::{State, Take},
    turns,
};

/// The wait after a read that the disk refused.
const READ_RETRY: Duration = Duration::from_millis(500);

/// How long whoever must know that a record is written waits for a disk that neither takes nor refuses it.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// Makes the message of a body; `None` where it is not one.
pub type Decode = Arc<dyn Fn(Bytes) -> Option<Message> + Send + Sync>;

/// The log of one server.
pub struct Spool<F: Filesystem + Clone = Disk> {
    engine: Arc<Engine<F>>,
    decode: Decode,
}

/// How a spool is at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Segments.
    pub segments: usize,
    /// Bytes appended and not yet written.
    pub unwritten_bytes: usize,
    /// Why the disk refuses writes, while it does.
    pub failing: Option<String>,
}

impl Status {
    fn of(state: &State) -> Self {
        Self {
            bytes: state.segments.iter().map(|segment| segment.bytes).sum(),
            segments: state.segments.len(),
            unwritten_bytes: state.pending.bytes(),
            failing: state.failing.clone(),
        }
    }
}

impl Spool {
    /// A spool without buses and files: it gives each message its number, and that is all.
    pub fn nowhere() -> Arc<Self> {
        Arc::new(Self { engine: Arc::new(Engine::nowhere()), decode: Arc::new(|_| None) })
    }
}

impl<F: Filesystem + Clone> Spool<F> {
    pub(super) fn start(opened: Opened<F>, decode: Decode) -> io::Result<Arc<Self>> {
        let engine = turns::begin(opened)?;
        Ok(Arc::new(Self { engine, decode }))
    }

    /// Appends what amibus itself has to say: the message that `make` makes of its sequence number, and returns it.
    /// Never waits for a bus or a disk.
    pub fn append(&self, make: impl FnOnce(u64) -> Message) -> Message {
        self.add(false, make, Message::clone)
    }

    /// Appends an event that was read, likewise, and does not return it.
    pub fn append_read(&self, make: impl FnOnce(u64) -> Message) {
        self.add(true, make, |_| ());
    }

    /// Waits until no kill takes the record of number `sequence` any more: `true`. `false` where the disk refuses it, so
    /// that it is in memory alone, though no other will have its number; or where the disk takes longer than
    /// two seconds (`WRITTEN_WITHIN`), after which nothing is sure.
    pub async fn written(&self, sequence: u64) -> bool {
        tokio::time::timeout(WRITTEN_WITHIN, self.settled(sequence)).await.unwrap_or(false)
    }

    /// The same, however long the disk takes: `false` says that it refuses the record, and nothing else.
    pub async fn settled(&self, sequence: u64) -> bool {
        self.until(|state| state.settled(sequence)).await
    }

    /// Waits until a record is in a file, also while the disk refuses it; `false`: the spool has ended before.
    pub async fn in_a_file(&self, sequence: u64) -> bool {
        let written = |state: &State| state.written > sequence;
        self.until(|state| (written(state) || state.ended).then(|| written(state))).await
    }

    async fn until<T>(&self, found: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let mut passed = pin!(self.engine.passed.notified());
            passed.as_mut().enable();
            let found = found(&self.engine.lock());
            if let Some(found) = found {
                return found;
            }
            passed.await;
        }
    }

    /// Has the disk take nothing, and refuse nothing, until the answer is dropped.
    #[cfg(test)]
    pub(crate) fn hold_up(&self) -> HeldUp<'_, F> {
        HeldUp { _files: self.engine.unsynced.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Whether more is appended than the disk takes: half of what may wait to be written (`Options::buffer_bytes`) does.
    /// Beyond the whole the oldest is lost. Not while the disk refuses writes: to append more slowly helps nothing then.
    pub fn is_behind(&self) -> bool {
        self.engine.lock().is_behind()
    }

    /// Counts an event that was read and that a filter leaves out.
    pub fn leave_out(&self) {
        self.engine.lock().leave_out();
    }

    fn add<T>(&self, read: bool, make: impl FnOnce(u64) -> Message, answer: impl FnOnce(&Message) -> T) -> T {
        let mut state = self.engine.lock();
        let answer = state.append(read, make, answer);
        let idle = std::mem::take(&mut state.writer_waits);
        drop(state);
        if idle {
            self.engine.call_writer();
        }
        answer
    }

    fn files(&self) -> FileReader<F> {
        FileReader::new(self.engine.fs.clone(), self.engine.dir.clone(), Arc::clone(&self.decode))
    }

    /// The reader of lane number `lane`, counted from zero. Each lane has one reader.
    pub fn reader(self: &Arc<Self>, lane: usize) -> Reader<F> {
        Reader { spool: Arc::clone(self), lane, files: None, reading: None, not_before: None }
    }

    /// What lane number `lane` holds.
    pub fn backlog(&self, lane: usize) -> Backlog {
        self.engine.lock().backlog(lane)
    }

    /// How far lane number `lane` is; `None` once nothing more will be appended.
    pub fn place(&self, lane: usize) -> Option<Place> {
        let state = self.engine.lock();
        state.lanes.get(lane).filter(|_| !state.closed).map(|lane| lane.place(state.end))
    }

    /// The number that the next record gets.
    pub fn next(&self) -> u64 {
        self.engine.lock().end
    }

    /// Keeps the records from this number on, though every bus is done with them, until another number is given. Its
    /// limits in bytes and time hold all the same.
    pub fn keep_from(&self, number: u64) {
        self.engine.lock().keep_from = number;
    }

    /// How the spool is.
    pub fn status(&self) -> Status {
        Status::of(&self.engine.lock())
    }

    /// What became of everything that was appended, all at one moment.
    pub fn account(&self) -> Account {
        let state = self.engine.lock();
        let (read, filtered, own, lanes) = state.account();
        Account { read, filtered, own, lanes, status: Status::of(&state) }
    }

    /// The log's identity.
    pub fn identity(&self) -> String {
        format!("{:016x}", self.engine.identity)
    }

    /// Nothing more will be appended; readers end once they have everything.
    pub fn close(&self) {
        self.engine.lock().closed = true;
        self.engine.wake_lanes();
    }

    /// After the readers have ended: writes and syncs what is left, stores the cursors, and gives the spool free.
    /// Blocks up to `patience`; `false` when the disk was not ready by then, which the next start finds as after a
    /// kill.
    pub fn finish(&self, patience: Duration) -> bool {
        self.close();
        self.engine.lock().finishing = true;
        self.engine.call_writer();
        let waited = self.engine.over.wait_timeout_while(self.engine.lock(), patience, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}

impl<F: Filesystem + Clone> Drop for Spool<F> {
    fn drop(&mut self) {
        let mut state = self.engine.lock();
        (state.closed, state.finishing) = (true, true);
        drop(state);
        self.engine.call_writer();
    }
}

/// A disk that hangs.
#[cfg(test)]
pub(crate) struct HeldUp<'a, F: Filesystem + Clone> {
    _files: std::sync::MutexGuard<'a, super::log::Unsynced<F>>,
}

/// What is read from the disk, with what reads it.
type Reading<F> = MaybeDone<JoinHandle<(FileReader<F>, Got)>>;

/// One lane's place in the log.
pub struct Reader<F: Filesystem + Clone = Disk> {
    spool: Arc<Spool<F>>,
    lane: usize,
    files: Option<FileReader<F>>,
    reading: Option<Reading<F>>,
    /// The disk refused a read, and is asked again then, however often the lane asks meanwhile.
    not_before: Option<tokio::time::Instant>,
}

impl<F: Filesystem + Clone> Reader<F> {
    /// The next batch: at most `messages`, and at most `bytes` unless a single message is larger. Waits for the
    /// first; `None` once the spool is closed and everything was taken.
    ///
    /// What was lost counts as told when the first message of the same or a later batch is committed, or when more is
    /// asked for while nothing is in flight.
    ///
    /// # Cancellation
    /// Dropping the future takes nothing.
    pub async fn batch(&mut self, messages: usize, bytes: usize) -> Option<Batch> {
        loop {
            if let Some(reading) = &mut self.reading {
                Pin::new(&mut *reading).await;
                let read = Pin::new(reading).take_output().and_then(Result::ok);
                self.reading = None;
                let (files, got) = read
                    .map_or((None, Got { again: true, ..Got::default() }), |(files, got)| (Some(files), got));
                self.files = files;
                if got.again {
                    self.not_before = Some(tokio::time::Instant::now() + READ_RETRY);
                } else if let Some(batch) = self.engine().lock().deliver(self.lane, got) {
                    return Some(batch);
                }
            }
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
                self.not_before = None;
            }
            let take = self.engine().lock().take(self.lane, messages, bytes);
            match take {
                Take::Batch(batch) => return Some(batch),
                Take::End => return None,
                Take::Wait => self.engine().ready.get(self.lane)?.notified().await,
                Take::Read(want) => {
                    let mut files = self.files.take().unwrap_or_else(|| self.spool.files());
                    self.reading = Some(maybe_done(tokio::task::spawn_blocking(move || {
                        let got = files.read(&want);
                        (files, got)
                    })));
                }
            }
        }
    }

    /// The next batch as [`Reader::batch`], where there is one or one is being read; otherwise `None`, without waiting.
    pub async fn batch_now(&mut self, messages: usize, bytes: usize) -> Option<Option<Batch>> {
        poll_fn(|context| {
            let polled = pin!(self.batch(messages, bytes)).poll(context);
            match polled {
                Poll::Ready(batch) => Poll::Ready(Some(batch)),
                Poll::Pending if self.is_reading() => Poll::Pending,
                Poll::Pending => Poll::Ready(None),
            }
        })
        .await
    }

    /// Whether a batch is being read, which the next call may answer with.
    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Waits until there may be something that was not there when the last batch was asked for, or until what was being
    /// read then has been.
    pub async fn more(&mut self) {
        if let Some(reading) = &mut self.reading {
            return Pin::new(reading).await;
        }
        if let Some(at) = self.not_before {
            return tokio::time::sleep_until(at).await;
        }
        match self.engine().ready.get(self.lane) {
            Some(ready) => ready.notified().await,
            None => pending().await,
        }
    }

    /// The first `count` messages of those in flight are published, and so done with.
    pub fn commit(&mut self, count: usize) {
        self.settle(Tally { published: count, ..Tally::default() });
    }

    /// The first messages of those in flight are done with: published, or set aside.
    pub fn settle(&mut self, tally: Tally) {
        if let Some(lane) = self.engine().lock().lanes.get_mut(self.lane) {
            lane.settle(tally);
        }
    }

    fn engine(&self) -> &Engine<F> {
        &self.spool.engine
    }
}
