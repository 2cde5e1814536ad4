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

use amibus_contract::{Claims, Fault, FaultKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    decode::hex,
    error::{Code, CommandError},
    hold::Hold,
    journal::Open,
    owned::Owned,
    response::Response,
};

/// The longest `data` of a response that other instances can answer with; of a longer one they have the outcome and the
/// error alone.
pub const MAX_SHARED_RESPONSE_BYTES: usize = 64 * 1024;
/// Entries that cannot be read are told of so often at most.
const UNREADABLE_TOLD_EVERY: Duration = Duration::from_secs(60);

/// The claims of this deployment, as one process sees them.
pub struct Shared {
    pub(super) claims: Arc<dyn Claims>,
    /// What keys are made of beside the id: deployments of another prefix are others.
    prefix: String,
    /// What this process calls itself, for a person who looks.
    instance: String,
    takeover: Duration,
    away: AtomicBool,
    /// When it was told last that an entry cannot be read.
    told: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Sending,
    Done,
}

/// An entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Claimed {
    pub(super) id: String,
    pub(super) server: String,
    pub(super) action: String,
    pub(super) payload_hash: String,
    /// Whose it is: while it is sent, who sends it; once it is done, who said so.
    pub(super) nonce: String,
    pub(super) instance: String,
    /// When it was written, by the writer's clock, RFC 3339.
    pub(super) at: String,
    pub(super) state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) response: Option<Box<RawValue>>,
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
    /// Somebody else is at it, at this revision.
    InWork(u64),
    /// The entry that it should be said over is gone.
    Gone,
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
            log_from: None,
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
        Self { claims, prefix, instance, takeover, away: AtomicBool::new(false), told: Mutex::new(None) }
    }

    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn takeover(&self) -> Duration {
        self.takeover
    }

    /// Whether the store did not answer when it was asked last.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Acquire)
    }

    /// Our hand on one command.
    pub(super) fn hold(&self, owned: Owned) -> Hold<'_> {
        let mut hash = Sha256::new();
        for part in [&self.prefix, &owned.id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Hold::new(self, hex(&hash.finalize()), owned)
    }

    /// Tells once when the store goes away and when it is back, however many commands wait for it.
    pub(super) fn noted<T>(&self, result: Result<T, Fault>) -> Result<T, Fault> {
        let away = matches!(&result, Err(fault) if fault.kind != FaultKind::TooLarge);
        if self.away.swap(away, Ordering::AcqRel) != away {
            match &result {
                Err(fault) => warn!(%fault, "claims cannot be shared now: no command is sent until they can"),
                Ok(_) => info!("claims are shared again"),
            }
        }
        result
    }

    /// Tells of an entry that cannot be read: its command waits until somebody removes it.
    pub(super) fn unreadable(&self, why: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= UNREADABLE_TOLD_EVERY) {
            *told = Some(Instant::now());
            warn!("{why}; its command is not sent while it is there");
        }
    }
}

/// What a requester is told while claims cannot be shared.
pub(super) fn not_shared(fault: &Fault) -> CommandError {
    let text = format!("its claim could not be shared with the other amibus, so it was not sent: {fault}");
    CommandError::new(Code::NotRecorded, text)
}
