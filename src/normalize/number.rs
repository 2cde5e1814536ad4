//! Asterisk's SequenceNumber as a basis for ids that stay unique whatever is forged.
//!
//! With `debug=on` in `manager.conf`, Asterisk writes `SequenceNumber` right after `Event`, `Privilege` and, with
//! `timestampevents=yes`, `Timestamp` (`__ast_manager_event_multichan` in `main/manager.c`). It counts from 0 in each
//! process, as a C int, and sessions receive it out of order at times.
//!
//! Two records must never share an id, or a bus drops one as a repeat. A value with an empty line in it can forge a
//! whole message, number and all; so [`Numbers`] lends each number once. Who comes second, or too late to be
//! remembered, or from too far ahead, gets an id from the log instead.

use amibus_ami::Frame;

use super::{block, json};

/// How far behind the highest number a number may come and still be known as new.
pub const REORDER_WINDOW: u32 = 4096;
/// How far ahead of the highest number a single message may jump. The next one after it confirms the jump.
pub const MAX_JUMP: u32 = 1 << 20;

const WORD_BITS: u32 = u64::BITS;

/// The number that Asterisk gave an event; a header of that name in any other place is somebody's text.
pub fn sequence_number(frame: &Frame<'_>) -> Option<u32> {
    let mut rest = stamped(frame)?;
    if let Some((_, behind)) = header(rest, b"Timestamp: ") {
        rest = behind?;
    }
    let (value, _) = header(rest, b"SequenceNumber: ")?;
    let digits = std::str::from_utf8(value).ok()?;
    let number: u32 = digits.parse().ok()?;
    (number <= i32::MAX.unsigned_abs()
        && digits.len() == number.checked_ilog10().map_or(1, |log| log as usize + 1))
    .then_some(number)
}

/// The moment that Asterisk gave an event, in microseconds since 1970.
pub fn timestamp_micros(frame: &Frame<'_>) -> Option<u64> {
    let rest = stamped(frame)?;
    // Ten digits, a point, six digits; no line is looked for.
    if let Some(text) = rest.strip_prefix(b"Timestamp: ").and_then(<[u8]>::first_chunk::<19>)
        && let [value @ .., b'\r', b'\n'] = text
        && let Some(micros) = usual_micros(value)
    {
        return Some(micros);
    }
    let (value, _) = header(rest, b"Timestamp: ")?;
    micros(value)
}

/// The microseconds since 1970 of a moment as Asterisk writes it: seconds, a point, six digits.
pub fn micros(text: &[u8]) -> Option<u64> {
    if let Ok(usual) = text.try_into() {
        return usual_micros(usual);
    }
    let (seconds, [b'.', micros @ ..]) = text.split_last_chunk::<7>()? else { return None };
    let digits = |text: &[u8], most: usize| {
        let valid = (1..=most).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
        valid.then(|| text.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
    };
    Some(digits(seconds, 11)? * 1_000_000 + digits(micros, 6)?)
}

/// The same of the seconds from 2001 to 2286, which have ten digits.
#[inline]
fn usual_micros(text: &[u8; 17]) -> Option<u64> {
    let &[a, b, c, d, e, f, g, h, i, j, b'.', k, l, m, n, o, p] = text else { return None };
    let high = json::from_eight_digits([a, b, c, d, e, f, g, h])?;
    Some(high * 100_000_000 + json::from_eight_digits([i, j, k, l, m, n, o, p])?)
}

/// The life of Asterisk and the number that an id was made of, if it was: `<server>:<boot>:<number>`.
pub fn numbered_id<'i>(id: &'i str, server: &str) -> Option<(&'i str, u32)> {
    let (boot, number) = id.strip_prefix(server)?.strip_prefix(':')?.split_once(':')?;
    Some((boot, number.parse().ok()?))
}

