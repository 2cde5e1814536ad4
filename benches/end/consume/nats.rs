//! A subscription to NATS core, and an ordered consumer of a stream.

use std::io;

use async_nats::{
    ConnectOptions,
    jetstream::{self, consumer::push::OrderedConfig},
};
use futures_util::StreamExt;

use super::Sink;
use crate::{buses::stream_of, child::say};

/// Messages that may wait to be taken: more than a run has, for async-nats drops what is beyond.
const CAPACITY: usize = 4 << 20;

pub(crate) async fn core(address: &str, prefix: &str, sink: &mut dyn Sink) -> io::Result<()> {
    let client = connect(address).await?;
    let mut events = client.subscribe(format!("{prefix}.event.>")).await.map_err(io::Error::other)?;
    client.flush().await.map_err(io::Error::other)?;
    say("ready")?;
    while let Some(message) = events.next().await {
        if sink.take(server(&message.subject), &message.payload, message.length) {
            break;
        }
    }
    Ok(())
}

pub(crate) async fn stream(address: &str, prefix: &str, sink: &mut dyn Sink) -> io::Result<()> {
    let client = connect(address).await?;
    let deliver_subject = client.new_inbox();
    let stream = jetstream::new(client).get_stream(stream_of(prefix)).await.map_err(io::Error::other)?;
    let filter_subject = format!("{prefix}.event.>");
    let config = OrderedConfig { deliver_subject, filter_subject, ..OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.map_err(io::Error::other)?;
    let mut events = consumer.messages().await.map_err(io::Error::other)?;
    say("ready")?;
    while let Some(message) = events.next().await {
        let message = message.map_err(io::Error::other)?;
        if sink.take(server(&message.subject), &message.payload, message.length) {
            break;
        }
    }
    Ok(())
}

async fn connect(address: &str) -> io::Result<async_nats::Client> {
    let options = ConnectOptions::new().subscription_capacity(CAPACITY);
    options.connect(address).await.map_err(io::Error::other)
}

/// The number in the server's name, the third word of a subject: order is kept for each server.
fn server(subject: &str) -> i32 {
    let name = subject.split('.').nth(2).unwrap_or_default();
    name.trim_start_matches(|letter: char| !letter.is_ascii_digit()).parse().unwrap_or(0)
}
