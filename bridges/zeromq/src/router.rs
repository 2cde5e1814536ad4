//! The ROUTER engine at work on its thread: requests out of it, replies into it.

use std::sync::Arc;

use tokio::sync::{
    mpsc::{self, Permit},
    oneshot,
};
use zeromq::{RouterSocket, SocketRecv, SocketSend, ZmqError, ZmqMessage};

use crate::gate::Peer;

/// How many requests may wait for who asks for the next one; the others wait in their connections.
pub(crate) const WAITING_REQUESTS: usize = 1;
/// How many replies may wait for the engine.
pub(crate) const WAITING_REPLIES: usize = 16;

/// A reply on its way to the engine; it counts among its peer's.
pub(crate) struct Reply {
    /// The peer's identity, the envelope and the body.
    pub(crate) message: ZmqMessage,
    /// The peer who gets it.
    pub(crate) peer: Arc<Peer>,
    /// Whether the engine has taken it.
    pub(crate) sent: oneshot::Sender<Result<(), ZmqError>>,
}

/// Serves both until nobody is left who might reply, or the engine fails.
pub(crate) async fn run(
    mut engine: RouterSocket,
    requests: mpsc::Sender<ZmqMessage>,
    mut replies: mpsc::Receiver<Reply>,
) {
    loop {
        tokio::select! {
            reply = replies.recv() => match reply {
                Some(reply) => send(&mut engine, reply).await,
                None => return,
            },
            (room, request) = take(&mut engine, &requests) => match (room, request) {
                (Some(room), Ok(request)) => room.send(request),
                // Nobody takes requests any more.
                (None, Ok(_)) => {}
                (_, Err(error)) => {
                    tracing::warn!(%error, "the ZeroMQ engine takes no more commands");
                    return;
                }
            },
        }
    }
}

/// Takes one request where there is room for it. When nobody takes requests any more it still asks the engine for
/// them, for only then the engine lets go of peers that left.
///
/// # Cancellation
/// Dropping the future loses no request: `recv` has none when it waits.
async fn take<'a>(
    engine: &mut RouterSocket,
    requests: &'a mpsc::Sender<ZmqMessage>,
) -> (Option<Permit<'a, ZmqMessage>>, Result<ZmqMessage, ZmqError>) {
    let room = requests.reserve().await.ok();
    (room, engine.recv().await)
}

async fn send(engine: &mut RouterSocket, reply: Reply) {
    let sent = engine.send(reply.message).await;
    if sent.is_err() {
        reply.peer.not_replying();
    }
    // Whoever waited may have given up.
    let _ = reply.sent.send(sent);
}