/// What follows the lines `Event` and `Privilege`.
#[inline]
fn stamped<'b>(frame: &Frame<'b>) -> Option<&'b [u8]> {
    let behind = frame.raw().strip_prefix(b"Event: ")?.get(frame.name().len()..)?;
    let (_, behind) = header(behind.strip_prefix(b"\r\n")?, b"Privilege: ")?;
    behind
}

/// The value of the first line, if that begins so, and what follows its end.
#[inline]
fn header<'b>(text: &'b [u8], begin: &[u8]) -> Option<(&'b [u8], Option<&'b [u8]>)> {
    let value = text.strip_prefix(begin)?;
    let mut searched = 0;
    loop {
        let unsearched = value.get(searched..)?;
        let end = searched + block::before(unsearched, |block| block::is(block, b'\r'));
        let (line, behind) = value.split_at_checked(end)?;
        match behind {
            [] => return Some((line, None)),
            [b'\r', b'\n', behind @ ..] => return Some((line, Some(behind))),
            _ => searched = end + 1,
        }
    }
}

/// Which numbers of one Asterisk process have been lent to an id. Keep it as long as the `boot` that stands in the
/// same ids; with a new `boot`, begin anew.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// Below it all numbers count as lent.
    floor: u32,
    highest: Option<u32>,
    /// One bit for each number of the window, at `number % REORDER_WINDOW`.
    lent: [u64; (REORDER_WINDOW / WORD_BITS) as usize],
    /// Where an unconfirmed jump led to.
    far: Option<u32>,
}

impl Numbers {
    /// `last` is the highest number in an id of the log that this boot's records go on in, if there is one: numbers
    /// up to it are taken to have been lent.
    pub fn new(last: Option<u32>) -> Self {
        let floor = last.map_or(0, |last| last.saturating_add(1));
        Self { floor, highest: last, lent: [0; _], far: None }
    }

    /// Whether an id may be made of that number. At most one call answers yes for the same number.
    pub fn lend(&mut self, number: u32) -> bool {
        let Some(highest) = self.highest else {
            self.floor = number;
            self.advance(number, number);
            return true;
        };
        if number <= highest {
            return number >= self.floor && highest - number < REORDER_WINDOW && !self.mark(number);
        }
        let confirmed = self.far.is_some_and(|far| number > far && number - far <= MAX_JUMP);
        if number - highest > MAX_JUMP && !confirmed {
            self.far = Some(number);
            return false;
        }
        self.advance(highest, number);
        true
    }

    fn advance(&mut self, from: u32, to: u32) {
        if to - from >= REORDER_WINDOW {
            self.lent.fill(0);
        } else {
            (from..to).for_each(|number| {
                let (word, bit) = place(number + 1);
                if let Some(word) = self.lent.get_mut(word) {
                    *word &= !bit;
                }
            });
        }
        self.highest = Some(to);
        self.far = None;
        self.mark(to);
    }

    /// Marks a number as lent and says whether it was.
    fn mark(&mut self, number: u32) -> bool {
        let (word, bit) = place(number);
        // Every place is inside; "lent" is the answer that can break nothing.
        self.lent.get_mut(word).is_none_or(|word| {
            let was = *word & bit != 0;
            *word |= bit;
            was
        })
    }
}

