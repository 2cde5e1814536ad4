//! Bytes that were changed, cut off or zeroed while the spool was closed.

use proptest::prelude::*;

use super::{
    model::{Death, Model},
    rig::{BUSES, Rig, Seen, small},
};
use crate::spool::{Reason, format, inspect::verify_on};

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
    assert!(
        !verify_on(&fs, super::rig::DIR.as_ref()).expect("readable").damages.is_empty() || *how_cut(how),
        "{name} {how:?}"
    );
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    let seen = rig.drain(1);
    assert_eq!(seen.next, Some(rig.recovery.next));
    assert!(seen.next >= Some(RECORDS + 1), "numbers go on");
    // One segment at most is touched.
    let segment = format::segment_first(name);
    let next_segment = names.iter().filter_map(|n| format::segment_first(n)).find(|n| Some(*n) > segment);
    for lost in &seen.lost {
        assert_eq!(lost.reason, Reason::Damaged);
        assert!(segment.is_some_and(|first| lost.first >= first), "{lost:?} {name}");
        assert!(lost.last < next_segment.unwrap_or(u64::MAX), "{lost:?} {name} {next_segment:?}");
    }
    for (number, body) in &seen.messages {
        assert_eq!(before.messages.get(number), Some(body), "record {number}");
    }
    let lost = seen.lost.iter().map(super::super::Lost::count).sum::<u64>();
    assert_eq!(
        seen.messages.len() as u64 + lost,
        rig.recovery.next - seen.numbers().first().copied().unwrap_or(11).min(11)
    );
    // What is appended now is found again, and no number of the old identity is given out twice.
    let (number, body) = rig.append(999, 300);
    assert!(number > RECORDS || rig.engine.identity != identity);
    rig.write();
    assert_eq!(rig.drain(1).messages.get(&number), Some(&body));
    assert_eq!(rig.drain(0).messages.get(&number), Some(&body));
    let (first, fs) = (rig.recovery.clone(), rig.close());
    // And the damage is not found twice.
    let mut again = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    assert_eq!((again.recovery.lost.clone(), again.recovery.next), (None, number + 1), "{first:?}");
    assert_eq!(again.drain(1), Seen { next: None, ..Seen::default() });
}

/// A file that was cut between two records shows only where its end is known from elsewhere.
fn how_cut(how: &Spoil) -> &'static bool {
    if matches!(how, Spoil::Cut | Spoil::Remove) { &true } else { &false }
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
    assert_eq!((lost.first, lost.last, rig.recovery.next), (first, RECORDS, RECORDS + 1));
    let damage = rig.recovery.damages.first().expect("reported");
    assert_eq!((&damage.file, damage.offset, damage.count), (last, 24, Some(RECORDS + 1 - first)));
    assert_ne!(rig.engine.identity, identity);
}

#[test]
fn a_ledger_without_a_good_slot_repeats_and_loses_nothing() {
    let fs = Model::new(1);
    let (identity, before) = filled(&fs, true);
    fs.spoil("ledger", |bytes| {
        bytes[30] ^= 1;
        bytes[4096 + 30] ^= 1;
    });
    let mut rig = Rig::open(&fs, small(), &BUSES, 1).expect("alive");
    assert_eq!(rig.recovery.damages.len(), 2);
    assert_ne!(rig.engine.identity, identity);
    let seen = rig.drain(0);
    assert_eq!((seen.lost.len(), &seen.messages), (0, &before.messages));
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
