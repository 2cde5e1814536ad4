//! A command that another amibus may have: looked at before it is sent, waited for while it is sent there, taken over
//! when its owner seems gone, and answered with the outcome that all share.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use amibus_contract::{Fault, Kind, Message};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    engine::{Engine, RECORD_RETRY, Server},
    error::{Code, CommandError},
    journal::{JournalError, Open},
    response::{Response, channel_id},
    shared::{self, Claimed, Ending, Hold, Seen, Settled, Shared},
};
use crate::normalize::Notice;

/// How soon a command that another amibus sends is looked at again; doubled up to [`POLL_MAX`].
const POLL_MIN: Duration = Duration::from_millis(50);
/// The longest pause between two such looks.
const POLL_MAX: Duration = Duration::from_secs(2);
/// The pause after a store that did not answer, before a command that can wait asks again.
const AWAY_RETRY: Duration = Duration::from_secs(1);
/// Claims of a dead process that are looked at in one go.
const RELEASED_AT_ONCE: usize = 1000;

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

impl Engine {
    /// Our hand on a command's claim; `None` where claims are not shared.
    pub(super) async fn hold(&self, id: &str) -> Result<Option<Hold<'_>>, JournalError> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let id = id.to_owned();
        let owned = self.blocking(move |journal| journal.owned(&id)).await?;
        Ok(owned.map(|owned| shared.hold(owned)))
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
            let since = match &watched {
                Some(seen) if seen.revision == revision => seen.since,
                _ => {
                    pause = POLL_MIN;
                    watched.insert(Watched { revision, since: Instant::now() }).since
                }
            };
            if since.elapsed() >= self.takeover()
                && let Some(turn) = self.take_over(server, hold, &claimed, revision).await
            {
                return turn;
            }
            if may_wait {
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return Next::Stopped;
                }
            } else {
                tokio::time::sleep(pause).await;
            }
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// Ends a command whose owner was not heard of for long: by the call's evidence, or as unknown. `None`: the owner, or
    /// another one, was faster.
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
                let (channel, since) = (channel_id(&call.server, &call.id), call.sent_at);
                let since = since.unwrap_or(SystemTime::UNIX_EPOCH);
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
        match hold.settle_over(&response, Some(revision)).await {
            Ok(Settled::Made) => {
                let payload_hash = claimed.payload_hash.clone();
                let instance = self.shared.as_ref().map(Shared::instance).unwrap_or_default();
                Some(Next::Ended(Ending::own(&response, payload_hash, instance)))
            }
            Ok(Settled::Before(ending)) => Some(Next::Ended(ending)),
            Ok(Settled::InWork) | Err(_) => None,
        }
    }

    /// Shares the outcome before it is recorded anywhere else. Answers the outcome that was shared before ours, which then
    /// counts. Goes on trying: until it is shared, nobody is told of it.
    ///
    /// # Errors
    /// That another amibus is at it: possible only where we sent nothing.
    pub(super) async fn share(
        &self,
        hold: &Hold<'_>,
        response: &Response,
    ) -> Result<Option<Ending>, Elsewhere> {
        loop {
            match hold.settle(response).await {
                Ok(Settled::Made) => return Ok(None),
                Ok(Settled::Before(ending)) => return Ok(Some(ending)),
                Ok(Settled::InWork) => return Err(Elsewhere),
                Err(fault) => {
                    tracing::debug!(id = response.id, %fault, "an outcome cannot be shared; trying again");
                    tokio::time::sleep(RECORD_RETRY).await;
                }
            }
        }
    }

    /// Records an outcome that is shared, and makes the message that answers it: the published one where it is ours to
    /// publish, else one for who asked alone. Goes on trying, as for any outcome.
    pub(super) async fn adopt(
        &self,
        server: Option<&Server>,
        id: &str,
        action: &str,
        ending: &Ending,
        tell: impl Fn(),
    ) -> Message {
        let outcome: &'static str =
            super::Outcome::parse(&ending.outcome).unwrap_or(super::Outcome::Unknown).as_str();
        if ending.ours {
            server.map_or(&self.nowhere.metrics, |server| &server.metrics).finished(outcome).inc();
        }
        loop {
            let recorded = match ending.ours {
                true => self.record_data(id, server, action, outcome, ending.response.clone(), &tell).await,
                false => self.record_aside(id, server, action, outcome, &ending.response, &tell).await,
            };
            match recorded {
                Ok(message) => return message,
                Err(error) => {
                    tracing::error!(id, %error, "an outcome cannot be recorded; trying again");
                    tokio::time::sleep(RECORD_RETRY).await;
                }
            }
        }
    }

    /// As [`Engine::record_data`], without publishing: who said so does that.
    async fn record_aside(
        &self,
        id: &str,
        server: Option<&Server>,
        action: &str,
        outcome: &'static str,
        data: &[u8],
        tell: impl FnOnce(),
    ) -> Result<Message, JournalError> {
        let (own_id, own_data) = (id.to_owned(), data.to_vec());
        let nonce = self
            .blocking(move |journal| {
                journal.done(&own_id, outcome, &own_data)?;
                journal.owned(&own_id)
            })
            .await?
            .map(|owned| owned.nonce)
            .unwrap_or_default();
        tell();
        let notice = Notice {
            kind: Kind::Response,
            name: if action.is_empty() { "Unknown" } else { action },
            subject: None,
            key: Some(id),
            correlation: Some(id),
            data,
        };
        let mut message = self.place(server).0.notice_aside(&nonce, &notice, SystemTime::now());
        // It has no place in the server's sequence.
        message.attributes.sequence = None;
        let (own_id, body) = (id.to_owned(), message.body.clone());
        self.blocking(move |journal| journal.published(&own_id, &body)).await?;
        Ok(message)
    }

    /// Gives back the claims that a process before this one shared and never sent, so that nobody waits for it, and
    /// forgets those of them that no bus delivers again. At `stop` the rest is left: whoever comes upon one waits for the
    /// takeover time.
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
                if stop.run_until_cancelled(self.release_one(&id)).await.is_none() {
                    return;
                }
            }
        }
    }

    async fn release_one(&self, id: &str) {
        // What is in work again by now goes on with its claim.
        let Some(_turn) = self.running.try_turn(id) else { return };
        loop {
            let own_id = id.to_owned();
            let unsent = self.blocking(move |journal| journal.unsent(&own_id)).await;
            let (one, hold) = match (unsent, self.hold(id).await) {
                (Ok(Some(one)), Ok(Some(hold))) => (one, hold),
                _ => return,
            };
            let released = match hold.look().await {
                Ok(seen) => hold.release().await.map(|()| seen),
                Err(fault) => Err(fault),
            };
            match released {
                Ok(_) if one.durable => return,
                Ok(seen) => {
                    let forgotten = match seen {
                        Seen::Free | Seen::Ours(_) => self.forget_unsent(one).await,
                        // It has an outcome, or will: of another amibus, to which it was sent as well.
                        Seen::Theirs(..) | Seen::Done(_) => {
                            self.blocking(move |journal| journal.release(&one.id)).await.map(drop)
                        }
                    };
                    if let Err(error) = forgotten {
                        warn!(id, %error, "a claim could not be released; it is when amibus starts again");
                    }
                    return;
                }
                Err(_) => tokio::time::sleep(AWAY_RETRY).await,
            }
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
