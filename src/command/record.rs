//! An outcome on its way: into the journal, into the spool for every bus, and back to whoever asked.

use amibus_contract::Message;
use tracing::warn;

use super::{
    decode::Command,
    engine::{Engine, Server},
    journal::{Claim, JournalError, Record},
    response::{self, Response},
};
use crate::{failpoint, spool::Spool, writer::Writer};

impl Engine {
    /// Journal first, then the spool for the buses, then the journal again with what is published. An outcome that the
    /// disk refuses stays unpublished in the journal until it does so no more, or the next start publishes it. `tell` is called once it is in
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
        Ok(self.keep(id, server, message).await)
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
        Ok(self.keep(id, server, message).await)
    }

    /// Until the disk has taken the message or refused it, nobody is told: after a kill the next start might tell it in
    /// another one.
    async fn keep(&self, id: &str, server: Option<&Server>, message: Message) -> Message {
        let settled = match sequence(&message) {
            Some(sequence) => self.place(server).1.settled(sequence).await,
            None => true,
        };
        if !settled {
            warn!(id, "an outcome is not written yet: the disk refuses it");
            self.note_later(id, server, &message);
            return message;
        }
        let (own_id, body) = (id.to_owned(), message.body.clone());
        if let Err(error) = self.blocking(move |journal| journal.published(&own_id, &body)).await {
            warn!(id, %error, "the journal does not keep the message that carried an outcome; trying again");
            self.note_later(id, server, &message);
        }
        failpoint::hit("published");
        message
    }

    /// Waits until a message is written, within the spool's limit: a reply that left before might share its id with
    /// another message after a kill.
    pub(super) async fn written(&self, server: Option<&Server>, message: &Message) -> bool {
        match sequence(message) {
            Some(sequence) => self.place(server).1.written(sequence).await,
            None => true,
        }
    }

    /// The recorded outcome once more, byte for byte: as it was published, or is about to be.
    pub(super) async fn replay(
        &self,
        server: Option<&Server>,
        id: &str,
        command: &Command,
        record: Record,
    ) -> Message {
        let (writer, spool) = self.place(server);
        if let Some(message) = record.body.and_then(|body| writer.read(body)) {
            return message;
        }
        if let Some(message) = self.late.message(id) {
            return message;
        }
        // It may have been noted in between.
        if let Ok(Some(Claim::Done(Record { body: Some(body), .. }))) = self.recorded(id, command).await
            && let Some(message) = writer.read(body)
        {
            return message;
        }
        let message = response::append(writer, spool, Some(id), &command.action, &record.response);
        self.keep(id, server, message).await
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

pub(super) fn sequence(message: &Message) -> Option<u64> {
    message.attributes().sequence()?.parse().ok()
}
