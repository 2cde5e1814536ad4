//! The real disk, made to hang, to take its time, to refuse reads and syncs, and to panic.

use std::{
    io,
    path::Path,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::spool::{
    fs::{Disk, Filesystem},
    ledger::SLOT_BYTES,
    together::{Shared, Whole},
};

/// Why it refuses.
pub(super) const REFUSED: &str = "refused";

/// The real disk, made slow.
#[derive(Clone, Default)]
pub(super) struct Slow {
    pub(super) sync_millis: Arc<AtomicU64>,
    pub(super) refuses_reads: Arc<AtomicBool>,
    pub(super) refuses_syncs: Arc<AtomicBool>,
    /// Where a file is made.
    panics: Arc<AtomicBool>,
    /// Where the mark is written behind a chunk.
    pub(super) marks_panic: Arc<AtomicBool>,
    hung: Arc<(Mutex<bool>, Condvar)>,
    /// Syncs do, and nothing else.
    syncs_hang: Arc<(Mutex<bool>, Condvar)>,
    pub(super) syncs_panic: Arc<AtomicBool>,
    /// How often one has.
    pub(super) panicked: Arc<AtomicU64>,
    whole: Option<Arc<Whole>>,
    /// Files that were synced, and whole syncs.
    pub(super) synced: Arc<[AtomicU64; 2]>,
}

impl Slow {
    /// One that can be synced as a whole.
    pub(super) fn whole() -> Self {
        Self { whole: Some(Arc::new(Whole::new())), ..Self::default() }
    }

    pub(super) fn hang(&self, hung: bool) {
        *self.hung.0.lock().expect("held shortly") = hung;
        self.hung.1.notify_all();
    }

    pub(super) fn hang_syncs(&self, hung: bool) {
        *self.syncs_hang.0.lock().expect("held shortly") = hung;
        self.syncs_hang.1.notify_all();
    }

    pub(super) fn panic(&self, panics: bool) {
        self.panics.store(panics, Ordering::Relaxed);
    }

    fn wait(&self) {
        wait(&self.hung);
    }
}

fn wait(gate: &(Mutex<bool>, Condvar)) {
    let hung = gate.0.lock().expect("held shortly");
    drop(gate.1.wait_while(hung, |hung| *hung).expect("held shortly"));
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
        assert!(!self.panics.load(Ordering::Relaxed), "as a test wants it");
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
            return Err(io::Error::other(REFUSED));
        }
        Disk.read_at(file, buffer, offset)
    }
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.wait();
        // The ledger's slots are written by others.
        let is_mark = bytes.len() == SLOT_BYTES && thread::current().name() == Some("spool-write");
        assert!(!is_mark || !self.marks_panic.load(Ordering::Relaxed), "as a test wants it");
        Disk.write_at(file, bytes, offset)
    }
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()> {
        Disk.truncate(file, len)
    }
    fn sync(&self, file: &Self::File) -> io::Result<()> {
        self.wait();
        thread::sleep(Duration::from_millis(self.sync_millis.load(Ordering::Relaxed)));
        wait(&self.syncs_hang);
        if self.syncs_panic.load(Ordering::Relaxed) {
            self.panicked.fetch_add(1, Ordering::Relaxed);
            panic!("as a test wants it");
        }
        if self.refuses_syncs.load(Ordering::Relaxed) {
            return Err(io::Error::other(REFUSED));
        }
        self.synced[0].fetch_add(1, Ordering::Relaxed);
        Disk.sync(file)
    }
    fn sync_whole(&self, _dir: &Path, _file: &Self::File, since: Instant, waiting: usize) -> Shared {
        let Some(whole) = &self.whole else { return Shared::Alone };
        whole.sync(since, waiting, || {
            self.synced[1].fetch_add(1, Ordering::Relaxed);
            wait(&self.syncs_hang);
            Ok(())
        })
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
