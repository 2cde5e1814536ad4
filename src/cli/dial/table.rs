//! The file of rows: read whole, its form checked, nothing understood of its values.

use std::{fmt, fs::File, io::Read, path::Path};

use csv::{ByteRecord, ReaderBuilder, StringRecord};
use encoding_rs::{Encoding, UTF_8};

/// The longest file, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;
/// The most rows.
pub(super) const MAX_ROWS: usize = 1_000_000;
/// The most columns; an Originate takes 120 headers in all.
pub(super) const MAX_COLUMNS: usize = 100;
/// How many faults are told; the rest is counted.
const MAX_FAULTS_TOLD: usize = 20;

/// How the file is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub(super) delimiter: u8,
    pub(super) encoding: &'static Encoding,
}

/// Columns and rows; every row has a value for every column.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Row>,
    /// The file, byte for byte.
    pub(super) bytes: Vec<u8>,
}

/// One row, numbered from 1 without the line of column names.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) number: u64,
    /// The line of the file where it begins.
    pub(super) line: u64,
    fields: StringRecord,
}

impl Row {
    /// The value in a column of the table.
    pub(super) fn value(&self, column: usize) -> &str {
        self.fields.get(column).unwrap_or_default()
    }

    pub(super) fn fault(&self, column: Option<&str>, text: impl Into<String>) -> Fault {
        Fault { row: self.number, line: self.line, column: column.map(str::to_owned), text: text.into() }
    }
}

/// What is wrong with one row, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) row: u64,
    pub(super) line: u64,
    pub(super) column: Option<String>,
    pub(super) text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} (line {})", self.row, self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// All that is wrong with the rows: the first ones in words, the others counted.
#[derive(Debug, Default)]
pub(super) struct Faults {
    told: Vec<Fault>,
    all: usize,
}

impl Faults {
    pub(super) fn note(&mut self, fault: Fault) {
        if self.told.len() < MAX_FAULTS_TOLD {
            self.told.push(fault);
        }
        self.all += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all == 0
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.told {
            writeln!(f, "{fault}")?;
        }
        let more = self.all - self.told.len();
        if more > 0 {
            writeln!(f, "and {more} more")?;
        }
        Ok(())
    }
}

/// Reads a file within [`MAX_FILE_BYTES`].
///
/// # Errors
/// In words.
pub(super) fn bytes(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("{}: {error}", file.display()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{}: longer than {MAX_FILE_BYTES} bytes; split it", file.display()));
    }
    Ok(bytes)
}

impl Table {
    /// Reads the rows. Rows of the wrong length and values that are no text go to `faults`, and the rest is read on.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, in words.
    pub(super) fn parse(bytes: Vec<u8>, form: Form, faults: &mut Faults) -> Result<Self, String> {
        let (text, marked, broken) = form.encoding.decode(&bytes);
        // In UTF-8, what is not text is found row by row.
        let by_row = marked == UTF_8;
        if broken && !by_row {
            return Err(format!("it is not {} text; name its encoding with --encoding", marked.name()));
        }
        let content =
            if by_row { bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes) } else { text.as_bytes() };
        let mut reader = ReaderBuilder::new()
            .delimiter(form.delimiter)
            .flexible(true)
            .has_headers(false)
            .from_reader(content);
        let mut record = ByteRecord::new();
        let mut more = |record: &mut ByteRecord| {
            reader.read_byte_record(record).map_err(|error| format!("it is not CSV: {error}"))
        };
        if !more(&mut record)? {
            return Err("it is empty; its first line names the columns, e.g. number,name".to_owned());
        }
        let columns = columns(&record, form.delimiter)?;
        let mut rows = Vec::new();
        while more(&mut record)? {
            if rows.len() == MAX_ROWS {
                return Err(format!("more than {MAX_ROWS} rows; split it"));
            }
            let line = record.position().map_or(0, |at| line(content, at));
            let row = Row { number: rows.len() as u64 + 1, line, fields: StringRecord::new() };
            rows.push(read(row, &record, &columns, faults));
        }
        if rows.is_empty() {
            return Err("it has a line of column names and no rows".to_owned());
        }
        Ok(Self { columns, rows, bytes })
    }
}

fn read(mut row: Row, record: &ByteRecord, columns: &[String], faults: &mut Faults) -> Row {
    if record.len() != columns.len() {
        let (has, want) = (record.len(), columns.len());
        let why = match columns.get(has) {
            Some(missing) => format!("{missing} is missing"),
            None => "a value with the delimiter in it is put between double quotes".to_owned(),
        };
        let text = format!("{has} values, and the first line names {want} columns: {why}");
        faults.note(row.fault(None, text));
    }
    for (index, column) in columns.iter().enumerate() {
        match std::str::from_utf8(record.get(index).unwrap_or_default()) {
            Ok(value) => row.fields.push_field(value),
            Err(_) => {
                let text =
                    "not UTF-8; save the file as UTF-8 or name its encoding, e.g. --encoding windows-1252";
                faults.note(row.fault(Some(column), text));
                row.fields.push_field("");
            }
        }
    }
    row
}

