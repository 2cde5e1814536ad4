//! A row a fault: what was done, what was asked, what became of it.

use std::time::Instant;

use super::judge::Verdict;
use super::paper::{commit, show};

const HEADING: &str = "fault | times | commands | calls | executed | unknown | other outcomes | repeats | breaches | \
                       seconds | commit | notes";

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

    /// Writes the row down, and panics where a promise was broken.
    pub(super) fn end(mut self, verdict: &Verdict) {
        if !verdict.unknown.is_empty() {
            self.note(format!("unknown: {:?}", verdict.unknown));
        }
        self.note(format!("up to {} calls at once, {} in a second", verdict.at_once, verdict.a_second));
        let (executed, unknown) = (verdict.of("executed"), verdict.of("unknown"));
        let others = verdict.outcomes.values().sum::<usize>() - executed - unknown;
        let row = format!(
            "{} | {} | {} | {} | {executed} | {unknown} | {others} | {} | {} | {:.0} | {} | {}",
            self.fault,
            self.times,
            verdict.commands,
            verdict.calls,
            verdict.repeats,
            verdict.breaches.values().sum::<usize>(),
            self.begun.elapsed().as_secs_f64(),
            commit(),
            self.notes.join("; "),
        );
        show(HEADING, &row);
        assert!(verdict.is_clean(), "{:?}\n{HEADING}\n{row}\n{}", verdict.breaches, verdict.told.join("\n"));
        assert!(verdict.calls > 0, "nothing was called, so nothing was shown");
    }
}
