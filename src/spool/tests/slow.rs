//! The real disk, made to hang, to take its time, and to refuse reads.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::spool::fs::{Disk, Filesystem};

/// The real disk, made slow.
#[derive(Clone, Default)]
pub(super) struct Slow {
    pub(super) sync_millis: Arc<AtomicU64>,
    pub(super) refuses_reads: Arc<AtomicBool>,
    hung: Arc<(Mutex<bool>, Condvar)>,
}

impl Slow {
    pub(super) fn hang(&self, hung: bool) {
        *self.hung.0.lock().expect("held shortly") = hung;
        self.hung.1.notify_all();
    }

    fn wait(&self) {
        let hung = self.hung.0.lock().expect("held shortly");
        drop(self.hung.1.wait_while(hung, |hung| *hung).expect("held shortly"));
    }
}

impl Filesystem for Slow {
    type File = std::fs::File;
    type Lock = std::fs::File;

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Self::File> {
        self.wait();
        Disk.create(path)
    }
    fn open(&self, path: &Path, writable: bool) -> io::Result<Self::File> {
        self.wait();
        Disk.open(path, writable)
    }
    fn len(&self, file: &Self::File) -> io::Result<u64> {
        Disk.len(file)
    }
    fn read_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.wait();
        if self.refuses_reads.load(Ordering::Relaxed) {
            return Err(io::Error::other("refused"));
        }
        Disk.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.wait();
        Disk.write_at(file, bytes, offset)
    }
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()> {
        Disk.truncate(file, len)
    }
    fn sync(&self, file: &Self::File) -> io::Result<()> {
        self.wait();
        std::thread::sleep(Duration::from_millis(self.sync_millis.load(Ordering::Relaxed)));
        Disk.sync(file)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.wait();
        Disk.sync_dir(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Self::Lock>> {
        Disk.lock(path)
    }
}
