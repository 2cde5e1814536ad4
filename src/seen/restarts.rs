//! What is known of a process before this one by its log, whole and damaged.

use std::fs;

use amibus_ami::Frame;
use amibus_contract::Bytes;

use super::{
    Seen,
    recover::{NEWEST_BYTES, Past, recover},
    tests::{BOOT, SECOND, at, event},
};
use crate::{
    link::{self, Gap},
    normalize::Profile,
    spool::{
        format::{self, RECORD_HEADER_BYTES},
        newest::newest,
    },
    writer::{Origin, Writer},
};

/// A record: when it was appended, in seconds, and its message.
type Record = (u64, Bytes);

/// A log that was left behind.
struct Left {
    dir: tempfile::TempDir,
    writer: Writer,
    next: u64,
}

impl Left {
    fn new() -> Self {
        let writer = Writer::new(Profile::new("pbx1", None).expect("a profile"), "ami", "log");
        Self { dir: tempfile::tempdir().expect("a directory"), writer: writer.expect("a prefix"), next: 1 }
    }

    /// Three segments: numbers 1 to 3; number 10, and a gap that says that 4 to 9 were missed; 11 and 12.
    fn with_a_gap(told_again: Option<(u64, u64)>) -> Self {
        let mut left = Self::new();
        let records = [left.up(1), left.number(2, 1), left.number(3, 2), left.number(4, 3)];
        left.segment(&records);
        let records = [left.number(5, 10), left.gap(6, (4, 9), Some(6))];
        left.segment(&records);
        let mut records = vec![left.number(7, 11), left.number(8, 12)];
        records.extend(told_again.map(|range| left.gap(9, range, None)));
        left.segment(&records);
        left
    }

    fn up(&self, second: u64) -> Record {
        (second, link::up(&self.writer, 1, "22.0.0", BOOT, false).body)
    }

    fn number(&self, second: u64, number: u32) -> Record {
        self.long(second, number, 0)
    }

    fn long(&self, second: u64, number: u32, bytes: usize) -> Record {
        let more = "x".repeat(bytes);
        let text = format!("Event: Test\r\nSequenceNumber: {number}\r\nMore: {more}\r\n");
        let origin = Origin { received: at(SECOND * second), given: None, boot: BOOT, number: Some(number) };
        (second, self.writer.event(Frame::parse(text.as_bytes()), 1, &origin).body)
    }

    fn gap(&self, second: u64, range: (u64, u64), missed: Option<u64>) -> Record {
        let (from, until) = (at(3 * SECOND), at(4 * SECOND));
        let gap = Gap { reason: "disconnected", missed, range: Some(range), from, until };
        (second, link::gap(&self.writer, 1, &gap).body)
    }

    fn segment(&mut self, records: &[Record]) {
        let mut bytes = format::header(self.next).to_vec();
        let name = format::segment_name(self.next);
        for (second, body) in records {
            format::push_record(&mut bytes, self.next, 1_800_000_000 * SECOND + SECOND * second, body);
            self.next += 1;
        }
        fs::write(self.dir.path().join(name), bytes).expect("written");
    }

    /// Changes one byte of the segment that begins with this record.
    fn damage(&self, segment: u64, place: impl FnOnce(&[u8]) -> usize) {
        let path = self.dir.path().join(format::segment_name(segment));
        let mut bytes = fs::read(&path).expect("a segment");
        let place = place(&bytes);
        bytes[place] ^= 1;
        fs::write(path, bytes).expect("written");
    }

    fn damage_first_record(&self, segment: u64) {
        self.damage(segment, |_| format::SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES);
    }

    fn damage_last_record(&self, segment: u64) {
        self.damage(segment, |bytes| bytes.len() - 1);
    }

    /// The disk gives nothing of it.
    fn make_unreadable(&self, segment: u64) {
        let path = self.dir.path().join(format::segment_name(segment));
        fs::remove_file(&path).expect("removed");
        fs::create_dir(path).expect("a folder, which no read can read");
    }

    fn recover(&self) -> Seen {
        let (dir, writer) = (self.dir.path(), &self.writer);
        let past = Past { dir, writer, last: None, every_number: true, filtered: false };
        recover(&past).expect("reads")
    }

    /// What is told by the next process up to its second number, which `next` is the first of.
    fn told_after_a_start(&self, next: u32) -> Vec<Gap> {
        let mut seen = self.recover();
        let mut told = seen.settle(at(100 * SECOND));
        let connected = seen.connected(BOOT, Some(at(100 * SECOND)), at(100 * SECOND));
        assert!(connected.resumed && connected.again);
        told.extend(connected.gap);
        told.extend(event(&mut seen, next, 101 * SECOND));
        told.extend(event(&mut seen, next + 1, 103 * SECOND));
        told
    }
}

