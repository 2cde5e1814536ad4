//! What is found when a spool is opened. Reads only; [`super::open`] acts on it.

use std::{io, path::Path, time::SystemTime};

use super::{
    damage::Damage,
    format::{self, Fault, SEGMENT_HEADER_BYTES},
    fs::Filesystem,
    ledger::{self, LEDGER},
    log::Segment,
    lost::Lost,
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
    pub(super) ledger: ledger::Found,
    /// Oldest first. The last one ends at `end`.
    pub(super) segments: Vec<Segment>,
    /// The number after the last readable record.
    pub(super) end: u64,
    /// The number after the last one that is known to have been given.
    pub(super) next: u64,
    /// The last segment may be appended to.
    pub(super) sound: bool,
    /// When the last readable record was appended, or somewhat before.
    pub(super) last: Option<SystemTime>,
    pub(super) damages: Vec<Damage>,
    /// The first file of a later version.
    pub(super) version: Option<(String, u32)>,
}

/// Looks at the files.
pub(super) fn survey<F: Filesystem + Clone>(fs: &F, dir: &Path, now: SystemTime) -> io::Result<Survey> {
    let ledger = ledger::read(fs, dir)?;
    let mut firsts: Vec<u64> = fs.list(dir)?.iter().filter_map(|name| format::segment_first(name)).collect();
    firsts.sort_unstable();
    let damages = ledger.damaged.iter().map(|&offset| Damage {
        file: LEDGER.to_owned(),
        offset,
        sequence: None,
        count: None,
        fault: Fault::Checksum,
    });
    let mut survey = Survey {
        damages: damages.collect(),
        segments: Vec::with_capacity(firsts.len()),
        end: 1,
        next: 1,
        sound: true,
        last: None,
        version: None,
        ledger,
    };
    if let Some((&last, older)) = firsts.split_last() {
        for &first in older {
            survey.older(fs, dir, first, now)?;
        }
        survey.last_segment(fs, dir, last, now)?;
    }
    let slots = [&survey.ledger.newest, &survey.ledger.older];
    for ledger in slots.into_iter().flatten() {
        let cursors = ledger.cursors.values().copied().max().unwrap_or(1);
        survey.next = survey.next.max(ledger.next).max(cursors);
    }
    if firsts.is_empty() {
        // A spool that was ever written to has a segment, so whatever was in it is lost.
        let cursors = survey.ledger.newest.iter().flat_map(|ledger| ledger.cursors.values().copied());
        survey.end = cursors.min().unwrap_or(survey.next);
    }
    Ok(survey)
}

impl Survey {
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
                    Step::Hole(lost) => from = Some(lost.until),
                    Step::End => self.damage(first, walk.offset, first, None, Fault::Short),
                    Step::Bad(fault) => self.damage(first, walk.offset, first, None, fault),
                }
            }
            Err(fault) => self.damage(first, 0, first, None, fault),
        }
        self.last = from.or(self.last);
        self.push(Segment { first, bytes, from: from.unwrap_or(now), until: now });
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
        (self.end, self.next) = (first, first);
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
                Step::Hole(lost) => (from, until) = (from.or(Some(lost.until)), Some(lost.until)),
                Step::End => break None,
                Step::Bad(fault) => break Some(fault),
            }
        };
        let bytes = walk.offset;
        (self.end, self.next) = (walk.expected, walk.expected);
        self.push(Segment { first, bytes, from: from.unwrap_or(now), until: until.unwrap_or(now) });
        if let Some(fault) = fault {
            let behind = format::last_behind(&walk.rest(SEARCH_BYTES)?, self.end);
            self.torn(first, bytes, behind, fault);
        }
        Ok(())
    }

    /// The last segment without a header: one that was never finished, or damage.
    fn headless<F: Filesystem>(&mut self, fs: &F, dir: &Path, first: u64, fault: Fault) -> io::Result<()> {
        let file = fs.open(&dir.join(format::segment_name(first)), false)?;
        let length = usize::try_from(fs.len(&file)?).unwrap_or(SEARCH_BYTES).min(SEARCH_BYTES);
        let mut bytes = vec![0; length];
        let read = fs.read_at(&file, &mut bytes, 0)?;
        let behind = bytes.get(SEGMENT_HEADER_BYTES..read).filter(|records| !records.is_empty());
        match behind {
            None => {
                self.sound = false;
                self.damage(first, 0, first, None, fault);
            }
            Some(records) => self.torn(first, 0, format::last_behind(records, first), fault),
        }
        Ok(())
    }

    fn torn(&mut self, segment: u64, offset: u64, behind: Option<u64>, fault: Fault) {
        self.sound = false;
        self.next = behind.unwrap_or(self.end).max(self.end) + 1;
        let count = behind.map(|last| last + 1 - self.end);
        self.damage(segment, offset, self.end, count, fault);
    }

    fn damage(&mut self, segment: u64, offset: u64, sequence: u64, count: Option<u64>, fault: Fault) {
        let file = format::segment_name(segment);
        if let Fault::Version(version) = fault {
            self.version.get_or_insert((file.clone(), version));
        }
        self.damages.push(Damage { file, offset, sequence: Some(sequence), count, fault });
    }

    fn push(&mut self, segment: Segment) {
        if let Some(before) = self.segments.last_mut() {
            before.until = segment.from;
        }
        self.segments.push(segment);
    }
}
