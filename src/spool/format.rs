//! The bytes of a segment. Pure.

use std::ops::Range;

use super::lost::{Lost, Reason, micros, time};

/// Bytes of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = 24;
/// Bytes of a record before its payload.
pub const RECORD_HEADER_BYTES: usize = 24;
/// The longest payload. A longer one is not written and becomes a hole.
pub const MAX_PAYLOAD_BYTES: usize = 64 << 20;
/// No sequence is greater; a file that says so is damaged.
pub const MAX_SEQUENCE: u64 = 1 << 62;
/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"AMISPOOL";
const HOLE_BIT: u32 = 1 << 31;
const HOLE_PAYLOAD_BYTES: usize = 17;
const SUFFIX: &str = ".seg";

/// What is wrong with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not the beginning of a segment.
    #[error("not the header of a segment")]
    Header,
    /// Of another version of amibus.
    #[error("version {0} of the format is not known")]
    Version(u32),
    /// A length that no record has.
    #[error("a record of an impossible length")]
    Length,
    /// Not the number that follows.
    #[error("a record out of sequence")]
    Sequence,
    /// Bytes have changed.
    #[error("a wrong checksum")]
    Checksum,
    /// The file ends within a record, or before the segment does.
    #[error("the end is missing")]
    Short,
    /// A hole that makes no sense.
    #[error("not a hole")]
    Hole,
    /// A record whose payload is not a message of amibus.
    #[error("not a message")]
    Payload,
    /// The disk does not give the bytes.
    #[error("cannot be read")]
    Unreadable,
}

/// What stands at one place of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A record.
    Record {
        /// Its number.
        sequence: u64,
        /// When it was appended, in microseconds since 1970.
        micros: u64,
        /// Where its payload stands in the parsed bytes.
        payload: Range<usize>,
    },
    /// Numbers that are missing.
    Hole(Lost),
}

impl Item {
    /// The number that follows.
    pub fn next(&self) -> u64 {
        match self {
            Self::Record { sequence, .. } => sequence + 1,
            Self::Hole(lost) => lost.last + 1,
        }
    }
}

/// The outcome of [`parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// An item, and how many bytes it has.
    Item(Item, usize),
    /// So many bytes are needed, from the item's beginning on.
    More(usize),
    /// Damage.
    Bad(Fault),
}

/// The name of the segment that begins with `first`.
pub fn segment_name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// The first sequence of a segment by its name.
pub fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten().filter(|first| (1..MAX_SEQUENCE).contains(first))
}

/// The header of a segment.
pub fn header(first: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&first.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
    out.try_into().unwrap_or_default()
}

/// Whether `bytes` begin the segment of `first`.
///
/// # Errors
/// [`Fault::Version`] for a later format, which is not damage; [`Fault::Short`] and [`Fault::Header`], which are.
pub fn check_header(bytes: &[u8], first: u64) -> Result<(), Fault> {
    let bytes = bytes.get(..SEGMENT_HEADER_BYTES).ok_or(Fault::Short)?;
    if u32_at(bytes, 20) != crc32fast::hash(bytes.get(..20).unwrap_or_default()) || !bytes.starts_with(MAGIC)
    {
        return Err(Fault::Header);
    }
    match u32_at(bytes, 8) {
        VERSION if u64_at(bytes, 12) == first => Ok(()),
        VERSION => Err(Fault::Header),
        other => Err(Fault::Version(other)),
    }
}

/// Appends a record.
pub fn push_record(out: &mut Vec<u8>, sequence: u64, micros: u64, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    push(out, len, sequence, micros, |out| out.extend_from_slice(payload));
}

/// Appends a hole.
pub fn push_hole(out: &mut Vec<u8>, lost: &Lost) {
    push(out, HOLE_BIT | HOLE_PAYLOAD_BYTES as u32, lost.last, micros(lost.until), |out| {
        out.extend_from_slice(&lost.first.to_le_bytes());
        out.extend_from_slice(&micros(lost.from).to_le_bytes());
        out.push(match lost.reason {
            Reason::Dropped => 0,
            Reason::Damaged => 1,
            Reason::CutShort => 2,
        });
    });
}

