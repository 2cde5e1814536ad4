//! The way back to who sent a command.

use std::time::Duration;

use amibus_contract::{BoxFuture, Fault, FaultKind, Handle, Message, Reach, Rejection};
use async_nats::{
    HeaderMap, Subject,
    jetstream::{self, AckKind, Context, context::PublishErrorKind, message::PublishMessage},
    service,
};
use bytes::Bytes;

use crate::{barrier::Barrier, dead, dial::Dialled, headers, subjects};

/// A command is kept this many times within the stream's `ack_wait`.
const KEEPS_PER_WAIT: u32 = 3;

/// What both kinds of handle work with.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) dialled: Dialled,
    pub(crate) context: Context,
    pub(crate) prefix: String,
    /// How long the server may take to take a reply or an acknowledgement.
    pub(crate) limit: Duration,
}

impl Way {
    /// Sends something and waits until the server has read it: writing to a socket succeeds for a while after the
    /// server is gone.
    async fn read(&self, sent: impl Future<Output = Result<(), async_nats::Error>>) -> Result<(), Fault> {
        let done = self.dialled.within(self.limit, async {
            let mut barrier = Barrier::new(&self.dialled).await?;
            sent.await.map_err(|error| Fault::new(FaultKind::Unreachable, error.to_string()))?;
            barrier.pass(&self.dialled).await
        });
        done.await?
    }
}

/// A request to the micro service: somebody waits, nothing is kept.
pub(crate) struct Asked {
    pub(crate) way: Way,
    pub(crate) request: service::Request,
}

impl Handle for Asked {
    fn reply<'a>(&'a mut self, response: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>> {
        Box::pin(async move {
            if self.request.message.reply.is_none() {
                return Ok(Reach::Sent);
            }
            let headers = headers::of_attributes(&response.attributes);
            let reply = self.request.respond_with_headers(Ok(response.body.clone()), headers);
            self.way.read(async { Ok(reply.await?) }).await?;
            Ok(Reach::Sent)
        })
    }

    fn keep(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn keep_every(&self) -> Option<Duration> {
        None
    }

    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn dead_letter(self: Box<Self>, _cause: Rejection) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
}

/// A command that a stream keeps until it is acknowledged.
pub(crate) struct Kept {
    pub(crate) way: Way,
    pub(crate) message: jetstream::Message,
    pub(crate) identity: String,
    pub(crate) ack_wait: Duration,
    /// Where the sender wants the response, checked.
    pub(crate) reply_to: Option<Subject>,
}

impl Kept {
    async fn confirmed(&self, kind: AckKind) -> Result<(), Fault> {
        let acknowledged =
            self.way.dialled.within(self.way.limit, self.message.double_ack_with(kind)).await?;
        acknowledged.map_err(|error| Fault::new(FaultKind::TimedOut, error.to_string()))
    }

    async fn set_aside(&self, cause: &Rejection) -> Result<(), Fault> {
        let subject = subjects::dead_command(&self.way.prefix, &self.message.subject);
        let body: Bytes = dead::command(&self.message.subject, &self.identity, &self.message.payload, cause);
        let mut map = HeaderMap::new();
        headers::put(&mut map, async_nats::header::NATS_MESSAGE_ID, &format!("dead:{}", self.identity));
        let stored = async {
            let publish = PublishMessage::build().payload(body.clone()).headers(map);
            self.way.context.send_publish(subject.clone(), publish).await?.await
        };
        match self.way.dialled.within(self.way.limit, stored).await? {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                tracing::warn!(%subject, "no stream keeps this subject: an unreadable command is gone");
                Ok(())
            }
            Err(error) => Err(Fault::new(FaultKind::TimedOut, format!("{subject}: {error}"))),
        }
    }
}

impl Handle for Kept {
    fn reply<'a>(&'a mut self, response: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>> {
        Box::pin(async move {
            let Some(subject) = self.reply_to.clone() else { return Ok(Reach::Sent) };
            let headers = headers::of_attributes(&response.attributes);
            let client = self.way.dialled.client.clone();
            let reply = client.publish_with_headers(subject, headers, response.body.clone());
            self.way.read(async { Ok(reply.await?) }).await?;
            Ok(Reach::Sent)
        })
    }

    fn keep(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let keeping = self.message.ack_with(AckKind::Progress);
            self.way.read(keeping).await
        })
    }

    fn keep_every(&self) -> Option<Duration> {
        Some(self.ack_wait / KEEPS_PER_WAIT)
    }

    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move { self.confirmed(AckKind::Ack).await })
    }

    fn dead_letter(self: Box<Self>, cause: Rejection) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move {
            self.set_aside(&cause).await?;
            self.confirmed(AckKind::Term).await
        })
    }
}