fn place(number: u32) -> (usize, u64) {
    let at = number % REORDER_WINDOW;
    ((at / WORD_BITS) as usize, 1 << (at % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn number(lines: &str) -> Option<u32> {
        sequence_number(&Frame::parse(lines.replace('\n', "\r\n").as_bytes()))
    }

    #[test]
    fn a_number_counts_only_in_its_place() {
        let real =
            "Event: Hangup\nPrivilege: call,all\nTimestamp: 1.000001\nSequenceNumber: 42\nFile: channel.c";
        assert_eq!(number(real), Some(42));
        assert_eq!(number("Event: Hangup\nPrivilege: call,all\nSequenceNumber: 0\nFile: channel.c"), Some(0));
        for forged in [
            "Event: UserEvent\nPrivilege: user,all\nUserEvent: x\nSequenceNumber: 42",
            "Event: UserEvent\nPrivilege: user,all\nTimestamp: 1.000001\nUserEvent: x\nSequenceNumber: 42",
            "Event: QueueParams\nSequenceNumber: 42",
            "Event: X\nPrivilege: call,all\nSequenceNumber: 042",
            "Event: X\nPrivilege: call,all\nSequenceNumber: +42",
            "Event: X\nPrivilege: call,all\nSequenceNumber: -1",
            "Event: X\nPrivilege: call,all\nSequenceNumber: 2147483648",
            "Event: X\nPrivilege: call,all\nSequenceNumber:42",
            "Event: X\nPrivilege: call,all\nSequenceNumber: ",
            "Response: Success\nPrivilege: call,all\nSequenceNumber: 42",
        ] {
            assert_eq!(number(forged), None, "{forged}");
        }
    }

    #[test]
    fn a_moment_counts_only_in_its_place() {
        let time = |lines: &str| timestamp_micros(&Frame::parse(lines.replace('\n', "\r\n").as_bytes()));
        assert_eq!(time("Event: X\nPrivilege: p\nTimestamp: 1795220781.585985"), Some(1_795_220_781_585_985));
        for not in
            ["Event: X\nPrivilege: p\nUserEvent: x\nTimestamp: 1.000001", "Event: X\nTimestamp: 1.000001"]
        {
            assert_eq!(time(not), None);
        }
        for bad in ["1", "1.5", ".000001", "-1.000001", "1.0000011", "123456789012.000001", "1.00000x", ""] {
            assert_eq!(time(&format!("Event: X\nPrivilege: p\nTimestamp: {bad}")), None, "{bad}");
        }
    }

    #[test]
    fn out_of_order_is_fine_twice_is_not() {
        let mut numbers = Numbers::new(None);
        let lent: Vec<_> =
            [100, 102, 101, 101, 102, 103, 99, 4_300, 103, 205, 205, 206].map(|n| numbers.lend(n)).into();
        assert_eq!(
            lent,
            [true, true, true, false, false, true, false, true, false, true, false, true],
            "99 is below the first; 205 is inside the window, 103 was lent"
        );
    }

    #[test]
    fn after_a_restart_of_ours_older_numbers_count_as_lent() {
        let mut numbers = Numbers::new(Some(10));
        assert_eq!([10, 9, 11, 10, 12].map(|n| numbers.lend(n)), [false, false, true, false, true]);
        let mut numbers = Numbers::new(None);
        assert_eq!([50, 49].map(|n| numbers.lend(n)), [true, false]);
    }

    #[test]
    fn one_forged_jump_costs_the_numbers_nothing() {
        let mut numbers = Numbers::new(None);
        assert_eq!([1, 2_000_000_000, 2, 3].map(|n| numbers.lend(n)), [true, false, true, true]);
        // A true one, after a long outage, is confirmed by the event after it.
        assert_eq!([5_000_000, 5_000_001, 5_000_000].map(|n| numbers.lend(n)), [false, true, true]);
    }

    proptest! {
        #[test]
        fn no_number_is_ever_lent_twice(
            last in proptest::option::of(0_u32..50),
            asked in proptest::collection::vec(
                prop_oneof![0_u32..60, 0_u32..20_000, 0_u32..3_000_000, 0..=i32::MAX.unsigned_abs()], 0..400),
        ) {
            let mut numbers = Numbers::new(last);
            let mut lent = HashSet::new();
            for number in asked {
                if numbers.lend(number) {
                    prop_assert!(lent.insert(number), "{} twice", number);
                    prop_assert!(last.is_none_or(|last| number > last));
                }
            }
        }

        #[test]
        fn numbers_in_order_are_all_lent(start in 0_u32..1_000_000, count in 1_u32..9_000) {
            let mut numbers = Numbers::new(None);
            prop_assert!((start..start + count).all(|number| numbers.lend(number)));
        }
    }
}
