//! What `amibus check --connect` tells of an address.

use std::time::Duration;

use amibus_contract::Fault;
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{address::Address, gate::Listener, wire};

/// How long whoever listens already may take to say that it is a ZeroMQ socket.
const GREETING_WITHIN: Duration = Duration::from_secs(2);

/// Whether `configured` can be listened on, or is by this bridge (`bound`) or by somebody else.
pub(crate) async fn address(
    configured: &Address,
    bound: Option<String>,
    whom: &str,
) -> Result<Vec<String>, Fault> {
    let mut lines = Vec::new();
    if let Some(bound) = bound {
        lines.push(format!("listening on {bound} for {whom}"));
    } else {
        match Listener::bind(configured).await {
            Ok(_) => lines.push(format!("can listen on {configured} for {whom}")),
            Err(_) if speaks_zeromq(configured).await => lines.push(format!(
                "warning: a ZeroMQ socket listens on {configured} already (an amibus that runs?)"
            )),
            Err(fault) => return Err(fault),
        }
    }
    if !configured.is_local() {
        lines.push(format!(
            "warning: {configured} can be reached by other machines, and has neither authentication nor encryption"
        ));
    }
    Ok(lines)
}

async fn speaks_zeromq(address: &Address) -> bool {
    let greeted = async {
        match address {
            Address::Tcp { host, port } => {
                let mut stream = TcpStream::connect((host.connect_name(), *port)).await?;
                wire::read_greeting(&mut stream).await
            }
            Address::Ipc(path) => wire::read_greeting(&mut UnixStream::connect(path).await?).await,
        }
    };
    matches!(timeout(GREETING_WITHIN, greeted).await, Ok(Ok(())))
}
