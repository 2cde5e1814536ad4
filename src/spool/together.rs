//! One sync for the logs of many servers.
//!
//! A sync of one file costs some 70 µs of processor time on ext4, mostly the filesystem's journal, and each log has two
//! files to sync a second. Where many logs are to be synced at the same moment, the whole filesystem is synced instead,
//! once for all of them, which costs a tenth for each.
//!
//! # What must be known of a whole sync
//! `syncfs` tells less than `fdatasync`. That data could not be written, it says since Linux 5.8, by the superblock's error, of
//! which each open file is told once; that the journal failed, since 5.17; and that the filesystem was made read-only or
//! shut down after an error, it says late or not at all. XFS may leave out the flush of the disk's cache where its log has
//! been written already. So a file of our own, open for nothing else, stands for all of them: the whole sync is asked for
//! through it, and then `fdatasync` of it, which tells of all of these and flushes. After the first refusal each file is synced
//! by itself until the process ends, which tells whose data it was. So it is for what may have been written before that file was
//! opened, on other filesystems than ext4 and XFS, and on older systems.

use std::{
    fs::File,
    io,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
    time::{Duration, Instant},
};

#[cfg(target_os = "linux")]
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use super::ledger::LEDGER;

/// Logs that wait for a sync at the same moment, from which on the filesystem is synced as a whole. A whole sync also
/// writes what other programs have written to that filesystem, so few logs have theirs alone.
pub(super) const TOGETHER_FROM: usize = 32;

/// What is synced so long after the handle was opened, or later, was written after that: the rest was synced by then.
#[cfg(target_os = "linux")]
const OLDER_THAN_HANDLE: Duration = Duration::from_secs(3);

/// How a sync that many wait for went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// Everything written before `since` is durable.
    Done,
    /// Somebody else is at it.
    Underway,
    /// Each file must be synced by itself.
    Alone,
}

/// The whole syncs of one filesystem.
pub(super) struct Whole {
    /// Held shortly: whoever is done for by a sync that has ended must not miss it for one that is under way.
    last: Mutex<Last>,
    /// Held during a sync.
    syncs: Mutex<()>,
}

#[derive(Default)]
struct Last {
    /// When the last one began that succeeded.
    began: Option<Instant>,
    refused: bool,
}

impl Whole {
    pub(super) const fn new() -> Self {
        Self { last: Mutex::new(Last { began: None, refused: false }), syncs: Mutex::new(()) }
    }

