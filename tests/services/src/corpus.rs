//! The recordings of real AMI sessions in `tests/corpus`, made with Asterisk 22 and 16.
//!
//! A recording `NAME` has the bytes of each direction (`NAME.s2c`, `NAME.c2s`), the reads and writes that they
//! came in (`NAME.idx`) and what an independent reader counted in them (`NAME.txt`). All but the last are
//! stored compressed; [`corpus`] undoes that.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// One recorded AMI connection.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The name without a suffix, such as `dial-basic-22`.
    pub name: String,
    /// Every byte that Asterisk sent, banner included.
    pub s2c: Vec<u8>,
    /// Every byte that the client sent.
    pub c2s: Vec<u8>,
    /// The reads and writes in the order in which they happened.
    pub chunks: Vec<Chunk>,
    /// Whether the server closed the connection; otherwise the recording was stopped.
    pub server_closed: bool,
    /// What was counted in it.
    pub notes: Notes,
}

/// One read or write of a recording.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chunk {
    /// Seconds since the connection was opened.
    pub at_seconds: f64,
    /// Whether Asterisk sent it (it lies in `s2c`); otherwise the client did (`c2s`).
    pub from_server: bool,
    /// Where it starts in the bytes of its direction.
    pub offset: usize,
    /// How many bytes it has.
    pub len: usize,
}

/// The `.txt` of a recording: lines of `key: value`.
#[derive(Debug, Clone, Default)]
pub struct Notes(BTreeMap<String, String>);

impl Notes {
    /// The value of `key` (`banner`, `server`, `what`, `ends`, ...), empty where the notes do not have it.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// The number that the value of `key` starts with (`messages`, `Event`, `header_lines`,
    /// `empty_lines_between_messages`, `largest_message`, `tail_after_last_message` in bytes, ...).
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key).split_whitespace().next()?.parse().ok()
    }

    /// The counts by name under `key` (`events`, `responses`, `actions_sent`).
    #[must_use]
    pub fn tally(&self, key: &str) -> BTreeMap<String, u64> {
        let entries = self.text(key).split(", ").filter_map(|entry| entry.rsplit_once('='));
        entries.filter_map(|(name, count)| Some((name.to_owned(), count.parse().ok()?))).collect()
    }

    /// Whether the recording is a stream of AMI messages. One holds raw HTTP instead.
    #[must_use]
    pub fn is_ami(&self) -> bool {
        self.0.contains_key("banner")
    }
}

/// The names of all recordings, sorted, without suffixes.
#[must_use]
pub fn corpus_names() -> Vec<String> {
    let entries = fs::read_dir(directory()).unwrap_or_else(|error| panic!("tests/corpus: {error}"));
    let files = entries.map(|entry| entry.expect("an entry of tests/corpus").file_name());
    let mut names: Vec<String> =
        files.filter_map(|file| file.to_str()?.strip_suffix(".s2c.xz").map(str::to_owned)).collect();
    names.sort();
    names
}

/// The bytes of one file of `tests/corpus`, such as `dial-basic-22.s2c` or `events-22.tsv`.
#[must_use]
pub fn corpus(file: &str) -> Vec<u8> {
    let path = directory().join(file);
    if path.exists() {
        return fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let packed = directory().join(format!("{file}.xz"));
    let input = fs::File::open(&packed).unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    let mut bytes = Vec::new();
    lzma_rs::xz_decompress(&mut BufReader::new(input), &mut bytes)
        .unwrap_or_else(|error| panic!("{}: {error:?}", packed.display()));
    bytes
}

/// The text of one file of `tests/corpus` that is UTF-8.
#[must_use]
pub fn corpus_text(file: &str) -> String {
    String::from_utf8(corpus(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A whole recording by its name without a suffix.
#[must_use]
pub fn recording(name: &str) -> Recording {
    let index = corpus_text(&format!("{name}.idx"));
    Recording {
        name: name.to_owned(),
        s2c: corpus(&format!("{name}.s2c")),
        c2s: corpus(&format!("{name}.c2s")),
        chunks: parse_chunks(&index),
        server_closed: index.contains(SERVER_CLOSED),
        notes: parse_notes(&corpus_text(&format!("{name}.txt"))),
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn parse_notes(text: &str) -> Notes {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Notes(pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned())).collect())
}

/// The direction of the last line of an index where the server closed the connection; it has no bytes.
const SERVER_CLOSED: &str = "\"s2c-eof\"";

/// Lines of `[seconds, "s2c" or "c2s", offset, length]`.
fn parse_chunks(text: &str) -> Vec<Chunk> {
    let chunk = |line: &str| {
        let mut fields = line.trim().strip_prefix('[')?.strip_suffix(']')?.split(", ");
        Some(Chunk {
            at_seconds: fields.next()?.parse().ok()?,
            from_server: fields.next()? == "\"s2c\"",
            offset: fields.next()?.parse().ok()?,
            len: fields.next()?.parse().ok()?,
        })
    };
    let lines = text.lines().filter(|line| !line.contains(SERVER_CLOSED));
    lines.map(|line| chunk(line).unwrap_or_else(|| panic!("not a line of an .idx: {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recording_has_the_bytes_that_its_notes_and_chunks_say() {
        let names = corpus_names();
        assert!(names.len() >= 29, "only {} recordings", names.len());
        for name in names {
            let recording = recording(&name);
            assert_eq!(Some(recording.s2c.len() as u64), recording.notes.number("s2c_bytes"), "{name}");
            assert_eq!(Some(recording.c2s.len() as u64), recording.notes.number("c2s_bytes"), "{name}");
            for (from_server, bytes) in [(true, &recording.s2c), (false, &recording.c2s)] {
                let mut end = 0;
                for chunk in recording.chunks.iter().filter(|chunk| chunk.from_server == from_server) {
                    assert_eq!(chunk.offset, end, "{name}");
                    end += chunk.len;
                }
                assert_eq!(end, bytes.len(), "{name}");
            }
            let events: u64 = recording.notes.tally("events").values().sum();
            assert_eq!(recording.notes.is_ami().then_some(events), recording.notes.number("Event"), "{name}");
        }
    }

    #[test]
    fn the_tables_of_events_and_actions_are_there() {
        for file in ["events-22.tsv", "events-16.tsv", "actions-22.tsv", "actions-16.tsv"] {
            assert!(corpus_text(file).lines().count() > 100, "{file}");
        }
        assert!(corpus_text("dangerous-actions.tsv").contains("Originate"));
    }
}
