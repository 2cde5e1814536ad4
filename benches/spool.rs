//! How fast the spool is: `cargo bench --bench spool [-- FOLDER]`.
//!
//! A million records of 700 bytes are appended, next to writing just these bytes to files of the same size; then read
//! from the files by a bus, opened again as after a kill, and verified. The folder's disk is what is measured.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use amibus::spool::{self, Options, Spool};
use amibus_contract::{Attributes, Bytes, Kind, Message, Topic};

const RECORDS: u64 = 1_000_000;
const BODY_BYTES: usize = 700;
const RECORD_BYTES: u64 = BODY_BYTES as u64 + 24;
const ROUNDS: usize = 3;
const SEGMENT_BYTES: u64 = 32 << 20;
/// Appending waits here, for the disk and not the buffer is to be measured.
const UNWRITTEN_BYTES: usize = 32 << 20;
const PAUSE: Duration = Duration::from_micros(200);

fn main() -> io::Result<()> {
    let folder = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let root = folder.map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::Builder::new().prefix("amibus-spool-").tempdir_in(root)?;
    for _ in 0..ROUNDS {
        let plain = plain(dir.path())?;
        let dir = dir.path().join("spool");
        let (written, resident) = append(&dir)?;
        let drained = drain(&dir)?;
        let (opened, verified) = (open(&dir)?, verify(&dir)?);
        writeln!(
            io::stdout(),
            "append {:.2} M/s, {:.2} of plain writes; drained {:.2} M/s; {:.0} MB opened in {:.1} ms and verified in \
             {:.0} ms; {resident} MB of memory",
            millions(written),
            plain.as_secs_f64() / written.as_secs_f64(),
            millions(drained),
            (RECORDS * RECORD_BYTES) as f64 / 1e6,
            opened.as_secs_f64() * 1e3,
            verified.as_secs_f64() * 1e3,
        )?;
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

fn millions(took: Duration) -> f64 {
    RECORDS as f64 / took.as_secs_f64() / 1e6
}

/// The same bytes, in writes and files of the same sizes.
fn plain(dir: &Path) -> io::Result<Duration> {
    let group = vec![b'x'; 1 << 20];
    let began = Instant::now();
    let mut left = RECORDS * RECORD_BYTES;
    for number in 0.. {
        let file = File::create(dir.join(format!("plain-{number}")))?;
        let mut at = 0;
        while at < SEGMENT_BYTES && left > 0 {
            let part = left.min(group.len() as u64);
            file.write_all_at(group.get(..part as usize).unwrap_or_default(), at)?;
            (at, left) = (at + part, left - part);
        }
        if left == 0 {
            break;
        }
    }
    let took = began.elapsed();
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(took)
}

fn message(body: Bytes) -> Message {
    let topic = Topic::new("ami", Kind::Event, "pbx1", "Hangup").expect("a topic");
    Message { topic, key: "key".into(), attributes: Attributes::default(), body }
}

fn opened(dir: &Path) -> io::Result<Arc<Spool>> {
    let opened = spool::open(dir, Options::default(), &["one", "two"]).map_err(io::Error::other)?;
    opened.start(Arc::new(|body| Some(message(body))))
}

/// How long it took until everything was written, and the most memory meanwhile.
fn append(dir: &Path) -> io::Result<(Duration, u64)> {
    let spool = opened(dir)?;
    let ready = message(vec![b'x'; BODY_BYTES].into());
    let (began, mut resident) = (Instant::now(), 0);
    for number in 0..RECORDS {
        spool.append(|_| ready.clone());
        if number % 1024 == 0 {
            wait(&spool, UNWRITTEN_BYTES);
            resident = resident.max(resident_megabytes());
        }
    }
    wait(&spool, 0);
    let took = began.elapsed();
    assert!(spool.finish(Duration::from_secs(60)), "the disk is too slow");
    Ok((took, resident))
}

fn wait(spool: &Spool, unwritten_bytes: usize) {
    while spool.status().unwritten_bytes > unwritten_bytes {
        std::thread::sleep(PAUSE);
    }
}

/// From the files, as a bus that was away.
fn drain(dir: &Path) -> io::Result<Duration> {
    let spool = opened(dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let began = Instant::now();
    runtime.block_on(async {
        let (mut reader, mut read) = (spool.reader(0), 0);
        while read < RECORDS {
            let batch = reader.batch(1024, 1 << 20).await.expect("not closed");
            assert_eq!(batch.lost, None, "nothing is lost here");
            read += batch.messages.len() as u64;
            reader.commit(batch.messages.len());
        }
    });
    let took = began.elapsed();
    assert!(spool.finish(Duration::from_secs(60)), "the disk is too slow");
    Ok(took)
}

fn open(dir: &Path) -> io::Result<Duration> {
    let began = Instant::now();
    let opened = spool::open(dir, Options::default(), &["one", "two"]).map_err(io::Error::other)?;
    assert_eq!(opened.recovery().next, RECORDS + 1);
    Ok(began.elapsed())
}

fn verify(dir: &Path) -> io::Result<Duration> {
    let began = Instant::now();
    let found = spool::inspect::verify(dir)?;
    assert_eq!((found.records, found.damages.len()), (RECORDS, 0));
    Ok(began.elapsed())
}

/// Of this process (`VmRSS` of proc(5)); 0 where there is no such thing.
fn resident_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1000
}
