//! Bytes that were changed, cut off or zeroed while the spool was closed.

use proptest::prelude::*;

use super::{
    model::{Death, Model},
    rig::{BUSES, DIR, Rig, Seen, body, small},
};
use crate::spool::{
    Lost, OpenError, Options, Reason, format,
    inspect::verify_on,
    open::open_on,
    state::{RESERVE_MAX, RESERVE_MIN},
};

const RECORDS: u64 = 60;

#[derive(Clone, Debug)]
enum Spoil {
    Flip(u8),
    Cut,
    Zero(usize),
    Remove,
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        4 => (1..=255_u8).prop_map(Spoil::Flip),
        2 => Just(Spoil::Cut),
        1 => (1..600_usize).prop_map(Spoil::Zero),
        1 => Just(Spoil::Remove),
    ]
}

/// Sixty records in several segments; the fast bus has confirmed all of them, the slow one ten.
fn filled(fs: &Model, clean: bool) -> (u64, Seen) {
    let mut rig = Rig::open(fs, small(), &BUSES, 1).expect("alive");
    let mut before = Seen::default();
    for salt in 0..RECORDS {
        let (number, body) = rig.append(salt, 300);
        before.messages.insert(number, body);
        rig.write();
    }
    assert_eq!(rig.drain(0).messages.len() as u64, RECORDS);
    rig.take(1, 10).expect("ten");
    rig.commit(1, 10);
    assert!(rig.sync() && rig.store() && rig.store());
    let identity = rig.engine.identity;
    assert!(fs.names().len() > 5, "several segments: {:?}", fs.names());
    match clean {
        true => drop(rig.close()),
        false => fs.crash(Death::Kill),
    }
    (identity, before)
}

/// Spoils one file; answers whether anything changed.
fn apply(fs: &Model, name: &str, how: &Spoil, place: prop::sample::Index) -> bool {
    let mut changed = true;
    fs.spoil(name, |bytes| {
        let place = place.index(bytes.len());
        match *how {
            Spoil::Flip(bits) => bytes[place] ^= bits,
            Spoil::Cut => bytes.truncate(place),
            Spoil::Remove => bytes.clear(),
            Spoil::Zero(count) => {
                let end = (place + count).min(bytes.len());
                changed = bytes[place..end].iter().any(|byte| *byte != 0);
                bytes[place..end].fill(0);
            }
        }
    });
    changed
}

fn check(name_at: prop::sample::Index, how: &Spoil, place: prop::sample::Index, clean: bool) {
    let fs = Model::new(1);
    let (identity, before) = filled(&fs, clean);
    let names = fs.names();
    let name = &names[name_at.index(names.len())];
    let sound = verify_on(&fs, super::rig::DIR.as_ref()).expect("readable");
    assert_eq!((sound.records, sound.damages.len()), (sound.records, 0));
    if name == "lock" || !apply(&fs, name, how, place) {
        return;
    }
    let damages = verify_on(&fs, super::rig::DIR.as_ref()).expect("readable").damages;
    assert!(!damages.is_empty(), "{name} {how:?}");
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let seen = rig.drain(1);
    assert_eq!(seen.next, Some(rig.recovery.next));
    assert!(seen.next >= Some(RECORDS + 1), "numbers go on");
    // One segment at most is touched.
    let segment = format::segment_first(name);
    let next_segment = names.iter().filter_map(|n| format::segment_first(n)).find(|n| Some(*n) > segment);
    for lost in &seen.lost {
        assert_ne!(lost.reason, Reason::Dropped);
        // Without the mark, nobody knows that nothing is missing at the end.
        if name == "mark" && lost.first == RECORDS + 1 {
            continue;
        }
        assert!(segment.is_some_and(|first| lost.first >= first), "{lost:?} {name}");
        assert!(lost.last < next_segment.unwrap_or(u64::MAX), "{lost:?} {name} {next_segment:?}");
    }
    for (number, body) in &seen.messages {
        assert_eq!(before.messages.get(number), Some(body), "record {number}");
    }
    let lost = seen.lost.iter().map(Lost::places).sum::<u64>();
    assert_eq!(
        seen.messages.len() as u64 + lost,
        rig.recovery.next - seen.numbers().first().copied().unwrap_or(11).min(11)
    );
    // What is appended now is found again, and no number is given out twice, nor is a loss told under one.
    let (number, body) = rig.append(999, 300);
    assert!(number > RECORDS, "{number}");
    assert!(rig.recovery.lost.is_none() || rig.engine.identity != identity);
    assert!(rig.recovery.lost.iter().all(|lost| lost.last > RECORDS), "{:?}", rig.recovery.lost);
    assert_eq!(rig.engine.origin, identity, "it is still the same log");
    rig.write();
    assert_eq!(rig.drain(1).messages.get(&number), Some(&body));
    assert_eq!(rig.drain(0).messages.get(&number), Some(&body));
    let (first, fs) = (rig.recovery.clone(), rig.close());
    // And the damage is not found twice.
    let mut again = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    assert_eq!((again.recovery.lost.clone(), again.recovery.next), (None, number + 1), "{first:?}");
    assert_eq!(again.drain(1), Seen { next: None, ..Seen::default() });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn damage_costs_at_most_the_rest_of_its_segment(
        name: prop::sample::Index,
        how in spoil(),
        place: prop::sample::Index,
        clean: bool,
    ) {
        check(name, &how, place, clean);
    }

    #[test]
    fn any_files_open(junk in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 3), clean: bool) {
        let fs = Model::new(1);
        filled(&fs, clean);
        for (name, junk) in fs.names().iter().filter(|name| *name != "lock").zip(junk) {
            fs.spoil(name, |bytes| *bytes = junk);
        }
        for _ in 0..3 {
            let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
            rig.append(1, 100);
            rig.write();
            rig.drain(0);
            rig.drain(1);
            rig.close();
        }
    }
}

