//! What must be known to go on: the log's identity, the cursors, and how far the log went. The ledger's file and the
//! mark's have the same format.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use super::{
    format::{Fault, MAX_SEQUENCE, u32_at, u64_at},
    fs::Filesystem,
};

/// The name of the file that is synced.
pub const LEDGER: &str = "ledger";
/// The name of the file that is written with each chunk of records, and not synced.
pub const MARK: &str = "mark";
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 4096;
/// The most buses of which a cursor is kept, configured or not.
pub const MAX_LANES: usize = 32;
/// The longest name of a bus, in bytes.
pub const MAX_LANE_BYTES: usize = 64;

const MAGIC: &[u8; 8] = b"AMILEDGR";
/// The version of the format, which is not that of the segments.
pub const VERSION: u32 = 2;
const CLEAN: u32 = 1;
const AHEAD: u32 = 2;
const SYNCED: u32 = 4;
const CRC_AT: usize = SLOT_BYTES - 4;
const LANES_AT: usize = 73;

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Counts the slots written.
    pub generation: u64,
    /// The spool was closed, with everything written and synced.
    pub clean: bool,
    /// Records that are not in any file may have gone out. Both slots say so before any does.
    pub ahead: bool,
    /// Each record was synced before any bus was given it.
    pub synced: bool,
    /// Goes into the ids of events.
    pub identity: u64,
    /// Goes into the ids of announced losses: the identity that the log began with.
    pub origin: u64,
    /// Which life of the machine wrote it.
    pub boot: [u8; 16],
    /// The next sequence number.
    pub next: u64,
    /// Numbers from here on were given to no bus.
    pub reserved: u64,
    /// By bus, the next sequence number that it has not confirmed.
    pub cursors: BTreeMap<String, u64>,
}

impl Ledger {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        let flags = [(self.clean, CLEAN), (self.ahead, AHEAD), (self.synced, SYNCED)];
        let flags: u32 = flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.identity.to_le_bytes());
        out.extend_from_slice(&self.boot);
        for number in [self.next, self.reserved, self.origin] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::try_from(self.cursors.len().min(MAX_LANES)).unwrap_or(0));
        for (name, cursor) in self.cursors.iter().take(MAX_LANES) {
            let name = name.as_bytes().get(..name.len().min(MAX_LANE_BYTES)).unwrap_or_default();
            out.push(u8::try_from(name.len()).unwrap_or(0));
            out.extend_from_slice(name);
            out.extend_from_slice(&cursor.to_le_bytes());
        }
        out.resize(CRC_AT, 0);
        out.extend_from_slice(&crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Any fault but [`Fault::Version`] is damage.
    fn decode(slot: &[u8]) -> Result<Self, Fault> {
        let content = slot.get(..CRC_AT).filter(|_| slot.len() >= SLOT_BYTES).ok_or(Fault::Checksum)?;
        if !slot.starts_with(MAGIC) || crc32fast::hash(content) != u32_at(slot, CRC_AT) {
            return Err(Fault::Checksum);
        }
        match u32_at(slot, 8) {
            VERSION => Self::fields(slot).ok_or(Fault::Checksum),
            other => Err(Fault::Version(other)),
        }
    }

    fn fields(slot: &[u8]) -> Option<Self> {
        let (flags, next) = (u32_at(slot, 20), u64_at(slot, 48));
        let mut cursors = BTreeMap::new();
        let mut rest = slot.get(LANES_AT..CRC_AT)?;
        for _ in 0..*slot.get(LANES_AT - 1)? {
            let (&len, after) = rest.split_first()?;
            let name = std::str::from_utf8(after.get(..usize::from(len))?).ok()?;
            let after = after.get(usize::from(len)..)?;
            cursors.insert(name.to_owned(), Some(u64_at(after, 0)).filter(|at| *at < MAX_SEQUENCE)?);
            rest = after.get(8..)?;
        }
        Some(Self {
            generation: u64_at(slot, 12),
            clean: flags & CLEAN != 0,
            ahead: flags & AHEAD != 0,
            synced: flags & SYNCED != 0,
            identity: u64_at(slot, 24),
            origin: u64_at(slot, 64),
            boot: slot.get(32..48)?.try_into().ok()?,
            next: Some(next).filter(|next| *next < MAX_SEQUENCE)?,
            reserved: Some(u64_at(slot, 56)).filter(|reserved| *reserved < MAX_SEQUENCE)?,
            cursors,
        })
    }
}

