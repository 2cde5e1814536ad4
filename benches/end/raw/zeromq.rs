//! zeromq: the socket that amibus has behind its gate, here on TCP itself.

use std::io;

use amibus_contract::Message;
use bytes::Bytes;
use tokio::task::yield_now;
use zeromq::{Socket as _, SocketRecv as _, SocketSend as _, XPubSocket, ZmqMessage};

use super::{Pace, ready};
use crate::child::say;

/// After how many messages the engine's tasks get their turn, as in amibus.
const YIELD_EVERY: usize = 64;

pub(crate) async fn run(address: &str, messages: Vec<Message>, pace: &mut Pace) -> io::Result<()> {
    let mut socket = XPubSocket::new();
    socket.bind(address).await.map_err(io::Error::other)?;
    let messages: Vec<ZmqMessage> = messages.into_iter().map(frames).collect::<io::Result<_>>()?;
    say("bound")?;
    // A subscription is in force once it was taken.
    socket.recv().await.map_err(io::Error::other)?;
    ready().await?;
    for (at, message) in messages.into_iter().enumerate() {
        let message = if pace.is_steady() { due(message, pace)? } else { message };
        socket.send(message).await.map_err(io::Error::other)?;
        if at % YIELD_EVERY == YIELD_EVERY - 1 {
            yield_now().await;
        }
    }
    Ok(())
}

fn frames(message: Message) -> io::Result<ZmqMessage> {
    whole(vec![message.topic.text().into_bytes(), message.body])
}

fn due(message: ZmqMessage, pace: &mut Pace) -> io::Result<ZmqMessage> {
    let mut frames = message.into_vec();
    let body = frames.pop().unwrap_or_default();
    frames.push(pace.due(body));
    whole(frames)
}

fn whole(frames: Vec<Bytes>) -> io::Result<ZmqMessage> {
    ZmqMessage::try_from(frames).map_err(|_| io::Error::other("a message without frames"))
}