#[test]
fn a_flipped_byte_in_the_last_segment_is_counted_exactly() {
    let fs = Model::new(1);
    let (identity, _) = filled(&fs, false);
    let names = fs.names();
    let last = names.iter().rfind(|name| name.ends_with(".seg")).expect("segments");
    let first = format::segment_first(last).expect("a number");
    assert!(first < RECORDS, "the last segment has several records");
    fs.spoil(last, |bytes| bytes[60] ^= 1);
    let rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let lost = rig.recovery.lost.clone().expect("announced");
    // Every number up to the last is lost, and the announcement has the one after, since buses had those.
    assert_eq!(
        (lost.first, lost.last_lost(), lost.last, rig.recovery.next),
        (first, RECORDS, RECORDS + 1, RECORDS + 2)
    );
    assert_eq!(lost.count(), RECORDS + 1 - first);
    let damage = rig.recovery.damages.first().expect("reported");
    assert_eq!((&damage.file, damage.offset, damage.count), (last, 24, Some(RECORDS + 1 - first)));
    assert_ne!(rig.engine.identity, identity);
}

#[test]
fn neither_ledger_nor_mark_is_missed_while_the_other_is_whole() {
    for name in ["ledger", "mark"] {
        let fs = Model::new(1);
        let (identity, _) = filled(&fs, true);
        spoil_slots(&fs, name);
        let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
        assert_eq!((rig.recovery.damages.len(), rig.engine.origin), (2, identity));
        // The mark stands where the last record was written: what was confirmed after is repeated.
        let seen = (rig.drain(0), rig.drain(1));
        assert!(seen.0.lost.is_empty() && seen.1.lost.is_empty(), "{name}: {seen:?}");
        assert!(seen.0.messages.len() as u64 <= RECORDS && seen.1.numbers().last() == Some(&RECORDS));
    }
}

#[test]
fn without_either_everything_is_repeated_and_numbers_go_well_ahead() {
    let fs = Model::new(1);
    let (identity, before) = filled(&fs, true);
    spoil_slots(&fs, "ledger");
    spoil_slots(&fs, "mark");
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    assert_eq!(rig.recovery.damages.len(), 4);
    assert_ne!(rig.engine.identity, identity);
    let seen = rig.drain(0);
    assert_eq!(&seen.messages, &before.messages);
    assert!(matches!(seen.lost.as_slice(), [one] if one.first == RECORDS + 1), "{:?}", seen.lost);
    assert!(rig.recovery.next > RECORDS + RESERVE_MAX, "{}", rig.recovery.next);
}

fn spoil_slots(fs: &Model, name: &str) {
    fs.spoil(name, |bytes| {
        bytes[30] ^= 1;
        bytes[4096 + 30] ^= 1;
    });
}

