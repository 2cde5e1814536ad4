//! What lies in a spool, whether it is sound, and sending again: for a person, while amibus runs or not.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    damage::Damage,
    format::{self, Fault},
    fs::{Disk, Filesystem},
    ledger::{self, LEDGER, LedgerFile, MARK},
    lost::Lost,
    open::boot,
    recover::{damages, survey},
    walk::{Step, Walk},
};

/// How much of a segment is read at a time.
const VERIFY_BYTES: usize = 1 << 20;
const LOCK: &str = "lock";

/// What lies in a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The log's identity, if its ledger can be read.
    pub identity: Option<String>,
    /// It was closed with everything written.
    pub clean: bool,
    /// The next sequence number.
    pub next: u64,
    /// When the last record was appended.
    pub last: Option<SystemTime>,
    /// By bus, configured or not.
    pub cursors: BTreeMap<String, Cursor>,
    /// The segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Damage that shows without reading everything.
    pub damages: Vec<Damage>,
}

/// A bus's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The next sequence number that the bus has not confirmed.
    pub next: u64,
    /// How many numbers it is behind.
    pub behind: u64,
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its file's name.
    pub file: String,
    /// Its first sequence number.
    pub first: u64,
    /// The number after its last one.
    pub end: u64,
    /// Bytes.
    pub bytes: u64,
    /// When its first record was appended.
    pub from: SystemTime,
}

/// What a spool holds, every byte of it checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Segments.
    pub segments: u64,
    /// Whole records.
    pub records: u64,
    /// Bytes of items that are whole.
    pub bytes: u64,
    /// What is missing and was announced.
    pub holes: Vec<Lost>,
    /// What is damaged.
    pub damages: Vec<Damage>,
}

/// Why a bus cannot be sent to again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// amibus runs, or another one replays.
    #[error("the spool {0} is in use: stop amibus first")]
    InUse(PathBuf),
    /// The spool has no cursor of that bus.
    #[error("the spool has no bus {bus:?}; it has {known:?}")]
    Bus {
        /// What was asked for.
        bus: String,
        /// The buses it has.
        known: Vec<String>,
    },
    /// Not, or no longer, in the log.
    #[error("sequence {from} is not in the spool, which has {oldest} to {last}")]
    Gone {
        /// What was asked for.
        from: u64,
        /// The oldest.
        oldest: u64,
        /// The newest.
        last: u64,
    },
    /// The ledger cannot be read. Starting amibus once makes a new one.
    #[error("the spool's ledger is damaged")]
    Ledger,
    /// The disk refuses.
    #[error("cannot replay from the spool")]
    Io(#[from] io::Error),
}

/// What lies in the spool of `dir`. Reads the last segment and the beginnings of the others.
///
/// # Errors
/// Those of the disk.
pub fn inspect(dir: &Path) -> io::Result<Inspection> {
    let survey = survey(&Disk, dir, boot(), SystemTime::now())?;
    let ledger = survey.known;
    let ends = survey.segments.iter().skip(1).map(|segment| segment.first).chain([survey.end]);
    let segments = survey.segments.iter().zip(ends).map(|(segment, end)| SegmentInfo {
        file: format::segment_name(segment.first),
        first: segment.first,
        end,
        bytes: segment.bytes,
        from: segment.from,
    });
    let next = survey.next;
    let cursors = ledger.iter().flat_map(|ledger| ledger.cursors.clone());
    Ok(Inspection {
        segments: segments.collect(),
        identity: ledger.as_ref().map(|ledger| format!("{:016x}", ledger.identity)),
        clean: ledger.as_ref().is_some_and(|ledger| ledger.clean),
        cursors: cursors
            .map(|(bus, cursor)| (bus, Cursor { next: cursor, behind: next.saturating_sub(cursor) }))
            .collect(),
        next,
        last: survey.last,
        damages: survey.damages,
    })
}

