//! What append and the lanes share, behind one lock: no file is touched here.

use std::{
    collections::VecDeque,
    time::{Instant, SystemTime},
};

use amibus_contract::Message;

use super::{
    account::LaneAccount,
    lane::{Backlog, Batch, Lane},
    log::Segment,
    lost::{Lost, Reason, now},
    options::Options,
    pending::Pending,
    read::{Got, Source, Want},
};

/// Bytes that a message in memory costs beside its body, estimated.
const MESSAGE_OVERHEAD_BYTES: usize = 1024;

#[derive(Debug)]
struct Cached {
    message: Message,
    appended: Instant,
    at: SystemTime,
}

impl Cached {
    /// A body may lie in a buffer twice as large: where its length was not known when it was begun.
    fn bytes(&self) -> usize {
        2 * self.message.body.len() + MESSAGE_OVERHEAD_BYTES
    }
}

/// The least numbers that are reserved at a time: at 2,000 a second, of eight seconds.
pub(super) const RESERVE_MIN: u64 = 16 << 10;
/// The most.
pub(super) const RESERVE_MAX: u64 = 1 << 20;
/// So many times what was given out since the last time is reserved for the next.
pub(super) const RESERVE_TIMES: u64 = 8;

/// Everything but the files.
#[derive(Debug)]
pub(super) struct State {
    /// The next number.
    pub(super) end: u64,
    /// The first number that is in no file, or not synced where each record is.
    pub(super) written: u64,
    /// What each slot of the ledger says of the numbers that no bus was given.
    pub(super) reserved: [u64; 2],
    /// Whether each slot of the ledger says that records may have gone out that are in no file.
    pub(super) ahead: [bool; 2],
    /// The disk refuses writes, both slots of the ledger say so, and lanes are given what is not written.
    pub(super) degraded: bool,
    /// Why the last write failed, while it has not succeeded again.
    pub(super) failing: Option<String>,
    pub(super) pending: Pending,
    pub(super) segments: VecDeque<Segment>,
    pub(super) lanes: Vec<Lane>,
    /// Records from this number on stay, though every bus is done with them.
    pub(super) keep_from: u64,
    /// A segment that is written to cannot be read; begin another.
    pub(super) roll: bool,
    /// Nothing more will be appended.
    pub(super) closed: bool,
    /// Writer and keeper are to end.
    pub(super) finishing: bool,
    pub(super) writer_ended: bool,
    pub(super) ended: bool,
    /// The writer has nothing to write, and is to be called.
    pub(super) writer_waits: bool,
    /// Events read, filtered ones included.
    read: u64,
    filtered: u64,
    /// Messages appended that are no events read.
    own: u64,
    cache: VecDeque<Cached>,
    cache_bytes: usize,
    cache_limit_bytes: usize,
}

/// What there is for a lane.
pub(super) enum Take {
    Batch(Batch),
    /// It must be read first.
    Read(Want),
    /// Nothing yet.
    Wait,
    /// Nothing any more.
    End,
}

impl State {
    pub(super) fn new(options: &Options, end: u64, segments: Vec<Segment>, mut lanes: Vec<Lane>) -> Self {
        for lane in &mut lanes {
            lane.recovered = end.saturating_sub(lane.committed());
        }
        Self {
            end,
            written: end,
            reserved: [end.saturating_add(RESERVE_MIN); 2],
            ahead: [false; 2],
            degraded: false,
            failing: None,
            pending: Pending::new(options.buffer_bytes, options.chunk_limit()),
            segments: segments.into(),
            lanes,
            keep_from: if options.pinned { 0 } else { u64::MAX },
            roll: false,
            closed: false,
            finishing: false,
            writer_ended: false,
            ended: false,
            writer_waits: false,
            read: 0,
            filtered: 0,
            own: 0,
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_limit_bytes: options.cache_bytes,
        }
    }

    /// Appends an event that was `read`, or what amibus itself has to say. The answer is made of the message.
    pub(super) fn append<T>(
        &mut self,
        read: bool,
        make: impl FnOnce(u64) -> Message,
        answer: impl FnOnce(&Message) -> T,
    ) -> T {
        let counter = if read { &mut self.read } else { &mut self.own };
        *counter += 1;
        let message = make(self.end);
        let answer = answer(&message);
        let (appended, at) = (Instant::now(), now());
        if self.lanes.is_empty() {
            self.end += 1;
            self.written = self.end;
            return answer;
        }
        self.pending.push(self.end, at, &message.body);
        self.end += 1;
        let cached = Cached { message, appended, at };
        self.cache_bytes += cached.bytes();
        self.cache.push_back(cached);
        self.shrink_cache();
        answer
    }

