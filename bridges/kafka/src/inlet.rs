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
    group::Group,
    hub::Hub,
    member::{self, Coming, Why},
};

/// The inlet. When it is dropped, its member leaves the group.
pub(crate) struct KafkaInlet {
    requests: mpsc::Receiver<Coming>,
    why: Why,
    stop: Arc<AtomicBool>,
}

/// The members' threads, so that the bridge can wait for their end.
#[derive(Default)]
pub(crate) struct Members(Mutex<Vec<Running>>);

struct Running {
    stop: Arc<AtomicBool>,
    group: Arc<Group>,
    thread: JoinHandle<()>,
}

impl KafkaInlet {
    /// Joins the group.
    pub(crate) async fn open(hub: &Arc<Hub>, members: &Members, scope: &Scope) -> Result<Self, Fault> {
        let topic = |kind: Kind| format!("{}.{}", scope.prefix, kind.as_str());
        let (commands, responses) = (topic(Kind::Command), topic(Kind::Response));
        hub.ensure(&[&commands, &responses]).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let group = Arc::new(Group::default());
        let (requests, why, thread) = member::start(hub, &commands, stop.clone(), group.clone())?;
        let running = Running { stop: stop.clone(), group, thread };
        let mut members = members.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.retain(|running| !running.thread.is_finished());
        members.push(running);
        Ok(Self { requests, why, stop })
    }
}

impl Inlet for KafkaInlet {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Request>, Fault>> {
        Box::pin(async move {
            match self.requests.recv().await {
                Some(coming) => coming.map(Some),
                None => self.why.take().map_or(Ok(None), Err),
            }
        })
    }
}

impl Drop for KafkaInlet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

impl Members {
    /// How many commands wait in the partitions that are ours; `None` where no member runs.
    pub(crate) fn waiting(&self) -> Option<u64> {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = members.iter().filter(|running| !running.thread.is_finished());
        running.map(|running| running.group.waiting()).reduce(|sum, more| sum + more)
    }

    /// Tells all to leave, and waits at most `limit` until they have.
    pub(crate) async fn close(&self, limit: Duration) {
        let threads: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        for Running { stop, .. } in &threads {
            stop.store(true, Ordering::Release);
        }
        let start = Instant::now();
        for Running { thread, .. } in threads {
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
