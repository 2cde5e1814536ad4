//! Opens a spool: locks it, recovers, and has it ready to be started.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, OnceLock, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;
use tracing::{info, warn};

use super::{
    engine::{Engine, Keeper, is_full},
    format,
    fs::{Disk, Filesystem},
    lane::Lane,
    ledger::{self, Found, LEDGER, Ledger, LedgerFile, MARK, MAX_LANE_BYTES, MAX_LANES},
    log::{Log, Segment, Unsynced},
    lost::{Lost, Reason, now},
    options::Options,
    recover::{Recovery, Survey, UNFINISHED, survey},
    shell::{Decode, Spool},
    state::{RESERVE_MIN, State},
};

const LOCK: &str = "lock";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why a spool cannot be opened. Stop: a person must mend it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the spool {0} is in use by another process")]
    InUse(PathBuf),
    /// Another version of amibus wrote it.
    #[error("the spool's file {file} has version {version} of the format; this amibus knows {known}")]
    Version {
        /// The file's name.
        file: String,
        /// Its version.
        version: u32,
        /// The version that such a file should have.
        known: u32,
    },
    /// More buses, or longer names, than a ledger holds.
    #[error("a spool has at most {MAX_LANES} buses, with names of at most {MAX_LANE_BYTES} bytes")]
    Lanes,
    /// The disk refuses.
    #[error("cannot open the spool {dir}")]
    Io {
        /// The spool's folder.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// A spool that is open, before anything is read from it.
pub struct Opened<F: Filesystem = Disk> {
    pub(super) engine: Arc<Engine<F>>,
    pub(super) log: Log<F>,
    pub(super) keeper: Keeper<F>,
    recovery: Recovery,
}

/// Opens the spool in `dir` for buses of these names; lanes are numbered as they are listed. Blocks on the disk.
///
/// # Errors
/// When it is in use, was written by a later version, or the disk refuses. Damage is no error.
pub fn open(dir: &Path, options: Options, lanes: &[&str]) -> Result<Opened, OpenError> {
    open_on(Disk, dir, options, lanes, boot())
}

/// The same on any filesystem; `boot` tells one life of the machine from another, all zeros where nothing does.
///
/// # Errors
/// As [`open`].
pub(super) fn open_on<F: Filesystem + Clone>(
    fs: F,
    dir: &Path,
    options: Options,
    lanes: &[&str],
    boot: [u8; 16],
) -> Result<Opened<F>, OpenError> {
    if lanes.len() > MAX_LANES || lanes.iter().any(|name| name.is_empty() || name.len() > MAX_LANE_BYTES) {
        return Err(OpenError::Lanes);
    }
    let failed = |source| OpenError::Io { dir: dir.to_owned(), source };
    fs.create_dir(dir).map_err(failed)?;
    let lock = fs.lock(&dir.join(LOCK)).map_err(failed)?.ok_or_else(|| OpenError::InUse(dir.to_owned()))?;
    let (now, random) = (now(), random().map_err(failed)?);
    let opened = loop {
        let survey = survey(&fs, dir, boot, now).map_err(failed)?;
        if let Some((file, version)) = survey.version {
            let slots = [LEDGER, MARK].contains(&file.as_str());
            let known = if slots { ledger::VERSION } else { format::VERSION };
            return Err(OpenError::Version { file, version, known });
        }
        let identity = same_identity(&survey, boot).unwrap_or(random);
        let origin = survey.known.as_ref().map_or(identity, |known| known.origin);
        let opening =
            Opening { fs: fs.clone(), dir, options: options.clone(), lanes, boot, identity, origin, now };
        let oldest = survey.segments.first().filter(|_| survey.segments.len() > 1).map(|oldest| oldest.first);
        match (opening.run(survey), oldest) {
            (Err(error), Some(first)) if is_full(&error) => {
                warn!(dir = %dir.display(), first, %error, "the oldest segment goes");
                fs.remove(&dir.join(format::segment_name(first))).map_err(failed)?;
            }
            (opened, _) => break opened.map_err(failed)?,
        }
    };
    *opened.engine.file_lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
    Ok(opened)
}

struct Opening<'a, F> {
    fs: F,
    dir: &'a Path,
    options: Options,
    lanes: &'a [&'a str],
    boot: [u8; 16],
    identity: u64,
    origin: u64,
    now: SystemTime,
}

