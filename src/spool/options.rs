//! How large and how careful a spool is.

use std::time::Duration;

/// Settings of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a segment, about. At most an eighth of `max_bytes` is used.
    pub segment_bytes: u64,
    /// Bytes of all segments; over it the oldest goes.
    pub max_bytes: u64,
    /// How long a record is kept for a bus that does not take it, about; `None`: for ever.
    pub max_age: Option<Duration>,
    /// How long written records may be unsynced. Zero: synced before any bus is given them.
    pub flush_interval: Duration,
    /// Bytes of records held in memory that are not yet written.
    pub buffer_bytes: usize,
    /// Bytes of messages held in memory for buses that keep up, estimated.
    pub cache_bytes: usize,
    /// Whether segments that every bus is done with stay until [`Spool::keep_from`](super::Spool::keep_from) says which
    /// may go.
    pub pinned: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            max_bytes: 10 << 30,
            max_age: Some(Duration::from_secs(7 * 86_400)),
            flush_interval: Duration::from_secs(1),
            buffer_bytes: 64 << 20,
            cache_bytes: 8 << 20,
            pinned: false,
        }
    }
}

/// The least bytes of a segment.
const MIN_SEGMENT_BYTES: u64 = 4096;
/// The most bytes that are written at once, unless a single record is larger.
const MAX_CHUNK_BYTES: u64 = 1 << 20;

impl Options {
    /// Bytes of a segment: so that there are several.
    pub(super) fn segment_limit(&self) -> u64 {
        self.segment_bytes.min(self.max_bytes / 8).max(MIN_SEGMENT_BYTES)
    }

    /// Bytes that are written at once.
    pub(super) fn chunk_limit(&self) -> usize {
        let chunk = (self.segment_limit() / 4).min(self.buffer_bytes as u64 / 8).min(MAX_CHUNK_BYTES);
        usize::try_from(chunk).unwrap_or(usize::MAX)
    }

    /// Whether every record is synced before it is given to a bus.
    pub(super) fn sync_each(&self) -> bool {
        self.flush_interval.is_zero()
    }
}
