//! What the journal, and the claim that is shared, are told of a command on its way to the socket.

use std::sync::Arc;

use tracing::warn;

use super::{
    begun::Beginning,
    engine::{Engine, RECORD_RETRY, Server},
    hold::{Hold, claim, still_ours},
    journal::Journal,
    send::{Call, NotBegun},
};
use crate::failpoint;

/// Marks one command that holds its claim.
pub(super) struct Marks<'a> {
    pub(super) engine: &'a Engine,
    pub(super) server: &'a Server,
    pub(super) id: &'a str,
    /// Where claims are shared.
    pub(super) hold: Option<&'a Hold<'a>>,
    /// Where the bus keeps what is begun.
    pub(super) begin: Option<Beginning<'a>>,
}

impl Marks<'_> {
    /// Claims the command in front of others, or has the bus keep that it is begun; then puts on disk that it will be sent.
    ///
    /// # Errors
    /// Why nothing may be written.
    pub(super) async fn sending(&self, call: Call) -> Result<(), NotBegun> {
        claim(self.hold).await?;
        if let Some(begin) = &self.begin {
            begin.begin(self.id).await?;
        }
        failpoint::hit("shared_claimed");
        let (id, Call { channel_id, pace }) = (self.id.to_owned(), call);
        let spool = Arc::clone(&self.server.spool);
        // The number is taken at the desk, behind whatever was seen there of what is wanted of the log.
        let record = move |journal: &Journal| {
            journal.sending_call(&id, channel_id.as_deref(), &pace, Some(spool.next()))
        };
        let recorded = self.engine.blocking(record).await;
        recorded.map_err(|error| NotBegun::NotRecorded(error.to_string()))?;
        let ours = match &self.begin {
            Some(begin) => begin.still_ours(self.id).await,
            None => still_ours(self.hold).await,
        };
        if ours.is_err() {
            self.unsend().await;
        }
        ours
    }

    /// Takes all of that back, in the opposite order, before a command waits again of which no byte was written: amibus may
    /// end in that wait, and another one may send it meanwhile.
    pub(super) async fn step_back(&self) {
        self.unsend().await;
        if let Some(begin) = &self.begin {
            begin.take_back();
        }
        if let Some(hold) = self.hold
            && let Err(fault) = hold.release().await
        {
            warn!(id = self.id, %fault, "a claim could not be given back; it stays ours");
        }
    }

    /// Keeps Asterisk's Success of a call whose end is waited for.
    pub(super) async fn accepted(&self, answer: Vec<u8>) {
        let id = self.id.to_owned();
        if let Err(error) = self.engine.blocking(move |journal| journal.accepted(&id, &answer)).await {
            let id = self.id;
            warn!(id, %error, "the journal does not keep that Asterisk took it; a crash would make it unknown");
        }
    }

    /// Goes on trying: as long as the journal says that it is being sent, nobody can tell that it was not.
    async fn unsend(&self) {
        loop {
            let id = self.id.to_owned();
            match self.engine.blocking(move |journal| journal.unsend(&id)).await {
                Ok(()) => return,
                Err(error) => {
                    let id = self.id;
                    warn!(id, %error, "a command that was not sent is still marked as being sent; trying again");
                    tokio::time::sleep(RECORD_RETRY).await;
                }
            }
        }
    }
}
