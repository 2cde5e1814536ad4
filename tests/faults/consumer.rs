//! A consumer in Python and what it has stored so far.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amibus_services::Python;

use super::judge::{Bus, Message, Run, Verdict, What, judge};

const READY: Duration = Duration::from_secs(60);

/// One consumer of one bus.
pub(super) struct Consumer {
    pub(super) bus: Bus,
    pub(super) messages: Vec<Message>,
    _python: Python,
    file: PathBuf,
    offset: u64,
    rest: Vec<u8>,
    /// When something new was last found.
    pub(super) progress: Instant,
}

impl Consumer {
    /// Starts it, from the beginning of the bus.
    pub(super) fn start(bus: Bus, address: &str, prefix: &str, stream: &str, directory: &Path) -> Self {
        let file = directory.join(format!("{}.tsv", bus.name()));
        let script = script("consume.py");
        let words = [bus.name(), address, prefix, stream, &file.display().to_string()];
        let python = Python::spawn(script, &words);
        assert_eq!(python.line(READY).as_deref(), Some("ready"));
        let now = Instant::now();
        Self { bus, messages: Vec::new(), _python: python, file, offset: 0, rest: Vec::new(), progress: now }
    }

    /// Reads what has been stored since.
    pub(super) fn read(&mut self) {
        let Ok(mut file) = File::open(&self.file) else { return };
        file.seek(SeekFrom::Start(self.offset)).expect("the store of a consumer");
        self.offset += file.read_to_end(&mut self.rest).expect("the store of a consumer") as u64;
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { return };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        let text = String::from_utf8(lines).expect("the store is UTF-8");
        self.messages.extend(text.lines().map(Message::parse));
        self.progress = Instant::now();
    }

    /// Whether an event with this tag is among those stored from `from` on.
    pub(super) fn has(&self, from: usize, wanted: &str) -> bool {
        self.messages[from..].iter().any(|m| matches!(&m.what, What::Event { tag, .. } if tag == wanted))
    }

    /// How old the newest event was when it came. While nothing comes, that is as old as can be.
    pub(super) fn lag(&self) -> Duration {
        if self.progress.elapsed() > Duration::from_secs(2) {
            return Duration::MAX;
        }
        let newest = self.messages.iter().rev().find_map(Message::lag_micros);
        newest.map_or(Duration::MAX, |micros| Duration::from_micros(micros.unsigned_abs()))
    }

    /// What the judge says by now.
    pub(super) fn verdict(&self, runs: &[Run]) -> Verdict {
        judge(self.bus, runs, &self.messages)
    }
}

/// What all consumers have stored.
pub(super) fn all(consumers: &[Consumer]) -> impl Iterator<Item = &Message> {
    consumers.iter().flat_map(|consumer| &consumer.messages)
}

/// The path of a script beside this file.
pub(super) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults").join(name)
}
