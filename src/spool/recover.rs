//! What is found when a spool is opened. Reads only; [`super::open`] acts on it.

use std::{io, path::Path, time::SystemTime};

use super::{
    damage::Damage,
    format::{self, Fault, SEGMENT_HEADER_BYTES},
    fs::Filesystem,
    ledger::{self, Found, LEDGER, Ledger, MARK},
    log::Segment,
    lost::Lost,
    state::RESERVE_MAX,
    walk::{Step, Walk},
};

/// How much is read of a segment to see when it begins.
const PEEK_BYTES: usize = 4096;
/// How much is read of the last segment at a time.
const SCAN_BYTES: usize = 1 << 20;
/// How far behind damage is looked for whole records.
const SEARCH_BYTES: usize = 256 << 20;
/// What a file is called before it is complete.
pub(super) const UNFINISHED: &str = ".tmp";

/// What was found and done when a spool was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// It had been closed before, with nothing left to write.
    pub clean: bool,
    /// The log has another identity from now on.
    pub new_identity: bool,
    /// Segments.
    pub segments: usize,
    /// Bytes of all segments.
    pub bytes: u64,
    /// The next sequence number.
    pub next: u64,
    /// When the last record was appended, or somewhat before, if there is one.
    pub last: Option<SystemTime>,
    /// What is now known to be missing at the end.
    pub lost: Option<Lost>,
    /// Where files are damaged. Older segments are looked at when they are read.
    pub damages: Vec<Damage>,
}

/// What is in the files.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) ledger: Found,
    pub(super) mark: Found,
    /// What the two say together.
    pub(super) known: Option<Ledger>,
    /// Oldest first. The last one ends at `end`.
    pub(super) segments: Vec<Segment>,
    /// The number after the last readable record.
    pub(super) end: u64,
    /// What was lost is told under this number.
    pub(super) lost_before: u64,
    /// The next number.
    pub(super) next: u64,
    /// The last segment may be appended to.
    pub(super) sound: bool,
    /// No number can have been given out that is not known.
    pub(super) exact: bool,
    /// When the last readable record was appended, or somewhat before.
    pub(super) last: Option<SystemTime>,
    pub(super) damages: Vec<Damage>,
    /// The first file of another version.
    pub(super) version: Option<(String, u32)>,
    /// When each segment begins, where that can be read.
    begins: Vec<Option<SystemTime>>,
    /// What stands at the end of the last segment and cannot be read.
    tail: Option<Damage>,
    /// The last number found behind it.
    behind: Option<u64>,
}

/// Looks at the files; `boot` is this life of the machine.
pub(super) fn survey<F: Filesystem + Clone>(
    fs: &F,
    dir: &Path,
    boot: [u8; 16],
    now: SystemTime,
) -> io::Result<Survey> {
    // Before the segments, so that it may be looked at while the log grows.
    let (ledger, mark) = (ledger::read(fs, dir, LEDGER)?, ledger::read(fs, dir, MARK)?);
    let mut firsts: Vec<u64> = fs.list(dir)?.iter().filter_map(|name| format::segment_first(name)).collect();
    firsts.sort_unstable();
    let mut survey = Survey {
        damages: damages(LEDGER, &ledger).chain(damages(MARK, &mark)).collect(),
        known: known(&ledger, &mark),
        segments: Vec::with_capacity(firsts.len()),
        end: 1,
        lost_before: 1,
        next: 1,
        sound: true,
        exact: false,
        last: None,
        version: version(LEDGER, &ledger).or(version(MARK, &mark)),
        begins: Vec::with_capacity(firsts.len()),
        tail: None,
        behind: None,
        ledger,
        mark,
    };
    if let Some((&last, older)) = firsts.split_last() {
        for &first in older {
            survey.older(fs, dir, first, now)?;
        }
        survey.last_segment(fs, dir, last, now)?;
        survey.date(now);
    } else if let Some(known) = &survey.known {
        // A spool that was ever written to has a segment, so whatever was in it is lost.
        survey.end = known.cursors.values().copied().min().unwrap_or(known.next);
    }
    survey.conclude(boot, firsts.is_empty());
    Ok(survey)
}

