//! A filesystem that keeps what was synced and no more: at a crash, what was written since may be there, may be missing,
//! or may be torn at any byte, and each name that was made, moved or removed since the folder was synced may or may not
//! be so. It dies when its budget of changes is used up, in the middle of the last one.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use crate::spool::{fs::Filesystem, together::Shared};

/// How it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The process: what was written stays.
    Kill,
    /// The machine: what was not synced may go.
    Power,
}

#[derive(Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Debug)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

#[derive(Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    budget: Option<u64>,
    dead: bool,
    random: u64,
    life: u64,
    free_bytes: Option<usize>,
}

/// The filesystem. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Model(Arc<Mutex<World>>);

/// An open file. Useless after a crash.
#[derive(Debug)]
pub(super) struct ModelFile {
    inode: usize,
    life: u64,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        let model = Self::default();
        model.world().random = seed | 1;
        model
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panics in here")
    }

    /// Dies within the change after `budget` more.
    pub(super) fn die_after(&self, budget: Option<u64>) {
        self.world().budget = budget;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.world().dead
    }

    /// Files may grow by so many bytes until the disk is full. What is removed gives room.
    pub(super) fn set_free(&self, bytes: Option<usize>) {
        self.world().free_bytes = bytes;
    }

    /// What is there after the crash is all that there is.
    pub(super) fn crash(&self, death: Death) {
        let mut guard = self.world();
        let world = &mut *guard;
        if death == Death::Power {
            for inode in &mut world.inodes {
                let mut bytes = std::mem::take(&mut inode.durable);
                for change in std::mem::take(&mut inode.unsynced) {
                    apply_some(&mut bytes, &change, &mut world.random);
                }
                inode.now = bytes;
            }
            let mut names = std::mem::take(&mut world.durable_names);
            for change in std::mem::take(&mut world.unsynced_names) {
                if roll(&mut world.random, 2) == 0 {
                    change_name(&mut names, change);
                }
            }
            world.names = names;
        }
        for inode in &mut world.inodes {
            inode.durable.clone_from(&inode.now);
            inode.unsynced.clear();
        }
        world.durable_names.clone_from(&world.names);
        world.unsynced_names.clear();
        (world.budget, world.dead) = (None, false);
        world.life += 1;
    }

    /// The bytes of a file, to be looked at or spoilt.
    pub(super) fn spoil(&self, name: &str, how: impl FnOnce(&mut Vec<u8>)) {
        let mut guard = self.world();
        let world = &mut *guard;
        let found = world.names.iter().find(|(path, _)| path.file_name().is_some_and(|n| n == name));
        let inode = *found.expect("the file is there").1;
        how(&mut world.inodes[inode].now);
        let now = world.inodes[inode].now.clone();
        world.inodes[inode].durable = now;
    }

    /// All names.
    pub(super) fn names(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
        self.world().names.keys().filter_map(name).collect()
    }
}

fn dead() -> io::Error {
    io::Error::other("the model is dead")
}

/// Numbers that look random (xorshift).
fn roll(random: &mut u64, below: u64) -> u64 {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    (*random >> 11) % below.max(1)
}

fn apply(bytes: &mut Vec<u8>, change: &Change, part: usize) {
    match change {
        Change::Truncate(len) => bytes.resize(*len, 0),
        Change::Write(at, new) => {
            let new = &new[..part.min(new.len())];
            bytes.resize(bytes.len().max(at + new.len()), 0);
            bytes[*at..at + new.len()].copy_from_slice(new);
        }
    }
}

fn apply_some(bytes: &mut Vec<u8>, change: &Change, random: &mut u64) {
    match roll(random, 3) {
        0 => {}
        1 => apply(bytes, change, usize::MAX),
        _ => {
            let Change::Write(_, new) = change else { return };
            let part = usize::try_from(roll(random, new.len() as u64)).expect("small");
            apply(bytes, change, part);
        }
    }
}

fn change_name(names: &mut BTreeMap<PathBuf, usize>, change: NameChange) {
    match change {
        NameChange::Link(path, inode) => {
            names.insert(path, inode);
        }
        NameChange::Unlink(path) => {
            names.remove(&path);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(&from) {
                names.insert(to, inode);
            }
        }
    }
}

impl World {
    /// Whether one more change may happen whole; the last one happens in part.
    fn spend(&mut self) -> io::Result<bool> {
        if self.dead {
            return Err(dead());
        }
        match &mut self.budget {
            Some(0) => {
                self.dead = true;
                Ok(false)
            }
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None => Ok(true),
        }
    }

    fn name(&mut self, change: NameChange, again: NameChange) -> io::Result<()> {
        if !self.spend()? {
            return Err(dead());
        }
        change_name(&mut self.names, change);
        self.unsynced_names.push(again);
        Ok(())
    }

