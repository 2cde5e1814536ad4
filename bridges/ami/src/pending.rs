//! The actions of a session that are not answered in full, and the replies they are gathering.
//!
//! Invariants: an entry is reported to its caller exactly once; an entry that was given up stays
//! behind as a tombstone that swallows what still comes for it, until its end or until it is the
//! oldest of more than `pending_actions` tombstones; so the table is bounded by twice that number. A list
//! that has ended leaves a tombstone too, until its action's deadline: an item that comes behind what was
//! taken for the end is no event of the server. The lists that are being gathered hold at most
//! `lists_bytes` together.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Instant;

use memchr::memmem::Finder;

use crate::action_id::{ActionId, OWNER};
use crate::frame::{Frame, OwnedFrame};
use crate::limits::{ITEM_OVERHEAD_BYTES, Limits};
use crate::lists::{Follow, may_be_item};
use crate::reply::{Reply, ReplyError};

/// Finds what all our ActionIDs begin with.
static OURS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(OWNER));

/// On whose behalf an action was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A caller of the session, who knows it by this token.
    Caller(u64),
    /// The session itself: a ping or a logoff, whose answer nobody waits for.
    Own,
}

#[derive(Debug)]
enum State {
    Waiting,
    Listing {
        follow: Follow,
        reply: Reply,
        bytes: usize,
    },
    Swallowing(Option<Follow>),
    /// Its list has ended.
    Ended,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    purpose: Purpose,
    action: String,
    /// Not to be written after this.
    write_by: Instant,
    deadline: Instant,
    written: bool,
    state: State,
}

/// What a message of the server meant for the table.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It belongs to no entry.
    NotOurs,
    /// It was taken in (or swallowed); nothing is to be reported yet.
    Taken,
    /// It made the entry's reply whole, or broke it.
    Done(ActionId, u64, Result<Reply, ReplyError>),
}

/// An action that will get no reply.
#[derive(Debug)]
pub(crate) struct Unfinished {
    pub(crate) id: ActionId,
    pub(crate) token: u64,
    pub(crate) written: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Pending {
    entries: HashMap<ActionId, Entry>,
    next_number: u64,
    open: usize,
    listing: usize,
    /// Bytes of all lists that are being gathered, as [`Entry::held`] counts them.
    held: usize,
}

impl Pending {
    /// Entries of callers that wait for their reply.
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    pub(crate) fn insert(
        &mut self,
        id: ActionId,
        purpose: Purpose,
        action: &str,
        (write_by, deadline): (Instant, Instant),
        limits: &Limits,
    ) {
        self.next_number += 1;
        let entry = Entry {
            number: self.next_number,
            purpose,
            action: action.to_owned(),
            write_by,
            deadline,
            written: false,
            state: State::Waiting,
        };
        self.put(id, entry);
        self.bury(limits);
    }

    /// Its bytes are about to be handed out to be written. `false`: it is a caller's and late, so they must not.
    pub(crate) fn set_written(&mut self, id: &ActionId, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return true };
        entry.written = !entry.is_open() || entry.write_by > now;
        entry.written
    }

