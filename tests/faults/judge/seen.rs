//! What was seen, and in which order: repeats, ids, strangers.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::{Bus, Message, Run, Verdict, What};

/// The first sighting of each number of the source.
pub(super) struct Sightings {
    /// By the source's order over all runs: the `sequence` under which it was seen.
    sequences: Vec<Option<u64>>,
}

struct Last {
    sequence: u64,
    place: Option<usize>,
}

impl Sightings {
    /// Goes through all messages, and accuses what is wrong with them one by one.
    pub(super) fn collect(bus: Bus, runs: &[Run], messages: &[Message], verdict: &mut Verdict) -> Self {
        let mut begin = 0;
        let mut starts = HashMap::new();
        for run in runs {
            starts.insert(run.tag.as_str(), (begin, run));
            begin += run.events.len();
        }
        let mut this = Self { sequences: vec![None; begin] };
        let mut ids: HashMap<u64, u64> = HashMap::new();
        let mut lasts: HashMap<u64, Last> = HashMap::new();
        let mut passed = HashSet::new();
        for message in messages {
            match ids.entry(message.id) {
                Entry::Occupied(known) if *known.get() != message.crc => {
                    verdict.accuse(|| format!("one id, two messages: {message:?}"));
                    continue;
                }
                Entry::Occupied(_) => {
                    verdict.repeats += 1;
                    if bus == Bus::JetStream {
                        verdict.accuse(|| format!("stored twice: {message:?}"));
                    }
                    continue;
                }
                Entry::Vacant(new) => new.insert(message.crc),
            };
            let place = this.place(&starts, message, verdict);
            if is_of_what_passed(message, &passed) {
                continue;
            }
            passed.insert(message.sequence);
            order(bus, &mut lasts, message, place, verdict);
        }
        this
    }

    /// How many numbers were seen.
    pub(super) fn count(&self) -> u64 {
        self.sequences.iter().flatten().count() as u64
    }

    /// The `sequence` of each number, by the source's order.
    pub(super) fn sequences(&self) -> &[Option<u64>] {
        &self.sequences
    }

    /// Where in the source's order the message stands, if it is one of the source.
    fn place(
        &mut self,
        starts: &HashMap<&str, (usize, &Run)>,
        message: &Message,
        verdict: &mut Verdict,
    ) -> Option<usize> {
        let What::Event { tag, n, number, .. } = &message.what else { return None };
        let known = starts.get(tag.as_str()).and_then(|(begin, run)| {
            let n = usize::try_from(*n).ok()?;
            run.events.get(n).map(|sent| (begin + n, sent))
        });
        let Some((place, sent)) = known else {
            verdict.accuse(|| format!("the source never sent {message:?}"));
            return None;
        };
        if sent.number.is_some() && sent.number != *number {
            verdict.accuse(|| format!("sent with SequenceNumber {:?}: {message:?}", sent.number));
        }
        match &mut self.sequences[place] {
            Some(_) => verdict.accuse(|| format!("seen under another id before: {message:?}")),
            new => *new = Some(message.sequence),
        }
        Some(place)
    }
}

/// Whether a damaged stretch of the log was on the bus as a whole before: amibus, which lost its mark of what that has, reads
/// it again, and has no message to repeat. It says nothing of what follows.
fn is_of_what_passed(message: &Message, passed: &HashSet<u64>) -> bool {
    let What::Gap(gap) = &message.what else { return false };
    let range = gap.range.filter(|_| gap.reason == "damaged");
    range.is_some_and(|(first, last)| (first..=last).all(|sequence| passed.contains(&sequence)))
}

/// First sightings ascend: over all on JetStream, within a key on Kafka.
fn order(
    bus: Bus,
    lasts: &mut HashMap<u64, Last>,
    message: &Message,
    place: Option<usize>,
    verdict: &mut Verdict,
) {
    let key = if bus == Bus::JetStream { 0 } else { message.key };
    let last = lasts.entry(key).or_insert(Last { sequence: 0, place: None });
    if message.sequence <= last.sequence {
        verdict.accuse(|| format!("came after sequence {}: {message:?}", last.sequence));
    }
    if place.is_some() && place <= last.place {
        verdict.accuse(|| format!("came after a later event of the source: {message:?}"));
    }
    // One step back is one breach, however much follows it.
    last.sequence = message.sequence;
    last.place = place.or(last.place);
}
