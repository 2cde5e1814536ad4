//! How many calls Asterisk ran at once, and within a second.

use super::Call;

/// The most calls that lived at one moment. A call whose end was not seen is one that lives on.
pub(crate) fn at_once(calls: &[Call]) -> usize {
    let begun = calls.iter().map(|call| (call.at, true));
    let ended = calls.iter().filter_map(|call| Some((call.until?, false)));
    let mut changes: Vec<(u64, bool)> = begun.chain(ended).collect();
    // An end goes before a begin of the same moment.
    changes.sort_unstable();
    let (mut now, mut most) = (0_usize, 0);
    for (_, begins) in changes {
        now = if begins { now + 1 } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    most
}

/// The most calls that began within one of all the spans of so many microseconds.
pub(crate) fn within(calls: &[Call], micros: u64) -> usize {
    let mut begins: Vec<u64> = calls.iter().map(|call| call.at).collect();
    begins.sort_unstable();
    let span = |(first, at): (usize, &u64)| begins.partition_point(|begin| *begin < at + micros) - first;
    begins.iter().enumerate().map(span).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(times: &[(u64, Option<u64>)]) -> Vec<Call> {
        times.iter().map(|(at, until)| Call { command: "c".into(), at: *at, until: *until }).collect()
    }

    #[test]
    fn what_overlaps_is_counted() {
        let calls = calls(&[(0, Some(10)), (5, Some(10)), (10, Some(20)), (11, None), (30, Some(31))]);
        assert_eq!((at_once(&calls), at_once(&[])), (2, 0));
        assert_eq!(at_once(&calls[..2]), 2);
    }

    #[test]
    fn the_busiest_span_is_found_wherever_it_begins() {
        let calls = calls(&[(0, None), (9, None), (10, None), (18, None), (19, None)]);
        assert_eq!([0, 1, 2, 9, 10, 11, 20].map(|micros| within(&calls, micros)), [0, 1, 2, 2, 3, 4, 5]);
    }
}