impl<F: Filesystem + Clone> Opening<'_, F> {
    fn run(self, mut survey: Survey) -> io::Result<Opened<F>> {
        let before = survey.known.take().unwrap_or_default();
        let lanes = self.lanes(&survey, &before.cursors);
        let names: Vec<String> = self.lanes.iter().map(|&name| name.to_owned()).collect();
        let mut others = before.cursors;
        others.retain(|name, _| !names.contains(name));
        while others.len() + names.len() > MAX_LANES {
            others.pop_last();
        }
        let cursors = names.iter().cloned().zip(lanes.iter().map(Lane::committed));
        // Before anything is appended: were this killed, the next start would find the same again. For that the mark
        // comes first, since it says exactly what is given out.
        let ledger = Ledger {
            identity: self.identity,
            origin: self.origin,
            boot: self.boot,
            synced: self.options.sync_each(),
            next: survey.lost_before,
            reserved: survey.next + RESERVE_MIN,
            cursors: others.clone().into_iter().chain(cursors).collect(),
            ..Ledger::default()
        };
        let mark = self.slots(MARK, &survey.mark, &ledger)?;
        let file = self.slots(LEDGER, &survey.ledger, &ledger)?;
        self.tidy()?;
        let lost = self.hole(&survey);
        let active = self.tail(&mut survey, lost.as_ref())?;
        let recovery = Recovery {
            clean: before.clean && survey.damages.is_empty(),
            new_identity: before.identity != self.identity,
            segments: survey.segments.len(),
            bytes: survey.segments.iter().map(|segment| segment.bytes).sum(),
            next: survey.next,
            last: survey.last,
            lost,
            damages: survey.damages,
        };
        tell(self.dir, &recovery);
        let limit_bytes = self.options.segment_limit();
        let state = State::new(&self.options, survey.next, survey.segments.clone(), lanes);
        Ok(Opened {
            log: Log::new(self.fs.clone(), self.dir, limit_bytes, survey.segments, active, mark),
            keeper: Keeper { file, last: ledger, others },
            recovery,
            engine: Arc::new(Engine {
                fs: self.fs,
                dir: self.dir.to_owned(),
                options: self.options,
                ready: names.iter().map(|_| Notify::new()).collect(),
                passed: Notify::new(),
                names,
                identity: self.identity,
                origin: self.origin,
                boot: self.boot,
                state: Mutex::new(state),
                writer: OnceLock::new(),
                keeper: OnceLock::new(),
                over: Condvar::new(),
                unsynced: Mutex::new(Unsynced::nothing()),
                file_lock: Mutex::new(None),
            }),
        })
    }

    /// A new file, or on a full disk the one that is there.
    fn slots(&self, name: &str, found: &Found, ledger: &Ledger) -> io::Result<LedgerFile<F>> {
        LedgerFile::create(self.fs.clone(), self.dir, name, ledger.clone()).or_else(|error| {
            if !is_full(&error) {
                return Err(error);
            }
            // It may have got half of the room that the rest needs.
            let _ = self.fs.remove(&self.dir.join(format!("{name}{UNFINISHED}")));
            LedgerFile::renew(self.fs.clone(), self.dir, name, found, ledger).map_err(|_| error)
        })
    }

    /// Each bus goes on where it was; one without a cursor begins with the oldest record.
    fn lanes(&self, survey: &Survey, cursors: &BTreeMap<String, u64>) -> Vec<Lane> {
        let oldest = survey.segments.first();
        let first = oldest.map_or(survey.end, |segment| segment.first);
        let lane = |name: &&str| {
            let cursor = cursors.get(*name).copied().unwrap_or(first);
            let mut lane = Lane::new(cursor);
            if cursor < first {
                let until = oldest.map_or(self.now, |segment| segment.from);
                lane.lose(Lost {
                    first: cursor,
                    last: first - 1,
                    from: until,
                    until,
                    reason: Reason::Dropped,
                });
            }
            lane
        };
        self.lanes.iter().map(lane).collect()
    }

    /// Removes what was never finished.
    fn tidy(&self) -> io::Result<()> {
        let names = self.fs.list(self.dir)?;
        names
            .iter()
            .filter(|name| name.ends_with(UNFINISHED))
            .try_for_each(|name| self.fs.remove(&self.dir.join(name)))
    }

    /// What is known to be missing at the end.
    fn hole(&self, survey: &Survey) -> Option<Lost> {
        let from = survey.last.unwrap_or(self.now).min(self.now);
        let (first, last) = (survey.end, survey.lost_before);
        (first < last).then_some(Lost { first, last, from, until: self.now, reason: Reason::CutShort })
    }

    /// The file to append to, if there is one: the last segment when it is sound, else one that begins with the hole.
    fn tail(&self, survey: &mut Survey, lost: Option<&Lost>) -> io::Result<Option<F::File>> {
        let last = survey.segments.last().map(|last| self.dir.join(format::segment_name(last.first)));
        let last = last.map(|path| self.fs.open(&path, true)).transpose()?;
        // A process that was killed may have left it unsynced.
        last.as_ref().map_or(Ok(()), |file| self.fs.sync(file))?;
        if survey.sound && lost.is_none() {
            return Ok(last);
        }
        let Some(lost) = lost else {
            // The next segment takes the place of one that holds nothing.
            survey.segments.pop_if(|last| last.first == survey.end);
            return Ok(None);
        };
        let mut bytes = format::header(lost.first).to_vec();
        format::push_hole(&mut bytes, lost);
        let path = self.dir.join(format::segment_name(lost.first));
        let fresh = path.with_extension(UNFINISHED.trim_start_matches('.'));
        let file = self.fs.create(&fresh)?;
        self.fs.write_at(&file, &bytes, 0)?;
        self.fs.sync(&file)?;
        self.fs.rename(&fresh, &path)?;
        self.fs.sync_dir(self.dir)?;
        if survey.segments.last().is_some_and(|last| last.first == lost.first) {
            survey.segments.pop();
        }
        let segment =
            Segment { first: lost.first, bytes: bytes.len() as u64, from: lost.from, until: lost.until };
        survey.segments.push(segment);
        Ok(Some(file))
    }
}

