//! A row a fault: what was done, what was sent, what became of it.

use std::time::Instant;

use super::judge::Verdict;
use super::paper::{commit, show};
use super::rig::Verdicts;

const HEADING: &str = "fault | times | sent | seen (NATS, Kafka) | announced (NATS, Kafka) | repeats (NATS, Kafka) | \
                       lost unannounced | breaches | memory (MiB) | seconds | commit | notes";

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

    /// Writes the row down (`AMIBUS_TEST_FAULTS_TABLE` names the file), and panics where a promise was broken.
    pub(super) fn end(mut self, verdicts: &Verdicts) {
        let pair = |of: fn(&Verdict) -> u64| format!("{}, {}", of(&verdicts[0]), of(&verdicts[1]));
        let sum = |of: fn(&Verdict) -> u64| verdicts.iter().map(of).sum::<u64>();
        let overclaimed = sum(|v| v.claimed_but_seen);
        if overclaimed > 0 {
            self.note(format!("gaps claimed {overclaimed} numbers that were seen"));
        }
        let by_time = sum(|v| v.by_time);
        if by_time > 0 {
            self.note(format!("{by_time} announced by the time of a loss, beyond its count"));
        }
        self.note(format!("gaps {}", pair(|v| v.gaps)));
        self.note(format!("{} scrapes add up", verdicts.scrapes));
        let row = format!(
            "{} | {} | {} | {} | {} | {} | {} | {} | {:.1} | {:.0} | {} | {}",
            self.fault,
            self.times,
            verdicts[0].sent,
            pair(|v| v.seen),
            pair(|v| v.announced),
            pair(|v| v.repeats),
            sum(|v| v.lost),
            sum(|v| v.breaches),
            verdicts.resident_kib_max as f64 / 1024.0,
            self.begun.elapsed().as_secs_f64(),
            commit(),
            self.notes.join("; "),
        );
        show(HEADING, &row);
        assert!(verdicts.scrapes > 0, "no scrape was looked at, so no account was shown to add up");
        for (bus, verdict) in ["NATS", "Kafka"].iter().zip(verdicts.iter()) {
            assert!(
                verdict.is_clean(),
                "{bus}: {} lost unannounced, {} breaches\n{HEADING}\n{row}\n{}",
                verdict.lost,
                verdict.breaches,
                verdict.told_lost.iter().chain(&verdict.told).cloned().collect::<Vec<_>>().join("\n")
            );
            assert!(verdict.seen > 0, "{bus}: nothing was seen, so nothing was shown");
        }
    }
}
