//! The claim that several amibus share: of those that a command is delivered to, one sends it.
//!
//! An entry a command, in a store that the bus keeps ([`Claims`]), under a digest of prefix and id. It is JSON:
//! `{"id","server","action","payload_hash","nonce","instance","at","state","outcome","response"}`.
//!
//! | state | what is known | who may change it |
//! |---|---|---|
//! | none | nobody sends it | whoever creates the entry |
//! | `sending` | the owner of the nonce sends it, or is about to | the owner: to `done`, or away where nothing was sent; anybody to `done`, once it was seen unchanged for `command.claim_takeover` |
//! | `done` | its one outcome, the `nonce` being whose it is | nobody |
//!
//! Every change carries the revision that it changes, so of two that end a command one wins, and the other takes over
//! the winner's outcome. The owner writes the entry anew every third of the takeover time while it works on it. How long
//! one was not changed is measured where it is watched, so that no two clocks have to agree.
//!
//! The nonce stands in the own journal since before the entry was made. So an entry whose creation was never confirmed,
//! because its answer was lost or amibus died, is recognised; while the journal says `claimed`, nothing was sent.
//!
//! Limits: a response over [`MAX_SHARED_RESPONSE_BYTES`] is kept without what Asterisk said; entries age with the store.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use amibus_contract::{
    Bytes, Claims, Fault, FaultKind,
    claims::{Created, Entry, Updated},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    decode::hex,
    error::{Code, CommandError},
    journal::Open,
    owned::Owned,
    response::Response,
    send::NotBegun,
};

/// The longest `data` of a response that other instances can answer with; of a longer one they have the outcome and the
/// error alone.
pub const MAX_SHARED_RESPONSE_BYTES: usize = 64 * 1024;
/// The owner writes its entry anew so many times within the takeover time.
const REFRESHES_PER_TAKEOVER: u32 = 3;
/// How often an entry that changes under one's hands is tried anew.
const TRIES: u32 = 8;

/// The claims of this deployment, as one process sees them.
pub struct Shared {
    claims: Arc<dyn Claims>,
    /// What keys are made of beside the id: deployments of another prefix are others.
    prefix: String,
    /// What this process calls itself, for a person who looks.
    instance: String,
    takeover: Duration,
    away: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Sending,
    Done,
}

/// An entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claimed {
    id: String,
    server: String,
    action: String,
    pub(super) payload_hash: String,
    /// Whose it is: while it is sent, who sends it; once it is done, who said so.
    pub(super) nonce: String,
    pub(super) instance: String,
    /// When it was written, by the writer's clock, RFC 3339.
    pub(super) at: String,
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<Box<RawValue>>,
}

/// An outcome that all share.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    pub(super) outcome: String,
    /// The response's `data`, JSON.
    pub(super) response: Vec<u8>,
    pub(super) payload_hash: String,
    /// Whether this process said so, and has to publish it.
    pub(super) ours: bool,
    pub(super) instance: String,
}

/// What is found under an id.
#[derive(Debug)]
pub(super) enum Seen {
    /// Nobody sends it.
    Free,
    /// We claimed it.
    Ours(u64),
    /// Somebody else sends it, or did.
    Theirs(Box<Claimed>, u64),
    /// It has ended.
    Done(Ending),
}

/// What became of saying how a command ended.
pub(super) enum Settled {
    /// It is as we said.
    Made,
    /// It was said before.
    Before(Ending),
    /// Somebody else is at it.
    InWork,
}

impl Claimed {
    /// The command as a process that died would have left it.
    pub(super) fn as_open(&self) -> Open {
        Open {
            id: self.id.clone(),
            server: self.server.clone(),
            action: self.action.clone(),
            sender: None,
            sent_at: self.at.parse::<Timestamp>().ok().map(Into::into),
            since: None,
            response: None,
            durable: true,
        }
    }
}

impl Ending {
    /// The outcome that we have just shared.
    pub(super) fn own(response: &Response, payload_hash: String, instance: &str) -> Self {
        Self {
            outcome: response.outcome.as_str().to_owned(),
            response: response.data(),
            payload_hash,
            ours: true,
            instance: instance.to_owned(),
        }
    }
}

impl Shared {
    /// The claims in a store. `takeover` is how long an entry must be unchanged until its owner counts as gone.
    pub fn new(claims: Arc<dyn Claims>, prefix: &str, instance: &str, takeover: Duration) -> Self {
        let (prefix, instance) = (prefix.to_owned(), instance.to_owned());
        Self { claims, prefix, instance, takeover, away: AtomicBool::new(false) }
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn takeover(&self) -> Duration {
        self.takeover
    }

    /// Our hand on one command.
    pub(super) fn hold(&self, owned: Owned) -> Hold<'_> {
        let mut hash = Sha256::new();
        for part in [&self.prefix, &owned.id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Hold {
            shared: self,
            key: hex(&hash.finalize()),
            owned,
            taken: Mutex::new(None),
            tried: AtomicBool::new(false),
        }
    }

    /// Tells once when the store goes away and when it is back, however many commands wait for it.
    fn noted<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        let away = matches!(&result, Err(fault) if fault.kind != FaultKind::TooLarge);
        if self.away.swap(away, Ordering::AcqRel) != away {
            match &result {
                Err(fault) => warn!(%fault, "claims cannot be shared now: no command is sent until they can"),
                Ok(_) => info!("claims are shared again"),
            }
        }
        result
    }
}