/// One gap, without a count, that covers these numbers and what was sent since then.
fn assert_covers(told: &[Gap], range: (u64, u64), since: u64) {
    let [gap] = told else { panic!("one gap: {told:?}") };
    assert_eq!((gap.reason, gap.missed, gap.range), ("disconnected", None, Some(range)), "{gap:?}");
    assert!(gap.from <= at(since * SECOND) && gap.until == at(100 * SECOND), "{gap:?}");
}

#[test]
fn what_a_gap_told_that_was_lost_with_the_log_is_covered_by_the_next_one() {
    for (next, last) in [(13, 13), (16, 15)] {
        let left = Left::with_a_gap(None);
        left.damage_first_record(5);
        assert_covers(&left.told_after_a_start(next), (4, last), 4);
    }
    let left = Left::with_a_gap(None);
    left.damage_last_record(5);
    let told = left.told_after_a_start(16);
    assert_eq!((told[0].missed, told[0].range), (Some(6), Some((4, 9))), "the numbers tell: {told:?}");
    let told = Left::with_a_gap(None).told_after_a_start(16);
    assert_eq!((told[0].missed, told[0].range), (Some(3), Some((13, 15))), "nothing is lost: {told:?}");
    let left = Left::with_a_gap(Some((4, 12)));
    left.damage_first_record(5);
    let told = left.told_after_a_start(16);
    assert_eq!((told[0].missed, told[0].range), (Some(3), Some((13, 15))), "told before: {told:?}");
}

#[test]
fn a_segment_without_a_header_or_that_cannot_be_read_is_lost_with_what_it_told() {
    let left = Left::with_a_gap(None);
    left.damage(5, |_| 0);
    assert_covers(&left.told_after_a_start(16), (4, 15), 4);
    let left = Left::with_a_gap(None);
    left.make_unreadable(5);
    assert_covers(&left.told_after_a_start(16), (4, 15), 4);
}

#[test]
fn what_was_lost_before_any_number_is_covered_too() {
    for next in [13, 16] {
        let left = Left::with_a_gap(None);
        left.damage_first_record(1);
        left.damage_first_record(5);
        assert_covers(&left.told_after_a_start(next), (0, u64::from(next.max(14) - 1)), 7);
    }
    let left = Left::with_a_gap(Some((0, 12)));
    left.damage_first_record(1);
    left.damage_first_record(5);
    let told = left.told_after_a_start(16);
    assert_eq!((told[0].missed, told[0].range), (Some(3), Some((13, 15))), "told before: {told:?}");
}

#[test]
fn when_lost_records_were_written_is_told_by_what_is_before_them() {
    let left = Left::with_a_gap(None);
    left.damage_first_record(5);
    let size = |segment| fs::metadata(left.dir.path().join(format::segment_name(segment))).unwrap().len();
    let mut found = Vec::new();
    let mut look = |most| {
        let is_cut = newest(left.dir.path(), most, |record| found.push((record.at, record.body.is_some())));
        (is_cut.expect("reads"), std::mem::take(&mut found))
    };
    let whole = [(at(7 * SECOND), true), (at(8 * SECOND), true)];
    assert_eq!(look(size(7)), (true, whole.to_vec()));
    let behind = |second| [&[(at(second * SECOND), false)], &whole[..]].concat();
    assert_eq!(look(size(7) + 1), (true, behind(1)), "the segment before it begins then");
    left.damage(5, |_| 0);
    assert_eq!(look(size(7) + 1), (true, behind(4)), "one without a header does not count");
    assert!(!look(u64::MAX).0);
}

#[test]
fn old_holes_were_told_whatever_the_configuration_says_now() {
    let mut left = Left::new();
    // A filter left out number 2, and none does today.
    let records = [left.up(1), left.number(2, 1), left.number(3, 3), left.number(60, 4), left.number(61, 6)];
    left.segment(&records);
    let told = left.recover().settle(at(100 * SECOND));
    assert_eq!(told.iter().map(|gap| gap.range).collect::<Vec<_>>(), [Some((5, 5))], "{told:?}");
}

#[test]
fn what_was_waited_for_behind_long_records_is_covered() {
    let mut left = Left::new();
    let mut records = vec![left.up(1), left.number(2, 1), left.number(3, 3)];
    let long = 1 << 20;
    let last = 4 + u32::try_from(NEWEST_BYTES / long).unwrap();
    records.extend((4..=last).map(|number| left.long(4, number, long as usize)));
    left.segment(&records);
    assert_covers(&left.told_after_a_start(last + 1), (0, u64::from(last) + 1), 2);
    records.push((5, link::down(&left.writer, 1, "stopping", None).body));
    left.next = 1;
    left.segment(&records);
    let told = left.told_after_a_start(last + 1);
    assert_eq!((told.len(), told[0].range), (1, None), "a session that ended in order told it: {told:?}");
}
