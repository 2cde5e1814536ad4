//! The way back to who sent a command.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use amibus_contract::{BoxFuture, Decision, Fault, FaultKind, Handle, Message, Reach, Rejection};
use async_nats::{
    HeaderMap, StatusCode, Subject,
    jetstream::{self, AckKind, Context, context::PublishErrorKind, message::PublishMessage},
    service,
};
use bytes::Bytes;
use futures_util::StreamExt;

use crate::{barrier::Barrier, dead, dial::Dialled, faults, headers, subjects};

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
    /// How many unreadable commands could not be set aside.
    pub(crate) lost: Arc<AtomicU64>,
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
            let headers = headers::of_attributes(response.attributes());
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
    /// Acknowledges, and waits for the server's word that the consumer took it.
    async fn confirmed(&self, kind: AckKind) -> Result<(), Fault> {
        let said = self.way.dialled.within(self.way.limit, self.told(kind)).await??;
        match said.status {
            None => Ok(()),
            Some(StatusCode::NO_RESPONDERS) => {
                let text = "nobody takes the acknowledgement: the consumer, or its stream, is gone";
                Err(Fault::new(FaultKind::Missing, text))
            }
            Some(status) => Err(Fault::new(
                FaultKind::Unreachable,
                format!("the acknowledgement was not taken: {status}"),
            )),
        }
    }

    /// What comes back for an acknowledgement. async-nats has the same, and takes any answer for a confirmation.
    async fn told(&self, kind: AckKind) -> Result<async_nats::Message, Fault> {
        let unreachable = |error: String| Fault::new(FaultKind::Unreachable, error);
        let Some(to) = self.message.reply.clone() else {
            return Err(unreachable("the command has nowhere to be acknowledged to".to_owned()));
        };
        let client = &self.way.dialled.client;
        let inbox = client.new_inbox();
        let subscribed = client.subscribe(inbox.clone()).await;
        let mut answers = subscribed.map_err(|error| unreachable(error.to_string()))?;
        let sent = client.publish_with_reply(to, inbox, kind.into()).await;
        sent.map_err(|error| unreachable(error.to_string()))?;
        answers.next().await.ok_or_else(faults::lost)
    }

    /// Sets the command aside as well as the server lets us. What is refused for good is told and left at that: the
    /// command would come again for ever, and never become readable.
    async fn set_aside(&self, cause: &Rejection) -> Result<(), Fault> {
        let subject = subjects::dead_command(&self.way.prefix, &self.message.subject);
        match self.store(&subject, cause).await {
            Err(fault) if fault.decision != Decision::Retry => {
                let lost = self.way.lost.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::warn!(
                    subject, id = self.identity, %fault, lost,
                    "an unreadable command could not be set aside and is gone"
                );
                Ok(())
            }
            stored => stored,
        }
    }

    async fn store(&self, subject: &str, cause: &Rejection) -> Result<(), Fault> {
        let dialled = &self.way.dialled;
        let body: Bytes = dead::command(&self.message.subject, &self.identity, &self.message.payload, cause);
        let mut map = HeaderMap::new();
        headers::put(&mut map, async_nats::header::NATS_MESSAGE_ID, &format!("dead:{}", self.identity));
        let stored = async {
            let publish = PublishMessage::build().payload(body).headers(map);
            self.way.context.send_publish(subject.to_owned(), publish).await?.await
        };
        let quoted = format!("\"{subject}\"");
        let refused = dialled.refused(dialled.refused_so_far(), |said| said.contains(&quoted));
        let stored = tokio::select! {
            biased;
            said = refused => return Err(faults::forbidden(&said)),
            stored = dialled.within(self.way.limit, stored) => stored?,
        };
        match stored {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                Err(Fault::new(FaultKind::Missing, "no stream keeps this subject"))
            }
            Err(error) => Err(faults::publishing(&error, subject)),
        }
    }
}

impl Handle for Kept {
    fn reply<'a>(&'a mut self, response: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>> {
        Box::pin(async move {
            let Some(subject) = self.reply_to.clone() else { return Ok(Reach::Sent) };
            let headers = headers::of_attributes(response.attributes());
            let client = self.way.dialled.client.clone();
            let reply = client.publish_with_headers(subject, headers, response.body.clone());
            self.way.read(async { Ok(reply.await?) }).await?;
            Ok(Reach::Sent)
        })
    }

    fn keep(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            if !self.way.dialled.link.borrow().connected {
                return Err(faults::lost());
            }
            // Thousands may be kept at once, and a sign that is lost is given again: nobody waits until it was read.
            let kept = self.way.dialled.within(self.way.limit, self.message.ack_with(AckKind::Progress));
            kept.await?.map_err(|error| Fault::new(FaultKind::Unreachable, error.to_string()))
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
