//! What a subscriber may send: subscriptions, cancellations, and a question whether they are in force.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::Peer;
use crate::wire::{self, Header, Refusal};

/// A subscriber that subscribes to a topic with this beginning gets an empty message with that topic as soon as
/// everything that it subscribed to before is in force. It sorts after every topic of ours, so that a libzmq
/// subscriber, which repeats its subscriptions in order when it reconnects, asks last.
pub(crate) const CONFIRM_PREFIX: &[u8] = b"~amibus.confirm.";

/// The largest subscription frame, in bytes: a topic is less than half of it.
const MAX_SUBSCRIPTION_BYTES: usize = 1024;
/// How many subscriptions a peer may have at once.
const MAX_SUBSCRIPTIONS: usize = 1024;
/// The largest command frame after the handshake, in bytes.
const MAX_CONTROL_BYTES: usize = 1024;

const SUBSCRIBE: u8 = 1;
const CANCEL: u8 = 0;

/// Carries a subscriber's frames to the engine until it leaves.
pub(crate) async fn subscriptions<R, W>(reader: &mut R, engine: &mut W, peer: &Peer) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut held = Subscriptions::default();
    while let Some(header) = wire::read_header(reader).await? {
        if header.command {
            control(reader, header, peer.outbox()).await?;
            continue;
        }
        if header.more {
            return Err(Refusal::Malformed("a subscription of more than one frame"));
        }
        let body = wire::read_body(reader, header, MAX_SUBSCRIPTION_BYTES).await?;
        let forward = match body.split_first() {
            Some((&SUBSCRIBE, topic)) if topic.starts_with(CONFIRM_PREFIX) => question(peer, body.slice(1..)),
            Some((&CANCEL, topic)) if topic.starts_with(CONFIRM_PREFIX) => continue,
            Some((&SUBSCRIBE, topic)) => {
                held.add(topic)?;
                wire::message([&body[..]])
            }
            Some((&CANCEL, topic)) if held.remove(topic) => wire::message([&body[..]]),
            // An XSUB may send anything upstream; nobody here listens.
            _ => continue,
        };
        engine.write_all(&forward).await?;
    }
    Ok(())
}

/// Answers a PING; ignores every other command.
pub(crate) async fn control<R>(
    reader: &mut R,
    header: Header,
    outbox: &mpsc::Sender<Bytes>,
) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
{
    let body = wire::read_body(reader, header, MAX_CONTROL_BYTES).await?;
    if let Some(pong) = wire::pong_for(&body)? {
        // Where the connection has ended meanwhile, nobody waits for it.
        let _ = outbox.send(pong).await;
    }
    Ok(())
}

/// A subscription by which the engine shows that it has come this far, and its cancellation at once.
fn question(peer: &Peer, topic: Bytes) -> Bytes {
    let number = peer.expect_confirm(topic);
    let token = [CONFIRM_PREFIX, peer.identity().as_bytes(), format!(".{number:x}").as_bytes()].concat();
    let frame = |kind| wire::message([&[&[kind], &token[..]].concat()[..]]);
    [frame(SUBSCRIBE), frame(CANCEL)].concat().into()
}

/// What a subscriber holds, counted as the engine counts it: a repeated subscription needs as many cancellations.
#[derive(Default)]
struct Subscriptions {
    counts: HashMap<Vec<u8>, usize>,
    total: usize,
}

impl Subscriptions {
    fn add(&mut self, topic: &[u8]) -> Result<(), Refusal> {
        if self.total >= MAX_SUBSCRIPTIONS {
            return Err(Refusal::TooManySubscriptions(MAX_SUBSCRIPTIONS));
        }
        self.total += 1;
        *self.counts.entry(topic.to_vec()).or_default() += 1;
        Ok(())
    }

    /// Whether it was held.
    fn remove(&mut self, topic: &[u8]) -> bool {
        let Some(count) = self.counts.get_mut(topic) else { return false };
        self.total -= 1;
        *count -= 1;
        if *count == 0 {
            self.counts.remove(topic);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancelling_what_is_not_held_makes_no_room() {
        let mut held = Subscriptions::default();
        for _ in 0..MAX_SUBSCRIPTIONS {
            held.add(b"a").expect("room");
            assert!(!held.remove(b"b"));
        }
        assert!(held.add(b"a").is_err());
        assert!(held.remove(b"a"));
        assert!(held.add(b"b").is_ok() && held.add(b"b").is_err());
    }
}
