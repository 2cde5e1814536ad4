//! A subscriber of ZeroMQ.

use std::io;

use zeromq::{Socket as _, SocketRecv as _, SubSocket};

use crate::{child::say, tally::Tally};

pub(crate) async fn run(address: &str, prefix: &str, tally: &mut Tally) -> io::Result<()> {
    let mut socket = SubSocket::new();
    socket.connect(address).await.map_err(io::Error::other)?;
    socket.subscribe(&format!("{prefix}.event.")).await.map_err(io::Error::other)?;
    say("ready")?;
    loop {
        let message = socket.recv().await.map_err(io::Error::other)?;
        let body = message.get(1).map_or(&[][..], |frame| frame);
        let bytes = message.iter().map(|frame| frame.len()).sum();
        if tally.take(0, body, bytes) {
            return Ok(());
        }
    }
}
