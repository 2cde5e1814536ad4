//! Shared claims of commands that were never sent, given back so that nobody waits for them: those of a process before
//! this one, and those that this one could not give back at once.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    audit,
    engine::Engine,
    follow::AWAY_RETRY,
    journal::{JournalError, Open},
    shared::{Ending, Seen},
};

/// Claims of a dead process that are looked at in one go.
const RELEASED_AT_ONCE: usize = 1000;
/// Ids whose claims could not be given back, as many as are tried again. Beyond, the next start does it.
const MAX_LEFT: usize = 10_000;

/// The ids of which a claim may have been left behind in this process, each answered already.
#[derive(Debug, Default)]
pub(super) struct Left {
    ids: Mutex<BTreeSet<String>>,
    more: Notify,
}

impl Left {
    pub(super) fn add(&self, id: &str) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() < MAX_LEFT {
            ids.insert(id.to_owned());
            self.more.notify_one();
        }
    }

    fn take(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Engine {
    /// Gives back the claims that a process before this one shared and never sent. At `stop` the rest is left: whoever comes
    /// upon one waits for the takeover time.
    pub async fn release_unsent(self: Arc<Self>, stop: CancellationToken) {
        if self.shared.is_none() {
            return;
        }
        let mut after = String::new();
        loop {
            let behind = after.clone();
            let ids = match self.blocking(move |journal| journal.claimed(&behind, RELEASED_AT_ONCE)).await {
                Ok(ids) => ids,
                Err(error) => {
                    return warn!(%error, "the journal does not tell what was claimed and never sent");
                }
            };
            let Some(last) = ids.last() else { return };
            after.clone_from(last);
            for id in ids {
                let released = async {
                    // What is in work again by now goes on with its claim.
                    while self.released(&id, false).await == Some(false) {
                        tokio::time::sleep(AWAY_RETRY).await;
                    }
                };
                if stop.run_until_cancelled(released).await.is_none() {
                    return;
                }
            }
        }
    }

    /// Gives back what this process could not, once the store answers again, until `stop`.
    pub async fn release_left(self: Arc<Self>, stop: CancellationToken) {
        let release = async {
            loop {
                self.left.more.notified().await;
                let mut ids = self.left.take();
                while !ids.is_empty() {
                    let mut again = self.left.take();
                    for id in ids {
                        if self.released(&id, true).await != Some(true) {
                            again.insert(id);
                        }
                    }
                    ids = again;
                    tokio::time::sleep(AWAY_RETRY).await;
                }
            }
        };
        stop.run_until_cancelled(release).await;
    }

    /// Whether the store answered, so that this one is over; `None`: it is in work. Holds up nobody who asks for the id
    /// later. `answered`: its sender was told that it was not sent, and its entry may yet be made.
    async fn released(&self, id: &str, answered: bool) -> Option<bool> {
        let _turn = self.running.try_turn(id)?;
        let own_id = id.to_owned();
        let unsent = self.blocking(move |journal| journal.unsent(&own_id)).await;
        let (one, hold) = match (unsent, self.hold(id).await) {
            (Ok(Some(one)), Ok(Some(hold))) => (one, hold),
            _ => return Some(true),
        };
        if answered {
            hold.may_yet_be_made();
        }
        let Ok(seen) = hold.release().await else { return Some(false) };
        if let Err(error) = self.given_back(one, hold.payload_hash(), seen, answered).await {
            warn!(id, %error, "a claim could not be released; it is when amibus starts again");
        }
        Some(true)
    }

    /// What becomes of a command that was never sent here, by what stood, or stands, under its id. What its bus delivers
    /// again is claimed anew then, here or elsewhere; what its requester may ask for again stays claimed in the journal.
    async fn given_back(
        &self,
        one: Open,
        hash: &str,
        seen: Seen,
        answered: bool,
    ) -> Result<(), JournalError> {
        match seen {
            // Another one ended it, or we did for an owner that seemed gone, and have not told it.
            Seen::Done(ending) if ending.payload_hash == hash => {
                self.ended_elsewhere(&one, &ending).await;
                Ok(())
            }
            Seen::Free | Seen::Ours(_) if !one.durable && !answered => Ok(()),
            _ => self.blocking(move |journal| journal.release(&one.id)).await.map(drop),
        }
    }

    pub(super) async fn ended_elsewhere(&self, one: &Open, ending: &Ending) {
        let tell = || audit::recovered_elsewhere(one, ending);
        self.adopt(self.servers.get(&one.server), &one.id, &one.action, ending, tell).await;
    }
}
