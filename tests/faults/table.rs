//! A row a fault: what was done, what was sent, what became of it.

use super::judge::Verdict;
pub(super) use super::paper::Row;
use super::rig::Verdicts;

const HEADING: &str = "fault | times | sent | seen (NATS, Kafka) | announced (NATS, Kafka) | repeats (NATS, Kafka) | \
                       lost unannounced | breaches | memory (MiB) | seconds | commit | notes";

impl Row {
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
        let cells = [
            verdicts[0].sent.to_string(),
            pair(|v| v.seen),
            pair(|v| v.announced),
            pair(|v| v.repeats),
            sum(|v| v.lost).to_string(),
            sum(|v| v.breaches).to_string(),
            format!("{:.1}", verdicts.resident_kib_max as f64 / 1024.0),
        ];
        let row = self.write(HEADING, &cells);
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
