//! Reading a spool's records as they lie there, apart from any bus: for looking something up after a crash.

use std::{io, ops::ControlFlow, path::Path, time::SystemTime};

use tracing::warn;

use super::{
    format,
    fs::{Disk, Filesystem},
    walk::{Step, Walk},
};

/// How much of a segment is read at a time.
const SCAN_BYTES: usize = 1 << 20;

/// Hands `each` the payload of every whole record that was appended to the spool of `dir` since `since`, oldest first,
/// until it says [`ControlFlow::Break`]. What is damaged is passed over, to the segment's end; so is a segment that
/// cannot be read, or that is removed meanwhile, since amibus may be at work.
///
/// # Errors
/// Where the folder cannot be read; a spool that is not there holds nothing.
pub(crate) fn payloads(
    dir: &Path,
    since: SystemTime,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<()> {
    let fs = Disk;
    let mut firsts: Vec<u64> = match fs.list(dir) {
        Ok(names) => names.iter().filter_map(|name| format::segment_first(name)).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    firsts.sort_unstable();
    let mut untils = firsts.iter().copied().skip(1);
    for &first in &firsts {
        let until = untils.next();
        match segment(&fs, dir, first, until, since, &mut each) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            Err(error) => warn!(segment = format::segment_name(first), %error, "it is not searched"),
        }
    }
    Ok(())
}

fn segment<F: Filesystem + Clone>(
    fs: &F,
    dir: &Path,
    first: u64,
    until: Option<u64>,
    since: SystemTime,
    each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    if let Some(next) = until
        && begins(fs, dir, next)?.is_some_and(|at| at < since)
    {
        return Ok(ControlFlow::Continue(()));
    }
    let Ok(mut walk) = Walk::open(fs, dir, first, SCAN_BYTES)? else { return Ok(ControlFlow::Continue(())) };
    while until.is_none_or(|until| walk.expected < until) {
        match walk.step()? {
            Step::Record { payload, at, .. } if at >= since => {
                if each(&payload).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Step::Record { .. } | Step::Hole(_) => {}
            Step::End | Step::Bad(_) => break,
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// When a segment's first record was appended.
fn begins<F: Filesystem + Clone>(fs: &F, dir: &Path, segment: u64) -> io::Result<Option<SystemTime>> {
    let Ok(mut walk) = Walk::open(fs, dir, segment, SCAN_BYTES)? else { return Ok(None) };
    Ok(match walk.step()? {
        Step::Record { at, .. } => Some(at),
        _ => None,
    })
}
