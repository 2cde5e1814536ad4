//! A subscriber of ZeroMQ.

use std::io;

use zeromq::{Socket as _, SocketRecv as _, SubSocket};

use super::Sink;
use crate::child::say;

pub(crate) async fn run(address: &str, prefix: &str, sink: &mut dyn Sink) -> io::Result<()> {
    let mut socket = SubSocket::new();
    socket.connect(address).await.map_err(io::Error::other)?;
    socket.subscribe(&format!("{prefix}.event.")).await.map_err(io::Error::other)?;
    say("ready")?;
    loop {
        let message = socket.recv().await.map_err(io::Error::other)?;
        let body = message.get(1).map_or(&[][..], |frame| frame);
        let bytes = message.iter().map(|frame| frame.len()).sum();
        if sink.take(0, body, bytes) {
            return Ok(());
        }
    }
}
