//! The gate the other way round: between an engine of ours that connects, and the server that it connects to.
//!
//! A server can end this process by one malformed frame as well as a peer can, so what comes from it is checked too.

use std::{io, time::Duration};

use amibus_contract::Fault;
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    net::{TcpStream, UnixListener, UnixStream},
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    address::Address,
    engine::PrivateSocket,
    gate::{Outbound, Pace, control},
    stats::Counters,
    thread::broken,
    wire::{self, COMMAND, MORE, Refusal},
};

/// How long to wait before the server is tried again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What a requester may have on its way to the server, in bytes.
const QUEUE_BYTES: usize = 1 << 20;
/// How long the server may take nothing while that is full.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a message may have beside its body, in bytes.
const ENVELOPE_BYTES: u64 = 1024;
/// The largest command of a server's handshake, in bytes.
const MAX_READY_BYTES: usize = 4096;
const OUTBOX_FRAMES: usize = 16;

/// A local address that stands for the server's, for one engine that connects to it, as often as it likes.
pub(crate) struct Relay {
    socket: PrivateSocket,
    _carry: AbortOnDropHandle<()>,
}

impl Relay {
    /// Stands in for `server`, whose messages may have `max_message_bytes`.
    pub(crate) fn to(server: Address, max_message_bytes: usize) -> Result<Self, Fault> {
        let (socket, listener) = PrivateSocket::listen()?;
        listener.set_nonblocking(true).map_err(broken)?;
        let listener = UnixListener::from_std(listener).map_err(broken)?;
        let carry = tokio::spawn(async move {
            while let Ok((engine, _)) = listener.accept().await {
                if let Err(refusal) = carry(engine, &server, max_message_bytes).await {
                    tracing::debug!(%server, %refusal, "the connection to a ZeroMQ server ended");
                }
            }
        });
        Ok(Self { socket, _carry: AbortOnDropHandle::new(carry) })
    }

    /// What the engine connects to.
    pub(crate) fn address(&self) -> String {
        format!("ipc://{}", self.socket.path().display())
    }
}

/// Carries one connection of the engine, as soon as the server is there.
async fn carry(engine: UnixStream, server: &Address, max_message_bytes: usize) -> Result<(), Refusal> {
    match server {
        Address::Tcp { host, port } => {
            let stream = insist(|| TcpStream::connect((host.connect_name(), *port))).await;
            stream.set_nodelay(true)?;
            let (reader, writer) = stream.into_split();
            both_ways(engine, reader, writer, max_message_bytes).await
        }
        Address::Ipc(path) => {
            let stream = insist(|| UnixStream::connect(path)).await;
            let (reader, writer) = stream.into_split();
            both_ways(engine, reader, writer, max_message_bytes).await
        }
    }
}

/// Connects, again and again: whoever no longer wants it drops the relay.
async fn insist<S, F>(mut connect: impl FnMut() -> F) -> S
where
    F: Future<Output = io::Result<S>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match connect().await {
            Ok(stream) => return stream,
            Err(error) => tracing::trace!(%error, "no ZeroMQ server yet"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn both_ways<R, W>(
    engine: UnixStream,
    reader: R,
    mut writer: W,
    max_message_bytes: usize,
) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (mut from_engine, to_engine) = engine.into_split();
    let (outbox, mut ours) = mpsc::channel(OUTBOX_FRAMES);
    let mut reader = BufReader::new(reader);
    let mut to_engine = BufWriter::new(to_engine);
    let pace = Pace::new(PATIENCE, 1, Instant::now());
    let mut outbound = Outbound::new(QUEUE_BYTES, pace, std::sync::Arc::<Counters>::default().queued());
    let never = CancellationToken::new();
    tokio::select! {
        ended = from_server(&mut reader, &mut to_engine, &outbox, max_message_bytes as u64 + ENVELOPE_BYTES) => ended,
        ended = outbound.run(&mut from_engine, &mut writer, &mut ours, &never, |_| ()) => ended,
    }
}

/// Carries a server's messages to the engine, checking each header before the engine sees it.
async fn from_server<R, W>(
    reader: &mut BufReader<R>,
    engine: &mut W,
    outbox: &mpsc::Sender<Bytes>,
    max_bytes: u64,
) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    wire::read_greeting(reader).await?;
    engine.write_all(&wire::greeting()).await?;
    engine.flush().await?;
    let mut ready = false;
    let mut message_bytes = 0;
    while let Some(header) = wire::read_header(reader).await? {
        let mut out = BytesMut::new();
        if header.command && ready {
            control(reader, header, outbox).await?;
        } else if header.command {
            let body = wire::read_body(reader, header, MAX_READY_BYTES).await?;
            wire::put_frame(&mut out, COMMAND, &body);
            engine.write_all(&out).await?;
            ready = true;
        } else {
            message_bytes = header.bytes.saturating_add(message_bytes);
            if message_bytes > max_bytes {
                return Err(Refusal::TooLarge { bytes: message_bytes, limit: max_bytes });
            }
            wire::put_header(&mut out, if header.more { MORE } else { 0 }, header.bytes);
            engine.write_all(&out).await?;
            let mut body = (&mut *reader).take(header.bytes);
            if tokio::io::copy_buf(&mut body, engine).await? < header.bytes {
                return Err(Refusal::Malformed("it left amid a frame"));
            }
            if !header.more {
                message_bytes = 0;
            }
        }
        if reader.buffer().is_empty() {
            engine.flush().await?;
        }
    }
    Ok(())
}
