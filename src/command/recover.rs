//! What a process that died left in the journal, looked at before any command is taken.

use std::sync::Arc;

use tracing::warn;

use super::{
    engine::Engine,
    error::{Code, CommandError},
    journal::JournalError,
    response::{self, Response},
};

/// Commands of a dead process that are looked at in one go.
const RECOVERED_AT_ONCE: usize = 1000;

impl Engine {
    /// Records `unknown` for what a dead process had begun to send, and publishes it. Once, before any command.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn recover(self: &Arc<Self>) -> Result<usize, JournalError> {
        self.publish_recorded().await?;
        let mut count = 0;
        loop {
            let open = self.blocking(|journal| journal.interrupted(RECOVERED_AT_ONCE)).await?;
            if open.is_empty() {
                return Ok(count);
            }
            for one in open {
                let text = "amibus was ended between sending it and recording what became of it";
                let error = CommandError::new(Code::Interrupted, text);
                let response = Response::of_error(Some(one.id.clone()), &one.server, &one.action, error);
                warn!(id = one.id, server = one.server, action = one.action, "outcome unknown after a crash");
                self.record(&one.id, self.servers.get(&one.server), &response).await?;
                count += 1;
            }
        }
    }

    /// Publishes outcomes that were recorded just before a process died.
    async fn publish_recorded(&self) -> Result<(), JournalError> {
        loop {
            let left = self.blocking(|journal| journal.unpublished(RECOVERED_AT_ONCE)).await?;
            if left.is_empty() {
                return Ok(());
            }
            for (one, data) in left {
                let (writer, spool) = self.place(self.servers.get(&one.server));
                let message = response::append(writer, spool, Some(&one.id), &one.action, &data);
                self.blocking(move |journal| journal.published(&one.id, &message.body)).await?;
            }
        }
    }
}
