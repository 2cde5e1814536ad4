//! async-nats: core, and JetStream with as many in flight as amibus has.

use std::io;

use amibus_contract::Message;
use async_nats::{
    ConnectOptions, HeaderMap, jetstream::context::ContextBuilder, jetstream::message::PublishMessage,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{Pace, ready};
use crate::buses::MAX_IN_FLIGHT;

/// As amibus's.
const CLIENT_CAPACITY: usize = 1024;

pub(crate) async fn core(address: &str, messages: Vec<Message>, pace: &mut Pace) -> io::Result<()> {
    let client = connect(address).await?;
    let messages: Vec<_> = messages.into_iter().map(parts).collect();
    ready().await?;
    for (subject, headers, body) in messages {
        client.publish_with_headers(subject, headers, pace.due(body)).await.map_err(io::Error::other)?;
    }
    client.flush().await.map_err(io::Error::other)
}

pub(crate) async fn stream(address: &str, messages: Vec<Message>, pace: &mut Pace) -> io::Result<()> {
    let context = ContextBuilder::new().max_ack_inflight(MAX_IN_FLIGHT).build(connect(address).await?);
    let messages: Vec<_> = messages
        .into_iter()
        .map(parts)
        .map(|(subject, headers, body)| (subject, PublishMessage::build().headers(headers), body))
        .collect();
    ready().await?;
    let mut acks = FuturesUnordered::new();
    for (subject, message, body) in messages {
        if acks.len() >= MAX_IN_FLIGHT
            && let Some(ack) = acks.next().await
        {
            let _: async_nats::jetstream::publish::PublishAck = Result::map_err(ack, io::Error::other)?;
        }
        let message = message.payload(pace.due(body));
        let ack = context.send_publish(subject, message).await.map_err(io::Error::other)?;
        acks.push(IntoFuture::into_future(ack));
    }
    while let Some(ack) = acks.next().await {
        ack.map_err(io::Error::other)?;
    }
    Ok(())
}

async fn connect(address: &str) -> io::Result<async_nats::Client> {
    let options = ConnectOptions::new().client_capacity(CLIENT_CAPACITY);
    options.connect(address).await.map_err(io::Error::other)
}

/// Subject, headers and body; the headers are those that docs/buses say.
fn parts(message: Message) -> (String, HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/cloudevents+json");
    for (name, value) in message.attributes().iter() {
        headers.insert(format!("ce-{name}"), value);
    }
    headers.insert("Nats-Msg-Id", message.attributes().id());
    (message.topic.as_str().to_owned(), headers, message.body)
}
