//! What a table is written on.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::time::Instant;

use super::extent::is_long;

/// One row in the making.
pub(super) struct Row {
    fault: String,
    times: u32,
    notes: Vec<String>,
    begun: Instant,
}

impl Row {
    pub(super) fn begin(fault: &str, times: u32) -> Self {
        Self { fault: fault.to_owned(), times, notes: Vec::new(), begun: Instant::now() }
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Writes the row down, `cells` between its beginning and its end (`fault | times | ... | seconds | commit | notes`).
    pub(super) fn write(self, heading: &str, cells: &[String]) -> String {
        let Self { fault, times, notes, begun } = self;
        let (cells, seconds, notes) = (cells.join(" | "), begun.elapsed().as_secs_f64(), notes.join("; "));
        let row = format!("{fault} | {times} | {cells} | {seconds:.0} | {} | {notes}", commit());
        show(heading, &row);
        row
    }
}

/// What was tested: the commit, and whether files differ from it. Who sets the programs aside knows better.
fn commit() -> String {
    if let Ok(known) = env::var("AMIBUS_TEST_FAULTS_COMMIT") {
        return known;
    }
    let output = Command::new("git")
        .args(["describe", "--always", "--exclude=*", "--abbrev=7", "--dirty"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let name = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// Shows a row of the table, and writes it into the file that `AMIBUS_TEST_FAULTS_TABLE` names.
#[expect(clippy::print_stderr, reason = "the table is what the long form is run for")]
fn show(heading: &str, row: &str) {
    if is_long() {
        eprintln!("{heading}");
    }
    eprintln!("{row}");
    if let Some(path) = env::var_os("AMIBUS_TEST_FAULTS_TABLE") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("the file of the table"), "{row}").expect("a row of the table");
    }
}