impl<F: Filesystem + Clone> Opened<F> {
    /// The log's identity, which no other log has, nor this one after it may have given out a number twice. It goes
    /// into the ids of events.
    pub fn identity(&self) -> String {
        format!("{:016x}", self.engine.identity)
    }

    /// The identity that the log began with. It goes into the ids of announced losses, so that one that is told again
    /// after damage is known.
    pub fn origin(&self) -> String {
        format!("{:016x}", self.engine.origin)
    }

    /// What was found.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Has the threads that all spools share work for this one. `decode` makes the message of a body that was appended
    /// before.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self, decode: Decode) -> io::Result<Arc<Spool<F>>> {
        Spool::start(self, decode)
    }
}

/// The same as before only where no number can have been given out that is not known now: that takes a mark and a ledger
/// without any damage, made by the same start.
fn same_identity(survey: &Survey, boot: [u8; 16]) -> Option<u64> {
    let slots = survey.ledger.is_whole() && survey.mark.is_whole();
    let whole = survey.exact && survey.lost_before == survey.end && slots;
    let mark = survey.mark.newest.as_ref().map(|mark| mark.identity);
    let same =
        |known: &&Ledger| whole && known.boot == boot && boot != [0; 16] && mark == Some(known.identity);
    survey.known.as_ref().filter(same).map(|known| known.identity)
}

fn random() -> io::Result<u64> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(u64::from_le_bytes(random))
}

/// Which life of the machine this is; all zeros where it cannot be told.
pub(super) fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_le_bytes()
}

fn tell(dir: &Path, recovery: &Recovery) {
    if recovery.damages.is_empty() && recovery.lost.is_none() {
        info!(dir = %dir.display(), ?recovery, "the spool is open");
    } else {
        warn!(dir = %dir.display(), ?recovery, "the spool is open; it was damaged");
    }
}
