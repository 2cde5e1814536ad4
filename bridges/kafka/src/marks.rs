//! What the commit of one partition says beside its position, in its metadata: which commands behind it are done, and
//! which were begun, so that whoever has the partition next runs neither again.
//!
//! `amibus2 ` and, in base64 (RFC 4648, without padding), five offsets a byte, from the position on: each 0 (nobody has
//! begun it), 1 (begun) or 2 (done), the first one counting once, the second three times, and so on up to 81. Noughts at
//! the end are left out; where there is nothing to say, the metadata is empty.
//!
//! Limits: [`WINDOW`] offsets, which brokers take (4096 bytes, `offset.metadata.max.bytes`) whatever is in them.
//!
//! An older amibus wrote `amibus1 3,5-9`: offsets that are done, less the position. That is still read.

use std::collections::BTreeSet;

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

/// How many offsets from the position on have a mark.
pub(crate) const WINDOW: i64 = 15_000;

const TAG: &str = "amibus2 ";
const OLD_TAG: &str = "amibus1 ";
const PLACES: [u8; 5] = [1, 3, 9, 27, 81];
const BEGUN: u8 = 1;
const DONE: u8 = 2;
/// How many done commands are read back from an older amibus; more than it could write by far.
const OLD_WINDOW: i64 = 1_000_000;

/// What is known of the offsets from a position on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Begun, and not known to be done.
    pub(crate) begun: BTreeSet<i64>,
    pub(crate) done: BTreeSet<i64>,
}

/// The metadata. What lies behind the window is left out.
pub(crate) fn encode(begun: &BTreeSet<i64>, done: &BTreeSet<i64>, position: i64) -> String {
    let mut bytes = Vec::new();
    let end = position.saturating_add(WINDOW);
    for (offsets, digit) in [(begun, BEGUN), (done, DONE)] {
        for offset in offsets.range(position..end) {
            let place = usize::try_from(offset - position).unwrap_or_default();
            let (byte, place) = (place / PLACES.len(), place % PLACES.len());
            if bytes.len() <= byte {
                bytes.resize(byte + 1, 0);
            }
            if let (Some(byte), Some(worth)) = (bytes.get_mut(byte), PLACES.get(place)) {
                *byte += digit * worth;
            }
        }
    }
    if bytes.is_empty() { String::new() } else { format!("{TAG}{}", STANDARD_NO_PAD.encode(bytes)) }
}

/// What a commit with this position says. `None`: another tool wrote it.
pub(crate) fn decode(text: &str, position: i64) -> Option<Marks> {
    if text.is_empty() {
        return Some(Marks::default());
    }
    if let Some(runs) = text.strip_prefix(OLD_TAG) {
        return Some(Marks { begun: BTreeSet::new(), done: old(runs, position)? });
    }
    let bytes = STANDARD_NO_PAD.decode(text.strip_prefix(TAG)?).ok()?;
    let mut marks = Marks::default();
    for (byte, first) in bytes.into_iter().zip((0..WINDOW).step_by(PLACES.len())) {
        let mut rest = byte;
        for offset in first.. {
            if rest == 0 {
                break;
            }
            let marked = position.checked_add(offset)?;
            match rest % 3 {
                BEGUN => marks.begun.insert(marked),
                DONE => marks.done.insert(marked),
                _ => false,
            };
            rest /= 3;
        }
    }
    Some(marks)
}

fn old(runs: &str, position: i64) -> Option<BTreeSet<i64>> {
    let mut done = BTreeSet::new();
    for run in runs.split(',') {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last) = (first.parse::<i64>().ok()?, last.parse::<i64>().ok()?);
        if first < 1 || last < first || last > OLD_WINDOW {
            return None;
        }
        done.extend((first..=last).filter_map(|offset| position.checked_add(offset)));
    }
    Some(done)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a broker takes unless told otherwise.
    const BROKER_BYTES: usize = 4096;

    fn marks(begun: &[i64], done: &[i64]) -> Marks {
        Marks { begun: begun.iter().copied().collect(), done: done.iter().copied().collect() }
    }

    #[test]
    fn it_is_short_where_there_is_little_to_say() {
        assert_eq!(encode(&BTreeSet::new(), &BTreeSet::new(), 7), "");
        let some = marks(&[7, 9], &[8, 13]);
        let text = encode(&some.begun, &some.done, 7);
        // 1 + 2*3 + 1*9, and 2*3 of the next five.
        assert_eq!(text, "amibus2 EAY");
        assert_eq!(decode(&text, 7), Some(some));
    }

    #[test]
    fn a_whole_window_fits_whatever_is_in_it() {
        let all: BTreeSet<i64> = (100..100 + 2 * WINDOW).collect();
        for (begun, done) in [(&all, &BTreeSet::new()), (&BTreeSet::new(), &all)] {
            let text = encode(begun, done, 100);
            assert!(text.len() <= BROKER_BYTES, "{}", text.len());
            let back = decode(&text, 100).expect("ours");
            let seen = if begun.is_empty() { back.done } else { back.begun };
            assert_eq!(seen, (100..100 + WINDOW).collect());
        }
    }

    #[test]
    fn what_an_older_amibus_wrote_is_read() {
        assert_eq!(decode("amibus1 1,3-4", 5), Some(marks(&[], &[6, 8, 9])));
        assert_eq!(decode("amibus1 1", i64::MAX), Some(Marks::default()));
    }

    #[test]
    fn what_another_tool_wrote_is_told_apart() {
        for text in [
            "x",
            "amibus1",
            "amibus1 ",
            "amibus1 0",
            "amibus1 2-1",
            "amibus1 a",
            "amibus1 1-9999999999",
            "amibus2",
            "amibus2 ä",
            "amibus2 A",
            "amibus3 AA",
        ] {
            assert_eq!(decode(text, 5), None, "{text:?}");
        }
        assert_eq!(decode("", 5), Some(Marks::default()));
        let endless = format!("{TAG}{}", STANDARD_NO_PAD.encode(vec![255; 40_000]));
        let read = decode(&endless, 0).expect("readable");
        assert!(read.begun.len() + read.done.len() <= usize::try_from(WINDOW).expect("small") * 2, "bounded");
        assert_eq!(decode("amibus2 AQ", i64::MAX), Some(marks(&[i64::MAX], &[])));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(
            position in 0..i64::MAX / 2,
            each in proptest::collection::vec(0..3u8, 0..300),
        ) {
            let mut marks = Marks::default();
            for (digit, offset) in each.into_iter().zip(position..) {
                match digit {
                    BEGUN => marks.begun.insert(offset),
                    DONE => marks.done.insert(offset),
                    _ => false,
                };
            }
            let text = encode(&marks.begun, &marks.done, position);
            prop_assert_eq!(decode(&text, position), Some(marks));
        }
    }
}
