//! `amibus spool`: what lies in the spools, whether it is sound, and sending again.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Failure, output, place::Place};
use crate::{
    config::units,
    daemon::SPOOLS,
    spool::{
        Damage,
        inspect::{self, Inspection, Verification},
    },
};

const EXAMPLES: &str = "\
Examples:
  amibus spool inspect                       what lies there, and how far behind each bus is
  amibus spool verify --dir /var/lib/amibus  read every byte; ends with 1 where something is damaged
  amibus spool replay --server pbx1 --bus kafka --from 184200

replay needs amibus stopped. At its next start the bus is sent everything from that sequence number on once more,
under the same ids: consumers can drop what they have. To JetStream goes only what the stream does not hold any more,
where amibus may read it.";

/// Look at what waits on disk for the buses, and have it sent again
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Segments, cursors, and damage that shows at once; amibus may run
    Inspect(Spools),
    /// Read everything and check it; while amibus runs, the last record may look torn
    Verify(Spools),
    /// Send a bus everything from a sequence number on again, at the next start
    Replay {
        #[command(flatten)]
        spools: Spools,
        /// The bus: kafka, nats or zeromq
        #[arg(long, value_name = "NAME")]
        bus: String,
        /// The first sequence number to send
        #[arg(long, value_name = "SEQUENCE")]
        from: u64,
    },
}

#[derive(Debug, clap::Args)]
struct Spools {
    #[command(flatten)]
    place: Place,
    /// One server; all if left out
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.what {
        What::Inspect(spools) => {
            for (server, dir) in spools.spools()? {
                let found = inspect::inspect(&dir).map_err(|error| unreadable(&dir, &error))?;
                inspected(&server, &found)?;
            }
            Ok(())
        }
        What::Verify(spools) => {
            let mut sound = true;
            for (server, dir) in spools.spools()? {
                let found = inspect::verify(&dir).map_err(|error| unreadable(&dir, &error))?;
                sound &= found.damages.is_empty();
                verified(&server, &found)?;
            }
            if sound { Ok(()) } else { Err(Failure::Reported) }
        }
        What::Replay { spools, bus, from } => {
            let spools = spools.spools()?;
            let [(server, dir)] = spools.as_slice() else {
                return Err(Failure::Usage("there are several servers: say which with --server".to_owned()));
            };
            let count =
                inspect::replay(dir, bus, *from).map_err(|error| Failure::Failed(error.to_string()))?;
            output::text(&format!(
                "{server}: {bus} is sent {count} messages again, from {from} on, at the next start"
            ))
        }
    }
}

impl Spools {
    /// The servers' names and the folders of their spools.
    fn spools(&self) -> Result<Vec<(String, PathBuf)>, Failure> {
        let dir = self.place.dir()?.join(SPOOLS);
        let entries = std::fs::read_dir(&dir).map_err(|error| unreadable(&dir, &error))?;
        let folders = entries.filter_map(|entry| entry.ok().filter(|entry| entry.path().is_dir()));
        let mut spools: Vec<_> = folders
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
            .filter(|(name, _)| self.server.as_ref().is_none_or(|server| server == name))
            .collect();
        spools.sort();
        if spools.is_empty() {
            let of = self.server.as_ref().map_or(String::new(), |server| format!(" of {server}"));
            return Err(Failure::Failed(format!("there is no spool{of} in {}", dir.display())));
        }
        Ok(spools)
    }
}

fn inspected(server: &str, found: &Inspection) -> Result<(), Failure> {
    let bytes = found.segments.iter().map(|segment| segment.bytes).sum();
    let state = if found.clean { "closed in order" } else { "in use, or ended without an order" };
    let identity = found.identity.as_deref().unwrap_or("unknown");
    output::text(&format!(
        "{server}: next sequence {}, {} in {} segments, identity {identity}, {state}",
        found.next,
        units::show_size(bytes),
        found.segments.len()
    ))?;
    for (bus, cursor) in &found.cursors {
        output::text(&format!("  bus {bus}: has everything before {}, {} wait", cursor.next, cursor.behind))?;
    }
    for segment in &found.segments {
        let from = Timestamp::try_from(segment.from).map(|at| format!("{at:.3}")).unwrap_or_default();
        let last = segment.end.saturating_sub(1);
        output::text(&format!(
            "  {}: {} to {last}, {}, since {from}",
            segment.file,
            segment.first,
            units::show_size(segment.bytes)
        ))?;
    }
    found.damages.iter().try_for_each(damaged)
}

fn verified(server: &str, found: &Verification) -> Result<(), Failure> {
    let state = if found.damages.is_empty() { "sound" } else { "DAMAGED" };
    output::text(&format!(
        "{server}: {state}, {} whole records in {} segments, {}",
        found.records,
        found.segments,
        units::show_size(found.bytes)
    ))?;
    for lost in &found.holes {
        output::text(&format!(
            "  missing and announced ({}): {} to {}, {} records",
            lost.reason.as_str(),
            lost.first,
            lost.last,
            lost.count()
        ))?;
    }
    found.damages.iter().try_for_each(damaged)
}

fn damaged(damage: &Damage) -> Result<(), Failure> {
    let at = damage.sequence.map_or(String::new(), |sequence| format!(", sequence {sequence}"));
    let count = damage.count.map_or("number unknown".to_owned(), |count| format!("{count} numbers"));
    output::text(&format!(
        "  damage: {} at byte {}{at}: {}; {count}",
        damage.file, damage.offset, damage.fault
    ))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot read {}: {error}", path.display()))
}