fn push(out: &mut Vec<u8>, len: u32, sequence: u64, micros: u64, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let mut head = [0; RECORD_HEADER_BYTES];
    head[..4].copy_from_slice(&len.to_le_bytes());
    head[8..16].copy_from_slice(&sequence.to_le_bytes());
    head[16..].copy_from_slice(&micros.to_le_bytes());
    out.extend_from_slice(&head);
    payload(out);
    let crc = checksum(out.get(start..).unwrap_or_default());
    if let Some(place) = out.get_mut(start + 4..start + 8) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Parses what stands at the beginning of `bytes`, where number `expected` must follow.
pub fn parse(bytes: &[u8], expected: u64) -> Parsed {
    if bytes.len() < RECORD_HEADER_BYTES {
        return Parsed::More(RECORD_HEADER_BYTES);
    }
    let (len, hole) = length(bytes);
    if len > MAX_PAYLOAD_BYTES || (hole && len != HOLE_PAYLOAD_BYTES) {
        return Parsed::Bad(Fault::Length);
    }
    let sequence = u64_at(bytes, 8);
    if sequence >= MAX_SEQUENCE || if hole { sequence < expected } else { sequence != expected } {
        return Parsed::Bad(Fault::Sequence);
    }
    let total = RECORD_HEADER_BYTES + len;
    let Some(item) = bytes.get(..total) else { return Parsed::More(total) };
    if checksum(item) != u32_at(item, 4) {
        return Parsed::Bad(Fault::Checksum);
    }
    let micros = u64_at(item, 16);
    if !hole {
        return Parsed::Item(Item::Record { sequence, micros, payload: RECORD_HEADER_BYTES..total }, total);
    }
    let reason = match item.last() {
        Some(0) => Reason::Dropped,
        Some(1) => Reason::Damaged,
        Some(2) => Reason::CutShort,
        _ => return Parsed::Bad(Fault::Hole),
    };
    let (first, from) = (u64_at(item, 24), time(u64_at(item, 32)));
    if first != expected {
        return Parsed::Bad(Fault::Sequence);
    }
    let lost = Lost { first, last: sequence, from, until: time(micros), reason };
    Parsed::Item(Item::Hole(lost), total)
}

/// The last number found in bytes that do not begin with an item, or that begin with a damaged one: whole records
/// and holes behind the damage. `expected` is the number at the damage.
pub fn last_behind(bytes: &[u8], expected: u64) -> Option<u64> {
    let most = expected.saturating_add(bytes.len() as u64 / RECORD_HEADER_BYTES as u64);
    let (mut at, mut last) = (0, None);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= RECORD_HEADER_BYTES) {
        let (len, hole) = length(rest);
        let sequence = u64_at(rest, 8);
        let plausible = sequence >= last.unwrap_or(expected)
            && if hole { len == HOLE_PAYLOAD_BYTES && sequence < MAX_SEQUENCE } else { sequence <= most };
        let whole = rest.get(..RECORD_HEADER_BYTES.saturating_add(len)).filter(|_| plausible);
        at += match whole {
            Some(item) if checksum(item) == u32_at(item, 4) => {
                last = Some(sequence);
                item.len()
            }
            _ => 1,
        };
    }
    last
}

fn length(bytes: &[u8]) -> (usize, bool) {
    let len = u32_at(bytes, 0);
    ((len & !HOLE_BIT) as usize, len & HOLE_BIT != 0)
}

/// Over all of an item but the checksum's own four bytes.
fn checksum(item: &[u8]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    hash.update(item.get(..4).unwrap_or_default());
    hash.update(item.get(8..).unwrap_or_default());
    hash.finalize()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk());
    four.map_or(0, |four| u32::from_le_bytes(*four))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes.get(at..).and_then(|rest| rest.first_chunk());
    eight.map_or(0, |eight| u64::from_le_bytes(*eight))
}
