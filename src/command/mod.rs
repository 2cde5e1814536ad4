//! Commands from the buses, carried out as AMI actions at most once.
//!
//! | module | idea |
//! |---|---|
//! | [`decode`] | bytes become a valid [`decode::Command`], or an error that names the field |
//! | [`policy`] | what may be done: deny by default |
//! | [`journal`] | what was claimed, sent and done, on disk |
//! | `audit` | one line for every command |
//! | `record` | an outcome into journal and spool |
//! | `late` | outcomes that are told before that can be noted |
//! | [`recover`] | what a dead process had begun to send |
//! | [`pin`] | how long a server's log is kept for look-ups |
//! | `search` | the calls among these: in the log, and among the live channels |
//! | `doubt` | calls that were sent, and for which nobody answered |
//! | `channels` | what Asterisk says of its live channels |
//! | `publish` | what a dead process had recorded, and maybe not published |
//! | [`look`] | reading the journal, for a person |
//! | [`pace`] | how many calls a second, and how many at once |
//! | [`shared`] | the claim that several amibus share |
//! | `hold` | our hand on one such claim |
//! | `attempt` | from a claim to an outcome |
//! | `mark` | what journal and shared claim are told before the socket |
//! | `follow` | a command that another amibus has |
//! | `adopt` | the outcome that all share, into the own journal |
//! | `release` | shared claims of what was never sent, given back |
//! | [`left_behind`] | requests that were never sent, and may be asked again |
//! | `renew` | shared claims of a dead process, while their outcomes are looked for |
//! | `begun` | a command that its bus knows as begun |
//! | [`finals`] | what became of an Originate |
//! | [`response`] | the one terminal outcome, and its message |
//! | [`engine`] | the way through all of these |

mod adopt;
mod attempt;
mod audit;
mod begun;
mod channels;
pub mod decode;
mod doubt;
pub mod engine;
pub mod error;
mod evidence;
mod fields;
pub mod finals;
mod follow;
mod hold;
pub mod journal;
mod json;
mod late;
pub mod left_behind;
pub mod look;
mod mark;
mod moment;
mod owned;
pub mod pace;
pub mod pin;
pub mod policy;
mod publish;
mod record;
pub mod recover;
mod release;
mod renew;
pub mod response;
mod search;
mod send;
mod serve;
pub mod shared;
#[cfg(test)]
mod testing;
mod work;

pub use engine::Engine;
pub use error::{Code, CommandError, Outcome};
pub use owned::Owned;
