//! The segments of one spool, as their one writer has them.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{
    format::{self, SEGMENT_HEADER_BYTES},
    fs::Filesystem,
    ledger::{Ledger, LedgerFile},
    pending::Chunk,
};

/// What is known of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) first: u64,
    /// Bytes of its file.
    pub(super) bytes: u64,
    /// When its first record was appended.
    pub(super) from: SystemTime,
    /// When its last one was.
    pub(super) until: SystemTime,
}

/// The segments.
pub(super) struct Log<F: Filesystem> {
    fs: F,
    dir: PathBuf,
    limit_bytes: u64,
    segments: VecDeque<Segment>,
    /// The file of the last segment, while it is written to.
    active: Option<Arc<F::File>>,
    bytes: u64,
    unsynced: Unsynced<F>,
    /// Says how far the log went, and outlives the process.
    mark: LedgerFile<F>,
}

/// The files that must be synced to make everything durable that was written.
pub(super) struct Unsynced<F: Filesystem>(Vec<Arc<F::File>>);

impl<F: Filesystem> Unsynced<F> {
    pub(super) fn nothing() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn join(&mut self, later: Self) {
        later.0.into_iter().for_each(|file| self.add(file));
    }

    /// These files.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<F::File>> {
        self.0.iter()
    }

    pub(super) fn sync(&self, fs: &F) -> io::Result<()> {
        self.0.iter().try_for_each(|file| fs.sync(file))
    }

    fn add(&mut self, file: Arc<F::File>) {
        if !self.0.iter().any(|one| Arc::ptr_eq(one, &file)) {
            self.0.push(file);
        }
    }
}

impl<F: Filesystem + Clone> Log<F> {
    /// Goes on after `segments`; in the last one if `active` is its file.
    pub(super) fn new(
        fs: F,
        dir: &Path,
        limit_bytes: u64,
        segments: Vec<Segment>,
        active: Option<F::File>,
        mark: LedgerFile<F>,
    ) -> Self {
        let bytes = segments.iter().map(|segment| segment.bytes).sum();
        Self {
            fs,
            dir: dir.to_owned(),
            limit_bytes,
            segments: segments.into(),
            active: active.map(Arc::new),
            bytes,
            unsynced: Unsynced::nothing(),
            mark,
        }
    }

    /// The segments, oldest first.
    pub(super) fn segments(&self) -> &VecDeque<Segment> {
        &self.segments
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes a chunk behind everything else. After an error nothing of it counts, and it may be tried again.
    pub(super) fn append(&mut self, chunk: &Chunk) -> io::Result<()> {
        let full = |segment: &Segment| segment.bytes + chunk.bytes.len() as u64 > self.limit_bytes;
        if self.segments.back().is_some_and(full) {
            self.seal()?;
        }
        let file = match &self.active {
            Some(file) => Arc::clone(file),
            None => self.begin(chunk.first, chunk.from, chunk.until)?,
        };
        let Some(segment) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(error) = self.fs.write_at(&file, &chunk.bytes, segment.bytes) {
            // Whatever was written lies behind the end; a disk that cannot even cut it off leaves it to recovery.
            let _ = self.fs.truncate(&file, segment.bytes);
            return Err(error);
        }
        segment.bytes += chunk.bytes.len() as u64;
        segment.until = chunk.until;
        self.bytes += chunk.bytes.len() as u64;
        self.unsynced.add(file);
        Ok(())
    }

    /// Has the mark say that a chunk was just appended, if `sync` once that is durable; or takes the chunk back.
    pub(super) fn mark_or_undo(&mut self, chunk: &Chunk, sync: bool, mark: Ledger) -> io::Result<()> {
        let synced = if sync { self.unsynced.sync(&self.fs) } else { Ok(()) };
        match synced.and_then(|()| self.mark.note(mark)) {
            Ok(()) if sync => {
                self.unsynced = Unsynced::nothing();
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(error) => {
                if let (Some(file), Some(segment)) = (&self.active, self.segments.back_mut()) {
                    segment.bytes -= chunk.bytes.len() as u64;
                    segment.until = segment.until.min(chunk.from);
                    let _ = self.fs.truncate(file, segment.bytes);
                }
                self.bytes -= chunk.bytes.len() as u64;
                Err(error)
            }
        }
    }

    /// What is to be synced since this was last asked.
    pub(super) fn take_unsynced(&mut self) -> Unsynced<F> {
        std::mem::replace(&mut self.unsynced, Unsynced::nothing())
    }

    /// The next chunk begins a segment, if there is anything in this one. It is synced first, so that whatever a
    /// crash takes is the end of the log.
    pub(super) fn seal(&mut self) -> io::Result<()> {
        if self.segments.back().is_none_or(|last| last.bytes <= SEGMENT_HEADER_BYTES as u64) {
            return Ok(());
        }
        if let Some(file) = &self.active {
            self.fs.sync(file)?;
        }
        self.active = None;
        Ok(())
    }

    /// Begins a segment with `first`, the number that follows, so that the one before may go.
    pub(super) fn renew(&mut self, first: u64, now: SystemTime) -> io::Result<()> {
        self.seal()?;
        if self.active.is_none() && !self.segments.is_empty() {
            self.begin(first, now, now).map(drop)
        } else {
            Ok(())
        }
    }

    /// Removes the oldest segment; `false` when there is no other, for the last one tells where the log ends.
    pub(super) fn remove_oldest(&mut self) -> bool {
        if self.segments.len() <= 1 {
            return false;
        }
        let Some(oldest) = self.segments.pop_front() else { return false };
        self.bytes -= oldest.bytes;
        // A file that cannot be removed is found again at the next start.
        let removed = self.fs.remove(&self.dir.join(format::segment_name(oldest.first)));
        let _ = removed.and_then(|()| self.fs.sync_dir(&self.dir));
        true
    }

    fn begin(&mut self, first: u64, from: SystemTime, until: SystemTime) -> io::Result<Arc<F::File>> {
        let file = Arc::new(self.fs.create(&self.dir.join(format::segment_name(first)))?);
        self.fs.write_at(&file, &format::header(first), 0)?;
        self.fs.sync_dir(&self.dir)?;
        // After a panic the one before may hold nothing that counts: then this is its file, emptied.
        if self.segments.back().is_some_and(|last| last.first == first) {
            self.bytes -= self.segments.pop_back().map_or(0, |same| same.bytes);
        }
        let bytes = SEGMENT_HEADER_BYTES as u64;
        self.segments.push_back(Segment { first, bytes, from, until });
        self.bytes += bytes;
        self.active = Some(Arc::clone(&file));
        Ok(file)
    }
}
