//! Claims that several processes share: a small store on a bus in which an entry is made once and changed only by who
//! knows its revision.
//!
//! A bridge keeps bytes under keys and knows nothing of what they mean. Each change is one atomic step on the bus. Whose
//! answer was lost cannot know whether the change was made: it [reads](Claims::read), and recognises its own value.

use crate::{BoxFuture, Bytes, Fault};

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes as they were written.
    pub value: Bytes,
    /// Which change of the store made it so; no other change has the same.
    pub revision: u64,
}

/// What became of an attempt to make an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It was made, with this revision.
    Made(u64),
    /// There was one, which may be our own of an attempt whose answer was lost.
    Exists(Entry),
}

/// What became of an attempt to change an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Updated {
    /// It was changed, and has this revision now.
    Made(u64),
    /// It has another revision, which may be ours; `None`: there is no such entry any more.
    Changed(Option<Entry>),
}

/// A store of entries, each changed in atomic steps. A key is at most [`MAX_KEY_BYTES`] of `[0-9a-zA-Z_-]`.
///
/// Each call takes a bounded time, within the bus's own limits. After a [`Fault`] nobody knows whether a change was made.
pub trait Claims: Send + Sync {
    /// Makes an entry where there is none.
    ///
    /// # Errors
    /// When the bus cannot be reached, or refuses.
    fn create<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<Created, Fault>>;

    /// The entry as it is; `None`: there is none. A change that was answered before is seen.
    ///
    /// # Errors
    /// When the bus cannot be reached, or refuses.
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Fault>>;

    /// Changes an entry that has this revision still.
    ///
    /// # Errors
    /// When the bus cannot be reached, or refuses; [`crate::FaultKind::TooLarge`] where the value is too long for it.
    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
    ) -> BoxFuture<'a, Result<Updated, Fault>>;

    /// Removes an entry that has this revision still. Answers whether it had.
    ///
    /// # Errors
    /// When the bus cannot be reached, or refuses.
    fn delete<'a>(&'a self, key: &'a str, revision: u64) -> BoxFuture<'a, Result<bool, Fault>>;
}

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 128;
