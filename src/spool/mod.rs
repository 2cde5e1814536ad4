//! The durable log of one server: append, cursors, recovery.
//!
//! What was appended and written is published by every bus at least once, in order, whatever is killed; what a bus
//! will not see is a [`Lost`] range in its stream, never silence.
//!
//! # Files
//! A folder a server. Numbers are little-endian, times are microseconds since 1970.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked while a process has the spool open |
//! | `ledger` | identity, the cursor of each bus, how far the log went and how far it may go: two slots of 4096 bytes, written in turn once a second where something moved, each synced before the other is written |
//! | `mark` | the same two slots, written with each chunk of records, behind it, and not synced: exact as long as the machine lives |
//! | `<first sequence, 20 digits>.seg` | a segment: a header, then records until the next segment's first sequence |
//!
//! ```text
//! segment header  magic "AMISPOOL" | version u32 | first sequence u64 | crc32 u32      over the 20 bytes before
//! record          len u32 | crc32 u32 | sequence u64 | appended u64 | payload          over all but the crc itself
//! hole            the same with the top bit of len set: sequence is the last number that is missing, appended when
//!                 it was, payload: first missing u64 | when u64 | reason u8
//! slot            magic "AMILEDGR" | version u32 | generation u64 | flags u32 | identity u64 | boot [u8; 16]
//!                 | next sequence u64 | reserved u64 | origin u64 | count u8 | count x (name length u8, name, cursor u64) | zeros | crc32 u32
//! ```
//! A payload is the CloudEvent body alone; everything else about a message is found in it again.
//!
//! # Invariants
//! 1. Sequences start at 1; each record or hole begins at the number that the one before ended at. Anything else is
//!    damage. A segment ends where the next one begins; bytes beyond that mean nothing.
//! 2. Bytes are only ever appended, and a segment is synced before the next one begins: what a crash takes is the end
//!    of the log. Recovery does not repair a segment, it begins the next one. A segment in which nothing counts is the
//!    exception: one with the same first number takes its place.
//! 3. A bus is given a record once it is written (`flush_interval` above 0) or synced (`flush_interval` 0), the mark says
//!    so, and its number is below `reserved` in both slots of the ledger. The one exception is a disk that refuses
//!    writes: then records go out from memory, once both slots of the ledger say so (`ahead`). They stop saying so as
//!    soon as everything that went out is written. Whoever answers a message elsewhere waits for the same
//!    ([`Spool::written`]), though not for ever; an outcome of a command, for as long as it takes ([`Spool::settled`]).
//! 4. A segment goes when every cursor of a configured bus, in both slots of the ledger, has passed it, and where records
//!    are kept for look-ups ([`Spool::keep_from`]), they all begin behind it; or as the oldest, over `max_bytes`, `max_age` or on a full disk: then each bus that had not read it all gets a [`Lost`].
//! 5. No number is ever given out twice: recovery goes on behind every number that may have been. Where anything was
//!    discarded, ledger or mark are damaged, or the machine was started anew, the log gets a new identity on top. Records
//!    keep the ids that they were written with.
//! 6. A loss has an id of its own: the identity that the log began with (`origin`, which stays), the bus, the reason,
//!    the first number, and the number that it is told under. Told again it has the same times, so the same bytes. It
//!    is told under the last lost number, except at the log's end: a bus may have had that one, so it takes the next.
//! 7. `append` takes one short lock and no disk. Nothing holds that lock while it touches a file.
//!
//! # Threads
//! All spools of a process share a few: some write, some sync and store ledgers, so that no sync holds up a write. There
//! are one or two of either as long as the disk keeps up, at most 64 where it does not; one comes to help each 10 ms, which is also
//! how exactly an interval is kept. A disk that hangs under one
//! spool keeps the threads that have it, and the others go on ([`pool`]). A panic while a spool is written is taken for a
//! disk that refuses, and one while it is synced likewise; it holds up no other spool ([`turns`]). All spools are due to be
//! synced at the same moments, and where they are many, one sync of the filesystem does for all ([`together`]).
//!
//! # Limits
//! At most a million numbers (`RESERVE_MAX`) are reserved at a time. [`Options`] has the others in bytes and time; [`format::MAX_PAYLOAD_BYTES`] a record, [`ledger::MAX_LANES`] buses,
//! [`read::READ_BYTES`] a read. What is appended and not yet written is held up to `buffer_bytes`; beyond it the
//! oldest goes and becomes a hole, which every bus is told of. Up to `cache_bytes` of the newest messages stay in
//! memory, so that a bus that keeps up never reads a file. The last segment is never removed, for it tells where the
//! log ends; ages are kept to within an eighth, sizes to within a segment.
//!
//! # Recovery
//! The last segment is read through; the others are checked when a bus reads them, or by [`inspect::verify`].
//!
//! | found | done |
//! |---|---|
//! | a torn end of the last segment, of which no bus was given anything | what a kill leaves: nothing is lost but what the process had not written, which the gap of the reconnect covers; the next segment begins there |
//! | the log ends before ledger, mark, a cursor or whole records behind the damage say | what stands before is kept; the next segment begins with a hole (`damaged`) up to there, exactly |
//! | the same, or a whole log, and nothing proves that no more was given out (see below) | the hole goes up to `reserved`: so many at most |
//! | damage in an older segment | `damaged` from there to the segment's end, for each bus that had not passed it |
//! | a damaged slot of the ledger, or both | the mark |
//! | a damaged slot of the mark | the other one; it is what the machine's end leaves, so it is not called damage |
//! | both slots of the mark damaged | the ledger: at most a second older, so a little is repeated |
//! | all four damaged | every bus starts at the oldest record; what it had is repeated under the same ids; numbers go on a million ahead |
//! | a cursor before the oldest segment | `dropped` up to there |
//! | a full disk | the slots are written in place; if a hole needs room, the oldest segment goes until there is; the last one stays, and without room amibus does not start |
//! | a slot or a segment of another version of the format | amibus does not start |
//!
//! How far the log went is *proven* by a ledger that was closed in order, by a mark of the same life of the machine, and,
//! where every record was synced before it was given out, by the log itself, if the machine was started anew or the mark
//! is whole. After a kill -9 the mark proves it: written bytes outlive the process, so a log that ends before the mark
//! lost them otherwise, and one that ends at it is whole. Only a kill while the disk refuses writes, or before the ledger
//! says that it does so no more (some milliseconds), leaves it open, like a power failure.
//! After a power failure with `flush_interval` above 0 nothing proves it, and records that one bus had may be missing
//! for the others: that is announced as `damaged`, up to the reserved number. What cannot be known: a record that was
//! written, but not yet marked (some microseconds) and then cut off, looks like one that was never written. No bus had
//! it, and it came after the last record, so the gap of the reconnect covers it by its time.
//!
//! A hole is durable before anything else happens, and found again if recovery itself is killed. A bus that is new
//! starts at the oldest record; one that is no longer configured keeps its cursor, and holds nothing.

mod account;
mod damage;
mod engine;
pub mod format;
pub mod fs;
pub mod inspect;
mod lane;
pub mod ledger;
mod log;
mod lost;
pub mod newest;
mod open;
mod options;
mod pending;
mod pool;
pub mod read;
mod recover;
pub(crate) mod scan;
mod shell;
mod state;
mod together;
mod turns;
mod walk;

#[cfg(test)]
mod tests;

pub use account::{Account, LaneAccount, Tally};
pub use damage::Damage;
pub use lane::{Backlog, Batch, Place};
pub use lost::{Lost, Reason};
pub use open::{OpenError, Opened, open};
pub use options::Options;
pub use recover::Recovery;
pub use shell::{Decode, Reader, Spool, Status};
