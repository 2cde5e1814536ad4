//! Appending recorded events to the spool, beside writing the same bytes to files of the same size.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use amibus::spool::{self, Options, Spool};
use amibus_contract::Message;

use crate::{common::spread::Spread, ours};

const ROUNDS: usize = 9;
/// Records in a round.
const RECORDS: usize = 200_000;
/// What a record takes besides its body: length, checksum, sequence and moment.
const RECORD_HEAD_BYTES: u64 = 24;
const SEGMENT_BYTES: u64 = 32 << 20;
const WRITE_BYTES: u64 = 1 << 20;
/// Appending waits here, for the disk and not the buffer is to be measured.
const UNWRITTEN_BYTES: usize = 32 << 20;
const PAUSE: Duration = Duration::from_micros(200);
const PATIENCE: Duration = Duration::from_secs(60);

/// Records a second, and how many times as long plain writes of the same bytes take.
pub(crate) struct Measured {
    pub(crate) per_second: Spread,
    pub(crate) of_plain: Spread,
    pub(crate) body_bytes: u64,
}

/// Appends the events of a recording over and over; a short run (`seconds` under 5) appends fewer of them.
pub(crate) fn measure(recording: &[u8], seconds: u64) -> io::Result<Measured> {
    let mut ready = Vec::new();
    ours::messages(recording, |message| ready.push(message));
    let records = if seconds < 5 { RECORDS / 20 } else { RECORDS };
    let bodies: u64 = ready.iter().cycle().take(records).map(|message| message.body.len() as u64).sum();
    let bytes = bodies + records as u64 * RECORD_HEAD_BYTES;
    let dir = tempfile::Builder::new().prefix("amibus-micro-").tempdir()?;
    let (mut per_second, mut of_plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let plain = plain(&dir.path().join("plain"), bytes)?;
        let spooled = append(&dir.path().join("spool"), &ready, records)?;
        per_second.push(records as f64 / spooled.as_secs_f64());
        of_plain.push(plain.as_secs_f64() / spooled.as_secs_f64());
    }
    let body_bytes = bodies / records as u64;
    Ok(Measured { per_second: Spread::of(per_second), of_plain: Spread::of(of_plain), body_bytes })
}

fn plain(dir: &Path, bytes: u64) -> io::Result<Duration> {
    fs::create_dir(dir)?;
    let group = vec![b'x'; WRITE_BYTES as usize];
    let began = Instant::now();
    let mut left = bytes;
    for number in 0.. {
        let file = File::create(dir.join(number.to_string()))?;
        let mut at = 0;
        while at < SEGMENT_BYTES && left > 0 {
            let part = left.min(WRITE_BYTES);
            file.write_all_at(group.get(..part as usize).unwrap_or_default(), at)?;
            (at, left) = (at + part, left - part);
        }
        if left == 0 {
            break;
        }
    }
    let took = began.elapsed();
    fs::remove_dir_all(dir)?;
    Ok(took)
}

fn append(dir: &Path, ready: &[Message], records: usize) -> io::Result<Duration> {
    let opened = spool::open(dir, Options::default(), &["one"]).map_err(io::Error::other)?;
    let spool = opened.start(Arc::new(|_| None))?;
    let began = Instant::now();
    for (number, message) in ready.iter().cycle().take(records).enumerate() {
        spool.append_read(|_| message.clone());
        if number % 1024 == 0 {
            wait(&spool, UNWRITTEN_BYTES);
        }
    }
    wait(&spool, 0);
    let took = began.elapsed();
    if !spool.finish(PATIENCE) {
        return Err(io::Error::other("the disk is too slow"));
    }
    fs::remove_dir_all(dir)?;
    Ok(took)
}

fn wait(spool: &Spool, unwritten_bytes: usize) {
    while spool.status().unwritten_bytes > unwritten_bytes {
        std::thread::sleep(PAUSE);
    }
}
