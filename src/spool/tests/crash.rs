//! Any crash, at any change to the files, at any place in it.

use std::collections::BTreeMap;

use amibus_contract::Bytes;
use proptest::prelude::*;

use super::{
    model::{Death, Model},
    rig::{BUSES, Rig, Seen, small},
};
use crate::spool::{Lost, Options, Reason};

#[derive(Clone, Debug)]
enum Op {
    Append(usize),
    Write,
    Sync,
    Store,
    Begin,
    End(usize),
    Clean,
    Read(usize, usize),
    Commit(usize, usize),
}

#[derive(Clone, Debug)]
struct Life {
    ops: Vec<Op>,
    /// Changes to the files until it dies.
    budget: Option<u64>,
    power: bool,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..900_usize).prop_map(Op::Append),
        4 => Just(Op::Write),
        2 => Just(Op::Sync),
        2 => Just(Op::Store),
        3 => Just(Op::Begin),
        4 => (1..4_usize).prop_map(Op::End),
        1 => Just(Op::Clean),
        3 => (0..2_usize, 1..9_usize).prop_map(|(lane, count)| Op::Read(lane, count)),
        3 => (0..2_usize, 1..9_usize).prop_map(|(lane, count)| Op::Commit(lane, count)),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    let budget = prop_oneof![3 => (0..90_u64).prop_map(Some), 1 => Just(None)];
    (proptest::collection::vec(op(), 1..80), budget, any::<bool>()).prop_map(|(ops, budget, power)| Life {
        ops,
        budget,
        power,
    })
}

/// What must hold, whatever happens.
#[derive(Default)]
struct Oracle {
    /// The body that was appended last under a number.
    appended: BTreeMap<u64, Bytes>,
    /// What was given out: an identity and a number stand for one body for ever.
    given: BTreeMap<(String, u64), Bytes>,
    /// Below this number nothing more may be lost.
    safe: u64,
    /// What was lost before, as it was told.
    holes: Vec<Lost>,
    /// What each bus had confirmed when the last life ended.
    committed: [u64; 2],
    salt: u64,
}

impl Oracle {
    fn see(&mut self, seen: &Seen) {
        for (&number, body) in &seen.messages {
            assert_eq!(
                self.appended.get(&number),
                Some(body),
                "record {number} is whole and the one appended"
            );
            let identity = String::from_utf8_lossy(body).split(':').next().unwrap_or_default().to_owned();
            let before = self.given.entry((identity, number)).or_insert_with(|| body.clone());
            assert_eq!(before, body, "number {number} stands for two records");
        }
        for lost in &seen.lost {
            assert_eq!(lost.reason, Reason::CutShort, "nothing is dropped here");
            // Told again, it is told alike.
            let known = lost.first >= self.safe || self.holes.contains(lost);
            assert!(known, "{lost:?} is lost, but everything before {} is safe: {:?}", self.safe, self.holes);
        }
    }

    /// Everything that is there after a start, by each bus.
    fn look(&mut self, rig: &mut Rig, death: Death) {
        let end = rig.recovery.next;
        let mut found = Vec::new();
        assert!(end >= self.safe, "the log ends at {end} and was safe up to {}", self.safe);
        let given = self.given.keys().map(|(_, number)| number + 1).max().unwrap_or(1);
        assert!(end >= given, "the log goes on at {end}, and {given} was given out");
        if death == Death::Kill {
            // But for a slot of the ledger or the mark that was being written.
            let damages = rig.recovery.damages.iter().filter(|damage| damage.sequence.is_some());
            assert_eq!((&rig.recovery.lost, damages.count()), (&None, 0), "a kill takes nothing");
        }
        for (lane, committed) in self.committed.into_iter().enumerate() {
            let start = rig.committed(lane);
            assert!(start <= committed, "bus {lane} goes on at {start} and had confirmed up to {committed}");
            let mut seen = Seen { next: Some(start), ..Seen::default() };
            while let Some(batch) = rig.take(lane, 7) {
                seen.add(batch);
            }
            assert_eq!(seen.next, Some(end), "bus {lane} is given everything up to the end");
            self.see(&seen);
            let first_lost =
                seen.lost.iter().filter(|lost| !self.holes.contains(lost)).map(|lost| lost.first).min();
            let last_safe =
                seen.messages.keys().filter(|number| first_lost.is_some_and(|lost| **number > lost)).min();
            assert_eq!(last_safe, None, "what is recovered is a prefix");
            found.extend(seen.lost);
        }
        self.holes.append(&mut found);
    }

