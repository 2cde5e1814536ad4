//! The actions of a session that are not answered in full, and the replies they are gathering.
//!
//! Invariants: an entry is reported to its caller exactly once; an entry that was given up stays
//! behind as a tombstone that swallows what still comes for it, until its end or until it is the
//! oldest of more than `pending_actions` tombstones; so the table is bounded by twice that number.

use std::collections::HashMap;
use std::time::Instant;

use crate::action_id::ActionId;
use crate::frame::{Frame, OwnedFrame};
use crate::limits::Limits;
use crate::lists::{Follow, may_be_item};
use crate::reply::{Reply, ReplyError};

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
    Listing { follow: Follow, reply: Reply, bytes: usize },
    Swallowing(Option<Follow>),
}

#[derive(Debug)]
struct Entry {
    number: u64,
    purpose: Purpose,
    action: String,
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
        deadline: Instant,
        limits: &Limits,
    ) {
        self.next_number += 1;
        let entry = Entry {
            number: self.next_number,
            purpose,
            action: action.to_owned(),
            deadline,
            written: false,
            state: State::Waiting,
        };
        self.put(id, entry);
        self.bury(limits);
    }

    /// Its bytes were handed out to be written.
    pub(crate) fn set_written(&mut self, id: &ActionId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.written = true;
        }
    }

    /// The earliest deadline of an open entry.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.open_entries().map(|entry| entry.deadline).min()
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
            (State::Listing { .. } | State::Swallowing(Some(_)), ..) => {
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
            (State::Waiting, Purpose::Caller(token), _) if frame.raw().len() > limits.list_bytes => {
                entry.state = State::Swallowing(Some(follow));
                self.put(id.clone(), entry);
                self.bury(limits);
                let limit = limits.list_bytes;
                Claim::Done(id, token, Err(ReplyError::ListTooLarge { limit, response: frame.to_owned() }))
            }
            (State::Waiting, Purpose::Caller(_), _) => {
                entry.state =
                    State::Listing { follow, reply: Reply::single(frame), bytes: frame.raw().len() };
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
            State::Swallowing(Some(follow)) => {
                if !follow.ends_with(frame) {
                    self.put(id, entry);
                }
                Claim::Taken
            }
            State::Listing { follow, mut reply, bytes } => {
                let ends = follow.ends_with(frame);
                let bytes = bytes.saturating_add(frame.raw().len());
                let broken = reply.broken_by(ends, bytes, limits);
                match (ends, broken) {
                    (true, Some(error)) => return Claim::Done(id, token, Err(error)),
                    (true, None) => {
                        reply.complete = Some(frame.to_owned());
                        return Claim::Done(id, token, Ok(reply));
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
    /// written is forgotten; of another the late answer will be swallowed.
    pub(crate) fn expire(&mut self, now: Instant, limits: &Limits) -> Vec<(Unfinished, Option<OwnedFrame>)> {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        let due: Vec<ActionId> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_open() && entry.deadline <= now)
            .map(|(id, _)| id.clone())
            .collect();
        let mut expired = Vec::new();
        for id in due {
            let Some(mut entry) = self.remove(&id) else { continue };
            let Purpose::Caller(token) = entry.purpose else { continue };
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
        (self.open, self.listing) = (0, 0);
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
    }

    fn put(&mut self, id: ActionId, entry: Entry) {
        self.open += usize::from(entry.is_open());
        self.listing += usize::from(entry.is_listing());
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
        matches!(self.purpose, Purpose::Caller(_)) && !matches!(self.state, State::Swallowing(_))
    }

    fn is_listing(&self) -> bool {
        matches!(self.state, State::Listing { .. } | State::Swallowing(Some(_)))
    }
}
