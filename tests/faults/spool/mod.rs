//! The faults that need events to survive amibus: its own death, a full disk, and damaged files.

mod damage;
mod disk;
mod kill;

use amibus_services::Process;

use super::rig::{Rig, get};

const START_SECONDS: u64 = 30;

/// Starts amibus again; it serves, though not all that it needs may be there.
fn start_again(rig: &mut Rig) {
    rig.amibus.restart(START_SECONDS, |process: &Process| get(process, "/live").is_some());
}