    /// One life, up to its death.
    fn live(&mut self, fs: &Model, life: &Life, boot: u8, options: &Options) {
        let sync_each = options.flush_interval.is_zero();
        fs.die_after(life.budget);
        let Some(mut rig) = Rig::open(fs, options.clone(), &BUSES, boot) else { return };
        let mut seen = BUSES.map(|_| Seen::default());
        let mut synced = self.safe;
        for op in &life.ops {
            match *op {
                Op::Append(size) => {
                    self.salt += 1;
                    let (number, body) = rig.append(self.salt, size);
                    self.appended.insert(number, body);
                }
                Op::Write => rig.write(),
                // A keeper ends what it has begun before it does anything else.
                Op::Sync | Op::Store if rig.is_keeping() => {}
                Op::Begin => rig.begin_keep(),
                Op::End(waiting) => synced = synced.max(rig.end_keep(waiting).unwrap_or(0)),
                Op::Sync => {
                    let written = rig.engine.lock().written;
                    if rig.sync() {
                        synced = written;
                    }
                }
                Op::Store => drop(rig.store()),
                Op::Clean => rig.clean(),
                Op::Read(lane, count) => {
                    if let Some(batch) = rig.take(lane, count) {
                        seen[lane].add(batch);
                    }
                }
                Op::Commit(lane, count) => rig.commit(lane, count),
            }
            if fs.is_dead() {
                break;
            }
            // Whoever waited for a record has answered it by now.
            let identity = format!("{:016x}", rig.engine.identity);
            let state = rig.engine.lock();
            let settled =
                self.appended.iter().rev().skip_while(|(number, _)| state.settled(**number).is_none());
            if let Some((&number, body)) =
                settled.take(1).next().filter(|(number, _)| **number >= rig.recovery.next)
            {
                self.given.insert((identity, number), body.clone());
            }
        }
        let written = rig.engine.lock().written;
        self.safe = self.safe.max(if !life.power || sync_each { written } else { synced });
        seen.iter().for_each(|seen| {
            self.see(&Seen { lost: Vec::new(), messages: seen.messages.clone(), next: None })
        });
        self.committed = [rig.committed(0), rig.committed(1)];
    }
}

fn check(seed: u64, lives: &[Life], options: &Options) {
    let fs = Model::new(seed);
    let mut oracle = Oracle { safe: 1, committed: [1, 1], ..Oracle::default() };
    let mut boot = 1;
    for life in lives {
        oracle.live(&fs, life, boot, options);
        let death = if life.power { Death::Power } else { Death::Kill };
        fs.crash(death);
        boot += u8::from(life.power);
        let mut rig = Rig::open(&fs, options.clone(), &BUSES, boot).expect("alive");
        oracle.look(&mut rig, death);
        // Looking was reading without a confirmation, and is forgotten like everything that a crash cuts short.
        oracle.safe = rig.recovery.next;
        oracle.appended.split_off(&oracle.safe);
        oracle.committed = [rig.committed(0), rig.committed(1)];
        fs.crash(Death::Kill);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_crash_costs_nothing_that_was_synced(seed: u64, lives in proptest::collection::vec(life(), 1..4)) {
        check(seed, &lives, &small());
    }

    #[test]
    fn with_no_interval_nothing_is_given_that_a_crash_can_take(
        seed: u64,
        lives in proptest::collection::vec(life(), 1..4),
    ) {
        check(seed, &lives, &Options { flush_interval: std::time::Duration::ZERO, ..small() });
    }
}
