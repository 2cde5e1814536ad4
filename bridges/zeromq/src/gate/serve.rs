//! One connection, from accept to its end.

use std::{
    future::pending,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, sink},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{
    Outbound, Pace, Peer, Role, Shared, handshake::handshake, inbound::subscriptions, peer::OUTBOX_FRAMES,
    requests::requests,
};
use crate::wire::Refusal;

/// How long a peer that was given everything may take to close its side when the bridge closes.
const LINGER: Duration = Duration::from_millis(500);

/// The four ends of a connection.
struct Ends<R, W> {
    reader: BufReader<R>,
    writer: W,
    from_engine: OwnedReadHalf,
    to_engine: OwnedWriteHalf,
}

/// Serves a peer until it leaves, is refused, or the gate ends.
pub(crate) async fn serve<R, W>(shared: Arc<Shared>, reader: R, writer: W, label: String)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (from_engine, to_engine) = match UnixStream::connect(&shared.engine).await {
        Ok(stream) => stream.into_split(),
        Err(error) => {
            tracing::warn!(peer = label, %error, "a ZeroMQ peer was dropped: the engine is out of reach");
            return;
        }
    };
    let mut ends = Ends { reader: BufReader::new(reader), writer, from_engine, to_engine };
    let (sender, receiver) = mpsc::channel(OUTBOX_FRAMES);
    let peer = shared.peers.enter(label, sender, shared.limits.max_unanswered);
    if let Err(refusal) = carry(&shared, &peer, &mut ends, receiver).await {
        report(&shared, &peer, refusal);
    }
    let Ends { reader, writer, mut from_engine, mut to_engine } = ends;
    drop((reader, writer));
    shared.peers.leave(&peer, shared.closing.is_cancelled());
    // Its replies can no longer be waited for.
    shared.flushed.notify_waiters();
    // The engine lets go of a peer when it is asked for messages; until then the peer keeps its place here, so that
    // the engine never holds more of them than there may be.
    let let_go = async {
        to_engine.shutdown().await?;
        tokio::io::copy(&mut from_engine, &mut sink()).await
    };
    tokio::select! {
        () = shared.abort.cancelled() => {}
        _ = let_go => {}
    }
}

fn report(shared: &Shared, peer: &Peer, refusal: Refusal) {
    shared.stats.refused(&refusal);
    let (peer, role) = (peer.label(), shared.role);
    match refusal {
        Refusal::Io(error) => tracing::debug!(peer, ?role, %error, "a ZeroMQ peer's connection broke"),
        Refusal::Slow { .. } => tracing::warn!(peer, ?role, %refusal, "a ZeroMQ peer was disconnected"),
        _ => tracing::info!(peer, ?role, %refusal, "a ZeroMQ peer was refused"),
    }
}

/// Carries both ways until either ends.
async fn carry<R, W>(
    shared: &Shared,
    peer: &Peer,
    ends: &mut Ends<R, W>,
    mut outbox: mpsc::Receiver<Bytes>,
) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let limits = &shared.limits;
    let Ends { reader, writer, from_engine, to_engine } = ends;
    let inbound = async {
        let identity = peer.identity();
        let shaken = handshake(reader, to_engine, shared.role, &identity);
        tokio::select! {
            shaken = timeout(limits.handshake_timeout, shaken) => shaken.map_err(|_| Refusal::Silent)??,
            () = shared.closing.cancelled() => return Ok(()),
        }
        let _connected = shared.stats.connected(shared.role);
        let taken = async {
            match shared.role {
                Role::Publish => subscriptions(reader, to_engine, peer).await,
                Role::Commands => requests(reader, to_engine, peer, limits.max_command_bytes).await,
            }
        };
        tokio::select! {
            ended = taken => ended,
            () = shared.closing.cancelled() => {
                if shared.role == Role::Publish {
                    // The engine is gone, but its end of the connection closes only when it sees ours closing.
                    to_engine.shutdown().await?;
                }
                // What comes from the engine is still delivered.
                pending().await
            }
        }
    };
    let pace = Pace::new(limits.patience, limits.least_bytes_per_second, Instant::now());
    let mut outbound = Outbound::new(limits.queue_bytes, pace, shared.stats.queued());
    let mut flushed = 0;
    let on_flushed = |messages| {
        if messages > flushed && shared.role == Role::Commands {
            peer.replied(messages - flushed);
            shared.flushed.notify_waiters();
        }
        flushed = messages;
    };
    let ended = tokio::select! {
        ended = inbound => ended,
        ended = outbound.run(from_engine, writer, &mut outbox, &shared.abort, on_flushed) => ended,
    };
    if shared.closing.is_cancelled() {
        shared.undelivered.fetch_max(outbound.undelivered(), Ordering::Relaxed);
        if outbound.undelivered() == 0 {
            // Whether it took everything, or the deadline comes first, is no longer ours to change.
            let _ = timeout(LINGER, linger(reader, writer)).await;
        }
    }
    ended
}

/// Says that nothing more comes and waits until the peer says so too. To close a connection with unread bytes in it
/// would reset it, and take away what the peer has not read yet.
async fn linger<R, W>(reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    writer.shutdown().await?;
    tokio::io::copy(reader, &mut sink()).await
}
