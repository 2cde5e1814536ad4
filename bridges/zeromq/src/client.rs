//! The other side: a subscriber and a requester.

use std::time::Duration;

use amibus_contract::{BoxFuture, ByteString, Bytes, Client, Delivery, Fault, FaultKind, Feed, Kind};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use zeromq::{DealerSocket, Socket, SocketOptions, SocketRecv, SocketSend, SubSocket, ZmqError, ZmqMessage};

use crate::{address::Address, gate::CONFIRM_PREFIX, relay::Relay, thread::broken};

/// How long to wait for the server, and for a subscription to be in force.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a subscriber waits after an error before it goes on; it reconnects by itself.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(50);

/// A consumer and requester of the addresses that the bridge is configured with.
pub(crate) struct ZeroMqClient {
    pub(crate) events: Address,
    pub(crate) commands: Option<Address>,
    pub(crate) max_message_bytes: usize,
    pub(crate) closed: CancellationToken,
}

impl Client for ZeroMqClient {
    /// Subscribes by prefix, and waits until the publisher confirms it (see the crate's documentation), so the
    /// publisher has to be an amibus.
    fn subscribe<'a>(
        &'a mut self,
        prefix: &'a str,
        kinds: &'a [Kind],
        server: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Feed>, Fault>> {
        Box::pin(async move {
            let topics = kinds.iter().map(|kind| {
                let class = format!("{prefix}.{}.", kind.as_str());
                server.map_or_else(|| class.clone(), |server| format!("{class}{server}."))
            });
            let relay = Relay::to(self.events.clone(), self.max_message_bytes)?;
            let subscribed = subscribe(&relay, topics.collect());
            let socket = timeout(CONNECT_WITHIN, subscribed)
                .await
                .map_err(|_| unreachable(&self.events, "no answer"))?
                .map_err(|error| unreachable(&self.events, error))?;
            let feed = ZeroMqFeed { socket, closed: self.closed.clone(), _relay: relay };
            Ok(Box::new(feed) as Box<dyn Feed>)
        })
    }

    fn request<'a>(
        &'a mut self,
        _prefix: &'a str,
        _server: &'a str,
        _action: &'a str,
        _id: &'a str,
        body: Bytes,
        limit: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Fault>> {
        Box::pin(async move {
            let Some(server) = self.commands.clone() else {
                return Err(Fault::new(FaultKind::Missing, "no address for commands is configured"));
            };
            let relay = Relay::to(server.clone(), self.max_message_bytes)?;
            let mut socket = DealerSocket::with_options(options(limit));
            socket.connect(&relay.address()).await.map_err(|error| unreachable(&server, error))?;
            let message = ZmqMessage::try_from(vec![Bytes::new(), body]).map_err(broken)?;
            socket.send(message).await.map_err(|error| unreachable(&server, error))?;
            // This connection carries one request, so what comes back is its response.
            match timeout(limit, socket.recv()).await {
                Ok(Ok(reply)) => reply.into_vec().pop().ok_or_else(|| broken("a reply without a frame")),
                Ok(Err(error)) => Err(unreachable(&server, error)),
                Err(_) => Err(Fault::new(
                    FaultKind::TimedOut,
                    format!("no response from {server} in time; the command may have run"),
                )),
            }
        })
    }
}

/// Connecting within `limit` or [`CONNECT_WITHIN`], whichever is shorter.
fn options(limit: Duration) -> SocketOptions {
    let mut options = SocketOptions::default();
    options.connect_timeout(limit.min(CONNECT_WITHIN));
    options
}

fn unreachable(server: &Address, error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Unreachable, format!("{server}: {error}"))
}

/// Connects, subscribes, and waits until the publisher says that the subscriptions are in force.
async fn subscribe(relay: &Relay, topics: Vec<String>) -> Result<SubSocket, ZmqError> {
    let mut socket = SubSocket::with_options(options(CONNECT_WITHIN));
    socket.connect(&relay.address()).await?;
    for topic in &topics {
        socket.subscribe(topic).await?;
    }
    let question = String::from_utf8_lossy(CONFIRM_PREFIX).into_owned();
    socket.subscribe(&question).await?;
    loop {
        let message = socket.recv().await?;
        if message.get(0).is_some_and(|topic| topic.starts_with(CONFIRM_PREFIX)) {
            break;
        }
    }
    socket.unsubscribe(&question).await?;
    Ok(socket)
}

struct ZeroMqFeed {
    socket: SubSocket,
    closed: CancellationToken,
    _relay: Relay,
}

impl Feed for ZeroMqFeed {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>, Fault>> {
        Box::pin(async move {
            loop {
                let received = tokio::select! {
                    biased;
                    () = self.closed.cancelled() => return Ok(None),
                    received = self.socket.recv() => received,
                };
                match received {
                    Ok(message) => {
                        if let Some(delivery) = delivery(message) {
                            return Ok(Some(delivery));
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a ZeroMQ subscriber lost its connection; it reconnects");
                        sleep(PAUSE_AFTER_ERROR).await;
                    }
                }
            }
        })
    }
}

/// Two frames, topic and body; anything else is not ours.
fn delivery(message: ZmqMessage) -> Option<Delivery> {
    let [topic, body] = <[Bytes; 2]>::try_from(message.into_vec()).ok()?;
    if topic.starts_with(CONFIRM_PREFIX) {
        return None;
    }
    let topic = ByteString::try_from(topic).ok()?;
    Some(Delivery { topic, key: None, headers: Vec::new(), body })
}
