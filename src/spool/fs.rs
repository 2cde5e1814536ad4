//! What the spool asks of a filesystem, so that tests can put one in its place that forgets, tears, stalls and is full.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt},
    path::Path,
    time::Instant,
};

use super::together::{self, Shared};

/// A filesystem. What is written is sure to outlive the machine only after `sync`; a name that was made, moved or
/// removed only after `sync_dir`.
pub trait Filesystem: Send + Sync + 'static {
    /// An open file.
    type File: Send + Sync + 'static;
    /// Kept for as long as the lock is held.
    type Lock: Send + Sync + 'static;

    /// Makes a folder and those above it, durably.
    ///
    /// # Errors
    /// Those of the system, as with all that follow.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The names in a folder.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Makes an empty file, in place of one of that name, for reading and writing.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file, for reading and, if `writable`, writing.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Self::File>;
    /// A file's length in bytes.
    fn len(&self, file: &Self::File) -> io::Result<u64>;
    /// Reads what there is from `offset` on, up to the length of `buffer`; answers how many bytes.
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts a file.
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Makes a file's bytes and length durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Makes everything durable that was written before `since` to the filesystem of `file`, in the folder `dir`, if there
    /// is a better way than to sync each file: `waiting` spools wait for theirs at this moment, this one included.
    fn sync_whole(&self, _dir: &Path, _file: &Self::File, _since: Instant, _waiting: usize) -> Shared {
        Shared::Alone
    }
    /// Makes a folder's names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of one that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Locks a file, made if need be; `None` when another has the lock.
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>>;
}

/// The real one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Filesystem for Disk {
    type File = File;
    type Lock = File;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        // Events tell who calls whom.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        dir.parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .map_or(Ok(()), |parent| self.sync_dir(parent))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(writable).open(path)
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut read = 0;
        while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_whole(&self, dir: &Path, file: &File, since: Instant, waiting: usize) -> Shared {
        together::sync(dir, file, since, waiting)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<File>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