    /// Has durable what was written before `since`: by a whole sync that began later, or by one that is made now, by
    /// `sync`, if so many `waiting` logs are worth it.
    pub(super) fn sync(
        &self,
        since: Instant,
        waiting: usize,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Shared {
        if let Some(known) = self.known(since) {
            return known;
        }
        if waiting < TOGETHER_FROM {
            return Shared::Alone;
        }
        let _only = match self.syncs.try_lock() {
            Ok(only) => only,
            Err(TryLockError::Poisoned(only)) => only.into_inner(),
            Err(TryLockError::WouldBlock) => return Shared::Underway,
        };
        // One may have ended in between.
        if let Some(known) = self.known(since) {
            return known;
        }
        let began = Instant::now();
        match sync() {
            Ok(()) => {
                self.last().began = Some(began);
                Shared::Done
            }
            Err(error) => {
                self.last().refused = true;
                tracing::warn!(%error, "cannot sync the filesystem as a whole; each log is synced by itself from now on");
                Shared::Alone
            }
        }
    }

    /// What the syncs that have ended say.
    fn known(&self, since: Instant) -> Option<Shared> {
        let last = self.last();
        match last.began {
            _ if last.refused => Some(Shared::Alone),
            Some(began) if began > since => Some(Shared::Done),
            _ => None,
        }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The filesystem that the spools lie on.
#[cfg(target_os = "linux")]
struct Handle {
    device: u64,
    /// The file that stands for all.
    file: File,
    opened: Instant,
}

#[cfg(target_os = "linux")]
impl Handle {
    /// Opens the ledger in `dir` once more; `None` where a whole sync would not tell enough.
    fn open(dir: &std::path::Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;

        let file = File::open(dir.join(LEDGER)).ok().filter(tells_of_errors)?;
        Some(Self { device: file.metadata().ok()?.dev(), file, opened: Instant::now() })
    }

    fn sync(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.file)?;
        self.file.sync_data()
    }
}

/// What one opens when it is first wanted. Nobody else waits for that, which may hang.
#[cfg(target_os = "linux")]
struct Once<T> {
    value: OnceLock<T>,
    begun: AtomicBool,
}

#[cfg(target_os = "linux")]
impl<T> Once<T> {
    const fn new() -> Self {
        Self { value: OnceLock::new(), begun: AtomicBool::new(false) }
    }

    /// `None` while another one opens it, or where nobody does and `wanted` is false.
    fn get(&self, wanted: bool, open: impl FnOnce() -> T) -> Option<&T> {
        match self.value.get() {
            None if wanted && !self.begun.swap(true, Ordering::Relaxed) => Some(self.value.get_or_init(open)),
            opened => opened,
        }
    }
}

/// Syncs what `file`, which lies in the folder `dir` beside a ledger, and many others hold.
#[cfg(target_os = "linux")]
pub(super) fn sync(dir: &std::path::Path, file: &File, since: Instant, waiting: usize) -> Shared {
    static WHOLE: Whole = Whole::new();
    static HANDLE: Once<Option<Handle>> = Once::new();

    sync_with(&WHOLE, &HANDLE, dir, file, since, waiting)
}

#[cfg(target_os = "linux")]
fn sync_with(
    whole: &Whole,
    handle: &Once<Option<Handle>>,
    dir: &std::path::Path,
    file: &File,
    since: Instant,
    waiting: usize,
) -> Shared {
    use std::os::unix::fs::MetadataExt as _;

    let Some(Some(handle)) = handle.get(waiting >= TOGETHER_FROM, || Handle::open(dir)) else {
        return Shared::Alone;
    };
    let may_be_older = since.saturating_duration_since(handle.opened) < OLDER_THAN_HANDLE;
    match file.metadata() {
        Ok(found) if found.dev() == handle.device && !may_be_older => {
            whole.sync(since, waiting, || handle.sync())
        }
        _ => Shared::Alone,
    }
}

/// Elsewhere there is no such call.
#[cfg(not(target_os = "linux"))]
pub(super) fn sync(_dir: &std::path::Path, _file: &File, _since: Instant, _waiting: usize) -> Shared {
    Shared::Alone
}

/// Whether a whole sync of the filesystem of `file` tells of data that could not be written.
#[cfg(target_os = "linux")]
fn tells_of_errors(file: &File) -> bool {
    /// Linux's `EXT4_SUPER_MAGIC`, which ext2 and ext3 have too, and `XFS_SUPER_MAGIC` (`statfs(2)`).
    const KNOWN: [u64; 2] = [0xef53, 0x5846_5342];
    const SINCE: (u32, u32) = (5, 17);

    let system = rustix::system::uname();
    let release = system.release().to_str().ok().and_then(version);
    let kind = rustix::fs::fstatfs(file).ok().and_then(|found| u64::try_from(found.f_type).ok());
    release.is_some_and(|release| release >= SINCE) && kind.is_some_and(|kind| KNOWN.contains(&kind))
}

/// The first two numbers of a release: `6.1.0-18-amd64`.
#[cfg(target_os = "linux")]
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Syncs, and counts how often.
    struct Counted<'a> {
        whole: &'a Whole,
        syncs: Cell<usize>,
    }