    pub(super) fn take(&mut self, lane: usize, messages: usize, bytes: usize) -> Take {
        let limit = self.ready().min(self.reserved());
        let Some(one) = self.lanes.get_mut(lane) else { return Take::End };
        one.asked();
        if let Some(lost) = one.take_lost() {
            return Take::Batch(Batch { lost: Some(lost), messages: Vec::new(), appended: Vec::new() });
        }
        let next = one.next;
        if next >= limit {
            return if self.closed && next == self.end { Take::End } else { Take::Wait };
        }
        match next.checked_sub(self.end - self.cache.len() as u64) {
            Some(at) => {
                self.take_cached(lane, usize::try_from(at).unwrap_or(usize::MAX), limit, messages, bytes)
            }
            None => self.want(lane, next, limit, messages, bytes),
        }
    }

    /// The number before which a lane may be given everything, as far as it is reserved.
    fn ready(&self) -> u64 {
        if self.degraded { self.end } else { self.written }
    }

    /// Numbers from here on may be given to no bus before the ledger says so: both its slots, for one may be damaged.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved[0].min(self.reserved[1])
    }

    /// Lanes may be given what is in no file, or were.
    pub(super) fn is_ahead(&self) -> bool {
        self.failing.is_some() || self.lanes.iter().any(|lane| lane.next > self.written)
    }

    /// The ledger should be stored at once: the disk refuses writes, or does so no more, or lanes would soon wait for
    /// numbers.
    pub(super) fn ledger_is_wanted(&self) -> bool {
        let changed = match self.failing {
            Some(_) => !self.degraded,
            None => self.ahead.contains(&true) && !self.is_ahead(),
        };
        changed || self.reserved() < self.ready() + RESERVE_MIN / 4
    }

    /// Whether a record is in a file, as soon as its number can go to no other one whatever is killed; `None` until
    /// then.
    pub(super) fn settled(&self, sequence: u64) -> Option<bool> {
        let written = self.written > sequence;
        let taken = sequence < self.ready().min(self.reserved());
        (taken || self.ended || self.lanes.is_empty()).then_some(written)
    }

    fn take_cached(&mut self, lane: usize, at: usize, limit: u64, messages: usize, bytes: usize) -> Take {
        let others = self.lanes.iter().enumerate().filter(|(number, _)| *number != lane);
        let wanted_by_others = others.map(|(_, other)| other.next).min().unwrap_or(u64::MAX);
        let Some(one) = self.lanes.get_mut(lane) else { return Take::End };
        let ready = usize::try_from(limit - one.next).unwrap_or(usize::MAX).min(messages.max(1));
        let in_memory = ready.min(self.cache.len().saturating_sub(at));
        let (mut taken, mut appended) = (Vec::with_capacity(in_memory), Vec::with_capacity(in_memory));
        let (mut size, mut from, mut until) = (0, None, None);
        for number in (one.next..).take(in_memory) {
            // Those that no other lane wants any more leave the cache, from its front on.
            let before = number - (self.end - self.cache.len() as u64);
            let is_last = before == 0 && number < wanted_by_others;
            let place = usize::try_from(before).unwrap_or(usize::MAX);
            let Some(cached) = self.cache.get(place) else { break };
            if !taken.is_empty() && size + cached.message.body.len() > bytes {
                break;
            }
            size += cached.message.body.len();
            appended.push(cached.appended);
            (from, until) = (from.or(Some(cached.at)), Some(cached.at));
            if is_last {
                let Some(gone) = self.cache.pop_front() else { break };
                self.cache_bytes -= gone.bytes();
                taken.push(gone.message);
            } else {
                taken.push(cached.message.clone());
            }
        }
        let (Some(from), Some(until)) = (from, until) else { return Take::Wait };
        one.hand_out(taken.len(), from, until);
        self.shrink_cache();
        Take::Batch(Batch { lost: None, messages: taken, appended })
    }

    fn want(&mut self, lane: usize, from: u64, limit: u64, messages: usize, bytes: usize) -> Take {
        let now = SystemTime::now();
        let want = |source, until, from_at, until_at| {
            Take::Read(Want { source, from, until, until_at, from_at, messages, bytes })
        };
        if from >= self.written {
            let Some(chunk) = self.pending.find(from) else { return Take::Wait };
            let (until, from_at, until_at) = (chunk.end, chunk.from, chunk.until);
            return want(Source::Chunk(chunk), until, from_at, until_at);
        }
        let limit = limit.min(self.written);
        let after = self.segments.partition_point(|segment| segment.first <= from);
        let next = self.segments.get(after);
        let (until, until_at) = next.map_or((limit, now), |next| (next.first.min(limit), next.from));
        match after.checked_sub(1).and_then(|at| self.segments.get(at)) {
            Some(segment) => {
                let source = Source::Segment { first: segment.first, bytes: segment.bytes };
                want(source, until, segment.from.min(until_at), until_at)
            }
            None => {
                let lost = Lost {
                    first: from,
                    last: until - 1,
                    from: until_at,
                    until: until_at,
                    reason: Reason::Damaged,
                };
                if let Some(one) = self.lanes.get_mut(lane) {
                    one.lose(lost);
                }
                self.take(lane, messages, bytes)
            }
        }
    }

    /// Hands out what was read; `None` where that is not asked for any more.
    pub(super) fn deliver(&mut self, lane: usize, got: Got) -> Option<Batch> {
        let one = self.lanes.get_mut(lane).filter(|one| one.next == got.from && got.next > got.from)?;
        self.roll |= got.damaged;
        if let (Some(&from), Some(&until)) = (got.appended.first(), got.appended.last()) {
            one.hand_out(got.messages.len(), from, until);
        }
        let lost = got.lost.and_then(|lost| {
            one.lose(lost);
            one.take_lost()
        });
        if lost.is_none() && got.messages.is_empty() {
            return None;
        }
        let (now, clock) = (Instant::now(), SystemTime::now());
        let instant =
            |at: &SystemTime| now.checked_sub(clock.duration_since(*at).unwrap_or_default()).unwrap_or(now);
        let appended = got.appended.iter().map(instant).collect();
        Some(Batch { lost, messages: got.messages, appended })
    }

    /// The oldest segment goes, and with it what lanes had not read of it.
    pub(super) fn evict_oldest(&mut self) {
        let Some(gone) = self.segments.pop_front() else { return };
        let end = self.segments.front().map_or(self.written, |next| next.first);
        if end <= gone.first {
            return;
        }
        let until = self.segments.front().map_or(gone.until, |next| next.from);
        let (first, from) = (gone.first, gone.from.min(until));
        let lost = Lost { first, last: end - 1, from, until, reason: Reason::Dropped };
        for lane in &mut self.lanes {
            lane.lose(lost.clone());
        }
    }

    /// Before this number, every lane is done and the ledger knows it, and nobody else wants to look.
    pub(super) fn done_before(&self) -> u64 {
        let lanes = self.lanes.iter();
        let done = lanes.map(|lane| lane.stored.into_iter().min().unwrap_or(0)).min().unwrap_or(self.written);
        done.min(self.keep_from)
    }

    /// See [`Spool::is_behind`](super::Spool::is_behind).
    pub(super) fn is_behind(&self) -> bool {
        self.failing.is_none() && self.pending.is_half_full()
    }

    pub(super) fn backlog(&self, lane: usize) -> Backlog {
        let Some(one) = self.lanes.get(lane) else { return Backlog::default() };
        let waiting = one.waiting(self.end);
        let cached = one.next.checked_sub(self.end - self.cache.len() as u64);
        let cached = cached.and_then(|at| self.cache.get(usize::try_from(at).ok()?)).map(|cached| cached.at);
        let segment =
            self.segments.iter().rfind(|segment| segment.first <= one.next).map(|segment| segment.from);
        let oldest = match one.in_flight() {
            0 => cached.or(one.oldest()).or(segment),
            _ => one.oldest(),
        };
        Backlog { waiting, dropped: one.dropped(), oldest: oldest.filter(|_| waiting > 0) }
    }

    /// An event was read that a filter leaves out.
    pub(super) fn leave_out(&mut self) {
        self.read += 1;
        self.filtered += 1;
    }

    /// Events read, of these filtered, own messages, and each lane.
    pub(super) fn account(&self) -> (u64, u64, u64, Vec<LaneAccount>) {
        let account = |(number, lane): (usize, &Lane)| lane.account(&self.backlog(number));
        (self.read, self.filtered, self.own, self.lanes.iter().enumerate().map(account).collect())
    }

    /// Forgets messages that every lane has taken, and beyond the limit the oldest.
    fn shrink_cache(&mut self) {
        let slowest = self.lanes.iter().map(|lane| lane.next).min().unwrap_or(self.end);
        while self.cache_bytes > self.cache_limit_bytes || self.end - (self.cache.len() as u64) < slowest {
            let Some(gone) = self.cache.pop_front() else { break };
            self.cache_bytes -= gone.bytes();
        }
    }
}
