//! Our hand on one command's shared claim: taken, renewed, given back, and ended.
//!
//! After a fault nobody knows whether a change was made, or will be: it may still be on its way. So a claim of our own that
//! is met again is written anew before it counts, and one that may yet be made is made before it is given back: what was
//! on its way then finds another revision.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use amibus_contract::{
    Bytes, Fault, FaultKind,
    claims::{Created, Entry, Updated},
};
use jiff::Timestamp;
use serde_json::value::RawValue;
use tracing::warn;

use super::{
    moment::Moment,
    owned::Owned,
    response::Response,
    send::NotBegun,
    shared::{Claimed, Ending, MAX_SHARED_RESPONSE_BYTES, Seen, Settled, Shared, State},
};

/// The owner writes its entry anew so many times within the takeover time.
const REFRESHES_PER_TAKEOVER: u32 = 3;
/// How often an entry that changes under one's hands is tried anew.
const TRIES: u32 = 8;

/// Our hand on one command's claim. It holds nothing until [`Hold::take`].
pub(super) struct Hold<'a> {
    shared: &'a Shared,
    key: String,
    owned: Owned,
    /// The entry's revision as we last knew it, and from when on it is known to stand.
    taken: Mutex<Option<(u64, Moment)>>,
    /// Whether one that we tried to make may yet be made.
    loose: AtomicBool,
    /// Whether we may have said how somebody else's command ended, and do not know it.
    over: AtomicBool,
}

impl<'a> Hold<'a> {
    pub(super) fn new(shared: &'a Shared, key: String, owned: Owned) -> Self {
        Self {
            shared,
            key,
            owned,
            taken: Mutex::new(None),
            loose: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }
}

impl Hold<'_> {
    /// What there is under this id.
    pub(super) async fn look(&self) -> Result<Seen, Fault> {
        let asked = Moment::now();
        match self.shared.noted(self.shared.claims.read(&self.key).await)? {
            None => Ok(Seen::Free),
            Some(entry) => self.seen(entry, asked),
        }
    }

    /// Claims the command, unless it is claimed.
    pub(super) async fn take(&self) -> Result<Seen, Fault> {
        for _ in 0..TRIES {
            self.loose.store(true, Ordering::Release);
            let asked = Moment::now();
            let created = self.shared.claims.create(&self.key, self.value(None)?).await;
            let created = self.shared.noted(created)?;
            // Over what stands there now, no attempt of before can make another one.
            self.loose.store(false, Ordering::Release);
            let entry = match created {
                Created::Made(revision) => {
                    self.remember(Some((revision, asked)));
                    return Ok(Seen::Ours(revision));
                }
                Created::Exists(entry) => entry,
            };
            match self.seen(entry, asked)? {
                // A removal that is still on its way would take it from under us: it does not from another revision on.
                Seen::Ours(_) => {
                    if let (true, Some((revision, _))) = (self.refresh().await?, self.taken()) {
                        return Ok(Seen::Ours(revision));
                    }
                }
                other => return Ok(other),
            }
        }
        Err(self.restless())
    }

    /// Writes the entry anew where it is ours and the command has not ended: one that a process before this one made
    /// too.
    pub(super) async fn renew(&self) -> Result<(), Fault> {
        if self.taken().is_none() {
            self.look().await?;
        }
        if self.taken().is_some() {
            self.refresh().await?;
        }
        Ok(())
    }

    /// Makes sure that our claim stands for a while from now on: what comes before the socket may have taken its time.
    /// Answers whether it is ours.
    pub(super) async fn fresh(&self) -> Result<bool, Fault> {
        let taken = self.taken();
        match taken {
            Some((_, since)) if since.elapsed() < self.shared.takeover() / 2 => Ok(true),
            _ => self.refresh().await,
        }
    }

    /// Runs `work`, writing the entry anew meanwhile once it is ours.
    pub(super) async fn keeping<T>(&self, work: impl Future<Output = T>) -> T {
        let keep = async {
            loop {
                tokio::time::sleep(self.renewal()).await;
                if self.taken().is_some()
                    && let Err(fault) = self.refresh().await
                {
                    warn!(id = self.owned.id, %fault, "a claim could not be renewed");
                }
            }
        };
        tokio::select! {
            done = work => done,
            never = keep => never,
        }
    }

