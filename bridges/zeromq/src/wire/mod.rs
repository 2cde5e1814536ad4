//! Just enough of ZMTP 3 to police it: the greeting, frames, READY, PING and PONG.
//!
//! Source: RFC 23 (ZMTP 3.0) and RFC 37 (ZMTP 3.1, heartbeats). The engine (the `zeromq` crate) speaks 3.0 with
//! the NULL mechanism, and so does everything here. Nothing here reserves what a header merely claims.

mod command;
mod scanner;

use std::{io, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

pub(crate) use command::{Ready, pong_for};
pub(crate) use scanner::Scanner;

/// The length of a greeting, in bytes.
pub(crate) const GREETING_BYTES: usize = 64;
/// The flag of a frame that more frames of the same message follow.
pub(crate) const MORE: u8 = 1;
/// The flag of a frame whose length is given in eight bytes.
pub(crate) const LONG: u8 = 2;
/// The flag of a command frame.
pub(crate) const COMMAND: u8 = 4;

/// How long a frame may take from its first byte to its last, and a message from one frame to the next...
const FRAME_WITHIN: Duration = Duration::from_secs(30);
/// ...and a second more for each of these.
const LEAST_BYTES_PER_SECOND: u64 = 16 << 10;
/// What is reserved for a frame when its header has come, in bytes, at most.
const FIRST_RESERVE_BYTES: usize = 4096;

/// What is wrong with a peer's bytes, or with the peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("not ZMTP 3: {0}")]
    NotZmtp3(&'static str),
    #[error("malformed: {0}")]
    Malformed(&'static str),
    #[error("a frame or message of {bytes} bytes; at most {limit} are taken")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("a {0} socket; this one serves {1}")]
    WrongSocket(String, &'static str),
    #[error("no handshake within its deadline")]
    Silent,
    #[error("it stopped amid a message")]
    Stalled,
    #[error("more than {0} subscriptions")]
    TooManySubscriptions(usize),
    #[error("reads too slowly: its queue of {queue_bytes} bytes stayed full")]
    Slow { queue_bytes: usize },
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) more: bool,
    pub(crate) command: bool,
    pub(crate) bytes: u64,
}

/// Reads a frame's header; `None` where the stream ends before one.
pub(crate) async fn read_header<R>(reader: &mut R) -> Result<Option<Header>, Refusal>
where
    R: AsyncRead + Unpin,
{
    let flags = match reader.read_u8().await {
        Ok(flags) => flags,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if flags > MORE | LONG | COMMAND {
        return Err(Refusal::Malformed("reserved flags are set"));
    }
    let (more, command) = (flags & MORE != 0, flags & COMMAND != 0);
    if more && command {
        return Err(Refusal::Malformed("a command of more than one frame"));
    }
    let length = async {
        Ok(if flags & LONG != 0 { reader.read_u64().await? } else { u64::from(reader.read_u8().await?) })
    };
    let bytes = in_time(0, length).await?;
    Ok(Some(Header { more, command, bytes }))
}

/// Reads a frame's body, which the caller has found to be within `limit`.
pub(crate) async fn read_body<R>(reader: &mut R, header: Header, limit: usize) -> Result<Bytes, Refusal>
where
    R: AsyncRead + Unpin,
{
    let bytes = usize::try_from(header.bytes).ok().filter(|bytes| *bytes <= limit);
    let Some(bytes) = bytes else {
        return Err(Refusal::TooLarge { bytes: header.bytes, limit: limit as u64 });
    };
    in_time(header.bytes, grow(reader, bytes)).await
}

/// Reads so many bytes, and reserves about as many as have come.
async fn grow<R>(reader: &mut R, bytes: usize) -> Result<Bytes, Refusal>
where
    R: AsyncRead + Unpin,
{
    let mut body = BytesMut::new();
    let mut rest = reader.take(bytes as u64);
    while body.len() < bytes {
        if body.len() == body.capacity() {
            body.reserve(reserve(body.len(), bytes));
        }
        if rest.read_buf(&mut body).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(body.freeze())
}

/// How many bytes to reserve for the rest of `bytes` when `come` have come.
fn reserve(come: usize, bytes: usize) -> usize {
    come.max(FIRST_RESERVE_BYTES).min(bytes - come)
}

/// Runs what reads the rest of a frame that has begun, of `bytes`.
///
/// # Errors
/// [`Refusal::Stalled`] where it takes longer than it may.
pub(crate) async fn in_time<T>(
    bytes: u64,
    reading: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let limit = FRAME_WITHIN + Duration::from_secs(bytes / LEAST_BYTES_PER_SECOND);
    timeout(limit, reading).await.map_err(|_| Refusal::Stalled)?
}

/// The greeting of a ZMTP 3.0 peer with the NULL mechanism, as the engine understands it.
pub(crate) fn greeting() -> [u8; GREETING_BYTES] {
    let mut bytes = [0; GREETING_BYTES];
    for (at, byte) in [(0, 0xff), (9, 0x7f), (10, 3), (12, b'N'), (13, b'U'), (14, b'L'), (15, b'L')] {
        bytes[at] = byte;
    }
    bytes
}

/// Reads a peer's greeting and checks that it speaks ZMTP 3 or later without security, as far as can be told after
/// each part: an older peer is refused at once, not when it would have sent 64 bytes.
pub(crate) async fn read_greeting<R>(reader: &mut R) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
{
    if reader.read_u8().await? != 0xff {
        return Err(Refusal::NotZmtp3("it does not begin with a signature"));
    }
    let mut signature = [0; 9];
    reader.read_exact(&mut signature).await?;
    if signature[8] != 0x7f {
        return Err(Refusal::NotZmtp3("its signature has no end"));
    }
    if reader.read_u8().await? < 3 {
        return Err(Refusal::NotZmtp3("it speaks an older version"));
    }
    let mut rest = [0; GREETING_BYTES - 11];
    reader.read_exact(&mut rest).await?;
    let [_minor, mechanism @ ..] = rest;
    if !mechanism.starts_with(b"NULL\0") {
        return Err(Refusal::NotZmtp3("it asks for a security mechanism, and there is none but NULL"));
    }
    Ok(())
}

/// Appends a frame's header; the length form is chosen here.
pub(crate) fn put_header(out: &mut BytesMut, flags: u8, bytes: u64) {
    match u8::try_from(bytes) {
        Ok(short) => out.put_slice(&[flags, short]),
        Err(_) => {
            out.put_u8(flags | LONG);
            out.put_u64(bytes);
        }
    }
}

/// Appends a frame with these flags.
pub(crate) fn put_frame(out: &mut BytesMut, flags: u8, body: &[u8]) {
    put_header(out, flags, body.len() as u64);
    out.put_slice(body);
}

/// A whole message as it stands on the wire.
pub(crate) fn message<'a>(frames: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut out = BytesMut::new();
    let mut frames = frames.into_iter().peekable();
    while let Some(frame) = frames.next() {
        put_frame(&mut out, if frames.peek().is_some() { MORE } else { 0 }, frame);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_comes_back_as_it_was_written() {
        for size in [0, 1, 255, 256, 70_000] {
            let body = vec![7; size];
            let mut out = BytesMut::new();
            put_frame(&mut out, MORE, &body);
            let mut reader = &out[..];
            let header = read_header(&mut reader).await.expect("well formed").expect("a header");
            assert_eq!(header, Header { more: true, command: false, bytes: size as u64 });
            assert_eq!(read_body(&mut reader, header, size).await.expect("whole"), body);
        }
    }

    #[tokio::test]
    async fn an_enormous_length_reserves_nothing() {
        let mut reader = &[LONG, 0, 0, 1, 0, 0, 0, 0, 0][..];
        let header = read_header(&mut reader).await.expect("well formed").expect("a header");
        assert_eq!(header.bytes, 1 << 40);
        let refused = read_body(&mut reader, header, 1024).await;
        assert!(matches!(refused, Err(Refusal::TooLarge { bytes, limit: 1024 }) if bytes == 1 << 40));
    }

    #[test]
    fn only_what_has_come_is_reserved() {
        assert_eq!(reserve(0, 10), 10);
        assert_eq!(reserve(0, 16 << 20), FIRST_RESERVE_BYTES);
        assert_eq!(reserve(8192, 16 << 20), 8192);
        assert_eq!(reserve(8192, 8193), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_stops_is_given_up() {
        for begun in [&[0][..], &[0, 5, 1, 2], &[LONG, 0, 0]] {
            let (mut peer, mut reader) = tokio::io::duplex(64);
            tokio::io::AsyncWriteExt::write_all(&mut peer, begun).await.expect("room");
            let read = async {
                let header = read_header(&mut reader).await?.expect("a header");
                read_body(&mut reader, header, 100).await
            };
            let ended = timeout(2 * FRAME_WITHIN, read).await.expect("in time");
            assert!(matches!(ended, Err(Refusal::Stalled)), "{begun:?}: {ended:?}");
        }
        // Between two frames a peer may be silent as long as it likes.
        let (_peer, mut reader) = tokio::io::duplex(64);
        assert!(timeout(2 * FRAME_WITHIN, read_header(&mut reader)).await.is_err());
    }

    #[tokio::test]
    async fn greetings_are_told_apart() {
        assert!(read_greeting(&mut &greeting()[..]).await.is_ok());
        let mut later = greeting();
        later[11] = 1;
        assert!(read_greeting(&mut &later[..]).await.is_ok(), "3.1");
        let mut older = greeting();
        older[10] = 1;
        let mut plain = greeting();
        plain[12..17].copy_from_slice(b"PLAIN");
        for bad in [&older[..11], &plain[..], &[1, 0], b"GET / HTTP/1.1\r\n"] {
            assert!(matches!(read_greeting(&mut &bad[..]).await, Err(Refusal::NotZmtp3(_))), "{bad:?}");
        }
        assert!(matches!(read_greeting(&mut &greeting()[..40]).await, Err(Refusal::Io(_))));
    }
}
