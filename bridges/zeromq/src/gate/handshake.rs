//! The peer's side of the handshake: checked here, and said to the engine in our words.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::Role;
use crate::wire::{self, Ready, Refusal};

/// The largest READY command, in bytes: an identity of 255 and some metadata.
const MAX_READY_BYTES: usize = 4096;

/// Reads the peer's greeting and READY, and sends the engine a greeting of ours and a READY with our identity.
/// The engine's own go to the peer as they are.
pub(crate) async fn handshake<R, W>(
    reader: &mut R,
    engine: &mut W,
    role: Role,
    identity: &str,
) -> Result<(), Refusal>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    wire::read_greeting(reader).await?;
    engine.write_all(&wire::greeting()).await?;
    let gone = Refusal::Malformed("it left amid the handshake");
    let header = wire::read_header(reader).await?.ok_or(gone)?;
    if !header.command {
        return Err(Refusal::Malformed("a message before the handshake's end"));
    }
    let ready = Ready::parse(&wire::read_body(reader, header, MAX_READY_BYTES).await?)?;
    if !role.takes(&ready.socket) {
        let socket = ready.socket.chars().take(16).collect();
        return Err(Refusal::WrongSocket(socket, role.as_str()));
    }
    engine.write_all(&ready.frame(identity.as_bytes())).await?;
    Ok(())
}
