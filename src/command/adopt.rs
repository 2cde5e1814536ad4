//! An outcome that all share, taken over into the own journal.

use std::time::SystemTime;

use amibus_contract::{Attribute, Kind, Message};

use super::{
    Outcome,
    engine::{Engine, RECORD_RETRY, Server},
    journal::JournalError,
    shared::Ending,
};
use crate::normalize::Notice;

impl Engine {
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
        let outcome: &'static str = Outcome::parse(&ending.outcome).unwrap_or(Outcome::Unknown).as_str();
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
        let own_id = id.to_owned();
        let owned = self.blocking(move |journal| journal.owned(&own_id)).await?;
        let nonce = owned.map(|owned| owned.nonce).unwrap_or_default();
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
        message.attributes.remove(Attribute::Sequence);
        // In one: an outcome without its message is published by the next start.
        let (own_id, own_data, body) = (id.to_owned(), data.to_vec(), message.body.clone());
        self.blocking(move |journal| journal.done_and_told(&own_id, outcome, &own_data, &body)).await?;
        tell();
        Ok(message)
    }
}
