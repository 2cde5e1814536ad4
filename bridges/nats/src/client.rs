//! The other side of the bus: a consumer and requester.

use std::time::Duration;

use amibus_contract::{
    BoxFuture, ByteString, Bytes, Client, Delivery, Fault, FaultKind, Feed, Kind, Posted, Replies,
};
use async_nats::{HeaderMap, Message, StatusCode, Subscriber, header::NATS_MESSAGE_ID};
use futures_util::{StreamExt, stream::SelectAll};

use crate::{
    barrier::Barrier,
    dial::{self, Dialled, Role},
    faults, headers,
    post::{self, RepliesFeed},
    settings::Settings,
    subjects,
};

/// A consumer and requester with a connection of its own.
#[derive(Debug)]
pub(crate) struct NatsClient {
    dialled: Dialled,
    limit: Duration,
    commands_stream: bool,
}

impl NatsClient {
    pub(crate) async fn open(settings: &Settings) -> Result<Self, Fault> {
        let dialled = dial::dial(settings, Role::Client).await?;
        let commands_stream = settings.commands.as_ref().is_some_and(|commands| commands.stream.is_some());
        Ok(Self { dialled, limit: settings.ack_timeout, commands_stream })
    }

    async fn listen(&self, subjects: Vec<String>) -> Result<SelectAll<Subscriber>, Fault> {
        let mut all = SelectAll::new();
        for subject in &subjects {
            let subscribed = self.dialled.client.subscribe(subject.clone()).await;
            all.push(subscribed.map_err(|error| Fault::new(FaultKind::Refused, error.to_string()))?);
        }
        let mut barrier = Barrier::new(&self.dialled).await?;
        self.dialled.within(self.limit, barrier.settle(&self.dialled)).await??;
        match subjects.iter().find_map(|subject| self.dialled.refusal(0, subject)) {
            Some(said) => Err(faults::forbidden(&said)),
            None => Ok(all),
        }
    }

    /// Asks the micro service; `None`: nobody answers there.
    async fn ask(&self, subject: &str, body: Bytes) -> Result<Option<Bytes>, Fault> {
        let inbox = self.dialled.client.new_inbox();
        let mut replies = self.listen(vec![inbox.clone()]).await?;
        let before = self.dialled.refused_so_far();
        let sent = self.dialled.client.publish_with_reply(subject.to_owned(), inbox, body).await;
        sent.map_err(too_large_or_lost)?;
        let refused = self.dialled.refused(before, |said| said.contains(&format!("\"{subject}\"")));
        tokio::pin!(refused);
        loop {
            let reply = tokio::select! {
                biased;
                reply = replies.next() => reply.ok_or_else(faults::lost)?,
                said = &mut refused => return Err(faults::forbidden(&said)),
            };
            if reply.status == Some(StatusCode::NO_RESPONDERS) {
                return Ok(None);
            }
            if !is_puback(&reply) {
                return Ok(Some(reply.payload));
            }
        }
    }

    /// Puts the command on the stream, and waits for the response to it.
    async fn enqueue(&self, words: (&str, &str, &str), id: &str, body: Bytes) -> Result<Bytes, Fault> {
        let (prefix, server, action) = words;
        let inbox = self.dialled.client.new_inbox();
        let responses = subjects::all_of(prefix, Kind::Response, Some(server));
        let mut replies = self.listen(vec![inbox.clone(), responses]).await?;
        let mut map = HeaderMap::new();
        map.insert(headers::REPLY_TO, inbox.as_str());
        headers::put(&mut map, NATS_MESSAGE_ID, id);
        let subject = format!("{prefix}.command.{server}.{action}");
        let context = async_nats::jetstream::new(self.dialled.client.clone());
        let publish = async_nats::jetstream::message::PublishMessage::build().payload(body).headers(map);
        let stored = async { context.send_publish(subject.clone(), publish).await?.await };
        stored.await.map_err(|error| faults::publishing(&error, &subject))?;
        loop {
            let reply = replies.next().await.ok_or_else(faults::lost)?;
            let of_ours = headers::find(reply.headers.as_ref(), "ce-correlationid") == Some(id);
            if !is_puback(&reply) && (of_ours || *reply.subject == *inbox) {
                return Ok(reply.payload);
            }
        }
    }
}

/// A stream that captures the subject of a request answers it too, with `{"stream":...,"seq":...}`.
fn is_puback(reply: &Message) -> bool {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(&reply.payload) else { return false };
    value.get("stream").is_some() && value.get("seq").is_some() && value.get("specversion").is_none()
}

fn too_large_or_lost(error: async_nats::PublishError) -> Fault {
    match error.kind() {
        async_nats::PublishErrorKind::MaxPayloadExceeded => {
            Fault::new(FaultKind::TooLarge, error.to_string())
        }
        async_nats::PublishErrorKind::InvalidSubject => Fault::new(FaultKind::Refused, error.to_string()),
        async_nats::PublishErrorKind::Send => Fault::new(FaultKind::Unreachable, error.to_string()),
    }
}

impl Client for NatsClient {
    fn subscribe<'a>(
        &'a mut self,
        prefix: &'a str,
        kinds: &'a [Kind],
        server: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Feed>, Fault>> {
        Box::pin(async move {
            let subjects = kinds.iter().map(|kind| subjects::all_of(prefix, *kind, server)).collect();
            Ok(Box::new(NatsFeed(self.listen(subjects).await?)) as Box<dyn Feed>)
        })
    }

    fn request<'a>(
        &'a mut self,
        prefix: &'a str,
        server: &'a str,
        action: &'a str,
        id: &'a str,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let asking = async {
                let subject = format!("{prefix}.request.{server}.{action}");
                match self.ask(&subject, body.clone()).await? {
                    Some(response) => Ok(response),
                    None if self.commands_stream => self.enqueue((prefix, server, action), id, body).await,
                    None => {
                        let text = format!("nobody serves {subject}: is amibus running, with `commands` on?");
                        Err(Fault::new(FaultKind::Unreachable, text))
                    }
                }
            };
            let late = || Fault::new(FaultKind::TimedOut, format!("no response within {timeout:?}"));
            tokio::time::timeout(timeout, asking).await.unwrap_or_else(|_| Err(late()))
        })
    }

    fn replies<'a>(&'a mut self, prefix: &'a str) -> BoxFuture<'a, Result<Replies, Fault>> {
        Box::pin(async move {
            if !self.commands_stream {
                return Err(post::no_stream());
            }
            let inbox = self.dialled.client.new_inbox();
            let responses = subjects::all_of(prefix, Kind::Response, None);
            let messages = self.listen(vec![inbox.clone(), responses]).await?;
            let feed = RepliesFeed::new(&self.dialled, messages);
            Ok(Replies { address: inbox, feed: Box::new(feed) })
        })
    }

    fn publish_command<'a>(&'a mut self, command: Posted<'a>) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            if !self.commands_stream {
                return Err(post::no_stream());
            }
            post::store(&self.dialled, self.limit, command).await
        })
    }
}

struct NatsFeed(SelectAll<Subscriber>);

impl Feed for NatsFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>, Fault>> {
        Box::pin(async move { Ok(self.0.next().await.map(delivery)) })
    }
}

pub(crate) fn delivery(message: Message) -> Delivery {
    let headers = message.headers.iter().flat_map(HeaderMap::iter);
    let headers = headers.flat_map(|(name, values)| {
        values.iter().map(move |value| (name.to_string(), value.as_str().to_owned()))
    });
    Delivery {
        topic: ByteString::from(message.subject.as_str()),
        key: None,
        headers: headers.collect(),
        body: message.payload.clone(),
    }
}
