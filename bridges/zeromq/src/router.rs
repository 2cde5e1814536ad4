//! The ROUTER engine at work on its thread: requests out of it, replies into it.

use tokio::sync::{
    mpsc::{self, Permit},
    oneshot,
};
use zeromq::{RouterSocket, SocketRecv, SocketSend, ZmqError, ZmqMessage};

use crate::gate::Accepted;

/// How many requests may wait for who asks for the next one; the others wait in their connections.
pub(crate) const WAITING_REQUESTS: usize = 1;
/// How many replies may wait for the engine.
pub(crate) const WAITING_REPLIES: usize = 16;

/// A reply on its way to the engine.
pub(crate) struct Reply {
    /// The peer's identity, the envelope and the body.
    pub(crate) message: ZmqMessage,
    /// It counts among its peer's.
    pub(crate) accepted: Accepted,
    /// Whether the engine has taken it.
    pub(crate) sent: oneshot::Sender<Result<(), ZmqError>>,
}

/// Serves both until the engine fails. That nobody is left who might reply is no end: tasks of the engine still write
/// the replies that it has taken, and live as long as its thread. Who waits for the replies ends the thread.
pub(crate) async fn run(
    mut engine: RouterSocket,
    requests: mpsc::Sender<ZmqMessage>,
    mut replies: mpsc::Receiver<Reply>,
) {
    let mut more_replies = true;
    loop {
        tokio::select! {
            reply = replies.recv(), if more_replies => match reply {
                Some(reply) => send(&mut engine, reply).await,
                None => more_replies = false,
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
    let Reply { message, accepted, sent: told } = reply;
    let sent = engine.send(message).await;
    if sent.is_ok() {
        accepted.taken();
    }
    // Whoever waited may have given up.
    let _ = told.send(sent);
}
