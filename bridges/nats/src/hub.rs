//! The one connection that all outlets publish on.
//!
//! It is replaced, not resumed: whoever finds it broken, or unanswering, [gives it up](Line::give_up), and the next one who
//! asks makes a new one. That also bounds what async-nats remembers of acknowledgements that never came.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use amibus_contract::{Decision, Fault};
use async_nats::jetstream::{Context, context::ContextBuilder, stream::Config as StreamConfig};
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::{
    dial::{self, Dialled, Role},
    faults,
    settings::Settings,
    stream,
};

/// How many acknowledgements that never come a connection may have; each costs about 400 bytes.
const MAX_UNANSWERED: usize = 10_000;
/// How often an idle bridge looks whether its connection still stands.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long it waits between tries to make a new one: after what may pass, and after what a person has to mend.
const TRY_EVERY: Duration = Duration::from_secs(2);
const TRY_SELDOM: Duration = Duration::from_secs(15);

/// One connection for publishing, with its stream looked after.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) dialled: Dialled,
    /// The stream as found, where there is one.
    pub(crate) stream: Option<StreamConfig>,
    /// The server is in no cluster: it is in one from its start on, or never.
    pub(crate) is_alone: bool,
    dropped: AtomicBool,
    unanswered: AtomicUsize,
}

impl Line {
    pub(crate) fn alive(&self) -> bool {
        !self.dropped.load(Ordering::Acquire) && self.dialled.connected()
    }

    /// This connection is not to be used again.
    pub(crate) fn give_up(&self) {
        self.dropped.store(true, Ordering::Release);
    }

    /// So many acknowledgements will never come; async-nats remembers them as long as the connection is used.
    pub(crate) fn forget(&self, unanswered: usize) {
        if self.unanswered.fetch_add(unanswered, Ordering::AcqRel) > MAX_UNANSWERED {
            self.give_up();
        }
    }
}

/// What the bridge's parts share.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) settings: Settings,
    line: AsyncMutex<Option<Arc<Line>>>,
    /// The same, to be looked at without waiting, and the last failure.
    seen: Mutex<Result<Weak<Line>, Fault>>,
    attempts: AtomicU64,
    keeping: AtomicBool,
    closed: watch::Sender<bool>,
}

impl Hub {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            line: AsyncMutex::new(None),
            seen: Mutex::new(Ok(Weak::new())),
            attempts: AtomicU64::new(0),
            keeping: AtomicBool::new(false),
            closed: watch::Sender::new(false),
        }
    }

    /// The connection, made if need be.
    pub(crate) async fn line(&self) -> Result<Arc<Line>, Fault> {
        self.open()?;
        let attempts = self.attempts.load(Ordering::Acquire);
        let mut place = self.line.lock().await;
        if let Some(line) = place.as_ref().filter(|line| line.alive()) {
            return Ok(Arc::clone(line));
        }
        // Whoever waited for another's try takes its failure, instead of trying once more each.
        if self.attempts.load(Ordering::Acquire) != attempts
            && let Err(fault) = &*self.seen.lock().unwrap_or_else(PoisonError::into_inner)
        {
            return Err(fault.clone());
        }
        *place = None;
        let made = self.make().await;
        self.attempts.fetch_add(1, Ordering::AcqRel);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            made.as_ref().map(Arc::downgrade).map_err(Clone::clone);
        let line = made?;
        *place = Some(Arc::clone(&line));
        Ok(line)
    }

    async fn make(&self) -> Result<Arc<Line>, Fault> {
        let dialled = dial::dial(&self.settings, Role::Publishing).await?;
        let stream = match &self.settings.stream {
            None => None,
            Some(wanted) => {
                let context = self.context(&dialled);
                let looked = stream::events(&context, &self.settings.prefix, wanted);
                let refused = dialled.refused(0, |said| said.contains("\"$JS."));
                let found = tokio::select! {
                    biased;
                    found = looked => found,
                    said = refused => Err(faults::forbidden(&said)),
                    () = dialled.lost() => Err(faults::lost()),
                };
                Some(found?)
            }
        };
        let info = dialled.client.server_info();
        tracing::info!(server = %info.server_name, version = %info.version, "publishing to NATS");
        Ok(Arc::new(Line {
            dialled,
            stream,
            is_alone: info.cluster.is_none(),
            dropped: AtomicBool::new(false),
            unanswered: AtomicUsize::new(0),
        }))
    }

    /// A JetStream context with our limits.
    pub(crate) fn context(&self, dialled: &Dialled) -> Context {
        ContextBuilder::new()
            .timeout(self.settings.ack_timeout)
            .ack_timeout(self.settings.ack_timeout)
            .max_ack_inflight(self.settings.max_in_flight)
            .build(dialled.client.clone())
    }

    /// The connection as last seen; see [`amibus_contract::Bridge::status`].
    pub(crate) fn status(&self) -> Result<Arc<Line>, String> {
        if *self.closed.borrow() {
            return Err("closed".to_owned());
        }
        match &*self.seen.lock().unwrap_or_else(PoisonError::into_inner) {
            Err(fault) => Err(fault.to_string()),
            Ok(line) => match line.upgrade() {
                Some(line) if line.alive() => Ok(line),
                Some(_) => Err("the connection broke".to_owned()),
                None => Err("not connected yet".to_owned()),
            },
        }
    }

    /// Keeps a connection from now on, also while nothing is published, so that the status tells of the server.
    pub(crate) fn keep(self: &Arc<Self>) {
        if !self.keeping.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep(Arc::downgrade(self), self.closed()));
        }
    }

    /// Whether the bridge is open still: after it was closed nothing is published.
    pub(crate) fn open(&self) -> Result<(), Fault> {
        if *self.closed.borrow() { Err(faults::closed()) } else { Ok(()) }
    }

    /// Turns true when the bridge is closed.
    pub(crate) fn closed(&self) -> watch::Receiver<bool> {
        self.closed.subscribe()
    }

    pub(crate) async fn close(&self) {
        self.closed.send_replace(true);
        *self.line.lock().await = None;
    }
}

async fn keep(hub: Weak<Hub>, mut closed: watch::Receiver<bool>) {
    let mut pause = LOOK_EVERY;
    loop {
        tokio::select! {
            _ = closed.wait_for(|closed| *closed) => return,
            () = tokio::time::sleep(pause) => {}
        }
        let Some(hub) = hub.upgrade() else { return };
        pause = match hub.status() {
            Ok(_) => LOOK_EVERY,
            Err(_) => match hub.line().await {
                Ok(_) => LOOK_EVERY,
                Err(fault) if fault.decision == Decision::Stop => TRY_SELDOM,
                Err(_) => TRY_EVERY,
            },
        };
    }
}