    /// The room of a file that goes.
    fn give_back(&mut self, path: &Path) {
        let gone = self.names.get(path).and_then(|inode| self.inodes.get(*inode));
        let gone = gone.map_or(0, |inode| inode.now.len());
        self.free_bytes = self.free_bytes.map(|free| free + gone);
    }

    fn inode(&mut self, file: &ModelFile) -> io::Result<&mut Inode> {
        if self.dead || self.life != file.life {
            return Err(dead());
        }
        self.inodes.get_mut(file.inode).ok_or_else(dead)
    }

    fn change(&mut self, file: &ModelFile, change: Change) -> io::Result<()> {
        let whole = self.spend()?;
        let length = self.inodes.get(file.inode).map_or(0, |inode| inode.now.len());
        let (size, after) = match &change {
            Change::Write(at, new) => (new.len(), length.max(at + new.len())),
            Change::Truncate(len) => (0, *len),
        };
        let missing = self.free_bytes.map_or(0, |free| after.saturating_sub(length).saturating_sub(free));
        let room = missing == 0;
        let part = match (whole, room) {
            (true, true) => usize::MAX,
            _ => usize::try_from(roll(&mut self.random, size.saturating_sub(missing) as u64)).expect("small"),
        };
        if let Some(free) = &mut self.free_bytes {
            let after = if room { after } else { after - (size - part) };
            *free = (*free + length).saturating_sub(after.max(if size > 0 { length } else { 0 }));
        }
        let dead_now = std::mem::take(&mut self.dead);
        let inode = self.inode(file)?;
        apply(&mut inode.now, &change, part);
        inode.unsynced.push(match change {
            Change::Write(at, new) => Change::Write(at, new[..part.min(size)].to_vec()),
            cut @ Change::Truncate(_) => cut,
        });
        self.dead = dead_now;
        match (whole, room) {
            (true, true) => Ok(()),
            (true, false) => Err(io::ErrorKind::StorageFull.into()),
            (false, _) => Err(dead()),
        }
    }
}

impl Filesystem for Model {
    type File = ModelFile;
    type Lock = ();

    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        if self.is_dead() {
            return Err(dead());
        }
        let world = self.world();
        let inside = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<ModelFile> {
        let mut world = self.world();
        if let Some(&inode) = world.names.get(path) {
            let file = ModelFile { inode, life: world.life };
            world.change(&file, Change::Truncate(0))?;
            return Ok(file);
        }
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        let link = || NameChange::Link(path.to_owned(), inode);
        world.name(link(), link())?;
        Ok(ModelFile { inode, life: world.life })
    }

    fn open(&self, path: &Path, _writable: bool) -> io::Result<ModelFile> {
        let world = self.world();
        if world.dead {
            return Err(dead());
        }
        let inode = world.names.get(path).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(ModelFile { inode, life: world.life })
    }

    fn len(&self, file: &ModelFile) -> io::Result<u64> {
        Ok(self.world().inode(file)?.now.len() as u64)
    }

    fn read_at(&self, file: &ModelFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world();
        let now = &world.inode(file)?.now;
        let rest = now.get(usize::try_from(offset).expect("small")..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, file: &ModelFile, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.world().change(file, Change::Write(usize::try_from(offset).expect("small"), bytes.to_vec()))
    }

    fn truncate(&self, file: &ModelFile, len: u64) -> io::Result<()> {
        self.world().change(file, Change::Truncate(usize::try_from(len).expect("small")))
    }

    fn sync(&self, file: &ModelFile) -> io::Result<()> {
        let mut world = self.world();
        if !world.spend()? {
            return Err(dead());
        }
        let inode = world.inode(file)?;
        inode.durable.clone_from(&inode.now);
        inode.unsynced.clear();
        Ok(())
    }

    /// One spool has its files synced alone; where two wait, all files are; where three do, somebody is at it.
    fn sync_whole(&self, _dir: &Path, _file: &ModelFile, _since: Instant, waiting: usize) -> Shared {
        let mut world = self.world();
        match waiting {
            2 if world.spend().is_ok_and(|whole| whole) => {
                for inode in &mut world.inodes {
                    inode.durable.clone_from(&inode.now);
                    inode.unsynced.clear();
                }
                Shared::Done
            }
            3 => Shared::Underway,
            _ => Shared::Alone,
        }
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut world = self.world();
        if !world.spend()? {
            return Err(dead());
        }
        let names = world.names.clone();
        world.durable_names = names;
        world.unsynced_names.clear();
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let change = || NameChange::Rename(from.to_owned(), to.to_owned());
        let mut world = self.world();
        world.give_back(to);
        world.name(change(), change())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let change = || NameChange::Unlink(path.to_owned());
        let mut world = self.world();
        world.give_back(path);
        world.name(change(), change())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<()>> {
        Ok(Some(()))
    }
}
