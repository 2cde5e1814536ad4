//! Requests in: from the engine, and from the next one where that ends by itself.

use std::{sync::Arc, time::Duration};

use amibus_contract::{BoxFuture, Fault, FaultKind, Inlet, Request};
use tokio::time::sleep;

use crate::{bridge::Shared, commands::Requests, gate::Role, thread::ended};

/// How long to wait before an engine that has ended is opened again, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(crate) struct ZeroMqInlet {
    shared: Arc<Shared>,
    requests: Requests,
}

impl ZeroMqInlet {
    pub(crate) fn new(shared: Arc<Shared>, requests: Requests) -> Self {
        Self { shared, requests }
    }

    /// Opens the engine again, as often as it takes.
    async fn reopen(&mut self) {
        self.shared.note::<()>(Role::Commands, Err(ended())).ok();
        tracing::error!(
            "the ZeroMQ engine has ended by itself; its requesters are disconnected, and it is opened again"
        );
        self.requests.give_up().await;
        let mut pause = FIRST_PAUSE;
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match self.shared.requests().await {
                Ok(Some(requests)) => self.requests = requests,
                Ok(None) => {}
                Err(fault) if fault.kind == FaultKind::Closed => {}
                Err(fault) => {
                    tracing::warn!(%fault, retry_in = ?pause, "ZeroMQ commands cannot be taken yet");
                    continue;
                }
            }
            return;
        }
    }
}

impl Inlet for ZeroMqInlet {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Request>, Fault>> {
        Box::pin(async move {
            let closed = self.shared.closed.clone();
            let next = async {
                loop {
                    match self.requests.next().await {
                        Some(request) => return request,
                        None => self.reopen().await,
                    }
                }
            };
            Ok(closed.run_until_cancelled(next).await)
        })
    }
}
