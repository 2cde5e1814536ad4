//! A command that another amibus may have: looked at before it is sent, waited for while it is sent there, and taken over
//! when its owner seems gone. And our own outcome, which counts once it is shared.

use std::time::{Duration, SystemTime};

use amibus_contract::Fault;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    engine::{Engine, RECORD_RETRY, Server},
    error::{Code, CommandError, Outcome},
    evidence,
    hold::Hold,
    journal::{JournalError, Open},
    response::{Response, channel_id},
    shared::{self, Claimed, Ending, Seen, Settled, Shared},
};

/// How soon a command that another amibus sends is looked at again; doubled up to [`POLL_MAX`].
const POLL_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two such looks.
const POLL_MAX: Duration = Duration::from_secs(2);
/// The pause after a store that did not answer, before a command that can wait asks again.
pub(super) const AWAY_RETRY: Duration = Duration::from_secs(1);
/// An outcome that could not be shared for so long is kept in the own journal meanwhile.
const KEPT_AFTER: Duration = Duration::from_millis(250);

/// What a look found for us to do.
pub(super) enum Next {
    /// To send it, once it is claimed.
    Ours,
    /// To answer this.
    Ended(Ending),
    /// To say why not.
    Rejected(CommandError),
    /// To leave it to its bus.
    Stopped,
}

/// An entry of somebody else, as long as it stays as it is.
struct Watched {
    revision: u64,
    since: Instant,
}

/// Since when an entry is seen at this revision.
fn unchanged(watched: &mut Option<Watched>, revision: u64) -> Instant {
    match watched {
        Some(seen) if seen.revision == revision => seen.since,
        _ => watched.insert(Watched { revision, since: Instant::now() }).since,
    }
}

