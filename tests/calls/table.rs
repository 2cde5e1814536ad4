//! A row a fault: what was done, what was asked, what became of it.

use super::judge::Verdict;
pub(super) use super::paper::Row;

const HEADING: &str = "fault | times | commands | calls | executed | unknown | other outcomes | repeats | breaches | \
                       seconds | commit | notes";

impl Row {
    /// Writes the row down, and panics where a promise was broken.
    pub(super) fn end(mut self, verdict: &Verdict) {
        for (code, count) in &verdict.codes {
            self.note(format!("{code}: {count}"));
        }
        if verdict.unheard > 0 {
            self.note(format!("{} replies to a sender whose connection was broken", verdict.unheard));
        }
        self.note(format!("up to {} calls at once, {} in a second", verdict.at_once, verdict.a_second));
        let (executed, unknown) = (verdict.of("executed"), verdict.of("unknown"));
        let others = verdict.outcomes.values().sum::<usize>() - executed - unknown;
        let breaches = verdict.breaches.values().sum::<usize>();
        let cells = [verdict.commands, verdict.calls, executed, unknown, others, verdict.repeats, breaches];
        let row = self.write(HEADING, &cells.map(|cell| cell.to_string()));
        assert!(verdict.is_clean(), "{:?}\n{HEADING}\n{row}\n{}", verdict.breaches, verdict.told.join("\n"));
        assert!(verdict.calls > 0, "nothing was called, so nothing was shown");
    }
}