/// The line where a record begins; its position is that of the empty lines before it.
fn line(content: &[u8], at: &csv::Position) -> u64 {
    let before = usize::try_from(at.byte()).ok().and_then(|byte| content.get(byte..)).unwrap_or_default();
    let empty = before.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    at.line() + empty.filter(|byte| **byte == b'\n').count() as u64
}

/// Column names, without the spaces around them.
fn columns(record: &ByteRecord, delimiter: u8) -> Result<Vec<String>, String> {
    let mut columns: Vec<String> = Vec::new();
    for (index, name) in record.iter().enumerate() {
        let place = index + 1;
        let name = std::str::from_utf8(name)
            .map_err(|_| format!("the name of column {place} is not UTF-8; see --encoding"))?
            .trim();
        if name.is_empty() {
            return Err(format!("column {place} has no name in the first line"));
        }
        if columns.iter().any(|other| other == name) {
            return Err(format!("two columns are called {name:?}; rename one in the first line"));
        }
        columns.push(name.to_owned());
    }
    if columns.len() > MAX_COLUMNS {
        return Err(format!("{} columns, at most {MAX_COLUMNS} are taken", columns.len()));
    }
    if let [only] = columns.as_slice()
        && let Some(other) = [';', ',', '\t', '|'].into_iter().find(|other| only.contains(*other))
        && u32::from(other) != u32::from(delimiter)
    {
        return Err(format!("its only column is called {only:?}: give --delimiter {other:?}"));
    }
    Ok(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> (Result<Table, String>, String) {
        parse_as(bytes, b',', UTF_8)
    }

    fn parse_as(bytes: &[u8], delimiter: u8, encoding: &'static Encoding) -> (Result<Table, String>, String) {
        let mut faults = Faults::default();
        let table = Table::parse(bytes.to_vec(), Form { delimiter, encoding }, &mut faults);
        (table, faults.to_string())
    }

    #[test]
    fn rows_are_numbered_and_know_their_line() {
        let (table, faults) = parse(b"\xef\xbb\xbfnumber, name\n100,\"a\nb\"\n\n200,\"x, \"\"y\"\"\"\n");
        let table = table.expect("right");
        assert_eq!(
            (table.columns.as_slice(), faults.as_str()),
            (&["number".to_owned(), "name".to_owned()][..], "")
        );
        let rows: Vec<_> =
            table.rows.iter().map(|row| (row.number, row.line, row.value(0), row.value(1))).collect();
        assert_eq!(rows, [(1, 2, "100", "a\nb"), (2, 5, "200", "x, \"y\"")]);
    }

    #[test]
    fn every_wrong_row_is_told_with_its_place() {
        let (table, faults) = parse(b"number,name\n100\n1,2,3\n1,M\xfcller\n");
        assert_eq!(table.expect("read on").rows.len(), 3);
        assert_eq!(
            faults,
            "row 1 (line 2): 1 values, and the first line names 2 columns: name is missing\n\
             row 2 (line 3): 3 values, and the first line names 2 columns: a value with the delimiter in it is put \
             between double quotes\n\
             row 3 (line 4), column name: not UTF-8; save the file as UTF-8 or name its encoding, e.g. --encoding \
             windows-1252\n"
        );
    }

    #[test]
    fn many_faults_are_counted() {
        let (_, faults) = parse(format!("number,name\n{}", "1\n".repeat(50)).as_bytes());
        assert_eq!(faults.lines().count(), MAX_FAULTS_TOLD + 1);
        assert!(faults.ends_with("and 30 more\n"), "{faults}");
    }

    #[test]
    fn another_encoding_is_read() {
        let latin = Encoding::for_label(b"windows-1252").expect("known");
        let (table, faults) = parse_as(b"number;name\n1;M\xfcller\n", b';', latin);
        assert_eq!((table.expect("right").rows[0].value(1), faults.as_str()), ("Müller", ""));
        let utf16: Vec<u8> = std::iter::once(0xfeffu16)
            .chain("number\n1\n".encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(parse(&utf16).0.expect("its mark tells").rows[0].value(0), "1");
    }

    #[test]
    fn what_is_wrong_as_a_whole_is_told() {
        for (bytes, told) in [
            (&b""[..], "it is empty"),
            (b"number\n", "no rows"),
            (b"number,\n1,2\n", "column 2 has no name"),
            (b"a,b,a\n1,2,3\n", "two columns are called \"a\""),
            (b"number;name\n1;2\n", "give --delimiter ';'"),
            (b"\xfc\n1\n", "the name of column 1 is not UTF-8"),
        ] {
            let error = parse(bytes).0.expect_err(told);
            assert!(error.contains(told), "{error}");
        }
    }
}
