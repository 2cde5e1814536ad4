//! What is in work in this process: an id once, counted, and told to its bus.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Mutex, PoisonError},
};

use amibus_contract::{BoxFuture, Handle};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::metrics::CommandMetrics;

/// The ids in work. Bounded by the requests that are held.
#[derive(Debug, Default)]
pub(super) struct InWork {
    ids: Mutex<HashMap<String, watch::Receiver<()>>>,
}

/// The turn of one id; dropping it gives the turn to whoever waits.
pub(super) struct Turn<'a> {
    all: &'a InWork,
    id: &'a str,
    /// Closed when the turn ends.
    _end: watch::Sender<()>,
}

impl InWork {
    /// Waits until nobody else works on this id.
    pub(super) async fn turn<'a>(&'a self, id: &'a str) -> Turn<'a> {
        loop {
            let mut other = {
                let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
                match ids.get(id) {
                    Some(other) => other.clone(),
                    None => {
                        let (end, ended) = watch::channel(());
                        ids.insert(id.to_owned(), ended);
                        return Turn { all: self, id, _end: end };
                    }
                }
            };
            // Nothing is ever sent: it ends with the turn.
            let _ = other.changed().await;
        }
    }
}

impl InWork {
    /// The turn, unless somebody else works on this id.
    pub(super) fn try_turn<'a>(&'a self, id: &'a str) -> Option<Turn<'a>> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.contains_key(id) {
            return None;
        }
        let (end, ended) = watch::channel(());
        ids.insert(id.to_owned(), ended);
        Some(Turn { all: self, id, _end: end })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

/// Counts a command as running, also when its task is dropped.
pub(super) struct Working<'a>(&'a CommandMetrics);

impl<'a> Working<'a> {
    pub(super) fn new(metrics: &'a CommandMetrics) -> Self {
        metrics.running.inc();
        Self(metrics)
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.running.dec();
    }
}

/// Runs `work`, telling the bus meanwhile that the request is being worked on. A slow bus does not hold up the work.
pub(super) async fn keeping<T>(handle: &mut dyn Handle, work: impl Future<Output = T>) -> T {
    let Some(every) = handle.keep_every() else { return work.await };
    let keep = async {
        loop {
            tokio::time::sleep(every).await;
            if let Err(fault) = handle.keep().await {
                debug!(%fault, "the bus could not be told that a command is in work");
            }
        }
    };
    tokio::select! {
        done = work => done,
        never = keep => never,
    }
}

/// Runs `work`, and cancels `left` when the bus takes the request away: what has not begun then is given up.
pub(super) async fn unless_withdrawn<T>(
    withdrawn: Option<BoxFuture<'static, ()>>,
    left: &CancellationToken,
    work: impl Future<Output = T>,
) -> T {
    let Some(withdrawn) = withdrawn else { return work.await };
    let mut work = pin!(work);
    tokio::select! {
        biased;
        () = withdrawn => left.cancel(),
        done = &mut work => return done,
    }
    work.await
}
