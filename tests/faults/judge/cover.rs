//! Which numbers an announced gap covers.
//!
//! | gap | covers an unseen number when |
//! |---|---|
//! | `disconnected` or `skipped`, with SequenceNumbers | its SequenceNumber is in the range, in the same life of Asterisk, and the gap stands behind it |
//! | without | the gap stands between the neighbours that were seen, and its time holds the moment of sending |
//! | `dropped` or `damaged` | as many `sequence`s between the neighbours are unseen and in the gap's range; more than these, where all of the stretch lies in the gap's time, since the announcement of another gap may be lost with them |
//!
//! A gap for one bus alone counts on that bus only.

use super::{Bus, Message, Run, Sent, Verdict, What, message::Gap, seen::Sightings};

/// How far the source's clock and the moment of reading may lie apart.
const SLACK_MICROS: u64 = 500_000;

/// The announced gaps, and what they are measured by.
pub(super) struct Cover<'a> {
    sent: Vec<(&'a str, usize, Sent)>,
    gaps: Vec<(u64, &'a Gap)>,
    /// `sequence`s of all messages but gaps of one bus, ascending.
    taken: Vec<u64>,
    /// The `sequence` at which each life of Asterisk begins, ascending.
    lives: Vec<u64>,
}

/// The nearest numbers that were seen on both sides of unseen ones, by `sequence`.
#[derive(Clone, Copy, Debug)]
struct Between {
    before: u64,
    after: u64,
}

impl<'a> Cover<'a> {
    pub(super) fn new(bus: Bus, runs: &'a [Run], messages: &'a [Message]) -> Self {
        let mut gaps = Vec::new();
        let mut taken = Vec::new();
        let mut ups = Vec::new();
        for message in messages {
            match &message.what {
                What::Gap(gap) => {
                    if gap.bus.as_deref().is_none_or(|only| only == bus.name()) {
                        gaps.push((message.sequence, gap));
                    }
                    if gap.bus.is_some() {
                        continue;
                    }
                }
                What::Up { boot } => ups.push((message.sequence, boot)),
                What::Event { .. } | What::Other => {}
            }
            taken.push(message.sequence);
        }
        taken.sort_unstable();
        taken.dedup();
        gaps.sort_by_key(|(sequence, _)| *sequence);
        gaps.dedup_by_key(|(sequence, gap)| (*sequence, gap.range, gap.times));
        ups.sort();
        ups.dedup_by_key(|(_, boot)| *boot);
        let numbered = |run: &'a Run| {
            run.events.iter().enumerate().map(|(n, sent)| (run.tag.as_str(), n, *sent)).collect::<Vec<_>>()
        };
        Self {
            sent: runs.iter().flat_map(numbered).collect(),
            gaps,
            taken,
            lives: ups.into_iter().map(|(sequence, _)| sequence).collect(),
        }
    }

    /// Settles each stretch of unseen numbers.
    pub(super) fn close(&self, sightings: &Sightings, verdict: &mut Verdict) {
        verdict.gaps = self.gaps.len() as u64;
        verdict.dropped_gaps = self.gaps.iter().filter(|(_, gap)| gap.reason == "dropped").count() as u64;
        let sequences = sightings.sequences();
        let mut before = 0;
        let mut at = 0;
        while at < sequences.len() {
            if let Some(sequence) = sequences[at] {
                verdict.claimed_but_seen += u64::from(self.claims(sequence, &self.sent[at].2));
                before = sequence;
                at += 1;
                continue;
            }
            let end = sequences[at..].iter().position(Option::is_some).map_or(sequences.len(), |n| at + n);
            let after = sequences.get(end).copied().flatten().unwrap_or(u64::MAX);
            self.settle(at..end, Between { before, after }, verdict);
            at = end;
        }
    }

    fn settle(&self, unseen: std::ops::Range<usize>, between: Between, verdict: &mut Verdict) {
        let open: Vec<usize> =
            unseen.clone().filter(|&at| !self.is_announced(&self.sent[at].2, between)).collect();
        let room = self.lost_by_the_log(between);
        let count = open.len() as u64;
        let mut covered = room.min(count);
        if covered < count && open.iter().all(|&at| self.is_within_a_loss(&self.sent[at].2, between)) {
            verdict.by_time += count - covered;
            covered = count;
        }
        verdict.announced += (unseen.len() as u64 - count) + covered;
        if covered < count {
            let (tag, n, sent) = self.sent[open[0]];
            let (last_tag, last_n, _) = self.sent[open[open.len() - 1]];
            verdict.lose(count - covered, || {
                format!(
                    "lost: {} numbers, {tag}/{n} (sent at {}, SequenceNumber {:?}) to {last_tag}/{last_n}, {between:?}, \
                     the log admits {room}, gaps near: {:?}",
                    count - covered,
                    sent.at_micros,
                    sent.number,
                    self.gaps.iter().filter(|(at, _)| between.holds(*at)).collect::<Vec<_>>()
                )
            });
        }
    }

    /// Whether Asterisk's side was announced as unseen.
    fn is_announced(&self, sent: &Sent, between: Between) -> bool {
        self.gaps.iter().any(|(sequence, gap)| match (gap.is_of_the_log(), gap.range, gap.times) {
            (true, ..) => false,
            (false, Some((first, last)), _) => {
                sent.number.is_some_and(|number| (first..=last).contains(&number))
                    && *sequence > between.before
                    && (self.life(*sequence) == self.life(between.before) || between.holds(*sequence))
            }
            (false, None, Some(times)) => between.holds(*sequence) && holds(times, sent),
            (false, None, None) => false,
        })
    }

    /// Whether the log lost something between the neighbours around this time. The announcement of what was not read
    /// may be among what it lost.
    fn is_within_a_loss(&self, sent: &Sent, between: Between) -> bool {
        self.gaps
            .iter()
            .filter(|(sequence, gap)| gap.is_of_the_log() && between.holds(*sequence))
            .any(|(_, gap)| gap.times.is_some_and(|times| holds(times, sent)))
    }

    /// Whether a gap says by number that this event, which was seen, was not.
    fn claims(&self, seen_at: u64, sent: &Sent) -> bool {
        let Some(number) = sent.number else { return false };
        self.gaps.iter().any(|(sequence, gap)| {
            !gap.is_of_the_log()
                && gap.range.is_some_and(|(first, last)| (first..=last).contains(&number))
                && self.life(*sequence) == self.life(seen_at)
        })
    }

    /// How many unseen `sequence`s between the neighbours the log admits to have lost.
    fn lost_by_the_log(&self, between: Between) -> u64 {
        let mut counted_to = between.before;
        let mut count = 0;
        for (_, gap) in self.gaps.iter().filter(|(_, gap)| gap.is_of_the_log()) {
            let Some((first, last)) = gap.range else { continue };
            let first = first.max(counted_to + 1);
            let last = last.min(between.after.saturating_sub(1));
            if first > last {
                continue;
            }
            let seen =
                self.taken.partition_point(|s| *s <= last) - self.taken.partition_point(|s| *s < first);
            count += (last - first + 1) - seen as u64;
            counted_to = last;
        }
        count
    }

    fn life(&self, sequence: u64) -> usize {
        self.lives.partition_point(|begin| *begin <= sequence)
    }
}

fn holds((from, until): (u64, u64), sent: &Sent) -> bool {
    sent.at_micros + SLACK_MICROS >= from && sent.at_micros <= until + SLACK_MICROS
}

impl Between {
    fn holds(self, sequence: u64) -> bool {
        (self.before + 1..self.after).contains(&sequence)
    }
}