    impl Counted<'_> {
        fn sync(&self, since: Instant, waiting: usize, outcome: io::Result<()>) -> Shared {
            self.whole.sync(since, waiting, || {
                self.syncs.set(self.syncs.get() + 1);
                outcome
            })
        }
    }

    fn refusal() -> io::Result<()> {
        Err(io::Error::other("as a test wants it"))
    }

    #[test]
    fn one_sync_is_enough_for_all_that_was_written_before_it() {
        let whole = Whole::new();
        let counted = Counted { whole: &whole, syncs: Cell::new(0) };
        let before = Instant::now();
        assert_eq!(counted.sync(before, TOGETHER_FROM - 1, Ok(())), Shared::Alone, "too few");
        assert_eq!(counted.sync(before, TOGETHER_FROM, Ok(())), Shared::Done);
        assert_eq!(counted.sync(before, 1, refusal()), Shared::Done, "the last of many");
        assert_eq!(counted.syncs.get(), 1);
        std::thread::sleep(std::time::Duration::from_millis(1));
        let after = Instant::now();
        assert_eq!(counted.sync(after, 1, Ok(())), Shared::Alone, "written after it");
        assert_eq!(counted.sync(after, TOGETHER_FROM, Ok(())), Shared::Done);
        assert_eq!(counted.syncs.get(), 2);
    }

    #[test]
    fn nobody_waits_for_the_sync_of_another() {
        let whole = Whole::new();
        let since = Instant::now();
        let meanwhile = Cell::new(None);
        let shared = whole.sync(since, TOGETHER_FROM, || {
            meanwhile.set(Some(whole.sync(since, TOGETHER_FROM, || panic!("two at once"))));
            Ok(())
        });
        assert_eq!((shared, meanwhile.get()), (Shared::Done, Some(Shared::Underway)));
    }

    #[test]
    fn whoever_is_done_for_learns_it_while_the_next_one_is_under_way() {
        let whole = Whole::new();
        let since = Instant::now();
        assert_eq!(whole.sync(since, TOGETHER_FROM, || Ok(())), Shared::Done);
        std::thread::sleep(Duration::from_millis(1));
        let later = whole.sync(Instant::now(), TOGETHER_FROM, || {
            assert_eq!(whole.sync(since, TOGETHER_FROM, || panic!("two at once")), Shared::Done);
            assert_eq!(whole.sync(Instant::now(), TOGETHER_FROM, || panic!("two at once")), Shared::Underway);
            Ok(())
        });
        assert_eq!(later, Shared::Done);
    }

    #[test]
    fn a_sync_that_panics_keeps_nobody_from_the_next() {
        let whole = Whole::new();
        let panics = || whole.sync(Instant::now(), TOGETHER_FROM, || panic!("as a test wants it"));
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(panics)).is_err());
        assert_eq!(whole.sync(Instant::now(), TOGETHER_FROM, || Ok(())), Shared::Done);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nobody_waits_for_what_another_one_opens() {
        let (once, meanwhile) = (Once::new(), Cell::new(None));
        let never = || unreachable!("opened twice");
        assert_eq!(once.get(false, never), None, "nobody wants it");
        let opened = once.get(true, || {
            meanwhile.set(Some([once.get(true, never), once.get(false, never)]));
            7
        });
        assert_eq!((opened, meanwhile.get()), (Some(&7), Some([None, None])));
        assert_eq!([once.get(true, never), once.get(false, never)], [Some(&7); 2]);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_filesystem_is_synced_where_that_tells_enough() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = File::create(dir.path().join(LEDGER)).expect("a file");
        let (whole, handle) = (Whole::new(), Once::new());
        let synced =
            |file: &File, since, waiting| sync_with(&whole, &handle, dir.path(), file, since, waiting);
        let (now, later) = (Instant::now(), Instant::now() + 2 * OLDER_THAN_HANDLE);
        assert_eq!(synced(&file, later, TOGETHER_FROM - 1), Shared::Alone, "too few");
        assert_eq!(synced(&file, now, TOGETHER_FROM), Shared::Alone, "it may be older than the handle");
        let expected = if tells_of_errors(&file) { Shared::Done } else { Shared::Alone };
        assert_eq!(synced(&file, later, TOGETHER_FROM), expected);
        if let Ok(elsewhere) = File::open("/proc/self/status") {
            assert_eq!(synced(&elsewhere, later, TOGETHER_FROM), Shared::Alone, "of another filesystem");
        }
    }

    #[test]
    fn after_a_refusal_each_file_is_synced_by_itself() {
        let whole = Whole::new();
        let counted = Counted { whole: &whole, syncs: Cell::new(0) };
        let since = Instant::now();
        assert_eq!(counted.sync(since, TOGETHER_FROM, refusal()), Shared::Alone);
        assert_eq!(counted.sync(since, TOGETHER_FROM, Ok(())), Shared::Alone);
        assert_eq!(counted.syncs.get(), 1);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_release_of_a_system_is_understood() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("5.8"), Some((5, 8)));
        assert_eq!(version("3.10.0-1160.el7.x86_64"), Some((3, 10)));
        assert_eq!(version("unknown"), None);
    }
}
