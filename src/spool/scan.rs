//! Reading a spool's records as they lie there, apart from any bus: for looking something up after a crash.

use std::{io, ops::ControlFlow, path::Path, time::SystemTime};

use tracing::warn;

use super::{
    format,
    fs::{Disk, Filesystem},
    walk::{Step, Walk},
};

/// Which records of a spool are read: those from a number on, and those from a time on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since {
    number: u64,
    at: Option<SystemTime>,
}

impl Since {
    /// From a record's number on: whatever the clock did, none is missed. Zero is the oldest there is.
    pub(crate) const fn number(number: u64) -> Self {
        Self { number, at: None }
    }

    /// What was appended at this time, by the clock, or later.
    pub(crate) const fn time(at: SystemTime) -> Self {
        Self { number: u64::MAX, at: Some(at) }
    }

    /// What either of them reads.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { number: self.number.min(other.number), at: self.at.into_iter().chain(other.at).min() }
    }

    fn has(&self, sequence: u64, at: SystemTime) -> bool {
        sequence >= self.number || self.is_within(at)
    }

    fn is_within(&self, at: SystemTime) -> bool {
        self.at.is_some_and(|since| at >= since)
    }
}

/// How much of a segment is read at a time.
const SCAN_BYTES: usize = 1 << 20;

/// Hands `each` the payload of every whole record that was appended to the spool of `dir` since `since`, oldest first,
/// until it says [`ControlFlow::Break`]. What is damaged is passed over, to the segment's end; so is a segment that
/// cannot be read, or that is removed meanwhile, since amibus may be at work. Answers the number up to which nothing
/// readable is left to be read.
///
/// # Errors
/// Where the folder cannot be read; a spool that is not there holds nothing.
pub(crate) fn payloads(
    dir: &Path,
    since: Since,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<u64> {
    let fs = Disk;
    let mut firsts: Vec<u64> = match fs.list(dir) {
        Ok(names) => names.iter().filter_map(|name| format::segment_first(name)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    firsts.sort_unstable();
    let mut untils = firsts.iter().copied().skip(1);
    let (mut behind, mut refused) = (0, false);
    for &first in &firsts {
        let until = untils.next();
        match segment(&fs, dir, first, until, since, &mut each) {
            Ok((_, going)) if refused => {
                if going.is_break() {
                    break;
                }
            }
            Ok((read, going)) => {
                behind = behind.max(read);
                if going.is_break() {
                    break;
                }
            }
            Err(error) => {
                refused = true;
                warn!(segment = format::segment_name(first), %error, "it is not searched");
            }
        }
    }
    Ok(behind)
}

fn segment<F: Filesystem + Clone>(
    fs: &F,
    dir: &Path,
    first: u64,
    until: Option<u64>,
    since: Since,
    each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<(u64, ControlFlow<()>)> {
    if let Some(next) = until
        && next <= since.number
        && (since.at.is_none() || begins(fs, dir, next)?.is_some_and(|at| !since.is_within(at)))
    {
        return Ok((next, ControlFlow::Continue(())));
    }
    let Ok(mut walk) = Walk::open(fs, dir, first, SCAN_BYTES)? else {
        return Ok((first, ControlFlow::Continue(())));
    };
    while until.is_none_or(|until| walk.expected < until) {
        match walk.step()? {
            Step::Record { sequence, payload, at } if since.has(sequence, at) => {
                if each(&payload).is_break() {
                    return Ok((walk.expected, ControlFlow::Break(())));
                }
            }
            Step::Record { .. } | Step::Hole(_) => {}
            Step::End | Step::Bad(_) => break,
        }
    }
    Ok((walk.expected, ControlFlow::Continue(())))
}

/// When a segment's first record was appended.
fn begins<F: Filesystem + Clone>(fs: &F, dir: &Path, segment: u64) -> io::Result<Option<SystemTime>> {
    let Ok(mut walk) = Walk::open(fs, dir, segment, SCAN_BYTES)? else { return Ok(None) };
    Ok(match walk.step()? {
        Step::Record { at, .. } => Some(at),
        _ => None,
    })
}