/// Where the slots of a file are damaged.
pub(super) fn damages(name: &str, found: &Found) -> impl Iterator<Item = Damage> {
    found.damaged.iter().map(move |&(offset, fault)| Damage {
        file: name.to_owned(),
        offset,
        sequence: None,
        count: None,
        fault,
    })
}

fn version(name: &str, found: &Found) -> Option<(String, u32)> {
    found.version().map(|version| (name.to_owned(), version))
}

/// What ledger and mark say together. Numbers and cursors only ever ascend, so the greater is the later.
fn known(ledger: &Found, mark: &Found) -> Option<Ledger> {
    let mut known = ledger.newest.as_ref().or(mark.newest.as_ref())?.clone();
    for slot in ledger.slots().chain(mark.slots()) {
        known.next = known.next.max(slot.next).max(slot.cursors.values().copied().max().unwrap_or(1));
        known.reserved = known.reserved.max(slot.reserved);
    }
    for (name, &cursor) in mark.newest.iter().flat_map(|mark| &mark.cursors) {
        let place = known.cursors.entry(name.clone()).or_insert(cursor);
        *place = cursor.max(*place);
    }
    Some(known)
}

impl Survey {
    /// What is missing at the end, as far as can be known.
    ///
    /// Within one life of the machine the mark says it exactly, as does a ledger of a spool that was closed. Where each
    /// record was synced before it was given out, the machine's end takes none; within one life the mark must be whole
    /// all the same, for it outlives a process. Otherwise everything up to the number that is reserved counts as lost.
    fn conclude(&mut self, boot: [u8; 16], empty: bool) {
        let unknown = [0; 16];
        let mark = self.mark.newest.as_ref().is_some_and(|mark| mark.boot == boot && boot != unknown);
        let ledger = self.ledger.newest.as_ref();
        // Both slots say so before anything goes out, so the one that can be read is enough.
        let ahead = ledger.is_some_and(|ledger| ledger.ahead);
        let synced = self.known.as_ref().is_some_and(|known| {
            let other_boot = known.boot != boot && known.boot != unknown && boot != unknown;
            known.synced && (other_boot || self.mark.is_whole())
        });
        let clean = ledger.is_some_and(|ledger| ledger.clean);
        self.exact = clean || (!ahead && (mark || synced)) || (empty && self.known.is_none());
        let behind = self.behind.map_or(self.end, |last| last + 1);
        let known = self.known.as_ref().map_or(1, |known| known.next).max(behind).max(self.end);
        self.lost_before = match &self.known {
            _ if self.exact => known,
            Some(said) if self.ledger.newest.is_some() => said.reserved.max(known),
            _ => known.saturating_add(RESERVE_MAX),
        };
        if !clean && self.mark.newest.is_some() {
            // One slot that is torn is what a kill leaves, and the end of the machine.
            self.damages.retain(|damage| damage.file != MARK);
        }
        // One more, for the announcement.
        self.next = self.lost_before + u64::from(self.lost_before > self.end);
        let Some(mut tail) = self.tail.take() else {
            if self.lost_before > self.end && self.exact && !empty {
                let first = self.segments.last().map_or(self.end, |last| last.first);
                let offset = self.segments.last().map_or(0, |last| last.bytes);
                let count = Some(self.lost_before - self.end);
                self.damage(first, offset, self.end, count, Fault::Short);
            }
            return;
        };
        self.sound = false;
        // What no bus was given and what was not written whole is what a kill leaves, not damage.
        if clean || self.lost_before > self.end {
            tail.count = Some(self.lost_before - self.end).filter(|_| self.exact || self.behind.is_some());
            self.damages.push(tail);
        }
    }