/// The end of the log is cut off between two records, wherever that is, and whatever the ledger knows.
#[test]
fn a_log_that_ends_too_early_is_counted_exactly_and_told_once() {
    for kept in 0..=7_u64 {
        let fs = Model::new(1);
        let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
        let identity = rig.engine.identity;
        for salt in 0..7 {
            rig.append(salt, 300);
            rig.write();
        }
        // The ledger has not been stored since the spool was opened.
        assert_eq!(rig.drain(0).numbers(), (1..=7).collect::<Vec<_>>());
        fs.crash(Death::Kill);
        let bytes = 24 + kept * (24 + body(identity, 1, 0, 300).len() as u64);
        fs.spoil(&format::segment_name(1), |all| all.truncate(usize::try_from(bytes).expect("small")));
        let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
        if kept == 7 {
            assert_eq!((rig.recovery.lost.clone(), rig.engine.identity), (None, identity));
            continue;
        }
        let lost = rig.recovery.lost.clone().expect("announced");
        assert_eq!((lost.first, lost.last_lost(), lost.last), (kept + 1, 7, 8));
        assert_eq!(rig.recovery.damages.first().and_then(|damage| damage.count), Some(7 - kept));
        assert_ne!(rig.engine.identity, identity);
        let (told, number) = (rig.drain(1).lost, rig.append(9, 10).0);
        assert_eq!((&told, number), (&vec![lost], 9));
        // A kill before the bus confirmed: told again, in the same words, under the log's own name.
        fs.crash(Death::Kill);
        let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
        assert_eq!((rig.recovery.lost.clone(), rig.engine.origin, rig.drain(1).lost), (None, identity, told));
        rig.append(9, 10);
        rig.write();
        rig.drain(1);
        assert!(rig.store());
        fs.crash(Death::Kill);
        let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
        assert_eq!(rig.drain(1).lost, Vec::new(), "told and confirmed");
    }
}

#[test]
fn a_bus_that_had_everything_is_told_of_no_loss() {
    let fs = Model::new(1);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    (0..7).for_each(|salt| drop(rig.append(salt, 300)));
    rig.write();
    rig.drain(0);
    assert!(rig.sync() && rig.store());
    fs.crash(Death::Kill);
    fs.spoil(&format::segment_name(1), |all| all.truncate(all.len() - 1));
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let lost = rig.recovery.lost.clone().expect("announced to the other one");
    assert_eq!((lost.first, lost.last_lost(), lost.last), (7, 7, 8));
    assert_eq!((rig.drain(0), rig.committed(0)), (Seen::default(), 9), "it takes the place and says nothing");
    assert_eq!(rig.drain(1).lost, [lost]);
    let (number, _) = rig.append(9, 10);
    rig.write();
    assert_eq!((number, rig.drain(0).numbers()), (9, vec![9]));
}

#[test]
fn with_every_record_synced_a_damaged_mark_and_a_short_log_are_found_all_the_same() {
    let options = Options { flush_interval: std::time::Duration::ZERO, ..small() };
    // The last mark went into the first slot. Half of the log goes, or the last record alone.
    for (slots, gone) in
        [[0, 0], [4096, 4096], [0, 4096]].into_iter().flat_map(|slots| [(slots, 1), (slots, 4)])
    {
        let fs = Model::new(1);
        let mut rig = Rig::open(&fs, options.clone(), &BUSES, 1).expect("alive");
        let identity = rig.engine.identity;
        for salt in 0..7 {
            rig.append(salt, 300);
            rig.write();
        }
        assert_eq!(rig.drain(0).messages.len(), 7);
        fs.crash(Death::Kill);
        fs.spoil("mark", |bytes| slots.into_iter().for_each(|slot| bytes[slot + 100] |= 1));
        fs.spoil(&format::segment_name(1), |bytes| {
            bytes.truncate(bytes.len() - gone * (bytes.len() - 24) / 7)
        });
        let rig = Rig::open(&fs, options.clone(), &BUSES, 1).expect("alive");
        let (number, _) = rig.append(9, 300);
        assert_ne!(rig.engine.identity, identity, "{number} may be another record's: {slots:?}, {gone}");
        // What the older slot does not know nobody does.
        assert_eq!(rig.recovery.lost.is_none(), slots == [0, 0] && gone == 1, "{slots:?}, {gone}");
        assert!(slots != [0, 4096] || number > 8, "{number}");
    }
}

