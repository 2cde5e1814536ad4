//! Reads what a bus asks for that is not in memory as messages: from a segment, or from a chunk not yet written.

use std::{io, path::PathBuf, sync::Arc, time::SystemTime};

use amibus_contract::{Bytes, Message};
use tracing::warn;

use super::{
    damage::Damage,
    format::{self, Fault, Item, Parsed},
    fs::Filesystem,
    lost::{Lost, Reason, time},
    pending::Chunk,
    shell::Decode,
    walk::{Step, Walk},
};

/// How much of a segment is read at a time.
pub const READ_BYTES: usize = 256 << 10;
/// How often a read is tried that the disk refuses, before its records count as damaged.
const READ_TRIES: u32 = 5;

/// What a lane wants.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) source: Source,
    /// The first number wanted.
    pub(super) from: u64,
    /// The number before which to stop.
    pub(super) until: u64,
    /// When that one was appended, or somewhat after.
    pub(super) until_at: SystemTime,
    /// When the first was appended, or somewhat before.
    pub(super) from_at: SystemTime,
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// Where it stands.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In the segment that begins with `first` and has so many bytes.
    Segment { first: u64, bytes: u64 },
    /// In memory.
    Chunk(Arc<Chunk>),
}

/// What was found of it: messages, or what stands in their place.
#[derive(Debug, Default)]
pub(super) struct Got {
    pub(super) from: u64,
    /// The number after the last message or lost one.
    pub(super) next: u64,
    pub(super) messages: Vec<Message>,
    pub(super) appended: Vec<SystemTime>,
    pub(super) lost: Option<Lost>,
    /// The segment cannot be read on.
    pub(super) damaged: bool,
    /// The disk did not answer; again after a while.
    pub(super) again: bool,
}

/// Reads for one lane, which mostly goes on where it was.
pub(super) struct FileReader<F: Filesystem> {
    fs: F,
    dir: PathBuf,
    decode: Decode,
    walk: Option<Walk<F>>,
    /// A step that was taken and not yet used.
    peeked: Option<Step>,
    failures: u32,
}

impl<F: Filesystem + Clone> FileReader<F> {
    pub(super) fn new(fs: F, dir: PathBuf, decode: Decode) -> Self {
        Self { fs, dir, decode, walk: None, peeked: None, failures: 0 }
    }

    /// Reads; touches the disk and may take as long as it likes.
    pub(super) fn read(&mut self, want: &Want) -> Got {
        let mut got = Got { from: want.from, next: want.from, ..Got::default() };
        let outcome = match &want.source {
            Source::Chunk(chunk) => {
                self.read_chunk(chunk, want, &mut got);
                Ok(())
            }
            Source::Segment { first, bytes } => self.read_segment(*first, *bytes, want, &mut got),
        };
        match outcome {
            Ok(()) => self.failures = 0,
            Err(error) => self.failed(want, &mut got, &error),
        }
        got
    }

    fn failed(&mut self, want: &Want, got: &mut Got, error: &io::Error) {
        (self.walk, self.peeked) = (None, None);
        if !got.messages.is_empty() {
            return;
        }
        self.failures += 1;
        got.again = self.failures < READ_TRIES;
        warn!(dir = %self.dir.display(), sequence = want.from, %error, again = got.again, "cannot read the spool");
        if !got.again {
            self.failures = 0;
            lose_rest(want, got);
        }
    }

