//! Where a file is damaged, for a person.

use super::format::Fault;

/// Damage to one file of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file's name in the spool's folder.
    pub file: String,
    /// The first byte that cannot be used.
    pub offset: u64,
    /// The sequence number that should stand there; `None` for a ledger.
    pub sequence: Option<u64>,
    /// How many numbers are lost with it, as far as is known.
    pub count: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}
