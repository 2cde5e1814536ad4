//! Requests that a dead process had claimed and never sent. No bus delivers them again, but whoever asked and had no answer
//! asks again, under the same id: then it runs, and has one outcome. What nobody asks for again ends as `rejected`, which is
//! agreed on with the other amibus where claims are shared, and recorded like any outcome.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    audit,
    engine::Engine,
    error::{Code, CommandError},
    follow::AWAY_RETRY,
    hold::Hold,
    journal::{JournalError, Open},
    response::Response,
    shared::Settled,
};

/// How long a requester who was not answered has at least for asking again, from the start on. More where requests wait longer
/// than that (`command.default_deadline`).
pub const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(60);
/// Requests that are looked at in one go.
const LOOKED_AT_ONCE: usize = 1000;

impl Engine {
    /// Ends the requests that a process before this one had claimed and never sent, once nobody has asked for them again
    /// `within` that time. At `stop` the rest is left to the next start. After [`Engine::recover`].
    pub async fn end_left_behind(self: Arc<Self>, within: Duration, stop: CancellationToken) {
        let mut pause = within;
        // One that is ended is not cut off amid it: only between two.
        while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
            match self.end_those_left(&stop).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => warn!(%error, "the journal does not tell which requests were never sent"),
            }
            pause = AWAY_RETRY;
        }
    }

    /// Tries each once. Answers how many there were.
    async fn end_those_left(&self, stop: &CancellationToken) -> Result<usize, JournalError> {
        let (mut count, mut after) = (0, String::new());
        loop {
            let behind = after.clone();
            let ids = self.blocking(move |journal| journal.left_behind(&behind, LOOKED_AT_ONCE)).await?;
            let Some(last) = ids.last() else { return Ok(count) };
            after.clone_from(last);
            count += ids.len();
            for id in ids {
                if stop.is_cancelled() {
                    return Ok(count);
                }
                if let Err(error) = self.end_left(&id).await {
                    warn!(id, %error, "a request that was never sent cannot be told of; trying again");
                }
            }
        }
    }

    /// What cannot be ended now is found again by the next try.
    async fn end_left(&self, id: &str) -> Result<(), JournalError> {
        // It is asked for again just now, or its claim is given back.
        let Some(_turn) = self.running.try_turn(id) else { return Ok(()) };
        let own_id = id.to_owned();
        // Asked for again since it was listed, it has another outcome, or none yet.
        let Some(one) = self.blocking(move |journal| journal.one_left_behind(&own_id)).await? else {
            return Ok(());
        };
        let error = CommandError::new(Code::Unavailable, "amibus was ended before it was sent");
        let response = Response::of_error(Some(one.id.clone()), &one.server, &one.action, error);
        match self.hold(id).await? {
            Some(hold) => self.end_shared(&one, &hold, &response).await,
            None => self.end_as(&one, &response).await,
        }
    }

    async fn end_shared(&self, one: &Open, hold: &Hold<'_>, response: &Response) -> Result<(), JournalError> {
        match hold.settle(response).await {
            Ok(Settled::Made) => self.end_as(one, response).await,
            Ok(Settled::Before(ending)) if ending.payload_hash == hold.payload_hash() => {
                self.ended_elsewhere(one, &ending).await;
                Ok(())
            }
            // Whoever has it tells of it; or the id went to another command.
            Ok(Settled::Before(_) | Settled::InWork(_)) => {
                let id = one.id.clone();
                self.blocking(move |journal| journal.release(&id)).await.map(drop)
            }
            Ok(Settled::Gone) => Ok(()),
            Err(fault) => {
                tracing::debug!(id = one.id, %fault, "the end of a request cannot be shared; trying again");
                Ok(())
            }
        }
    }

    async fn end_as(&self, one: &Open, response: &Response) -> Result<(), JournalError> {
        let server = self.servers.get(&one.server);
        let tell = || audit::recovered(one.sender.as_deref(), response);
        self.record(&one.id, server, response, tell).await?;
        self.counted(server, response);
        Ok(())
    }
}
