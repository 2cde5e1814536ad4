//! ZMTP commands: READY of the handshake, and heartbeats.

use bytes::{BufMut, Bytes, BytesMut};

use super::{COMMAND, Refusal, put_frame};

/// The longest context of a PING that is answered, in bytes (RFC 37).
const MAX_PING_CONTEXT_BYTES: usize = 16;

/// What a peer says of itself at the end of the handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    /// The kind of socket, e.g. `SUB`.
    pub(crate) socket: String,
}

impl Ready {
    /// Reads the body of a READY command.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let malformed = Refusal::Malformed("a READY command was expected");
        let Some((b"READY", mut rest)) = short_text(body) else { return Err(malformed) };
        let mut socket = None;
        while !rest.is_empty() {
            let Some((name, value, after)) = property(rest) else { return Err(malformed) };
            if name.eq_ignore_ascii_case(b"Socket-Type") {
                socket = Some(String::from_utf8_lossy(value).into_owned());
            }
            rest = after;
        }
        let socket = socket.ok_or(Refusal::Malformed("READY without a Socket-Type"))?;
        Ok(Self { socket })
    }

    /// The whole frame, with an identity that we chose: the engine keys its peers by identity, so a peer that chose
    /// its own could take another one's place.
    pub(crate) fn frame(&self, identity: &[u8]) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u8(5);
        body.put_slice(b"READY");
        for (name, value) in [(&b"Socket-Type"[..], self.socket.as_bytes()), (b"Identity", identity)] {
            body.put_u8(u8::try_from(name.len()).unwrap_or_default());
            body.put_slice(name);
            body.put_u32(u32::try_from(value.len()).unwrap_or_default());
            body.put_slice(value);
        }
        let mut out = BytesMut::new();
        put_frame(&mut out, COMMAND, &body);
        out.freeze()
    }
}

/// The PONG frame that answers this command, where it is a PING; every other command asks for nothing.
pub(crate) fn pong_for(body: &[u8]) -> Result<Option<Bytes>, Refusal> {
    let Some((b"PING", rest)) = short_text(body) else { return Ok(None) };
    // Two bytes of time to live, in tenths of a second, come before the context.
    let context = rest.get(2..).ok_or(Refusal::Malformed("a PING without a time to live"))?;
    if context.len() > MAX_PING_CONTEXT_BYTES {
        return Err(Refusal::Malformed("a PING with too long a context"));
    }
    let mut answer = BytesMut::from(&b"\x04PONG"[..]);
    answer.put_slice(context);
    let mut out = BytesMut::new();
    put_frame(&mut out, COMMAND, &answer);
    Ok(Some(out.freeze()))
}

/// A text after its length in one byte, and what follows.
fn short_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// A property's name and value, and what follows.
fn property(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = short_text(bytes)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((name, value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_loses_the_identity_that_the_peer_chose() {
        let body = b"\x05READY\x08Identity\x00\x00\x00\x03bob\x0bsocket-type\x00\x00\x00\x03SUB";
        let ready = Ready::parse(body).expect("well formed");
        assert_eq!(ready.socket, "SUB");
        let frame = ready.frame(b"ours");
        let text = String::from_utf8_lossy(&frame);
        assert!(text.contains("ours") && !text.contains("bob"), "{text:?}");
        assert_eq!(Ready::parse(&frame[2..]).expect("well formed"), ready);
    }

    #[test]
    fn a_broken_ready_is_refused() {
        let bodies: [&[u8]; 6] = [
            b"",
            b"\x05READ",
            b"\x04PING\0\0",
            b"\x05READY",
            b"\x05READY\x0bSocket-Type\x00\x00\x01\x00SUB",
            b"\x05READY\x0bSocket-Type\xff\xff\xff\xffSUB",
        ];
        for body in bodies {
            assert!(Ready::parse(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_ping_is_answered_with_its_context() {
        let answer = pong_for(b"\x04PING\x00\x14hello").expect("well formed").expect("an answer");
        assert_eq!(&answer[..], b"\x04\x0a\x04PONGhello");
        assert_eq!(pong_for(b"\x04PONGhello").expect("well formed"), None);
        assert!(pong_for(b"\x04PING\x00").is_err());
        assert!(pong_for(&[&b"\x04PING\0\0"[..], &[0; 17]].concat()).is_err());
    }
}
