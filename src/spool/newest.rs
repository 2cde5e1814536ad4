//! The newest records of a spool, in their order: for what a process before this one knew.

use std::{io, path::Path, time::SystemTime};

use amibus_contract::Bytes;
use tracing::warn;

use super::{
    format,
    fs::{Disk, Filesystem},
    walk::{Step, Walk},
};

/// How much of a segment is read at a time.
const READ_BYTES: usize = 1 << 20;
/// How much is read of a segment to see when it begins.
const PEEK_BYTES: usize = 4096;

/// A record, or a place where records are missing.
#[derive(Clone, Debug)]
pub struct Newest {
    /// Its number; the last that is missing.
    pub sequence: u64,
    /// When it was appended. A moment before the missing ones were; the beginning of 1970 where none is known.
    pub at: SystemTime,
    /// The body of the message; `None` where records are missing.
    pub body: Option<Bytes>,
}

/// A segment; `walk` is `None` where it cannot be read.
struct Wanted<F: Filesystem> {
    walk: Option<Walk<F>>,
    first: u64,
    /// Where the next one begins.
    until: u64,
    /// How many bytes of it are beyond what is wanted.
    skip: u64,
}

/// Gives the records of the last `most_bytes` of the spool in `dir`, oldest first, and the places between them where
/// some are missing or damaged. Reads the segments that these are in. To be called while nobody appends. Says whether
/// there is more before them.
///
/// # Errors
/// Those of the disk, but for segments before the last: what cannot be read there is missing.
pub fn newest(dir: &Path, most_bytes: u64, visit: impl FnMut(Newest)) -> io::Result<bool> {
    newest_on(&Disk, dir, most_bytes, visit)
}

fn newest_on<F: Filesystem + Clone>(
    fs: &F,
    dir: &Path,
    most_bytes: u64,
    mut visit: impl FnMut(Newest),
) -> io::Result<bool> {
    let mut firsts: Vec<u64> = fs.list(dir)?.iter().filter_map(|name| format::segment_first(name)).collect();
    firsts.sort_unstable();
    let mut wanted = Vec::new();
    let (mut bytes, mut until) = (0, u64::MAX);
    while bytes < most_bytes
        && let Some(first) = firsts.pop()
    {
        let (walk, length) = open(fs, dir, first, until)?.unzip();
        let length = length.unwrap_or(0);
        wanted.push(Wanted { walk, first, until, skip: length.saturating_sub(most_bytes - bytes) });
        bytes += length;
        until = first;
    }
    let is_cut = !firsts.is_empty() || wanted.last().is_some_and(|oldest| oldest.skip > 0);
    let before = firsts.iter().rev().find_map(|&first| begun(fs, dir, first));
    let mut last_at = before.unwrap_or(SystemTime::UNIX_EPOCH);
    for Wanted { walk, first, until, skip } in wanted.into_iter().rev() {
        let is_whole = match walk.map(|walk| read(walk, until, skip, &mut last_at, &mut visit)) {
            None => false,
            Some(Ok(is_whole)) => is_whole,
            Some(Err(error)) => unreadable(dir, first, until, error).map(|()| false)?,
        };
        // In the last segment this is the end; in another one the rest is missing.
        if !is_whole && until < u64::MAX {
            visit(Newest { sequence: until - 1, at: last_at, body: None });
        }
    }
    Ok(is_cut)
}

/// `None` where it cannot be read: the last one was never finished, an older one is damaged.
fn open<F: Filesystem + Clone>(
    fs: &F,
    dir: &Path,
    first: u64,
    until: u64,
) -> io::Result<Option<(Walk<F>, u64)>> {
    let opened = Walk::open(fs, dir, first, READ_BYTES);
    let opened = opened.and_then(|walk| match walk {
        Ok(walk) => walk.file_bytes().map(|length| Some((walk, length))),
        Err(_fault) => Ok(None),
    });
    opened.or_else(|error| unreadable(dir, first, until, error).map(|()| None))
}

/// Gives what is there, and says whether that is all up to `until`.
fn read<F: Filesystem + Clone>(
    mut walk: Walk<F>,
    until: u64,
    skip: u64,
    last_at: &mut SystemTime,
    visit: &mut impl FnMut(Newest),
) -> io::Result<bool> {
    while walk.expected < until {
        let offset = walk.offset;
        match walk.step()? {
            Step::Record { sequence, at, payload } => {
                *last_at = at;
                if offset >= skip {
                    visit(Newest { sequence, at, body: Some(payload) });
                }
            }
            Step::Hole(lost) => visit(Newest { sequence: lost.last, at: lost.from, body: None }),
            Step::End | Step::Bad(_) => return Ok(false),
        }
    }
    Ok(true)
}

/// The spool does without an older segment that the disk does not give.
fn unreadable(dir: &Path, segment: u64, until: u64, error: io::Error) -> io::Result<()> {
    if until == u64::MAX {
        return Err(error);
    }
    let segment = format::segment_name(segment);
    warn!(dir = %dir.display(), segment, %error, "cannot read what was seen before; gaps that it told are told again");
    Ok(())
}

/// When a segment begins.
fn begun<F: Filesystem + Clone>(fs: &F, dir: &Path, segment: u64) -> Option<SystemTime> {
    let mut walk = Walk::open(fs, dir, segment, PEEK_BYTES).ok()?.ok()?;
    match walk.step().ok()? {
        Step::Record { at, .. } => Some(at),
        Step::Hole(lost) => Some(lost.from),
        Step::End | Step::Bad(_) => None,
    }
}
