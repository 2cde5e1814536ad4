//! A spool without threads: each step is taken when a test says so.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::SystemTime};

use amibus_contract::{Attribute, Attributes, Bytes, Kind, Message, Topic};

use super::model::Model;
use crate::spool::{
    Lost, Options, Recovery, Tally,
    engine::{Engine, Keeper, Kept, Wrote},
    lane::Batch,
    log::Log,
    open::open_on,
    read::FileReader,
    shell::Decode,
    state::Take,
};

pub(super) const DIR: &str = "/spool";
pub(super) const BUSES: [&str; 2] = ["fast", "slow"];

/// The body of a record: its number, then as many bytes as it likes.
pub(super) fn body(identity: u64, sequence: u64, salt: u64, size: usize) -> Bytes {
    let mut text = format!("{identity:016x}:{sequence}:{salt}:");
    text.extend(std::iter::repeat_n('x', size));
    text.into()
}

pub(super) fn message(body: Bytes) -> Option<Message> {
    let text = std::str::from_utf8(&body).ok()?;
    let sequence = text.split(':').nth(1)?;
    let topic = Topic::new("ami", Kind::Event, "pbx1", "X").ok()?;
    let attributes = Attributes::of([(Attribute::Sequence, sequence)]);
    Some(Message { topic, key: "k".into(), attributes, body })
}

pub(super) fn number(message: &Message) -> u64 {
    message.attributes().sequence().and_then(|text| text.parse().ok()).expect("a number")
}

pub(super) fn decode() -> Decode {
    Arc::new(message)
}

pub(super) fn small() -> Options {
    Options {
        segment_bytes: 4096,
        max_bytes: 1 << 20,
        max_age: None,
        flush_interval: std::time::Duration::from_secs(1),
        buffer_bytes: 64 << 10,
        cache_bytes: 4096,
        pinned: false,
    }
}

/// A spool in one hand.
pub(super) struct Rig {
    pub(super) fs: Model,
    pub(super) engine: Arc<Engine<Model>>,
    pub(super) log: Log<Model>,
    pub(super) keeper: Keeper<Model>,
    pub(super) recovery: Recovery,
    readers: Vec<FileReader<Model>>,
    /// What the keeper has begun, and how far the log was written by then.
    kept: Option<(Kept<Model>, u64)>,
}

impl Rig {
    /// `None` when the filesystem died meanwhile.
    pub(super) fn open(fs: &Model, options: Options, buses: &[&str], boot: u8) -> Option<Self> {
        let opened = open_on(fs.clone(), Path::new(DIR), options, buses, [boot; 16]);
        if fs.is_dead() {
            return None;
        }
        let opened = opened.expect("a spool opens whatever its files hold");
        let recovery = opened.recovery().clone();
        let readers = buses.iter().map(|_| FileReader::new(fs.clone(), DIR.into(), decode())).collect();
        let (engine, log, keeper) = (opened.engine, opened.log, opened.keeper);
        Some(Self { fs: fs.clone(), engine, log, keeper, recovery, readers, kept: None })
    }

    pub(super) fn append(&self, salt: u64, size: usize) -> (u64, Bytes) {
        let identity = self.engine.identity;
        let make = |sequence| message(body(identity, sequence, salt, size)).expect("a message");
        let message = self.engine.lock().append(true, make, Message::clone);
        self.accounted();
        (number(&message), message.body)
    }

    /// Writes everything that can be written.
    pub(super) fn write(&mut self) {
        while let Wrote::Chunk = self.engine.write_step(&mut self.log) {}
    }

    pub(super) fn sync(&mut self) -> bool {
        self.engine.sync_step().is_ok()
    }

    pub(super) fn store(&mut self) -> bool {
        self.engine.store_step(&mut self.keeper, false).is_ok()
    }

    /// The keeper's turn, in which it writes what is to be synced.
    pub(super) fn begin_keep(&mut self) {
        if self.kept.is_none() {
            let written = self.engine.lock().written;
            self.kept = Some((self.engine.begin_keep(&self.keeper, true), written));
        }
    }

