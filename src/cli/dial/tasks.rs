//! What runs beside the batch, each a task of its own: publishing, responses, events, signals.

use std::time::{Duration, Instant};

use amibus_contract::{Bytes, Client, Decision, Fault, FaultKind, Feed, Kind, Posted};
use tokio::sync::mpsc::{Receiver, Sender};

use super::{state::Stage, watch::Watch};
use crate::cli::{
    bus::Found,
    signals::{Signals, Told},
};

/// The pause before a command is published again that the bus did not take.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the tasks tell.
pub(super) enum Input {
    /// A response, and whether it came to where our replies come, not to all.
    Response { body: Bytes, to_us: bool },
    /// Responses may have been missed.
    Missed,
    /// A channel has got so far.
    Seen(String, Stage),
    /// The bus will never take this row.
    Refused(usize, Fault),
    /// The bus takes nothing at the moment; it is tried again.
    Trouble(Fault),
    /// Nothing goes on until a person mends something.
    Broken(Fault),
    /// No new calls.
    Stop,
    /// Away at once.
    Leave,
}

/// A row to be published.
pub(super) struct Job {
    pub(super) index: usize,
    pub(super) id: String,
    pub(super) server: String,
    pub(super) body: Bytes,
}

/// Where commands go, and what holds for all of them.
pub(super) struct Way {
    pub(super) client: Box<dyn Client>,
    pub(super) prefix: String,
    pub(super) batch: String,
    pub(super) reply_to: String,
}

/// Publishes one row after another, each until the bus has stored it.
pub(super) async fn publish(mut way: Way, mut jobs: Receiver<Job>, tell: Sender<Input>) {
    while let Some(job) = jobs.recv().await {
        let mut is_told = false;
        loop {
            let command = Posted {
                prefix: &way.prefix,
                server: &job.server,
                action: "Originate",
                id: &job.id,
                key: &way.batch,
                reply_to: &way.reply_to,
                body: job.body.clone(),
            };
            let Err(fault) = way.client.publish_command(command).await else { break };
            let (input, is_over) = match fault.decision {
                Decision::Retry => (Input::Trouble(fault), false),
                Decision::Skip => (Input::Refused(job.index, fault), true),
                Decision::Stop => (Input::Broken(fault), true),
            };
            if (is_over || !is_told) && tell.send(input).await.is_err() {
                return;
            }
            if is_over {
                break;
            }
            is_told = true;
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

/// Passes responses on. `address` is where our own replies come.
pub(super) async fn responses(mut feed: Box<dyn Feed>, address: String, tell: Sender<Input>) {
    loop {
        let (input, is_over) = match feed.next().await {
            Ok(Some(delivery)) => {
                (Input::Response { to_us: *delivery.topic == *address, body: delivery.body }, false)
            }
            Ok(None) => (Input::Broken(Fault::new(FaultKind::Closed, "no more responses come")), true),
            Err(fault) if fault.decision == Decision::Retry => (Input::Missed, false),
            Err(fault) => (Input::Broken(fault), true),
        };
        if tell.send(input).await.is_err() || is_over {
            return;
        }
    }
}

/// Passes on what events say of our calls. Where none are to be had, only less is shown.
pub(super) async fn events(found: Found, server: Option<String>, tell: Sender<Input>) {
    let watch = Watch::new();
    let follow = async {
        let client = found.bus.bridge.client().await;
        let mut client = client?;
        let mut feed = client.subscribe(&found.prefix, &[Kind::Event], server.as_deref()).await?;
        while let Some(delivery) = feed.next().await? {
            if let Some((channel, stage)) = watch.look(&delivery.body) {
                // Where the batch is busy, a stage is left out.
                let _ = tell.try_send(Input::Seen(channel, stage));
            }
        }
        Ok::<_, Fault>(())
    };
    if let Err(fault) = follow.await {
        tracing::warn!(%fault, "no events are to be had, so it is not shown how far calls are");
    }
}

/// Passes signals on: the first stops, one that comes later leaves at once. A terminal that is closed (SIGHUP) ends nothing.
pub(super) async fn signals(mut signals: Signals, tell: Sender<Input>) {
    while !matches!(signals.next().await, Told::Leave) {}
    let _ = tell.send(Input::Stop).await;
    signals.at_once(&mut Some(Instant::now())).await;
    let _ = tell.send(Input::Leave).await;
}
