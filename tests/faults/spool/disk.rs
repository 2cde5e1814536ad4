//! The disk of the spool is full for a while, and then there is room again.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::brokers::{Which, brokers};
use crate::consumer::all;
use crate::extent::{RATE, seconds, times};
use crate::flood::Simulated;
use crate::rig::{PATIENCE, Rig};
use crate::table::Row;

/// The disk, and what another program leaves of it.
const DISK_MIB: usize = 64;
const MIB: usize = 1 << 20;
/// How much longer its events are than those of other faults, in bytes: what amibus holds in memory while the disk is
/// full is soon full too.
const PAD_BYTES: usize = 4096;
/// How many of these events do not fit into that memory (64 MiB), whatever else is in it.
const TOO_MANY: usize = 64 * MIB / PAD_BYTES;
/// How long that may take.
const DROP_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn spool_the_disk_is_full_for_a_while() {
    let brokers = brokers();
    let (times, time) = (times(2, 5), seconds(6, 60));
    let mut row = Row::begin(&format!("disk full for {time:?}"), times);
    let disk = Disk::mount();
    let source = Simulated::start();
    let mut rig = Rig::start(&brokers, "full-disk", &source.source(), Some(&disk.spool()));
    let flooding = source.flood_padded(RATE, PAD_BYTES);
    for round in 0..times {
        rig.wait_for_progress();
        // Every other time a bus is away too, so that the log has to let go of what it has not read.
        let kafka_away = round % 2 == 1;
        if kafka_away {
            brokers.wire(Which::Kafka).refuse();
        }
        disk.fill();
        let [full, _] = rig.stored();
        rig.wait_while(time);
        if kafka_away {
            rig.wait("more events than memory holds", DROP_WITHIN, |rig| rig.stored()[0] > full + TOO_MANY);
        }
        let [before, _] = rig.stored();
        thread::sleep(Duration::from_secs(1));
        let [after, _] = rig.stored();
        assert!(after > before, "with a full disk publishing goes on");
        disk.empty();
        brokers.wire(Which::Kafka).mend();
        rig.wait_for_progress();
    }
    flooding.end();
    rig.settle(PATIENCE, || source.mark());
    let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
    assert!(times < 2 || verdicts[1].dropped_gaps > 0, "what was let go of was announced: {:?}", verdicts[1]);
    row.note(format!("dropped by the log: {}, {}", verdicts[0].dropped_gaps, verdicts[1].dropped_gaps));
    row.end(&verdicts);
}

/// A small filesystem in memory, and a file that fills it.
struct Disk {
    directory: TempDir,
}

impl Disk {
    fn mount() -> Self {
        let directory = tempfile::Builder::new().prefix("amibus-disk-").tempdir().expect("a directory");
        let size = format!("size={DISK_MIB}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", size.as_str(), "tmpfs"])
            .arg(directory.path())
            .status()
            .expect("the program mount");
        assert!(mounted.success(), "a filesystem of its own needs root: run the tests as root");
        Self { directory }
    }

    fn spool(&self) -> PathBuf {
        self.directory.path().join("spool")
    }

    fn filler(&self) -> PathBuf {
        self.directory.path().join("filler")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes every byte that is left.
    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("the filler");
        for size in [MIB, 4096, 1] {
            let chunk = vec![0; size];
            while file.write_all(&chunk).is_ok() {}
        }
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).expect("the filler");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: amibus may still have it open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