    /// Segments whose beginning cannot be read are taken to begin with the next one.
    fn date(&mut self, now: SystemTime) {
        let mut next = now;
        for (segment, begins) in self.segments.iter_mut().zip(&self.begins).rev() {
            segment.from = begins.unwrap_or(next);
            next = segment.from;
        }
        let froms: Vec<SystemTime> = self.segments.iter().skip(1).map(|segment| segment.from).collect();
        for (segment, from) in self.segments.iter_mut().zip(froms) {
            segment.until = from;
        }
    }

    /// An older segment: where it begins, in sequence and in time.
    fn older<F: Filesystem + Clone>(
        &mut self,
        fs: &F,
        dir: &Path,
        first: u64,
        now: SystemTime,
    ) -> io::Result<()> {
        let (mut from, mut bytes) = (None, 0);
        match Walk::open(fs, dir, first, PEEK_BYTES)? {
            Ok(mut walk) => {
                bytes = walk.file_bytes()?;
                match walk.step()? {
                    Step::Record { at, .. } => from = Some(at),
                    Step::Hole(lost) => from = Some(lost.from),
                    Step::End => self.damage(first, walk.offset, first, None, Fault::Short),
                    Step::Bad(fault) => self.damage(first, walk.offset, first, None, fault),
                }
            }
            Err(fault) => self.damage(first, 0, first, None, fault),
        }
        self.last = from.or(self.last);
        self.push(Segment { first, bytes, from: now, until: now }, from);
        Ok(())
    }

    /// The last segment is read to its end.
    fn last_segment<F: Filesystem + Clone>(
        &mut self,
        fs: &F,
        dir: &Path,
        first: u64,
        now: SystemTime,
    ) -> io::Result<()> {
        self.end = first;
        let mut walk = match Walk::open(fs, dir, first, SCAN_BYTES)? {
            Ok(walk) => walk,
            Err(fault) => return self.headless(fs, dir, first, fault),
        };
        let (mut from, mut until) = (None, None);
        let fault = loop {
            match walk.step()? {
                Step::Record { at, .. } => {
                    (from, until) = (from.or(Some(at)), Some(at));
                    self.last = until;
                }
                Step::Hole(lost) => (from, until) = (from.or(Some(lost.from)), Some(lost.until)),
                Step::End => break None,
                Step::Bad(fault) => break Some(fault),
            }
        };
        let bytes = walk.offset;
        self.end = walk.expected;
        self.push(Segment { first, bytes, from: now, until: until.unwrap_or(now) }, from);
        if let Some(fault) = fault {
            self.behind = format::last_behind(&walk.rest(SEARCH_BYTES)?, self.end);
            self.tail(first, bytes, fault);
        }
        Ok(())
    }

    /// The last segment without a header: one that was never finished, or damage.
    fn headless<F: Filesystem>(&mut self, fs: &F, dir: &Path, first: u64, fault: Fault) -> io::Result<()> {
        let file = fs.open(&dir.join(format::segment_name(first)), false)?;
        let length = usize::try_from(fs.len(&file)?).unwrap_or(SEARCH_BYTES).min(SEARCH_BYTES);
        let mut bytes = vec![0; length];
        let read = fs.read_at(&file, &mut bytes, 0)?;
        let records = bytes.get(SEGMENT_HEADER_BYTES..read).unwrap_or_default();
        self.behind = format::last_behind(records, first);
        self.tail(first, 0, fault);
        Ok(())
    }

    fn tail(&mut self, segment: u64, offset: u64, fault: Fault) {
        let file = self.file(segment, fault);
        self.tail = Some(Damage { file, offset, sequence: Some(self.end), count: None, fault });
    }

    fn damage(&mut self, segment: u64, offset: u64, sequence: u64, count: Option<u64>, fault: Fault) {
        let file = self.file(segment, fault);
        self.damages.push(Damage { file, offset, sequence: Some(sequence), count, fault });
    }

    fn file(&mut self, segment: u64, fault: Fault) -> String {
        let file = format::segment_name(segment);
        if let Fault::Version(version) = fault {
            self.version.get_or_insert((file.clone(), version));
        }
        file
    }

    fn push(&mut self, segment: Segment, begins: Option<SystemTime>) {
        self.segments.push(segment);
        self.begins.push(begins);
    }
}
