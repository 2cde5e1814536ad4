//! Reading a spool's records as they lie there, apart from any bus: for looking something up after a crash.

use std::{io, ops::ControlFlow, path::Path, time::SystemTime};

use super::{
    format,
    fs::{Disk, Filesystem},
    walk::{Step, Walk},
};

/// How much of a segment is read at a time.
const SCAN_BYTES: usize = 1 << 20;

/// Hands `each` the payload of every whole record in the spool of `dir`, oldest first, until it says [`ControlFlow::Break`].
/// Segments that ended before `since` are passed over. What is damaged is passed over too, to the segment's end.
///
/// # Errors
/// Those of the disk; a spool that is not there holds nothing.
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
        if let Some(next) = until
            && begins(&fs, dir, next)?.is_some_and(|at| at < since)
        {
            continue;
        }
        let Ok(mut walk) = Walk::open(&fs, dir, first, SCAN_BYTES)? else { continue };
        while until.is_none_or(|until| walk.expected < until) {
            match walk.step()? {
                Step::Record { payload, .. } => {
                    if each(&payload).is_break() {
                        return Ok(());
                    }
                }
                Step::Hole(_) => {}
                Step::End | Step::Bad(_) => break,
            }
        }
    }
    Ok(())
}

/// When a segment's first record was appended.
fn begins<F: Filesystem + Clone>(fs: &F, dir: &Path, segment: u64) -> io::Result<Option<SystemTime>> {
    let Ok(mut walk) = Walk::open(fs, dir, segment, SCAN_BYTES)? else { return Ok(None) };
    Ok(match walk.step()? {
        Step::Record { at, .. } => Some(at),
        _ => None,
    })
}