    fn read_segment(&mut self, segment: u64, bytes: u64, want: &Want, got: &mut Got) -> io::Result<()> {
        if self.walk.as_ref().is_none_or(|walk| walk.segment != segment) || self.position() > want.from {
            (self.walk, self.peeked) = (None, None);
            match Walk::open(&self.fs, &self.dir, segment, READ_BYTES)? {
                Ok(walk) => self.walk = Some(walk),
                Err(fault) => {
                    self.report(segment, 0, want, fault);
                    lose_rest(want, got);
                    return Ok(());
                }
            }
        }
        let mut size = 0;
        self.walk.iter_mut().for_each(|walk| walk.end = bytes);
        while self.position() < want.until {
            let Some(walk) = &mut self.walk else { break };
            let step = match self.peeked.take() {
                Some(step) => step,
                None => walk.step()?,
            };
            let fault = match step {
                Step::End => Fault::Short,
                Step::Bad(fault) => fault,
                step => match self.add(step, want, got, &mut size) {
                    None => continue,
                    Some(step) => {
                        self.peeked = Some(step);
                        break;
                    }
                },
            };
            if got.messages.is_empty() {
                let offset = walk.offset;
                self.report(segment, offset, want, fault);
                self.walk = None;
                lose_rest(want, got);
            }
            break;
        }
        Ok(())
    }

    fn read_chunk(&self, chunk: &Chunk, want: &Want, got: &mut Got) {
        let (mut at, mut expected, mut size) = (0, chunk.first, 0);
        while expected < want.until {
            let rest = chunk.bytes.get(at..).unwrap_or_default();
            let Parsed::Item(item, bytes) = format::parse(rest, expected) else { return };
            (at, expected) = (at + bytes, item.next());
            let step = match item {
                Item::Hole(lost) => Step::Hole(lost),
                Item::Record { sequence, .. } if sequence < want.from => continue,
                Item::Record { sequence, micros, payload } => {
                    let payload = Bytes::copy_from_slice(rest.get(payload).unwrap_or_default());
                    Step::Record { sequence, at: time(micros), payload }
                }
            };
            if self.add(step, want, got, &mut size).is_some() {
                return;
            }
        }
    }

    /// Adds what a step found, or gives it back where there is no more room.
    fn add(&self, step: Step, want: &Want, got: &mut Got, size: &mut usize) -> Option<Step> {
        let lost = match step {
            Step::Record { sequence, .. } if sequence < want.from => return None,
            Step::Hole(lost) if lost.last < want.from => return None,
            Step::Record { sequence, at, payload } => {
                let full = got.messages.len() >= want.messages.max(1)
                    || (!got.messages.is_empty() && *size + payload.len() > want.bytes);
                if full || got.lost.is_some() {
                    return Some(Step::Record { sequence, at, payload });
                }
                if let Some(message) = (self.decode)(payload.clone()) {
                    *size += payload.len();
                    got.next = sequence + 1;
                    got.messages.push(message);
                    got.appended.push(at);
                    return None;
                }
                Lost { first: sequence, last: sequence, from: at, until: at, reason: Reason::Damaged }
            }
            Step::Hole(lost) => lost,
            other => return Some(other),
        };
        if !got.messages.is_empty() || got.lost.is_some() {
            return Some(Step::Hole(lost));
        }
        let (first, last) = (lost.first.max(want.from), lost.last.min(want.until - 1));
        got.next = last + 1;
        got.lost = Some(Lost { first, last, ..lost });
        None
    }

    /// The number of the next step.
    fn position(&self) -> u64 {
        match (&self.peeked, &self.walk) {
            (Some(Step::Record { sequence, .. }), _) => *sequence,
            (Some(Step::Hole(lost)), _) => lost.first,
            (_, Some(walk)) => walk.expected,
            (_, None) => u64::MAX,
        }
    }

    fn report(&self, segment: u64, offset: u64, want: &Want, fault: Fault) {
        let damage = Damage {
            file: format::segment_name(segment),
            offset,
            sequence: Some(want.from),
            count: Some(want.until - want.from),
            fault,
        };
        warn!(dir = %self.dir.display(), ?damage, "the spool is damaged; announced as a gap");
    }
}

/// Nothing of what is wanted can be read.
fn lose_rest(want: &Want, got: &mut Got) {
    got.damaged = true;
    got.next = want.until;
    got.lost = Some(Lost {
        first: want.from,
        last: want.until - 1,
        from: want.from_at,
        until: want.until_at,
        reason: Reason::Damaged,
    });
}
