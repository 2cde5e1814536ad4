//! Commands in: one ROUTER engine behind the gate, on a thread of its own (the module `thread` says why).

use std::{sync::Arc, time::Duration};

use amibus_contract::{BoxFuture, Decision, Fault, FaultKind, Handle, Message, Reach, Rejection, Request};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use zeromq::ZmqMessage;

use crate::{
    address::Address,
    config::Config,
    engine::PrivateSocket,
    gate::{Accepted, Gate, Peer, Role, Shared, split_envelope},
    router::{self, Reply, WAITING_REPLIES, WAITING_REQUESTS},
    stats::Counters,
    thread::EngineThread,
};

/// A running engine with its gate, as long as the bridge is open.
pub(crate) struct Commands {
    gate: Gate,
    pub(crate) engine: EngineThread,
    _socket: PrivateSocket,
}

impl Commands {
    /// Listens as configured.
    pub(crate) async fn open(
        address: &Address,
        config: &Config,
        stats: Arc<Counters>,
    ) -> Result<(Arc<Self>, Requests), Fault> {
        let (socket, listener) = PrivateSocket::listen()?;
        let (taken, requests) = mpsc::channel(WAITING_REQUESTS);
        let (replies, given) = mpsc::channel(WAITING_REPLIES);
        let work = move |engine| router::run(engine, taken, given);
        let engine = EngineThread::listen("amibus-zmq-cmd", listener, work).await?;
        let gate = Gate::open(address, Role::Commands, config.limits.clone(), stats, socket.path()).await?;
        let commands = Arc::new(Self { gate, engine, _socket: socket });
        let max_reply_bytes = config.max_message_bytes;
        let requests = Requests { commands: Arc::clone(&commands), requests, replies, max_reply_bytes };
        Ok((commands, requests))
    }

    /// The address that requesters connect to.
    pub(crate) fn address(&self) -> String {
        self.gate.address().to_string()
    }

    /// Waits until the accepted replies have left, and ends. Answers how many did not.
    pub(crate) async fn close(&self, deadline: Instant) -> u64 {
        let lost = self.gate.drain_replies(deadline).await;
        // Not before: its tasks write what it has taken.
        self.engine.abort();
        lost
    }
}

/// The requests of one engine. Dropping this ends the taking of them; their replies still leave.
pub(crate) struct Requests {
    commands: Arc<Commands>,
    requests: mpsc::Receiver<ZmqMessage>,
    replies: mpsc::Sender<Reply>,
    max_reply_bytes: usize,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.commands.gate.stop_taking();
    }
}

impl Requests {
    /// The next one; `None` where the engine has ended.
    ///
    /// # Cancellation
    /// Dropping the future loses no request.
    pub(crate) async fn next(&mut self) -> Option<Request> {
        loop {
            let received = self.requests.recv().await?;
            if let Some(request) = self.request(received) {
                return Some(request);
            }
        }
    }

    /// Ends what is left where the engine has ended, and frees the address.
    pub(crate) async fn give_up(&self) {
        // How many replies are lost is not known: peers may have been let go before.
        self.commands.close(Instant::now()).await;
    }

    /// What the gate lets through is an identity of ours, an envelope and one frame. A requester that has left
    /// meanwhile has sent its command all the same.
    fn request(&self, received: ZmqMessage) -> Option<Request> {
        let frames = received.into_vec();
        let (identity, message) = frames.split_first()?;
        let (envelope, command) = split_envelope(message);
        let body = command.first()?.clone();
        let peer = self.commands.gate.shared.peers.find(identity);
        let mut head = vec![identity.clone()];
        head.extend_from_slice(envelope);
        Some(Request {
            server: None,
            action: None,
            identity: None,
            sent_at: None,
            sender: peer.as_ref().map(|peer| peer.label().to_owned()),
            durable: false,
            reply_wanted: true,
            body,
            handle: Box::new(ZeroMqHandle {
                gate: Arc::clone(&self.commands.gate.shared),
                peer,
                replies: self.replies.clone(),
                head,
                max_reply_bytes: self.max_reply_bytes,
                replied: false,
            }),
        })
    }
}

/// The same response without what Asterisk said: the requester waits for a reply, and its outcome stands. `None` where
/// it is none of ours.
fn in_short(response: &[u8], why: &str) -> Option<Bytes> {
    let mut response: serde_json::Value = serde_json::from_slice(response).ok()?;
    let data = response.get_mut("data")?.as_object_mut()?;
    data.insert("response".to_owned(), serde_json::Value::Null);
    data.insert("events".to_owned(), serde_json::json!([]));
    if data.get("error").is_none_or(serde_json::Value::is_null) {
        let error = serde_json::json!({"code": "list_too_long", "message": why, "field": null});
        data.insert("error".to_owned(), error);
    }
    Some(response.to_string().into())
}

struct ZeroMqHandle {
    gate: Arc<Shared>,
    peer: Option<Arc<Peer>>,
    replies: mpsc::Sender<Reply>,
    /// The identity and the envelope, which stand before the reply.
    head: Vec<Bytes>,
    max_reply_bytes: usize,
    replied: bool,
}

impl Handle for ZeroMqHandle {
    fn reply<'a>(&'a mut self, response: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>> {
        Box::pin(async move {
            if self.replied {
                return Err(Fault::new(FaultKind::Refused, "this request has been replied to"));
            }
            let (bytes, limit) = (response.body.len(), self.max_reply_bytes);
            let body = if bytes <= limit {
                response.body.clone()
            } else {
                let why = format!("the reply has {bytes} bytes; max_message_bytes is {limit}");
                tracing::warn!(
                    bytes,
                    limit,
                    "a reply is too long for ZeroMQ; it goes out without its details"
                );
                let short = in_short(&response.body, &why).filter(|body| body.len() <= limit);
                short.ok_or_else(|| Fault::new(FaultKind::TooLarge, why))?
            };
            let frames = [&self.head[..], &[body]].concat();
            let message = ZmqMessage::try_from(frames)
                .map_err(|error| Fault::new(FaultKind::Refused, error.to_string()))?;
            let gone = |why: &str| {
                let fault = Fault::new(FaultKind::Unreachable, format!("the requester is gone: {why}"));
                Err(fault.deciding(Decision::Skip))
            };
            let Some(peer) = self.peer.as_ref().filter(|peer| !peer.is_gone()) else {
                return gone("its connection has ended");
            };
            let Ok(place) = self.replies.reserve().await else { return gone("the ZeroMQ engine has ended") };
            let (sent, is_sent) = oneshot::channel();
            // From here on it counts as replied, also where nobody waits for the rest of this.
            let accepted = Accepted::new(Arc::clone(&self.gate), Arc::clone(peer));
            self.replied = true;
            place.send(Reply { message, accepted, sent });
            let why = match is_sent.await {
                Ok(Ok(())) => return Ok(Reach::Sent),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the ZeroMQ engine has ended".to_owned(),
            };
            self.replied = false;
            gone(&why)
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

impl Drop for ZeroMqHandle {
    fn drop(&mut self) {
        if let (false, Some(peer)) = (self.replied, &self.peer) {
            // It will never be answered, so it no longer counts as unanswered.
            peer.unanswered.add_permits(1);
        }
    }
}
