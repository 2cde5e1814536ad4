//! What a requester may send: an envelope that ends with an empty frame, or none, and one frame, the command.
//!
//! REQ sends an empty delimiter and the command. DEALER sends the command, with or without a delimiter. Whatever came
//! up to the first empty frame stands before the reply again. A message that is not of this form is answered
//! here, by a refusal that names what is wrong, and never reaches the engine.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

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
    while let Some(incoming) = read(reader, peer, max_command_bytes).await? {
        if let Some(problem) = incoming.problem(max_command_bytes) {
            let body = rejection(&format!("{}-{}", peer.identity(), peer.next()), &problem);
            let (envelope, _) = split_envelope(&incoming.frames);
            let reply = wire::message(envelope.iter().map(|f| &f[..]).chain([body.as_bytes()]));
            // Where the connection has ended meanwhile, nobody waits for it.
            let _ = peer.outbox().send(reply).await;
            continue;
        }
        let Ok(permit) = peer.unanswered.acquire().await else { return Ok(()) };
        permit.forget();
        engine.write_all(&wire::message(incoming.frames.iter().map(|f| &f[..]))).await?;
    }
    Ok(())
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
async fn read<R>(reader: &mut R, peer: &Peer, max_bytes: usize) -> Result<Option<Incoming>, Refusal>
where
    R: AsyncRead + Unpin,
{
    let mut incoming = Incoming::default();
    loop {
        let Some(header) = wire::read_header(reader).await? else {
            let clean = incoming.frame_count == 0;
            return if clean { Ok(None) } else { Err(Refusal::Malformed("it left amid a message")) };
        };
        if header.command {
            control(reader, header, peer.outbox()).await?;
            continue;
        }
        incoming.frame_count += 1;
        incoming.bytes = incoming.bytes.saturating_add(header.bytes);
        if incoming.bytes > MAX_SKIPPED_BYTES || incoming.frame_count > MAX_SKIPPED_FRAMES {
            return Err(Refusal::TooLarge { bytes: incoming.bytes, limit: MAX_SKIPPED_BYTES });
        }
        if incoming.bytes > max_bytes as u64 || incoming.frame_count > MAX_FRAMES {
            incoming.cut = true;
            skip(reader, header.bytes).await?;
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
