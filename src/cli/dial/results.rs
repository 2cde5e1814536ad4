//! The results file: a line a result, written as it comes, read again when a batch is resumed.
//!
//! A line is written whole with one call, so that a process that dies leaves at most a part of the last line, and a loss
//! of power at most what came within [`SYNC_EVERY`]. A part of a line is cut off when the file is opened again: its row
//! is asked for again, and amibus answers what it has recorded.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use csv::{ReaderBuilder, WriterBuilder};

use super::outcome::Line;
use crate::cli::{Failure, output};

/// How old a line may be that power can take away.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// The longest results file that is read again, in bytes.
const MAX_RESULTS_BYTES: u64 = 1024 * 1024 * 1024;
/// The columns of CSV; the keys of JSON lines.
const COLUMNS: &str = "row,number,id,outcome,result,reason,uniqueid,time,seen,code,message";
/// How a JSON line begins.
const BEGINNING: &[u8] = b"{\"row\":";
const FOREIGN: &str = "it is not a results file of amibus dial; name another";

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Csv,
    JsonLines,
}

impl Form {
    fn of(path: &Path) -> Result<Self, Failure> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("csv") => Ok(Self::Csv),
            Some("jsonl" | "ndjson") => Ok(Self::JsonLines),
            _ => {
                let text = format!("--results {}: its name ends with .csv or .jsonl", path.display());
                Err(Failure::Usage(text))
            }
        }
    }

    fn line(self, line: &Line) -> Result<Vec<u8>, String> {
        match self {
            Self::Csv => {
                let mut writer = WriterBuilder::new().has_headers(false).from_writer(Vec::new());
                writer.serialize(line).map_err(|error| error.to_string())?;
                writer.into_inner().map_err(|error| error.to_string())
            }
            Self::JsonLines => {
                let mut text = serde_json::to_vec(line).map_err(|error| error.to_string())?;
                text.push(b'\n');
                Ok(text)
            }
        }
    }

    /// Whether a last line that cannot be read may be the rest of a result: of a foreign file nothing is cut off. A file
    /// of CSV is known by its first line.
    fn may_be_torn(self, line: &[u8]) -> bool {
        self == Self::Csv
            || line.starts_with(BEGINNING)
            || BEGINNING.starts_with(line)
            || line.starts_with(b"\0")
    }

    fn read(self, text: &str) -> Result<Line, String> {
        match self {
            Self::Csv => {
                let mut reader = ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
                let line = reader.deserialize().next();
                line.ok_or("it is empty")?.map_err(|error| error.to_string())
            }
            Self::JsonLines => serde_json::from_str(text).map_err(|error| error.to_string()),
        }
    }
}

/// Where results go.
pub(super) enum Results {
    /// JSON lines on standard output.
    Output,
    /// A file of ours alone.
    File(Kept),
}

/// A results file.
pub(super) struct Kept {
    file: File,
    path: PathBuf,
    form: Form,
    synced: Instant,
}

impl Results {
    /// Opens the file, mends its end, and tells what it has. Each line it has goes to `take`, which may object.
    ///
    /// # Errors
    /// Where it cannot be opened, is not a results file, is in use, or `take` objects.
    pub(super) fn open(
        path: Option<&Path>,
        mut take: impl FnMut(Line) -> Result<(), String>,
    ) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::Output) };
        let form = Form::of(path)?;
        let failed = |why: String| Failure::Failed(format!("{}: {why}", path.display()));
        let broken = |error: std::io::Error| failed(error.to_string());
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(broken)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(failed("another amibus dial writes to it".to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(broken(error)),
        }
        let mut text = Vec::new();
        (&file).take(MAX_RESULTS_BYTES + 1).read_to_end(&mut text).map_err(broken)?;
        if text.len() as u64 > MAX_RESULTS_BYTES {
            return Err(failed(format!("longer than {MAX_RESULTS_BYTES} bytes")));
        }
        let whole = read(form, &text, &mut take).map_err(failed)?;
        if whole < text.len() {
            tracing::warn!(file = %path.display(), bytes = text.len() - whole, "a part of a line is cut off its end");
            file.set_len(whole as u64).map_err(broken)?;
        }
        file.seek(SeekFrom::End(0)).map_err(broken)?;
        if whole == 0 && form == Form::Csv {
            file.write_all(format!("{COLUMNS}\n").as_bytes()).map_err(broken)?;
        }
        file.sync_data().map_err(broken)?;
        Ok(Self::File(Kept { file, path: path.to_owned(), form, synced: Instant::now() }))
    }

    /// Writes one result.
    ///
    /// # Errors
    /// Where it cannot be written, and [`Failure::Enough`] where nobody reads standard output any more.
    pub(super) fn write(&mut self, line: &Line) -> Result<(), Failure> {
        match self {
            Self::Output => {
                let mut text = Form::JsonLines.line(line).map_err(Failure::Failed)?;
                text.pop();
                output::line(&text)
            }
            Self::File(kept) => {
                let text = kept.form.line(line).map_err(Failure::Failed)?;
                kept.file.write_all(&text).map_err(|error| kept.failed(&error))?;
                if kept.synced.elapsed() >= SYNC_EVERY { kept.sync() } else { Ok(()) }
            }
        }
    }

    /// Waits until all that was written is on disk.
    ///
    /// # Errors
    /// Where it cannot be.
    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        match self {
            Self::Output => Ok(()),
            Self::File(kept) => kept.sync(),
        }
    }
}

