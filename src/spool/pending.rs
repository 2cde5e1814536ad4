//! What was appended and is not yet written: chunks of bytes, just as they will stand in a segment.
//!
//! Bounded: beyond the limit the oldest chunk that is not being written becomes a hole.

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use super::{
    format::{self, MAX_PAYLOAD_BYTES},
    lost::{Lost, Reason, micros},
};

/// Buffers kept for the next chunks.
const SPARE_BUFFERS: usize = 2;

/// Items that follow each other.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    /// The first number in it.
    pub(super) first: u64,
    /// The number after the last.
    pub(super) end: u64,
    pub(super) from: SystemTime,
    pub(super) until: SystemTime,
    /// There is nothing in it but this hole.
    hole: Option<Lost>,
}

impl Chunk {
    fn hole(lost: Lost) -> Self {
        let mut bytes = Vec::new();
        format::push_hole(&mut bytes, &lost);
        let (first, end) = (lost.first, lost.last + 1);
        Self { bytes, first, end, from: lost.from, until: lost.until, hole: Some(lost) }
    }

    /// As it is once dropped.
    fn lost(&self) -> Lost {
        let (first, last) = (self.first, self.end - 1);
        Lost { first, last, from: self.from, until: self.until, reason: Reason::Dropped }
    }
}

/// The chunks, oldest first.
#[derive(Debug)]
pub(super) struct Pending {
    sealed: VecDeque<Arc<Chunk>>,
    open: Option<Chunk>,
    /// The first chunk is being written.
    writing: bool,
    bytes: usize,
    spare: Vec<Vec<u8>>,
    limit_bytes: usize,
    chunk_bytes: usize,
}

impl Pending {
    pub(super) fn new(limit_bytes: usize, chunk_bytes: usize) -> Self {
        Self {
            sealed: VecDeque::new(),
            open: None,
            writing: false,
            bytes: 0,
            spare: Vec::new(),
            limit_bytes,
            chunk_bytes,
        }
    }

    /// Bytes not yet written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether more than half of what fits waits to be written.
    pub(super) fn is_half_full(&self) -> bool {
        self.bytes > self.limit_bytes / 2
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_none() && self.sealed.is_empty()
    }

    pub(super) fn push(&mut self, sequence: u64, at: SystemTime, payload: &[u8]) {
        let spare = &mut self.spare;
        let chunk = self.open.get_or_insert_with(|| Chunk {
            bytes: spare.pop().unwrap_or_default(),
            first: sequence,
            end: sequence,
            from: at,
            until: at,
            hole: None,
        });
        let before = chunk.bytes.len();
        if payload.len() > MAX_PAYLOAD_BYTES {
            let reason = Reason::Dropped;
            format::push_hole(
                &mut chunk.bytes,
                &Lost { first: sequence, last: sequence, from: at, until: at, reason },
            );
        } else {
            format::push_record(&mut chunk.bytes, sequence, micros(at), payload);
        }
        (chunk.end, chunk.until) = (sequence + 1, at);
        self.bytes += chunk.bytes.len() - before;
        if chunk.bytes.len() >= self.chunk_bytes {
            self.seal();
        }
        while self.bytes > self.limit_bytes && self.drop_oldest() {}
    }

    /// The chunk to be written next. It stays here until it is [`Self::written`] or given back as [`Self::failed`].
    pub(super) fn begin(&mut self) -> Option<Arc<Chunk>> {
        if self.sealed.is_empty() {
            self.seal();
        }
        let first = self.sealed.front().map(Arc::clone);
        self.writing = first.is_some();
        first
    }

    pub(super) fn written(&mut self, chunk: Arc<Chunk>) {
        self.failed();
        self.sealed.pop_front();
        self.bytes -= chunk.bytes.len();
        if let Some(mut chunk) = Arc::into_inner(chunk)
            && self.spare.len() < SPARE_BUFFERS
            && chunk.hole.is_none()
            && chunk.bytes.capacity() <= 2 * self.chunk_bytes
        {
            chunk.bytes.clear();
            self.spare.push(chunk.bytes);
        }
    }

    pub(super) fn failed(&mut self) {
        self.writing = false;
    }

    /// The chunk that has `sequence`.
    pub(super) fn find(&mut self, sequence: u64) -> Option<Arc<Chunk>> {
        if self.open.as_ref().is_some_and(|open| open.first <= sequence) {
            self.seal();
        }
        let at = self.sealed.partition_point(|chunk| chunk.end <= sequence);
        self.sealed.get(at).filter(|chunk| chunk.first <= sequence).map(Arc::clone)
    }

    fn seal(&mut self) {
        self.sealed.extend(self.open.take().map(Arc::new));
    }

    /// Turns the oldest chunk that may go into a hole; `false` when there is none.
    fn drop_oldest(&mut self) -> bool {
        let at = usize::from(self.writing);
        if self.sealed.len() <= at {
            self.seal();
        }
        let Some(mut gone) = self.sealed.remove(at) else { return false };
        self.bytes -= gone.bytes.len();
        let mut lost = gone.lost();
        if gone.hole.is_some() {
            if self.sealed.len() <= at {
                self.seal();
            }
            match self.sealed.remove(at) {
                Some(next) => gone = next,
                None => {
                    self.insert_hole(at, lost);
                    return false;
                }
            }
            self.bytes -= gone.bytes.len();
            (lost.last, lost.until) = (gone.end - 1, gone.until);
        }
        self.insert_hole(at, lost);
        true
    }

    fn insert_hole(&mut self, at: usize, lost: Lost) {
        let hole = Chunk::hole(lost);
        self.bytes += hole.bytes.len();
        self.sealed.insert(at, Arc::new(hole));
    }
}
