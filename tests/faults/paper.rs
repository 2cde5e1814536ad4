//! What a table is written on.

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;

use super::extent::is_long;

/// What was tested: the commit, and whether files differ from it. Who sets the programs aside knows better.
pub(super) fn commit() -> String {
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
pub(super) fn show(heading: &str, row: &str) {
    if is_long() {
        eprintln!("{heading}");
    }
    eprintln!("{row}");
    if let Some(path) = env::var_os("AMIBUS_TEST_FAULTS_TABLE") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        writeln!(file.expect("the file of the table"), "{row}").expect("a row of the table");
    }
}