/// Reads the whole spool of `dir`. While amibus runs, the last record may look torn.
///
/// # Errors
/// Those of the disk; damage is none.
pub fn verify(dir: &Path) -> io::Result<Verification> {
    verify_on(&Disk, dir)
}

pub(super) fn verify_on<F: Filesystem + Clone>(fs: &F, dir: &Path) -> io::Result<Verification> {
    let mut found = Verification::default();
    // Before the segments: while amibus runs, these go on.
    let (ledger, mark) = (ledger::read(fs, dir, LEDGER)?, ledger::read(fs, dir, MARK)?);
    found.damages.extend(damages(LEDGER, &ledger).chain(damages(MARK, &mark)));
    let next = ledger.slots().chain(mark.slots()).map(|slot| slot.next).max();
    let mut firsts: Vec<u64> = fs.list(dir)?.iter().filter_map(|name| format::segment_first(name)).collect();
    firsts.sort_unstable();
    let untils = firsts.iter().skip(1).map(|&next| Some(next)).chain([None]);
    for (&first, until) in firsts.iter().zip(untils) {
        found.segments += 1;
        let (offset, expected, fault) = match Walk::open(fs, dir, first, VERIFY_BYTES)? {
            Ok(mut walk) => {
                let fault = found.segment(&mut walk, until)?;
                found.bytes += walk.offset;
                (walk.offset, walk.expected, fault)
            }
            Err(fault) => (0, first, Some(fault)),
        };
        let short = until.is_none() && next.is_some_and(|next| expected < next);
        let (until, fault) = if short { (next, fault.or(Some(Fault::Short))) } else { (until, fault) };
        if let Some(fault) = fault {
            let count = until.map(|until| until.saturating_sub(expected));
            let file = format::segment_name(first);
            found.damages.push(Damage { file, offset, sequence: Some(expected), count, fault });
        }
    }
    Ok(found)
}

impl Verification {
    fn segment<F: Filesystem + Clone>(
        &mut self,
        walk: &mut Walk<F>,
        until: Option<u64>,
    ) -> io::Result<Option<Fault>> {
        while until.is_none_or(|until| walk.expected < until) {
            match walk.step()? {
                Step::Record { .. } => self.records += 1,
                Step::Hole(lost) => self.holes.push(lost),
                Step::End => return Ok(until.map(|_| Fault::Short)),
                Step::Bad(fault) => return Ok(Some(fault)),
            }
        }
        Ok(None)
    }
}

/// Sets a bus's cursor back to `from`, so that from the next start on it is sent everything since again, under the
/// same ids. Answers how many numbers that are.
///
/// # Errors
/// When amibus runs, the bus is not known, or `from` is not in the spool.
pub fn replay(dir: &Path, bus: &str, from: u64) -> Result<u64, ReplayError> {
    let fs = Disk;
    let _lock = fs.lock(&dir.join(LOCK))?.ok_or_else(|| ReplayError::InUse(dir.to_owned()))?;
    let survey = survey(&fs, dir, boot(), SystemTime::now())?;
    let (mut ledger, mut mark) = survey.ledger.newest.zip(survey.mark.newest).ok_or(ReplayError::Ledger)?;
    let known = ledger.cursors.keys().cloned().collect();
    let cursor =
        ledger.cursors.get_mut(bus).ok_or_else(|| ReplayError::Bus { bus: bus.to_owned(), known })?;
    let oldest = survey.segments.first().map_or(survey.next, |segment| segment.first);
    if !(oldest..survey.next).contains(&from) {
        return Err(ReplayError::Gone { from, oldest, last: survey.next.saturating_sub(1) });
    }
    *cursor = from;
    mark.cursors.insert(bus.to_owned(), from);
    if survey.ledger.damaged.is_empty() {
        // The greater cursor counts, and the mark's is not the greater one.
        LedgerFile::create(fs, dir, MARK, mark)?;
        LedgerFile::create(fs, dir, LEDGER, ledger)?;
        return Ok(survey.next - from);
    }
    // Two good slots would hide from the next start that one was damaged.
    Err(ReplayError::Ledger)
}
