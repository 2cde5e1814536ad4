//! What a requester may send: an envelope that ends with an empty frame, or none, and one frame, the command.
//!
//! REQ sends an empty delimiter and the command. DEALER sends the command, with or without a delimiter. Whatever came
//! up to the first empty frame stands before the reply again. A message that is not of this form is answered
//! here, by a refusal that names what is wrong, and never reaches the engine.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Notify, mpsc},
};

use super::{Peer, inbound::control};
use crate::{
    rejection::{Problem, rejection},
    wire::{self, Refusal},
};

/// How many frames a message may have and still be looked at.
const MAX_FRAMES: usize = 16;
/// How large a message may be, in bytes, to be skipped and answered; beyond it the peer is disconnected.
pub(crate) const MAX_SKIPPED_BYTES: u64 = 16 << 20;
/// How many frames such a message may have.
const MAX_SKIPPED_FRAMES: usize = 4096;

/// How many bytes of commands may wait for their turn before no further one is read. Until then PING is answered,
/// which libzmq sends behind the commands; a peer that gets no PONG cuts the connection and loses its replies.
const MAX_WAITING_BYTES: usize = 64 << 10;
/// What a waiting command costs beside its frames, in bytes, at least.
const WAITING_OVERHEAD_BYTES: usize = 64;
const MAX_WAITING_COMMANDS: usize = MAX_WAITING_BYTES / WAITING_OVERHEAD_BYTES;

/// Carries a requester's commands to the engine until it leaves, at most as many as may be unanswered.
pub(crate) async fn requests<R, W>(
    reader: &mut R,
    engine: &mut W,
    peer: &Peer,
    max_command_bytes: usize,
) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (line, mut waiting) = mpsc::channel::<Bytes>(MAX_WAITING_COMMANDS);
    let room = Room::default();
    let taking = async {
        // Moved in, so that what waits is carried on to its end when the peer leaves.
        let line = line;
        while let Some(incoming) = read(reader, peer, max_command_bytes, &room).await? {
            if let Some(problem) = incoming.problem(max_command_bytes) {
                refuse(peer, &incoming, &problem).await;
                continue;
            }
            let command = wire::message(incoming.frames.iter().map(|f| &f[..]));
            room.take(command.len());
            if line.send(command).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    };
    let giving = async {
        while let Some(command) = waiting.recv().await {
            let Ok(permit) = peer.unanswered.acquire().await else { return Ok(()) };
            permit.forget();
            room.give(command.len());
            engine.write_all(&command).await?;
        }
        Ok(())
    };
    tokio::try_join!(taking, giving).map(|_| ())
}

async fn refuse(peer: &Peer, incoming: &Incoming, problem: &Problem) {
    let body = rejection(&format!("{}-{}", peer.identity(), peer.next()), problem);
    // As the engine writes it for what comes to it.
    tracing::info!(
        target: "amibus::audit",
        bus = "zeromq",
        sender = peer.label(),
        verdict = "unjudged",
        outcome = "rejected",
        code = problem.code(),
        field = problem.field(),
        "command"
    );
    let (envelope, _) = split_envelope(&incoming.frames);
    let reply = wire::message(envelope.iter().map(|f| &f[..]).chain([body.as_bytes()]));
    // Where the connection has ended meanwhile, nobody waits for it.
    let _ = peer.outbox().send(reply).await;
}

/// The bytes of the commands that wait for their turn.
#[derive(Default)]
struct Room {
    taken: AtomicUsize,
    given: Notify,
}

impl Room {
    /// Ready when there is some: one command may go beyond it.
    async fn wait(&self) {
        while self.taken.load(Ordering::Acquire) >= MAX_WAITING_BYTES {
            self.given.notified().await;
        }
    }

    fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes + WAITING_OVERHEAD_BYTES, Ordering::AcqRel);
    }

    fn give(&self, bytes: usize) {
        self.taken.fetch_sub(bytes + WAITING_OVERHEAD_BYTES, Ordering::AcqRel);
        self.given.notify_one();
    }
}

