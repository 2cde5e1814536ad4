//! The bytes themselves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use crate::spool::{
    Lost, Reason,
    format::{self, Fault, Item, Parsed, check_header, header, last_behind, parse, push_hole, push_record},
};

fn at(micros: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(micros)
}

fn hole(first: u64, last: u64) -> Lost {
    Lost { first, last, from: at(5), until: at(9), reason: Reason::Damaged }
}

#[test]
fn the_layout_is_as_documented() {
    let mut bytes = Vec::new();
    push_record(&mut bytes, 0x0102, 0x0304, b"{}");
    assert_eq!(bytes[..4], 2_u32.to_le_bytes());
    assert_eq!(bytes[8..16], 0x0102_u64.to_le_bytes());
    assert_eq!(bytes[16..24], 0x0304_u64.to_le_bytes());
    assert_eq!(&bytes[24..], b"{}");
    let covered: Vec<u8> = [&bytes[..4], &bytes[8..]].concat();
    assert_eq!(bytes[4..8], crc32fast::hash(&covered).to_le_bytes());
    assert_eq!(header(7)[..12], [b"AMISPOOL".as_slice(), &1_u32.to_le_bytes()].concat());
    assert_eq!(format::segment_name(7), "00000000000000000007.seg");
    assert_eq!(format::segment_first("00000000000000000007.seg"), Some(7));
    for bad in ["7.seg", "00000000000000000000.seg", "+0000000000000000007.seg", "99999999999999999999.seg"] {
        assert_eq!(format::segment_first(bad), None, "{bad}");
    }
}

#[test]
fn a_later_version_is_not_taken_for_damage() {
    let mut bytes = header(7);
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..20]);
    bytes[20..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(check_header(&bytes, 7), Err(Fault::Version(2)));
}

#[test]
fn what_lies_behind_damage_is_found() {
    let mut bytes = Vec::new();
    for sequence in 5..9 {
        push_record(&mut bytes, sequence, 0, b"payload");
    }
    push_hole(&mut bytes, &hole(9, 40));
    bytes[26] ^= 1;
    assert_eq!(last_behind(&bytes, 5), Some(40));
    assert_eq!(last_behind(&bytes[..60], 5), None, "no whole record");
    assert_eq!(last_behind(&bytes, 41), None, "older records do not count");
}

proptest! {
    #[test]
    fn an_item_is_read_as_it_was_written(
        sequence in 1..format::MAX_SEQUENCE - 1000,
        micros: u64,
        payload: Vec<u8>,
        gone in 0..1000_u64,
    ) {
        let mut bytes = Vec::new();
        push_record(&mut bytes, sequence, micros, &payload);
        let record = bytes.len();
        push_hole(&mut bytes, &hole(sequence + 1, sequence + 1 + gone));
        let item = Item::Record { sequence, micros, payload: 24..record };
        prop_assert_eq!(parse(&bytes, sequence), Parsed::Item(item, record));
        let item = Item::Hole(hole(sequence + 1, sequence + 1 + gone));
        prop_assert_eq!(parse(&bytes[record..], sequence + 1), Parsed::Item(item, bytes.len() - record));
        for cut in 0..record {
            prop_assert!(matches!(parse(&bytes[..cut], sequence), Parsed::More(more) if more > cut && more <= record));
        }
    }

    #[test]
    fn a_changed_byte_anywhere_is_found(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        place: prop::sample::Index,
        flip in 1..=255_u8,
        is_hole: bool,
    ) {
        let mut bytes = Vec::new();
        match is_hole {
            true => push_hole(&mut bytes, &hole(77, 80)),
            false => push_record(&mut bytes, 77, 12, &payload),
        }
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        prop_assert!(!matches!(parse(&bytes, 77), Parsed::Item(..)), "byte {}", place);
        // Nor when more follows.
        bytes.resize(bytes.len() + 1000, 0);
        prop_assert!(!matches!(parse(&bytes, 77), Parsed::Item(..)), "byte {}", place);
        let mut head = header(77);
        head[place % head.len()] ^= flip;
        prop_assert!(check_header(&head, 77).is_err());
    }

    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes: Vec<u8>, expected in 1..format::MAX_SEQUENCE) {
        let _ = (parse(&bytes, expected), check_header(&bytes, expected), last_behind(&bytes, expected));
    }
}
