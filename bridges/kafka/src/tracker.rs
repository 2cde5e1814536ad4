//! Which commands of one partition are done: Kafka commits a position, and commands end in any order.
//!
//! Committed is the position of the first command that is not done. What is done behind it, and what was begun, is
//! written into the commit's metadata ([`marks`]): so after a crash exactly the commands that are not done come again,
//! and it is known which of them somebody may have run.
//!
//! Invariants: `open`, `again` and `done` are disjoint; all of `open` and `again` is below `next`; nothing in `done` or
//! `begun` is below [`Tracker::position`]; what is done is not in `begun`.

use std::collections::BTreeSet;

use crate::marks::{self, Marks};

/// What became of a command that came from the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coming {
    /// To be handed out.
    New,
    /// It is in somebody's hands, or done.
    Known,
    /// The partition starts anew (its topic was made again): everything known of it is void.
    Reset,
}

/// The commands of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tracker {
    /// One past the last that came; `None` before the first.
    next: Option<i64>,
    /// Everything below is done.
    floor: i64,
    open: BTreeSet<i64>,
    again: BTreeSet<i64>,
    done: BTreeSet<i64>,
    /// Commands that somebody may have run, by what was committed or is to be.
    begun: BTreeSet<i64>,
    /// While the partition is read again for given-back commands: where that ends.
    rewound: Option<i64>,
    /// Given-back commands that have not come in that yet.
    awaited: BTreeSet<i64>,
    /// Whether going back failed: it may take effect late all the same.
    doubtful: bool,
}

impl Tracker {
    /// Starts with what was committed of this log, where something was. Records of before that may still come: they are
    /// done.
    pub(crate) fn resume(position: Option<i64>, metadata: &str) -> Self {
        let floor = position.unwrap_or(0);
        let marks = position.and_then(|at| marks::decode(metadata, at));
        if marks.is_none() && !metadata.is_empty() {
            tracing::warn!(
                position,
                "what was committed of the command topic was not committed by amibus: what was begun or done behind it \
                 is not known"
            );
        }
        let Marks { begun, done } = marks.unwrap_or_default();
        Self { floor, done, begun, ..Self::default() }
    }

    /// A command came.
    pub(crate) fn comes(&mut self, offset: i64) -> Coming {
        let next = self.next.unwrap_or(self.floor);
        if self.doubtful && self.again.contains(&offset) {
            self.sought(offset);
        }
        if self.rewound.is_some_and(|until| offset >= until) {
            self.end_rewind();
        }
        if self.next.is_some() && offset < next && self.rewound.is_none() {
            *self = Self::default();
            self.next = Some(offset + 1);
            self.floor = offset;
            self.open.insert(offset);
            return Coming::Reset;
        }
        let returned = self.again.remove(&offset);
        self.awaited.remove(&offset);
        let known = self.done.contains(&offset) || self.open.contains(&offset) || offset < self.floor;
        let seen_before = self.next.is_some() && offset < next;
        self.next = Some(self.next.map_or(offset + 1, |next| next.max(offset + 1)));
        if !returned && (known || seen_before) {
            self.prune();
            return Coming::Known;
        }
        self.open.insert(offset);
        Coming::New
    }

    /// A command is done. Answers whether there is something to commit.
    pub(crate) fn finish(&mut self, offset: i64) -> bool {
        if !self.open.remove(&offset) {
            return false;
        }
        self.begun.remove(&offset);
        self.done.insert(offset);
        self.prune();
        true
    }

    /// A command is about to be run: every commit from now on says so, until it is done. Answers whether one can, which
    /// it cannot of what lies too far behind the position.
    pub(crate) fn begin(&mut self, offset: i64) -> bool {
        let may = self.open.contains(&offset) && offset - self.position() < marks::WINDOW;
        if may {
            self.begun.insert(offset);
        }
        may
    }

    /// It was not run after all. Answers whether there is something to commit.
    pub(crate) fn unbegin(&mut self, offset: i64) -> bool {
        self.begun.remove(&offset)
    }

    /// Whether somebody may have run it.
    pub(crate) fn is_begun(&self, offset: i64) -> bool {
        self.begun.contains(&offset)
    }

    /// A command was given back.
    pub(crate) fn give_back(&mut self, offset: i64) {
        if self.open.remove(&offset) {
            self.again.insert(offset);
        }
    }

    /// Where to read again from, where commands were given back.
    pub(crate) fn place(&self) -> Option<i64> {
        self.again.first().copied()
    }

    /// The partition is read again from there on.
    pub(crate) fn sought(&mut self, place: i64) {
        self.rewound = self.next;
        self.awaited = self.again.range(place..).copied().collect();
        self.doubtful = false;
    }

    /// Going back failed: what came before stays as it is.
    pub(crate) fn not_sought(&mut self) {
        self.doubtful = true;
    }

    /// What was read again without coming is gone from the log: nobody waits for it.
    fn end_rewind(&mut self) {
        self.rewound = None;
        for gone in std::mem::take(&mut self.awaited) {
            tracing::warn!(offset = gone, "a command that was given back is in the log no more");
            self.again.remove(&gone);
        }
    }

    /// Where the next process goes on: the first command that is not done.
    pub(crate) fn position(&self) -> i64 {
        if let Some(first) = self.open.first().into_iter().chain(self.again.first()).min() {
            return *first;
        }
        let mut position = self.next.unwrap_or(0).max(self.floor);
        while self.done.contains(&position) {
            position += 1;
        }
        position
    }

    /// What is begun and done from the position on.
    pub(crate) fn metadata(&self) -> String {
        marks::encode(&self.begun, &self.done, self.position())
    }

    /// From the first that is not done to the last that came.
    pub(crate) fn span(&self) -> i64 {
        self.next.map_or(0, |next| next - self.position())
    }

    /// How many commands are in somebody's hands.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether the partition is being read again for commands that were given back.
    pub(crate) fn is_rewinding(&self) -> bool {
        self.rewound.is_some() && !self.again.is_empty()
    }

    fn prune(&mut self) {
        let position = self.position();
        self.floor = self.floor.max(position);
        self.done = self.done.split_off(&position);
        self.begun = self.begun.split_off(&position);
    }
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
