//! The newest records of a spool, in their order: for what a process before this one knew.

use std::{io, path::Path, time::SystemTime};

use amibus_contract::Bytes;

use super::{
    format,
    fs::{Disk, Filesystem},
    walk::{Step, Walk},
};

/// How much of a segment is read at a time.
const READ_BYTES: usize = 1 << 20;

/// A record, or a place where records are missing.
#[derive(Clone, Debug)]
pub struct Newest {
    /// Its number; the last that is missing.
    pub sequence: u64,
    /// When it was appended; when it was found missing, or somewhat before.
    pub at: SystemTime,
    /// The body of the message; `None` where records are missing.
    pub body: Option<Bytes>,
}

/// Gives the records of the last `most_bytes` of the spool in `dir`, oldest first, and the places between them where
/// some are missing or damaged. Reads the segments that these are in. To be called while nobody appends.
///
/// # Errors
/// Those of the disk.
pub fn newest(dir: &Path, most_bytes: u64, visit: impl FnMut(Newest)) -> io::Result<()> {
    newest_on(&Disk, dir, most_bytes, visit)
}

pub(super) fn newest_on<F: Filesystem + Clone>(
    fs: &F,
    dir: &Path,
    most_bytes: u64,
    mut visit: impl FnMut(Newest),
) -> io::Result<()> {
    let mut firsts: Vec<u64> = fs.list(dir)?.iter().filter_map(|name| format::segment_first(name)).collect();
    firsts.sort_unstable();
    // Newest first: a segment, where the next one begins, and how many bytes of it are beyond `most_bytes`.
    let mut wanted = Vec::new();
    let (mut bytes, mut until) = (0, u64::MAX);
    for first in firsts.into_iter().rev() {
        if bytes >= most_bytes {
            break;
        }
        // A segment that was never finished has no header, and holds nothing.
        if let Ok(walk) = Walk::open(fs, dir, first, READ_BYTES)? {
            let length = walk.file_bytes()?;
            wanted.push((walk, until, length.saturating_sub(most_bytes - bytes)));
            bytes += length;
        }
        until = first;
    }
    let mut last_at = SystemTime::UNIX_EPOCH;
    for (mut walk, until, skip) in wanted.into_iter().rev() {
        while walk.expected < until {
            let offset = walk.offset;
            match walk.step()? {
                Step::Record { sequence, at, payload } if offset >= skip => {
                    last_at = at;
                    visit(Newest { sequence, at, body: Some(payload) });
                }
                Step::Record { .. } => {}
                Step::Hole(lost) => visit(Newest { sequence: lost.last, at: lost.until, body: None }),
                Step::End | Step::Bad(_) => {
                    // In the last segment this is the end; in another one the rest is missing.
                    if until < u64::MAX {
                        visit(Newest { sequence: until.saturating_sub(1), at: last_at, body: None });
                    }
                    break;
                }
            }
        }
    }
    Ok(())
}