/// Our hand on one command's claim. It holds nothing until [`Hold::take`].
pub(super) struct Hold<'a> {
    shared: &'a Shared,
    key: String,
    owned: Owned,
    /// The entry's revision as we last knew it, and from when on it is known to stand.
    taken: Mutex<Option<(u64, Instant)>>,
    /// Whether it was tried to make one.
    tried: AtomicBool,
}

impl Hold<'_> {
    /// What there is under this id.
    pub(super) async fn look(&self) -> Result<Seen, Fault> {
        let asked = Instant::now();
        match self.shared.noted(self.shared.claims.read(&self.key).await)? {
            None => Ok(Seen::Free),
            Some(entry) => self.seen(entry, asked),
        }
    }

    /// Claims the command, unless it is claimed.
    pub(super) async fn take(&self) -> Result<Seen, Fault> {
        self.tried.store(true, Ordering::Release);
        let asked = Instant::now();
        let created = self.shared.claims.create(&self.key, self.value(None)?).await;
        match self.shared.noted(created)? {
            Created::Made(revision) => {
                self.remember(Some((revision, asked)));
                Ok(Seen::Ours(revision))
            }
            Created::Exists(entry) => self.seen(entry, asked),
        }
    }

    /// Makes sure that our claim stands for a while from now on: what comes before the socket may have taken its time.
    /// Answers whether it is ours.
    pub(super) async fn fresh(&self) -> Result<bool, Fault> {
        let taken = self.taken();
        match taken {
            Some((_, since)) if since.elapsed() < self.shared.takeover / 2 => Ok(true),
            _ => self.refresh().await,
        }
    }

    /// Runs `work`, writing the entry anew meanwhile once it is ours.
    pub(super) async fn keeping<T>(&self, work: impl Future<Output = T>) -> T {
        let keep = async {
            loop {
                tokio::time::sleep(self.shared.takeover / REFRESHES_PER_TAKEOVER).await;
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

    /// Says how the command ended, unless that was said before.
    pub(super) async fn settle(&self, response: &Response) -> Result<Settled, Fault> {
        self.settle_over(response, self.taken().map(|(revision, _)| revision)).await
    }

    /// The same over an entry that need not be ours.
    pub(super) async fn settle_over(
        &self,
        response: &Response,
        mut revision: Option<u64>,
    ) -> Result<Settled, Fault> {
        let mut value = self.value(Some((response, MAX_SHARED_RESPONSE_BYTES)))?;
        for _ in 0..TRIES {
            let asked = Instant::now();
            let met = match self.write(value.clone(), revision).await {
                Ok(None) => {
                    self.remember(None);
                    return Ok(Settled::Made);
                }
                Ok(Some(met)) => met,
                Err(fault) if fault.kind == FaultKind::TooLarge => {
                    value = self.value(Some((response, 0)))?;
                    continue;
                }
                Err(fault) => return Err(fault),
            };
            revision = match met.map(|entry| self.seen(entry, asked)).transpose()? {
                None | Some(Seen::Free) => None,
                Some(Seen::Ours(revision)) => Some(revision),
                Some(Seen::Theirs(..)) => return Ok(Settled::InWork),
                Some(Seen::Done(ending)) => return Ok(Settled::Before(ending)),
            };
        }
        Err(self.restless())
    }

    /// Takes the claim back: nothing was sent.
    pub(super) async fn release(&self) -> Result<(), Fault> {
        if self.taken().is_none() && !self.tried.load(Ordering::Acquire) {
            return Ok(());
        }
        for _ in 0..TRIES {
            let revision = match self.look().await? {
                Seen::Ours(revision) => revision,
                _ => return Ok(()),
            };
            if self.shared.noted(self.shared.claims.delete(&self.key, revision).await)? {
                self.remember(None);
                return Ok(());
            }
        }
        Err(self.restless())
    }

    async fn refresh(&self) -> Result<bool, Fault> {
        let (value, asked) = (self.value(None)?, Instant::now());
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

    fn seen(&self, entry: Entry, asked: Instant) -> Result<Seen, Fault> {
        let unreadable = |why: String| {
            let text = format!("the claim of {:?} ({}) cannot be read: {why}", self.owned.id, self.key);
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
            instance: self.shared.instance.clone(),
            at: Timestamp::now().to_string(),
            state: if ended.is_some() { State::Done } else { State::Sending },
            outcome: ended.map(|(response, _)| response.outcome.as_str().to_owned()),
            response,
        };
        Ok(serde_json::to_vec(&claimed).map_err(unwritable)?.into())
    }

    fn taken(&self) -> Option<(u64, Instant)> {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, taken: Option<(u64, Instant)>) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = taken;
    }

    fn restless(&self) -> Fault {
        let text = format!("the claim of {:?} changes faster than it can be changed", self.owned.id);
        Fault::new(FaultKind::TimedOut, text)
    }
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

/// What a requester is told while claims cannot be shared.
pub(super) fn not_shared(fault: &Fault) -> CommandError {
    let text = format!("its claim could not be shared with the other amibus, so it was not sent: {fault}");
    CommandError::new(Code::NotRecorded, text)
}