    /// The earliest deadline of an open entry (of one that is not written, that for writing it), or of one whose list has ended.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.entries.values().filter(|entry| entry.expires()).map(Entry::due).min()
    }

    /// The latest deadline of an open entry that was written.
    pub(crate) fn last_written_deadline(&self) -> Option<Instant> {
        self.open_entries().filter(|entry| entry.written).map(|entry| entry.deadline).max()
    }

    /// A response of the server.
    pub(crate) fn response(&mut self, frame: &Frame<'_>, limits: &Limits) -> Claim {
        let Some((id, mut entry)) = self.take(frame) else { return Claim::NotOurs };
        let follow = Follow::of(&entry.action, frame);
        match (&entry.state, entry.purpose, follow) {
            // A second response to one action: not what we asked for.
            (State::Listing { .. } | State::Swallowing(Some(_)) | State::Ended, ..) => {
                self.put(id, entry);
                Claim::NotOurs
            }
            (State::Swallowing(None), _, Follow::Nothing) | (_, Purpose::Own, _) => Claim::Taken,
            (State::Swallowing(None), ..) => {
                entry.state = State::Swallowing(Some(follow));
                self.put(id, entry);
                Claim::Taken
            }
            (State::Waiting, Purpose::Caller(token), Follow::Nothing) => {
                Claim::Done(id, token, Ok(Reply::single(frame)))
            }
            (State::Waiting, Purpose::Caller(token), _) => {
                let (reply, bytes) = (Reply::single(frame), frame.raw().len());
                if let Some(error) = reply.broken_by(true, bytes, self.held, limits) {
                    entry.state = State::Swallowing(Some(follow));
                    self.put(id.clone(), entry);
                    self.bury(limits);
                    return Claim::Done(id, token, Err(error));
                }
                entry.state = State::Listing { follow, reply, bytes };
                self.put(id, entry);
                Claim::Taken
            }
        }
    }

    /// An event of the server. Only an event of a list that is under way is ours.
    pub(crate) fn event(&mut self, frame: &Frame<'_>, limits: &Limits) -> Claim {
        if self.listing == 0 || !may_be_item(frame) {
            return Claim::NotOurs;
        }
        let Some((id, mut entry)) = self.take(frame) else { return Claim::NotOurs };
        let token = match entry.purpose {
            Purpose::Caller(token) => token,
            Purpose::Own => 0,
        };
        match entry.state {
            State::Waiting | State::Swallowing(None) => {
                self.put(id, entry);
                Claim::NotOurs
            }
            State::Ended => {
                self.put(id, entry);
                Claim::Taken
            }
            State::Swallowing(Some(follow)) => {
                if follow.ends_with(frame, &[]) {
                    entry.state = State::Ended;
                }
                self.put(id, entry);
                Claim::Taken
            }
            State::Listing { follow, mut reply, bytes } => {
                let ends = follow.ends_with(frame, &reply.items);
                let bytes = bytes.saturating_add(frame.raw().len());
                let broken = reply.broken_by(ends, bytes, self.held, limits);
                match (ends, broken) {
                    (true, broken) => {
                        entry.state = State::Ended;
                        self.put(id.clone(), entry);
                        self.bury(limits);
                        reply.complete = Some(frame.to_owned());
                        return Claim::Done(id, token, broken.map_or(Ok(reply), Err));
                    }
                    (false, Some(error)) => {
                        entry.state = State::Swallowing(Some(follow));
                        self.put(id.clone(), entry);
                        self.bury(limits);
                        return Claim::Done(id, token, Err(error));
                    }
                    (false, None) => {
                        reply.items.push(frame.to_owned());
                        entry.state = State::Listing { follow, reply, bytes };
                    }
                }
                self.put(id, entry);
                Claim::Taken
            }
        }
    }

    /// Gives up what is past its deadline, in the order in which it was sent. An entry that was never
    /// written is forgotten; of another the late answer will be swallowed. A list that has ended is forgotten.
    pub(crate) fn expire(&mut self, now: Instant, limits: &Limits) -> Vec<(Unfinished, Option<OwnedFrame>)> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        let due: Vec<ActionId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.expires() && entry.due() <= now)
            .map(|(id, _)| id.clone())
            .collect();
        let mut expired = Vec::new();
        for id in due {
            let Some(mut entry) = self.remove(&id) else { continue };
            let Purpose::Caller(token) = entry.purpose else { continue };
            if matches!(entry.state, State::Ended) {
                continue;
            }
            let (number, written) = (entry.number, entry.written);
            let (follow, response) = match entry.state {
                State::Listing { follow, reply, .. } => (Some(follow), Some(reply.response)),
                _ => (None, None),
            };
            if written {
                entry.state = State::Swallowing(follow);
                self.put(id.clone(), entry);
            }
            expired.push((number, (Unfinished { id, token, written }, response)));
        }
        self.bury(limits);
        expired.sort_by_key(|(number, _)| *number);
        expired.into_iter().map(|(_, unfinished)| unfinished).collect()
    }

    /// Takes all that wait, in the order in which they were sent.
    pub(crate) fn drain(&mut self) -> Vec<Unfinished> {
        let mut open: Vec<(ActionId, Entry)> = self.entries.drain().filter(|(_, e)| e.is_open()).collect();
        (self.open, self.listing, self.held) = (0, 0, 0);
        open.sort_by_key(|(_, entry)| entry.number);
        let unfinished = |(id, entry): (ActionId, Entry)| match entry.purpose {
            Purpose::Caller(token) => Some(Unfinished { id, token, written: entry.written }),
            Purpose::Own => None,
        };
        open.into_iter().filter_map(unfinished).collect()
    }

    fn open_entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| entry.is_open())
    }

    /// Takes out the entry whose ActionID comes first in the message.
    fn take(&mut self, frame: &Frame<'_>) -> Option<(ActionId, Entry)> {
        // Hardly any message has one of ours, and this is faster than a look at all headers.
        OURS.find(frame.raw())?;
        let text = std::str::from_utf8(frame.first("ActionID")?).ok()?;
        let (id, entry) = self.entries.remove_entry(text)?;
        self.count_out(&entry);
        Some((id, entry))
    }

    fn remove(&mut self, id: &ActionId) -> Option<Entry> {
        let entry = self.entries.remove(id)?;
        self.count_out(&entry);
        Some(entry)
    }

    fn count_out(&mut self, entry: &Entry) {
        self.open -= usize::from(entry.is_open());
        self.listing -= usize::from(entry.is_listing());
        self.held -= entry.held();
    }

    fn put(&mut self, id: ActionId, entry: Entry) {
        self.open += usize::from(entry.is_open());
        self.listing += usize::from(entry.is_listing());
        self.held += entry.held();
        self.entries.insert(id, entry);
    }

    /// Forgets the oldest tombstones beyond the limit.
    fn bury(&mut self, limits: &Limits) {
        while self.entries.len() - self.open > limits.pending_actions {
            let dead = self.entries.iter().filter(|(_, entry)| !entry.is_open());
            let Some(oldest) = dead.min_by_key(|(_, entry)| entry.number).map(|(id, _)| id.clone()) else {
                return;
            };
            self.remove(&oldest);
        }
    }
}

impl Entry {
    fn is_open(&self) -> bool {
        matches!(self.purpose, Purpose::Caller(_))
            && !matches!(self.state, State::Swallowing(_) | State::Ended)
    }

    /// When something is to be done about it.
    fn due(&self) -> Instant {
        if self.written { self.deadline } else { self.write_by }
    }

    /// Whether something is to be done at its deadline.
    fn expires(&self) -> bool {
        self.is_open() || matches!(self.state, State::Ended)
    }

    /// Whether an event with its ActionID is its own.
    fn is_listing(&self) -> bool {
        matches!(self.state, State::Listing { .. } | State::Swallowing(Some(_)) | State::Ended)
    }

    /// What the list that it is gathering takes, the items' own bookkeeping included.
    fn held(&self) -> usize {
        match &self.state {
            State::Listing { reply, bytes, .. } => {
                bytes.saturating_add(reply.items.len().saturating_mul(ITEM_OVERHEAD_BYTES))
            }
            _ => 0,
        }
    }
}
