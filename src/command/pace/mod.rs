//! Pace: how many calls a server gets a second, and how many at once, for all its Originates or for a group of them.
//!
//! | module | idea |
//! |---|---|
//! | [`limit`] | a limit as configured, and which Originates it is about |
//! | `bucket` | so many a second, never more over any time |
//! | `queue` | who waits, in order, by the set of limits that apply |
//! | `calls` | the calls that are counted, each until its end is known |
//! | `core` | these three together: pure, the time is passed in |
//! | [`pacer`] | the core of one server for tasks that wait, and for the event session |
//! | [`keeper`] | wakes who may go on, and compares with the calls that Asterisk knows |
//!
//! Invariants, per limit: what is granted in any time of W seconds is at most `calls_per_second` * W + `burst`, and so is
//! what is written to Asterisk; the calls counted are at most `concurrent_calls`. An Originate takes all limits that are
//! about it at one instant, so that none is held while another is waited for. Who waits for one set of limits is served in
//! order, and holds up nobody who waits for other limits.

mod bucket;
mod calls;
mod core;
pub mod keeper;
pub mod limit;
pub mod pacer;
mod queue;

pub use keeper::Keeper;
pub use limit::{Limit, MAX_LIMITS};
pub use pacer::{Grant, Pacer};

/// A set of limits: a bit each, by their places in the configuration.
pub(crate) type Set = u64;

/// The limits in a set.
fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..Set::BITS as usize).filter(move |place| set & (1 << place) != 0)
}