    /// Its next one; answers how far the log is synced, if it is.
    pub(super) fn end_keep(&mut self, waiting: usize) -> Option<u64> {
        let (kept, written) = self.kept.as_mut()?;
        let (outcome, written) = (self.engine.end_keep(&mut self.keeper, kept, waiting)?, *written);
        self.kept = None;
        outcome.is_ok().then_some(written)
    }

    /// Whether the keeper is between the two.
    pub(super) fn is_keeping(&self) -> bool {
        self.kept.is_some()
    }

    pub(super) fn clean(&mut self) {
        self.engine.clean_step(&mut self.log, SystemTime::now());
    }

    pub(super) fn commit(&self, lane: usize, count: usize) {
        let mut state = self.engine.lock();
        // A test may commit blindly; a lane never does.
        let published = count.min(usize::try_from(state.lanes[lane].in_flight()).unwrap_or(usize::MAX));
        state.lanes[lane].settle(Tally { published, ..Tally::default() });
        drop(state);
        self.accounted();
    }

    /// Everything that was given is somewhere.
    pub(super) fn accounted(&self) {
        let (read, filtered, own, lanes) = self.engine.lock().account();
        for (number, lane) in lanes.iter().enumerate() {
            let given = read + own + lane.recovered;
            let found = filtered + lane.published + lane.dead_lettered + lane.dropped + lane.waiting;
            assert_eq!(given, found, "lane {number}: {read} read, {own} own, {filtered} filtered, {lane:?}");
        }
    }

    pub(super) fn committed(&self, lane: usize) -> u64 {
        self.engine.lock().lanes[lane].committed()
    }

    /// The next batch of a lane, if there is one now.
    pub(super) fn take(&mut self, lane: usize, messages: usize) -> Option<Batch> {
        loop {
            self.accounted();
            let take = self.engine.lock().take(lane, messages, 1 << 20);
            match take {
                Take::Batch(batch) => return Some(batch),
                Take::Wait | Take::End => return None,
                Take::Read(want) => {
                    let got = self.readers[lane].read(&want);
                    if self.fs.is_dead() {
                        return None;
                    }
                    let batch = self.engine.lock().deliver(lane, got);
                    if batch.is_some() {
                        return batch;
                    }
                }
            }
        }
    }

    /// Everything that a lane is given now, committed at once.
    pub(super) fn drain(&mut self, lane: usize) -> Seen {
        let mut seen = Seen::default();
        while let Some(batch) = self.take(lane, 7) {
            self.commit(lane, batch.messages.len());
            seen.add(batch);
        }
        seen
    }

    /// Closes it as a graceful end does.
    pub(super) fn close(mut self) -> Model {
        self.write();
        self.end_keep(1);
        assert!(self.sync());
        self.engine.store_step(&mut self.keeper, true).expect("nothing fails here");
        self.fs
    }
}

/// What a bus was given.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) messages: BTreeMap<u64, Bytes>,
    pub(super) lost: Vec<Lost>,
    pub(super) next: Option<u64>,
}

impl Seen {
    /// Takes a batch in, and checks that nothing was left out between it and the one before.
    pub(super) fn add(&mut self, batch: Batch) {
        if let Some(lost) = batch.lost {
            assert!(self.next.is_none_or(|next| lost.first == next), "{lost:?} after {:?}", self.next);
            assert!(lost.last >= lost.first && lost.until >= lost.from, "{lost:?}");
            self.next = Some(lost.last + 1);
            self.lost.push(lost);
        }
        assert_eq!(batch.messages.len(), batch.appended.len());
        for message in batch.messages {
            let number = number(&message);
            assert!(self.next.is_none_or(|next| number == next), "{number} after {:?}", self.next);
            self.next = Some(number + 1);
            self.messages.insert(number, message.body);
        }
    }

    pub(super) fn numbers(&self) -> Vec<u64> {
        self.messages.keys().copied().collect()
    }
}
