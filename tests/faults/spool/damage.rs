//! The files of the spool are damaged while amibus is stopped: at random bytes, or their ends are missing.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use crate::brokers::{Which, brokers};
use crate::consumer::all;
use crate::extent::{Chance, RATE, times};
use crate::flood::Simulated;
use crate::rig::{PATIENCE, Rig};
use crate::table::Row;

use super::start_again;

/// Bytes that are damaged at a time, at most.
const BYTES_MAX: u64 = 8;

#[test]
fn spool_files_are_damaged() {
    damaged("damage", "spool files damaged at random bytes", times(4, 200), flip);
}

#[test]
fn spool_files_are_cut_short() {
    damaged("cut-short", "spool files cut short", times(3, 50), cut);
}

fn damaged(name: &str, fault: &str, times: u32, damage: fn(&File, u64, &mut Chance)) {
    let brokers = brokers();
    let mut row = Row::begin(fault, times);
    let mut chance = Chance::new();
    row.note(format!("seed {}", chance.seed()));
    let source = Simulated::start();
    let mut rig = Rig::start(&brokers, name, &source.source(), None);
    let spool = rig.amibus.directory().join("spool");
    let flooding = source.flood(RATE);
    for _ in 0..times {
        // What Kafka has not taken lies in the files.
        brokers.wire(Which::Kafka).refuse();
        thread::sleep(chance.pause(500, 2_000));
        rig.amibus.kill();
        let (file, size) = one_file(&spool, &mut chance);
        damage(&file, size, &mut chance);
        brokers.wire(Which::Kafka).mend();
        start_again(&mut rig);
        rig.wait_for_progress();
    }
    flooding.end();
    rig.settle(PATIENCE, || source.mark());
    let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
    row.end(&verdicts);
}

/// One file of the spool that is not empty, and its size in bytes.
fn one_file(spool: &Path, chance: &mut Chance) -> (File, u64) {
    let files: Vec<PathBuf> = files(spool).into_iter().filter(|file| size(file) > 0).collect();
    assert!(!files.is_empty(), "there is nothing in {}", spool.display());
    let file = &files[chance.below(files.len() as u64) as usize];
    (OpenOptions::new().read(true).write(true).open(file).expect("a file of the spool"), size(file))
}

/// Changes a few bytes.
fn flip(file: &File, size: u64, chance: &mut Chance) {
    for _ in 0..=chance.below(BYTES_MAX) {
        let (place, flip) = (chance.below(size), 1 + chance.below(255) as u8);
        let mut byte = [0];
        file.read_exact_at(&mut byte, place).expect("a byte");
        file.write_all_at(&[byte[0] ^ flip], place).expect("another byte");
    }
}

/// Takes the end off.
fn cut(file: &File, size: u64, chance: &mut Chance) {
    file.set_len(chance.below(size)).expect("a shorter file");
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of the spool") {
        let path = entry.expect("an entry of the spool").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |known| known.len())
}
