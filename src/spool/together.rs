//! One sync for the logs of many servers.
//!
//! A sync of one file costs some 70 µs of processor time on ext4, mostly the filesystem's journal, and each log has two
//! files to sync a second. Where many logs are to be synced at the same moment, the whole filesystem is synced instead,
//! once for all of them, which costs a tenth for each.
//!
//! # What must be known of a whole sync
//! `syncfs` tells of data that could not be written only since Linux 5.8, by the superblock's error, and each open file is
//! told of such an error once. So it is asked for through one handle that stays open, and that nothing else is done
//! with; after the first refusal each file is synced by itself until the process ends, which tells whose data it was. On
//! other filesystems than ext4 and XFS, and on older systems, it is done so from the beginning.

use std::{fs::File, io, sync::Mutex, time::Instant};

/// Logs that wait for a sync at the same moment, from which on the filesystem is synced as a whole. A whole sync also
/// writes what other programs have written to that filesystem, so few logs have theirs alone.
pub(super) const TOGETHER_FROM: usize = 32;

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
    /// When the last one began that succeeded.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    began: Option<Instant>,
    refused: bool,
}

impl Whole {
    pub(super) const fn new() -> Self {
        Self { last: Mutex::new(Last { began: None, refused: false }) }
    }

    /// Has durable what was written before `since`: by a whole sync that began later, or by one that is made now, by
    /// `sync`, if so many `waiting` logs are worth it.
    pub(super) fn sync(
        &self,
        since: Instant,
        waiting: usize,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Shared {
        let Ok(mut last) = self.last.try_lock() else { return Shared::Underway };
        if last.refused {
            return Shared::Alone;
        }
        if last.began.is_some_and(|began| began >= since) {
            return Shared::Done;
        }
        if waiting < TOGETHER_FROM {
            return Shared::Alone;
        }
        let began = Instant::now();
        match sync() {
            Ok(()) => {
                last.began = Some(began);
                Shared::Done
            }
            Err(error) => {
                last.refused = true;
                tracing::warn!(%error, "cannot sync the filesystem as a whole; each log is synced by itself from now on");
                Shared::Alone
            }
        }
    }
}

/// The filesystem that the spools lie on, kept open.
#[cfg(target_os = "linux")]
struct Handle {
    device: u64,
    folder: File,
}

/// Syncs what `file`, which lies in the folder `dir`, and many others hold.
#[cfg(target_os = "linux")]
pub(super) fn sync(dir: &std::path::Path, file: &File, since: Instant, waiting: usize) -> Shared {
    use std::{os::unix::fs::MetadataExt as _, sync::OnceLock};

    static WHOLE: Whole = Whole::new();
    static HANDLE: OnceLock<Option<Handle>> = OnceLock::new();

    if waiting < TOGETHER_FROM && HANDLE.get().is_none() {
        return Shared::Alone;
    }
    let open = || {
        let folder = File::open(dir).ok().filter(tells_of_errors)?;
        Some(Handle { device: folder.metadata().ok()?.dev(), folder })
    };
    let Some(Handle { device, folder }) = HANDLE.get_or_init(open) else { return Shared::Alone };
    match file.metadata() {
        Ok(found) if found.dev() == *device => {
            WHOLE.sync(since, waiting, || rustix::fs::syncfs(folder).map_err(io::Error::from))
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
    const SINCE: (u32, u32) = (5, 8);

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