    /// Says how our command ended, unless that was said before. Where the store has lost our claim, over nothing.
    pub(super) async fn settle(&self, response: &Response) -> Result<Settled, Fault> {
        let mut revision = self.taken().map(|(revision, _)| revision);
        let mut most = MAX_SHARED_RESPONSE_BYTES;
        for _ in 0..TRIES {
            let asked = Moment::now();
            let met = match self.write(self.value(Some((response, most)))?, revision).await {
                Ok(None) => {
                    self.remember(None);
                    return Ok(Settled::Made);
                }
                Ok(Some(met)) => met,
                Err(fault) if fault.kind == FaultKind::TooLarge && most > 0 => {
                    most = 0;
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            revision = match met.map(|entry| self.seen(entry, asked)).transpose()? {
                None | Some(Seen::Free) => None,
                Some(Seen::Ours(revision)) => Some(revision),
                Some(Seen::Theirs(_, revision)) => return Ok(Settled::InWork(revision)),
                Some(Seen::Done(ending)) => return Ok(Settled::Before(ending)),
            };
        }
        Err(self.restless())
    }

    /// Says how the command ended that somebody else had begun, as long as the entry has this revision.
    pub(super) async fn settle_over(&self, response: &Response, revision: u64) -> Result<Settled, Fault> {
        let mut most = MAX_SHARED_RESPONSE_BYTES;
        loop {
            let asked = Moment::now();
            let value = self.value(Some((response, most)))?;
            self.over.store(true, Ordering::Release);
            let written = self.write(value, Some(revision)).await;
            // Until it is answered, and taken up by whoever asked: a fault leaves it open.
            self.over.store(written.is_err(), Ordering::Release);
            return match written {
                Ok(None) => Ok(Settled::Made),
                // It was given back: nothing was sent.
                Ok(Some(None)) => Ok(Settled::Gone),
                Ok(Some(Some(entry))) => match self.seen(entry, asked)? {
                    Seen::Done(ending) => Ok(Settled::Before(ending)),
                    Seen::Ours(revision) | Seen::Theirs(_, revision) => Ok(Settled::InWork(revision)),
                    Seen::Free => Ok(Settled::Gone),
                },
                Err(fault) if fault.kind == FaultKind::TooLarge && most > 0 => {
                    most = 0;
                    continue;
                }
                Err(fault) => Err(fault),
            };
        }
    }

    /// Whether there may be an entry of ours.
    pub(super) fn is_touched(&self) -> bool {
        let is_open = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        self.taken().is_some() || is_open(&self.loose) || is_open(&self.over)
    }

    /// Takes the claim back: nothing was sent. Answers what it found; [`Seen::Ours`] is gone now.
    pub(super) async fn release(&self) -> Result<Seen, Fault> {
        for _ in 0..TRIES {
            let seen = match self.loose.load(Ordering::Acquire) {
                true => self.take().await?,
                false => self.look().await?,
            };
            let Seen::Ours(revision) = seen else { return Ok(seen) };
            if self.shared.noted(self.shared.claims.delete(&self.key, revision).await)? {
                self.remember(None);
                return Ok(seen);
            }
        }
        Err(self.restless())
    }

    /// An attempt of a hand before this one may yet make the entry.
    pub(super) fn may_yet_be_made(&self) {
        self.loose.store(true, Ordering::Release);
    }

    pub(super) fn payload_hash(&self) -> &str {
        &self.owned.payload_hash
    }

    fn renewal(&self) -> Duration {
        renewal(self.shared)
    }

    async fn refresh(&self) -> Result<bool, Fault> {
        let (value, asked) = (self.value(None)?, Moment::now());
        for _ in 0..TRIES {
            let Some((revision, _)) = self.taken() else { return Ok(false) };
            let updated = self.shared.claims.update(&self.key, value.clone(), revision).await;
            match self.shared.noted(updated)? {
                Updated::Made(revision) => {
                    self.remember(Some((revision, asked)));
                    return Ok(true);
                }
                Updated::Changed(None) => self.remember(None),
                // One of our own renewals, broken off before its answer, is found again with its revision.
                Updated::Changed(Some(entry)) => match self.seen(entry, asked)? {
                    Seen::Ours(_) => {}
                    _ => self.remember(None),
                },
            }
        }
        Err(self.restless())
    }

    /// `None`: written. Else what stands there.
    async fn write(&self, value: Bytes, revision: Option<u64>) -> Result<Option<Option<Entry>>, Fault> {
        let claims = &self.shared.claims;
        let met = match revision {
            Some(revision) => match self.shared.noted(claims.update(&self.key, value, revision).await)? {
                Updated::Made(_) => None,
                Updated::Changed(entry) => Some(entry),
            },
            None => match self.shared.noted(claims.create(&self.key, value).await)? {
                Created::Made(_) => None,
                Created::Exists(entry) => Some(Some(entry)),
            },
        };
        Ok(met)
    }

    fn seen(&self, entry: Entry, asked: Moment) -> Result<Seen, Fault> {
        let unreadable = |why: String| {
            let text = format!("the claim of {:?} ({}) cannot be read: {why}", self.owned.id, self.key);
            self.shared.unreadable(&text);
            Fault::new(FaultKind::Refused, text)
        };
        let claimed: Claimed =
            serde_json::from_slice(&entry.value).map_err(|error| unreadable(error.to_string()))?;
        let ours = claimed.nonce == self.owned.nonce;
        Ok(match (claimed.state, claimed.outcome, claimed.response) {
            (State::Done, Some(outcome), Some(response)) => Seen::Done(Ending {
                outcome,
                response: response.get().as_bytes().to_vec(),
                payload_hash: claimed.payload_hash,
                ours,
                instance: claimed.instance,
            }),
            (State::Done, ..) => return Err(unreadable("it has ended without an outcome".to_owned())),
            (State::Sending, ..) if ours => {
                self.remember(Some((entry.revision, asked)));
                Seen::Ours(entry.revision)
            }
            (State::Sending, outcome, response) => {
                Seen::Theirs(Box::new(Claimed { outcome, response, ..claimed }), entry.revision)
            }
        })
    }

    /// The entry as it is to be written: being sent, or ended so, with a response of at most so many bytes.
    fn value(&self, ended: Option<(&Response, usize)>) -> Result<Bytes, Fault> {
        let unwritable = |error: serde_json::Error| Fault::new(FaultKind::Refused, error.to_string());
        let response = match ended {
            Some((response, most)) => {
                let data = String::from_utf8_lossy(&response.data_within(most)).into_owned();
                Some(RawValue::from_string(data).map_err(unwritable)?)
            }
            None => None,
        };
        let Owned { id, server, action, payload_hash, nonce } = self.owned.clone();
        let claimed = Claimed {
            id,
            server,
            action,
            payload_hash,
            nonce,
            instance: self.shared.instance().to_owned(),
            at: Timestamp::now().to_string(),
            state: if ended.is_some() { State::Done } else { State::Sending },
            outcome: ended.map(|(response, _)| response.outcome.as_str().to_owned()),
            response,
        };
        Ok(serde_json::to_vec(&claimed).map_err(unwritable)?.into())
    }

    fn taken(&self) -> Option<(u64, Moment)> {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, taken: Option<(u64, Moment)>) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = taken;
    }

    fn restless(&self) -> Fault {
        let text = format!("the claim of {:?} changes faster than it can be changed", self.owned.id);
        Fault::new(FaultKind::TimedOut, text)
    }
}

/// How often the owner of an entry writes it anew.
pub(super) fn renewal(shared: &Shared) -> Duration {
    shared.takeover() / REFRESHES_PER_TAKEOVER
}

/// Claims a command just before it is recorded as being sent, where claims are shared.
pub(super) async fn claim(hold: Option<&Hold<'_>>) -> Result<(), NotBegun> {
    let Some(hold) = hold else { return Ok(()) };
    match hold.take().await {
        Ok(Seen::Ours(_)) => Ok(()),
        Ok(_) => Err(NotBegun::NotClaimed(None)),
        Err(fault) => Err(NotBegun::NotClaimed(Some(fault))),
    }
}

/// Whether the claim still stands after what came before the socket.
pub(super) async fn still_ours(hold: Option<&Hold<'_>>) -> Result<(), NotBegun> {
    let Some(hold) = hold else { return Ok(()) };
    match hold.fresh().await {
        Ok(true) => Ok(()),
        Ok(false) => Err(NotBegun::NotClaimed(None)),
        Err(fault) => Err(NotBegun::NotClaimed(Some(fault))),
    }
}