/// The frames up to the first empty one, and the rest; without an empty one there is no envelope.
pub(crate) fn split_envelope(frames: &[Bytes]) -> (&[Bytes], &[Bytes]) {
    let end = frames.iter().position(Bytes::is_empty).map_or(0, |at| at + 1);
    frames.split_at_checked(end).unwrap_or((frames, &[]))
}

/// A message from a requester: its first frames, as far as they were kept.
#[derive(Default)]
struct Incoming {
    frames: Vec<Bytes>,
    frame_count: usize,
    bytes: u64,
    cut: bool,
}

impl Incoming {
    fn problem(&self, max_command_bytes: usize) -> Option<Problem> {
        if self.bytes > max_command_bytes as u64 {
            let bytes = self.bytes;
            let text = format!("the message has {bytes} bytes; at most {max_command_bytes} are taken");
            return Some(Problem::TooLarge(text));
        }
        let (envelope, command) = split_envelope(&self.frames);
        let text = match command {
            _ if self.cut => format!("the message has {} frames; one is expected", self.frame_count),
            [one] if one.is_empty() => "the command is empty".to_owned(),
            [_] => return None,
            [] => "there is no command after the empty delimiter".to_owned(),
            _ => {
                let count = self.frame_count - envelope.len();
                format!("one frame, the command, is expected; got {count}")
            }
        };
        Some(Problem::Frames(text))
    }
}

/// Reads a whole message, keeping no more than it may have; `None` where the peer left between two.
/// A message is begun only where there is room for it.
async fn read<R>(
    reader: &mut R,
    peer: &Peer,
    max_bytes: usize,
    room: &Room,
) -> Result<Option<Incoming>, Refusal>
where
    R: AsyncRead + Unpin,
{
    let mut incoming = Incoming::default();
    loop {
        let header = match incoming.frame_count {
            0 => wire::read_header(reader).await?,
            _ => wire::in_time(0, wire::read_header(reader)).await?,
        };
        let Some(header) = header else {
            let clean = incoming.frame_count == 0;
            return if clean { Ok(None) } else { Err(Refusal::Malformed("it left amid a message")) };
        };
        if header.command {
            control(reader, header, peer.outbox()).await?;
            continue;
        }
        if incoming.frame_count == 0 {
            room.wait().await;
        }
        incoming.frame_count += 1;
        incoming.bytes = incoming.bytes.saturating_add(header.bytes);
        if incoming.bytes > MAX_SKIPPED_BYTES || incoming.frame_count > MAX_SKIPPED_FRAMES {
            return Err(Refusal::TooLarge { bytes: incoming.bytes, limit: MAX_SKIPPED_BYTES });
        }
        if incoming.bytes > max_bytes as u64 || incoming.frame_count > MAX_FRAMES {
            incoming.cut = true;
            wire::in_time(header.bytes, skip(reader, header.bytes)).await?;
        } else {
            incoming.frames.push(wire::read_body(reader, header, max_bytes).await?);
        }
        if !header.more {
            return Ok(Some(incoming));
        }
    }
}

async fn skip<R>(reader: &mut R, bytes: u64) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
{
    let mut scratch = BytesMut::with_capacity(4096);
    let mut rest = reader.take(bytes);
    while rest.limit() > 0 {
        scratch.clear();
        if rest.read_buf(&mut scratch).await? == 0 {
            return Err(Refusal::Malformed("it left amid a frame"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(frames: &[&str]) -> Option<Problem> {
        let frames: Vec<Bytes> = frames.iter().map(|f| Bytes::copy_from_slice(f.as_bytes())).collect();
        let bytes = frames.iter().map(|f| f.len() as u64).sum();
        Incoming { frame_count: frames.len(), frames, bytes, cut: false }.problem(100)
    }

    #[test]
    fn one_frame_after_any_envelope_is_a_command() {
        for good in [&["{}"][..], &["", "{}"], &["id", "", "{}"]] {
            assert_eq!(problem_of(good), None, "{good:?}");
        }
        for bad in [&[""][..], &["", ""], &["a", "b"], &["", "a", "b"], &["{}", ""], &["", &"x".repeat(101)]]
        {
            assert!(problem_of(bad).is_some(), "{bad:?}");
        }
    }
}
