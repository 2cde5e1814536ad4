//! Commands for a stream that nobody waits for one by one, and the place where their responses come in.

use std::time::Duration;

use amibus_contract::{BoxFuture, Delivery, Fault, FaultKind, Feed, Posted};
use async_nats::{HeaderMap, Subscriber, jetstream::message::PublishMessage};
use futures_util::{StreamExt, stream::SelectAll};
use tokio::sync::watch;

use crate::{
    client::delivery,
    dial::{Dialled, Link},
    faults, headers,
};

/// Without a stream for commands, nothing keeps them.
pub(crate) fn no_stream() -> Fault {
    Fault::new(FaultKind::Missing, "no stream keeps commands: set bus.nats.commands_stream")
}

/// Has the stream store a command. It carries no `Nats-Msg-Id`: sent again, it is to be answered again, which amibus
/// does without carrying it out again.
pub(crate) async fn store(dialled: &Dialled, limit: Duration, command: Posted<'_>) -> Result<(), Fault> {
    let mut map = HeaderMap::new();
    headers::put(&mut map, headers::REPLY_TO, command.reply_to);
    let subject = format!("{}.command.{}.{}", command.prefix, command.server, command.action);
    let context = async_nats::jetstream::new(dialled.client.clone());
    let publish = PublishMessage::build().payload(command.body).headers(map);
    let stored = async { context.send_publish(subject.clone(), publish).await?.await };
    let quoted = format!("\"{subject}\"");
    let refused = dialled.refused(dialled.refused_so_far(), |said| said.contains(&quoted));
    tokio::select! {
        biased;
        said = refused => Err(faults::forbidden(&said)),
        stored = dialled.within(limit, stored) => {
            stored?.map(drop).map_err(|error| faults::publishing(&error, &subject))
        }
    }
}

/// Responses, and word of every break of the connection: the server keeps nothing for who is away.
pub(crate) struct RepliesFeed {
    messages: SelectAll<Subscriber>,
    link: watch::Receiver<Link>,
    /// How often it was connected when nothing was missed yet.
    connects: u64,
    broken: bool,
}

impl RepliesFeed {
    pub(crate) fn new(dialled: &Dialled, messages: SelectAll<Subscriber>) -> Self {
        let link = dialled.link.clone();
        // The first connection may be reported late.
        let connects = link.borrow().connects.max(1);
        Self { messages, link, connects, broken: false }
    }

    /// Whether the connection is back after a break that was not told yet.
    fn is_back(&mut self) -> bool {
        let link = self.link.borrow_and_update();
        self.broken |= !link.connected || link.connects > self.connects;
        let back = self.broken && link.connected && link.connects > self.connects;
        if back {
            (self.broken, self.connects) = (false, link.connects);
        }
        back
    }
}

impl Feed for RepliesFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>, Fault>> {
        Box::pin(async move {
            loop {
                if self.is_back() {
                    return Err(faults::lost());
                }
                tokio::select! {
                    biased;
                    changed = self.link.changed() => if changed.is_err() {
                        return Ok(None);
                    },
                    message = self.messages.next() => return Ok(message.map(delivery)),
                }
            }
        })
    }
}
