//! An outcome on its way: into the journal, into the spool for every bus, and back to whoever asked.

use amibus_contract::Message;
use tracing::warn;

use super::{
    decode::Command,
    engine::{Engine, Server},
    journal::{JournalError, Record},
    response::{self, Response},
};
use crate::{failpoint, spool::Spool, writer::Writer};

impl Engine {
    /// Journal first, then the spool for the buses, then the journal again with what is published. An outcome that the
    /// spool may yet lose stays unpublished in the journal, and the next start publishes it. `tell` is called once it is in
    /// the journal: told of before that, it might yet become another one.
    pub(super) async fn record(
        &self,
        id: &str,
        server: Option<&Server>,
        response: &Response,
        tell: impl FnOnce(),
    ) -> Result<Message, JournalError> {
        let (own_id, outcome, data) = (id.to_owned(), response.outcome.as_str(), response.data());
        self.blocking(move |journal| journal.done(&own_id, outcome, &data)).await?;
        failpoint::hit("outcome_recorded");
        tell();
        let message = self.append(server, response);
        self.keep(id, server, message).await
    }

    /// The same of a response's `data`.
    pub(super) async fn record_data(
        &self,
        id: &str,
        server: Option<&Server>,
        action: &str,
        outcome: &'static str,
        data: Vec<u8>,
        tell: impl FnOnce(),
    ) -> Result<Message, JournalError> {
        let (own_id, own_data) = (id.to_owned(), data.clone());
        self.blocking(move |journal| journal.done(&own_id, outcome, &own_data)).await?;
        failpoint::hit("outcome_recorded");
        tell();
        let (writer, spool) = self.place(server);
        let message = response::append(writer, spool, Some(id), action, &data);
        self.keep(id, server, message).await
    }

    async fn keep(
        &self,
        id: &str,
        server: Option<&Server>,
        message: Message,
    ) -> Result<Message, JournalError> {
        if !self.written(server, &message).await {
            warn!(id, "an outcome is not written yet; the next start publishes it again");
            return Ok(message);
        }
        let (own_id, body) = (id.to_owned(), message.body.clone());
        if let Err(error) = self.blocking(move |journal| journal.published(&own_id, &body)).await {
            warn!(id, %error, "the journal does not keep the message that carried an outcome");
        }
        failpoint::hit("published");
        Ok(message)
    }

    /// Waits until a message is written, within the spool's limit: a reply that left before might share its id with
    /// another message after a kill.
    pub(super) async fn written(&self, server: Option<&Server>, message: &Message) -> bool {
        let sequence = message.attributes.sequence.as_deref().and_then(|digits| digits.parse().ok());
        match sequence {
            Some(sequence) => self.place(server).1.written(sequence).await,
            None => true,
        }
    }

    /// The recorded outcome once more, byte for byte where it was published.
    pub(super) fn replay(
        &self,
        server: Option<&Server>,
        id: &str,
        command: &Command,
        record: &Record,
    ) -> Message {
        let again = || {
            let (writer, spool) = self.place(server);
            response::append(writer, spool, Some(id), &command.action, &record.response)
        };
        record.body.clone().and_then(|body| self.place(server).0.read(body)).unwrap_or_else(again)
    }

    pub(super) fn place<'a>(&'a self, server: Option<&'a Server>) -> (&'a Writer, &'a Spool) {
        match server {
            Some(server) => (&server.writer, &server.spool),
            None => (&self.nowhere.writer, &self.nowhere.spool),
        }
    }

    pub(super) fn append(&self, server: Option<&Server>, response: &Response) -> Message {
        let (writer, spool) = self.place(server);
        response::append(writer, spool, response.id.as_deref(), &response.action, &response.data())
    }
}