impl Kept {
    fn sync(&mut self) -> Result<(), Failure> {
        self.synced = Instant::now();
        self.file.sync_data().map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::Failed(format!("{}: {error}", self.path.display()))
    }
}

/// Reads what a file has; answers how many of its bytes are whole lines.
fn read(form: Form, text: &[u8], take: &mut impl FnMut(Line) -> Result<(), String>) -> Result<usize, String> {
    let mut whole = 0;
    for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let number = index + 1;
        let last = whole + line.len() == text.len();
        let Some(content) = line.strip_suffix(b"\n") else {
            let header = form == Form::Csv && index == 0;
            if (header && !COLUMNS.as_bytes().starts_with(line)) || !form.may_be_torn(line) {
                return Err(FOREIGN.to_owned());
            }
            break;
        };
        let content = String::from_utf8_lossy(content);
        let content = content.trim_end_matches('\r');
        if form == Form::Csv && index == 0 {
            if content != COLUMNS {
                return Err(FOREIGN.to_owned());
            }
        } else {
            match form.read(content) {
                Ok(line) => take(line).map_err(|why| format!("line {number}: {why}"))?,
                // A loss of power may leave anything there.
                Err(_) if last && form.may_be_torn(line) => break,
                Err(why) => return Err(format!("line {number} is no result of amibus dial: {why}")),
            }
        }
        whole += line.len();
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(row: u64) -> Line {
        Line {
            row,
            number: "+49,\"1".to_owned(),
            id: format!("b-{row}"),
            outcome: "executed".to_owned(),
            result: Some("busy".to_owned()),
            reason: Some(5),
            ..Line::default()
        }
    }

    fn open(path: &Path) -> (Result<Results, Failure>, Vec<Line>) {
        let mut taken = Vec::new();
        let results = Results::open(Some(path), |line| {
            taken.push(line);
            Ok(())
        });
        (results, taken)
    }

    #[test]
    fn what_was_written_is_read_and_a_torn_end_is_mended() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["r.csv", "r.jsonl"] {
            let path = folder.path().join(name);
            let mut results = open(&path).0.expect("opens");
            results.write(&line(1)).expect("written");
            results.write(&line(2)).expect("written");
            assert!(
                matches!(open(&path).0, Err(Failure::Failed(why)) if why.contains("another amibus dial"))
            );
            drop(results);
            let whole = std::fs::read(&path).expect("read");
            let last = whole.iter().rposition(|byte| *byte == b'b').expect("an id");
            for cut in [1, 5, whole.len() - last] {
                std::fs::write(&path, &whole[..whole.len() - cut]).expect("torn");
                let (results, taken) = open(&path);
                assert_eq!(taken, [line(1)], "{name}, {cut} bytes less");
                results.expect("opens").write(&line(3)).expect("written");
                assert_eq!(open(&path).1, [line(1), line(3)], "{name}, {cut} bytes less");
            }
            std::fs::write(&path, [&whole[..], &[0; 7][..], b"\n"].concat()).expect("torn");
            assert_eq!(open(&path).1, [line(1), line(2)]);
        }
    }

    #[test]
    fn another_file_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("a.csv", "number\n1\n"),
            ("b.csv", "number"),
            ("c.jsonl", "{\"row\":1}\n{}\n"),
            ("d.csv", "x\n"),
            ("e.jsonl", "{\"a\":1}"),
            ("f.jsonl", "{\"a\":1}\n"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            assert!(open(&path).0.is_err(), "{name}");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text, "it is left as it is");
        }
        assert!(matches!(Results::open(Some(Path::new("r.txt")), |_| Ok(())), Err(Failure::Usage(_))));
        assert!(matches!(Results::open(None, |_| Ok(())), Ok(Results::Output)));
    }

    #[test]
    fn a_header_that_was_torn_is_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("r.csv");
        std::fs::write(&path, "row,num").expect("written");
        open(&path).0.expect("opens").write(&line(1)).expect("written");
        assert_eq!(open(&path).1, [line(1)]);
    }
}