impl Engine {
    /// Our hand on a command's claim; `None` where claims are not shared.
    pub(super) async fn hold(&self, id: &str) -> Result<Option<Hold<'_>>, JournalError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let id = id.to_owned();
        let owned = self.blocking(move |journal| journal.owned(&id)).await?;
        Ok(owned.map(|owned| shared.hold(owned)))
    }

    /// Waits until nobody looks for a call of this id any more. `None`: amibus leaves, or the outcome cannot be shared now and
    /// `until` has passed. It may have been sent, so whoever does not wait longer is told nothing.
    pub(super) async fn looked_up(
        &self,
        id: &str,
        until: Option<Instant>,
        stop: &CancellationToken,
    ) -> Option<()> {
        let is_sought = self.looking_up.borrow().contains(id);
        if !is_sought {
            return Some(());
        }
        let mut looking_up = self.looking_up.subscribe();
        let in_vain = async {
            let Some(until) = until else { return std::future::pending().await };
            tokio::time::sleep_until(until).await;
            while !self.shared.as_ref().is_some_and(Shared::is_away) {
                tokio::time::sleep(AWAY_RETRY).await;
            }
        };
        tokio::select! {
            ended = looking_up.wait_for(|ids| !ids.contains(id)) => ended.ok().map(drop),
            () = stop.cancelled() => None,
            () = in_vain => None,
        }
    }

    /// Waits until the command is ours to send, has ended, or cannot be known. While another amibus works on it, that is
    /// until its end; a store that does not answer is waited for where the bus keeps the command meanwhile.
    pub(super) async fn look(
        &self,
        server: &Server,
        hash: &str,
        hold: &Hold<'_>,
        may_wait: bool,
        stop: &CancellationToken,
    ) -> Next {
        let (mut pause, mut watched) = (POLL_MIN, None::<Watched>);
        loop {
            let found = match hold.look().await {
                Ok(found) => found,
                // Nobody knows whether it was sent: that it was not may not be said.
                Err(_) if !may_wait && watched.is_some() => return Next::Stopped,
                Err(fault) if !may_wait => return Next::Rejected(shared::not_shared(&fault)),
                // While the store was away, its owner could not renew it either: it is watched anew.
                Err(_) => match stop.run_until_cancelled(tokio::time::sleep(AWAY_RETRY)).await {
                    Some(()) => {
                        watched = None;
                        continue;
                    }
                    None => return Next::Stopped,
                },
            };
            let (claimed, revision) = match found {
                Seen::Free | Seen::Ours(_) => return Next::Ours,
                Seen::Done(ending) if ending.payload_hash == hash => return Next::Ended(ending),
                Seen::Theirs(claimed, revision) if claimed.payload_hash == hash => (claimed, revision),
                Seen::Done(_) | Seen::Theirs(..) => return Next::Rejected(reused()),
            };
            if watched.as_ref().is_none_or(|seen| seen.revision != revision) {
                pause = POLL_MIN;
            }
            let since = unchanged(&mut watched, revision);
            if since.elapsed() >= self.takeover() {
                let taking = self.take_over(server, hold, &claimed, revision);
                match stop.run_until_cancelled(taking).await {
                    Some(None) => {}
                    Some(Some(turn)) => return turn,
                    None => return Next::Stopped,
                }
            }
            // It was sent, or will be: nobody is told that it was not, and whoever asks again gets its outcome.
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Next::Stopped;
            }
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Ends a command whose owner was not heard of for long: by the call's evidence, or as unknown. `None`: the owner, or
    /// another one, was faster: it goes on, or has given it back.
    async fn take_over(
        &self,
        server: &Server,
        hold: &Hold<'_>,
        claimed: &Claimed,
        revision: u64,
    ) -> Option<Next> {
        let call = claimed.as_open();
        warn!(id = call.id, owner = claimed.instance, since = %claimed.at, "the owner of a claim seems gone");
        let event = match call.is_originate() {
            true => {
                let channel = channel_id(&call.server, &call.id);
                // Its owner knows a number, in another log, and a time, by another clock.
                let before = SystemTime::now().checked_sub(self.takeover()).unwrap_or(SystemTime::UNIX_EPOCH);
                let since = evidence::sent_at(call.sent_at.unwrap_or(SystemTime::UNIX_EPOCH).min(before));
                self.doubts.look(&call.server, server, &channel, since).await
            }
            false => None,
        };
        let response = match event {
            Some(event) => Response::of_evidence(&call.id, &call.server, &call.action, None, Some(event)),
            None => {
                let text = format!(
                    "another amibus ({}) began to send it, and was not heard of for {:?}",
                    claimed.instance,
                    self.takeover()
                );
                let error = CommandError::new(Code::Interrupted, text);
                Response::of_error(Some(call.id.clone()), &call.server, &call.action, error)
            }
        };
        match hold.settle_over(&response, revision).await {
            Ok(Settled::Made) => {
                let payload_hash = claimed.payload_hash.clone();
                let instance = self.shared.as_ref().map(Shared::instance).unwrap_or_default();
                Some(Next::Ended(Ending::own(&response, payload_hash, instance)))
            }
            Ok(Settled::Before(ending)) => Some(Next::Ended(ending)),
            Ok(Settled::InWork(_) | Settled::Gone) | Err(_) => None,
        }
    }

    /// Shares the outcome before it is recorded anywhere else. Answers the outcome that was shared before ours, which then
    /// counts. Goes on trying: until it is shared, nobody is told of it. One that is not shared soon is kept in the
    /// journal, so that a process after this one knows it.
    ///
    /// # Errors
    /// That another amibus is at it: only where we did not send it.
    pub(super) async fn share(
        &self,
        hold: &Hold<'_>,
        response: &Response,
        was_sent: bool,
    ) -> Result<Option<Ending>, Elsewhere> {
        let sharing = self.agree(hold, response, was_sent);
        tokio::pin!(sharing);
        if let Ok(shared) = tokio::time::timeout(KEPT_AFTER, &mut sharing).await {
            return shared;
        }
        // A process after this one may yet find what is unknown to this one.
        let is_known = was_sent && response.outcome != Outcome::Unknown;
        if let (true, Some(id)) = (is_known, response.id.clone()) {
            let (own_id, outcome, data) = (id.clone(), response.outcome.as_str(), response.data());
            if let Err(error) = self.blocking(move |journal| journal.ended(&own_id, outcome, &data)).await {
                warn!(id, %error, "the journal does not keep an outcome that is not shared yet");
            }
        }
        sharing.await
    }

    async fn agree(
        &self,
        hold: &Hold<'_>,
        response: &Response,
        was_sent: bool,
    ) -> Result<Option<Ending>, Elsewhere> {
        let mut watched = None;
        loop {
            let settled = match hold.settle(response).await {
                Ok(Settled::InWork(_)) if !was_sent => return Err(Elsewhere),
                // The store lost our claim, and another one took the command up: it gives it back, ends it, or dies.
                Ok(Settled::InWork(revision))
                    if unchanged(&mut watched, revision).elapsed() >= self.takeover() =>
                {
                    hold.settle_over(response, revision).await
                }
                settled => settled,
            };
            match settled {
                Ok(Settled::Made) => return Ok(None),
                Ok(Settled::Before(ending)) => return Ok(Some(ending)),
                Ok(Settled::InWork(_) | Settled::Gone) => {}
                Err(fault) => {
                    watched = None;
                    tracing::debug!(id = response.id, %fault, "an outcome cannot be shared; trying again");
                }
            }
            tokio::time::sleep(RECORD_RETRY).await;
        }
    }

    pub(super) fn takeover(&self) -> Duration {
        self.shared.as_ref().map(Shared::takeover).unwrap_or_default()
    }
}

/// Another amibus is at it.
#[derive(Debug)]
pub(super) struct Elsewhere;

/// What a store that did not answer means for a command that is not sent: it waits a little, or is rejected.
pub(super) async fn not_claimed(
    fault: Option<Fault>,
    may_wait: bool,
    stop: &CancellationToken,
) -> Option<Next> {
    match fault {
        None => None,
        Some(fault) if !may_wait => Some(Next::Rejected(shared::not_shared(&fault))),
        Some(_) => match stop.run_until_cancelled(tokio::time::sleep(AWAY_RETRY)).await {
            Some(()) => None,
            None => Some(Next::Stopped),
        },
    }
}

fn reused() -> CommandError {
    let text = "the id was used before for another payload, by another amibus; an id is for one command";
    CommandError::at(Code::IdReused, "id", text)
}

impl Open {
    pub(super) fn is_originate(&self) -> bool {
        self.action.eq_ignore_ascii_case("Originate")
    }
}
