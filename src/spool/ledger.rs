//! What must be known to go on: the log's identity, the cursors, and how far the log went.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use super::{
    format::{MAX_SEQUENCE, u32_at, u64_at},
    fs::Filesystem,
};

/// The file's name.
pub const LEDGER: &str = "ledger";
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 4096;
/// The most buses of which a cursor is kept, configured or not.
pub const MAX_LANES: usize = 32;
/// The longest name of a bus, in bytes.
pub const MAX_LANE_BYTES: usize = 64;

const MAGIC: &[u8; 8] = b"AMILEDGR";
const VERSION: u32 = 1;
const CLEAN: u32 = 1;
const AHEAD: u32 = 2;
const CRC_AT: usize = SLOT_BYTES - 4;
const LANES_AT: usize = 57;

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Counts the slots written.
    pub generation: u64,
    /// The spool was closed, with everything written and synced.
    pub clean: bool,
    /// Records that are not in any file may have gone out.
    pub ahead: bool,
    /// Goes into the ids of events.
    pub identity: u64,
    /// Which life of the machine wrote it.
    pub boot: [u8; 16],
    /// The next sequence number.
    pub next: u64,
    /// By bus, the next sequence number that it has not confirmed.
    pub cursors: BTreeMap<String, u64>,
}

impl Ledger {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        let flags = if self.clean { CLEAN } else { 0 } | if self.ahead { AHEAD } else { 0 };
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.identity.to_le_bytes());
        out.extend_from_slice(&self.boot);
        out.extend_from_slice(&self.next.to_le_bytes());
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

    fn decode(slot: &[u8]) -> Option<Self> {
        let slot = slot.get(..SLOT_BYTES)?;
        let sound = crc32fast::hash(slot.get(..CRC_AT)?) == u32_at(slot, CRC_AT);
        if !sound || !slot.starts_with(MAGIC) || u32_at(slot, 8) != VERSION {
            return None;
        }
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
            identity: u64_at(slot, 24),
            boot: slot.get(32..48)?.try_into().ok()?,
            next: Some(next).filter(|next| *next < MAX_SEQUENCE)?,
            cursors,
        })
    }
}

/// What a ledger's file held.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The newer of its slots.
    pub(super) newest: Option<Ledger>,
    /// The older one.
    pub(super) older: Option<Ledger>,
    /// Where slots are damaged.
    pub(super) damaged: Vec<u64>,
}

/// Reads a ledger; one that is missing has neither slots nor damage.
pub(super) fn read<F: Filesystem>(fs: &F, dir: &Path) -> io::Result<Found> {
    let file = match fs.open(&dir.join(LEDGER), false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(error),
    };
    let mut found = Found::default();
    for offset in [0, SLOT_BYTES as u64] {
        let mut slot = vec![0; SLOT_BYTES];
        let read = fs.read_at(&file, &mut slot, offset)?;
        match Ledger::decode(slot.get(..read).unwrap_or_default()) {
            Some(ledger) => match &found.newest {
                Some(newest) if newest.generation > ledger.generation => found.older = Some(ledger),
                _ => found.older = found.newest.replace(ledger),
            },
            None => found.damaged.push(offset),
        }
    }
    Ok(found)
}

/// The file that slots are written to.
pub(super) struct LedgerFile<F: Filesystem> {
    fs: F,
    file: Arc<F::File>,
    generation: u64,
}

impl<F: Filesystem> LedgerFile<F> {
    /// Writes a file anew, both slots alike but for their generation. Durable, and in place of the old one at once.
    pub(super) fn create(fs: F, dir: &Path, mut ledger: Ledger) -> io::Result<Self> {
        let (path, fresh) = (dir.join(LEDGER), dir.join("ledger.tmp"));
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

    /// Writes the next slot, durably; answers which one of the two.
    pub(super) fn store(&mut self, mut ledger: Ledger) -> io::Result<usize> {
        ledger.generation = self.generation + 1;
        let slot = usize::from(ledger.generation.is_multiple_of(2));
        self.fs.write_at(&self.file, &ledger.encode(), (slot * SLOT_BYTES) as u64)?;
        self.fs.sync(&self.file)?;
        self.generation = ledger.generation;
        Ok(slot)
    }
}