#[test]
fn a_slot_of_another_version_is_no_damage() {
    for (name, slot) in [("ledger", 0), ("ledger", 4096), ("mark", 0), ("mark", 4096)] {
        let fs = Model::new(1);
        filled(&fs, true);
        fs.spoil(name, |bytes| {
            bytes[slot + 8] += 1;
            let crc = crc32fast::hash(&bytes[slot..slot + 4092]);
            bytes[slot + 4092..slot + 4096].copy_from_slice(&crc.to_le_bytes());
        });
        let before = fs.names();
        let opened = open_on(fs.clone(), DIR.as_ref(), small(), &BUSES, [1; 16]).map(drop);
        let refused =
            matches!(&opened, Err(OpenError::Version { file, version: 3, known: 2 }) if file == name);
        assert!(refused && fs.names() == before, "{name} {slot} {opened:?}");
    }
}

#[test]
fn a_torn_slot_of_the_mark_is_what_a_kill_leaves() {
    for (clean, damages) in [(false, 0), (true, 1)] {
        let fs = Model::new(1);
        filled(&fs, clean);
        fs.spoil("mark", |bytes| bytes[100] ^= 1);
        let rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
        assert_eq!((rig.recovery.damages.len(), rig.recovery.lost), (damages, None), "clean: {clean}");
    }
}

#[test]
fn a_kill_in_the_middle_of_a_write_is_no_damage() {
    let fs = Model::new(1);
    let (identity, _) = filled(&fs, false);
    let names = fs.names();
    let last = names.iter().rfind(|name| name.ends_with(".seg")).expect("segments");
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    rig.append(1, 300);
    fs.die_after(Some(0));
    rig.write();
    fs.crash(Death::Kill);
    // However little of the record there is.
    fs.spoil(last, |bytes| bytes.extend_from_slice(b"\x01"));
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    assert_eq!((rig.recovery.lost.clone(), rig.recovery.damages.len()), (None, 0));
    assert_eq!((rig.recovery.next, rig.engine.identity), (RECORDS + 1, identity));
    let (number, body) = rig.append(2, 300);
    rig.write();
    assert_eq!(rig.drain(1).messages.get(&number), Some(&body));
    assert!(verify_on(&fs, super::rig::DIR.as_ref()).expect("readable").damages.is_empty());
}

#[test]
fn no_number_goes_out_before_the_ledger_has_it_reserved() {
    let fs = Model::new(1);
    let mut rig = Rig::open(&fs, Options { max_bytes: 64 << 20, ..small() }, &BUSES, 1).expect("alive");
    for salt in 0..RESERVE_MIN + 10 {
        rig.append(salt, 1);
    }
    rig.write();
    assert_eq!(rig.drain(0).next, Some(RESERVE_MIN + 1));
    assert!(rig.store());
    assert_eq!(rig.drain(0).next, None, "one slot alone may be damaged");
    assert!(rig.store());
    assert_eq!(rig.drain(0).next, Some(RESERVE_MIN + 11));
}

#[test]
fn after_a_kill_the_log_is_the_same_log() {
    let fs = Model::new(1);
    let (identity, before) = filled(&fs, false);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    assert_eq!((rig.engine.identity, rig.recovery.lost.clone(), rig.recovery.clean), (identity, None, false));
    let seen = rig.drain(1);
    assert_eq!((seen.numbers(), seen.lost.len()), ((11..=RECORDS).collect(), 0));
    assert!(seen.messages.iter().all(|(number, body)| before.messages.get(number) == Some(body)));
    // Another life of the machine: what was not synced could be missing without a trace.
    fs.crash(Death::Power);
    let rig = Rig::open(&fs, small(), &BUSES, 2).expect("alive");
    assert_ne!(rig.engine.identity, identity);
}

#[test]
fn segments_stay_until_both_slots_of_the_ledger_have_passed_them() {
    let fs = Model::new(1);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    for salt in 0..RECORDS {
        rig.append(salt, 300);
        rig.write();
    }
    rig.drain(0);
    rig.drain(1);
    let segments = rig.log.segments().len();
    assert!(rig.sync() && rig.store());
    rig.clean();
    assert_eq!(
        rig.log.segments().len(),
        segments,
        "the older slot is needed, should the newer one be damaged"
    );
    fs.crash(Death::Kill);
    // Generations 1 and 2 were written at the start, so the third stands in the place of the first.
    fs.spoil("ledger", |bytes| bytes[100] ^= 1);
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let seen = rig.drain(0);
    assert_eq!((seen.messages.len() as u64, seen.lost), (RECORDS, Vec::new()));
    rig.drain(1);
    assert!(rig.store() && rig.store());
    rig.clean();
    assert_eq!(rig.log.segments().len(), 1);
}