/// What one of the two files held.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The newer of its slots.
    pub(super) newest: Option<Ledger>,
    /// The older one.
    pub(super) older: Option<Ledger>,
    /// Where slots cannot be read, and why.
    pub(super) damaged: Vec<(u64, Fault)>,
}

/// Reads a file; one that is missing has neither slots nor damage.
pub(super) fn read<F: Filesystem>(fs: &F, dir: &Path, name: &str) -> io::Result<Found> {
    let file = match fs.open(&dir.join(name), false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(error),
    };
    let mut found = Found::default();
    for offset in [0, SLOT_BYTES as u64] {
        let mut slot = vec![0; SLOT_BYTES];
        let read = fs.read_at(&file, &mut slot, offset)?;
        match Ledger::decode(slot.get(..read).unwrap_or_default()) {
            Ok(ledger) => match &found.newest {
                Some(newest) if newest.generation > ledger.generation => found.older = Some(ledger),
                _ => found.older = found.newest.replace(ledger),
            },
            Err(fault) => found.damaged.push((offset, fault)),
        }
    }
    Ok(found)
}

impl Found {
    /// The slots that can be read.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Ledger> {
        self.newest.iter().chain(&self.older)
    }

    /// Whether the file is there, with nothing wrong.
    pub(super) fn is_whole(&self) -> bool {
        self.newest.is_some() && self.damaged.is_empty()
    }

    /// The version of a slot that another version of amibus wrote.
    pub(super) fn version(&self) -> Option<u32> {
        self.damaged.iter().find_map(|(_, fault)| match fault {
            Fault::Version(version) => Some(*version),
            _ => None,
        })
    }
}

/// The file that slots are written to.
pub(super) struct LedgerFile<F: Filesystem> {
    fs: F,
    file: Arc<F::File>,
    generation: u64,
}

/// A slot that was written, and is not yet known to be durable.
pub(super) struct Slot<F: Filesystem> {
    pub(super) file: Arc<F::File>,
    generation: u64,
    number: usize,
}

impl<F: Filesystem> LedgerFile<F> {
    /// Writes a file anew, both slots alike but for their generation. Durable, and in place of the old one at once.
    pub(super) fn create(fs: F, dir: &Path, name: &str, mut ledger: Ledger) -> io::Result<Self> {
        let (path, fresh) = (dir.join(name), dir.join(format!("{name}.tmp")));
        let file = fs.create(&fresh)?;
        let mut bytes = Vec::with_capacity(2 * SLOT_BYTES);
        for _ in 0..2 {
            ledger.generation += 1;
            bytes.extend_from_slice(&ledger.encode());
        }
        fs.write_at(&file, &bytes, 0)?;
        fs.sync(&file)?;
        fs.rename(&fresh, &path)?;
        fs.sync_dir(dir)?;
        Ok(Self { fs, file: Arc::new(file), generation: ledger.generation })
    }

    /// Writes both slots of a file that is there, as it was `found`, the older one first: for a disk that has no room for
    /// another file.
    pub(super) fn renew(fs: F, dir: &Path, name: &str, found: &Found, ledger: &Ledger) -> io::Result<Self> {
        let file = Arc::new(fs.open(&dir.join(name), true)?);
        let generation = found.newest.as_ref().map_or(0, |newest| newest.generation);
        let mut renewed = Self { fs, file, generation };
        for _ in 0..2 {
            renewed.note(ledger.clone())?;
            renewed.fs.sync(&renewed.file)?;
        }
        Ok(renewed)
    }

    /// Writes the next slot, which is stored once the file is synced and [`Self::stored`] is told so.
    pub(super) fn begin(&self, ledger: Ledger) -> io::Result<Slot<F>> {
        let (generation, number) = self.write(ledger)?;
        Ok(Slot { file: Arc::clone(&self.file), generation, number })
    }

    /// A slot is durable; answers which one of the two.
    pub(super) fn stored(&mut self, slot: &Slot<F>) -> usize {
        self.generation = slot.generation;
        slot.number
    }

    /// Writes the next slot, so that it outlives the process, not the machine.
    pub(super) fn note(&mut self, ledger: Ledger) -> io::Result<()> {
        self.generation = self.write(ledger)?.0;
        Ok(())
    }

    /// After an error the same slot is written again, so that the other one stays.
    fn write(&self, mut ledger: Ledger) -> io::Result<(u64, usize)> {
        ledger.generation = self.generation + 1;
        let slot = usize::from(ledger.generation.is_multiple_of(2));
        self.fs.write_at(&self.file, &ledger.encode(), (slot * SLOT_BYTES) as u64)?;
        Ok((ledger.generation, slot))
    }
}
