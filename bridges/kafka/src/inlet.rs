//! Commands from the topic `<prefix>.command`, read as a member of a consumer group.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use amibus_contract::{BoxFuture, Fault, Inlet, Kind, Request, Scope};
use tokio::sync::mpsc;

use crate::{
    hub::Hub,
    member::{self, Coming},
};

/// The inlet. When it is dropped, its member leaves the group.
pub(crate) struct KafkaInlet {
    requests: mpsc::Receiver<Coming>,
    stop: Arc<AtomicBool>,
}

/// The members' threads, so that the bridge can wait for their end.
#[derive(Default)]
pub(crate) struct Members(Mutex<Vec<(Arc<AtomicBool>, JoinHandle<()>)>>);

impl KafkaInlet {
    /// Joins the group.
    pub(crate) async fn open(hub: &Arc<Hub>, members: &Members, scope: &Scope) -> Result<Self, Fault> {
        let topic = |kind: Kind| format!("{}.{}", scope.prefix, kind.as_str());
        let (commands, responses) = (topic(Kind::Command), topic(Kind::Response));
        hub.ensure(&[&commands, &responses]).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let (requests, thread) = member::start(hub, &commands, stop.clone())?;
        members.0.lock().unwrap_or_else(PoisonError::into_inner).push((stop.clone(), thread));
        Ok(Self { requests, stop })
    }
}

impl Inlet for KafkaInlet {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Request>, Fault>> {
        Box::pin(async move { self.requests.recv().await.transpose() })
    }
}

impl Drop for KafkaInlet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Members {
    /// Tells all to leave, and waits at most `limit` until they have.
    pub(crate) async fn close(&self, limit: Duration) {
        let threads: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for (stop, _) in &threads {
            stop.store(true, Ordering::Release);
        }
        let start = Instant::now();
        for (_, thread) in threads {
            while !thread.is_finished() {
                if start.elapsed() > limit {
                    return tracing::warn!("the command consumer did not leave its group within {limit:?}");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let _ = thread.join();
        }
    }
}
