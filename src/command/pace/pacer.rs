//! The pace of one server, for the tasks that wait for it and for the event session that sees calls end.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use amibus_ami::Frame;
use tokio::sync::{Notify, oneshot};

use super::{Limit, Set, core::Core, limit::Matcher, queue::Ticket};
use crate::{
    command::{decode::Command, policy::GlobError, response::CHANNEL_ID_PREFIX},
    metrics::PaceMetrics,
};

/// The pace of one server.
pub struct Pacer {
    matcher: Matcher,
    core: Mutex<Core<oneshot::Sender<()>>>,
    /// What times are counted from.
    start: Instant,
    /// Something changed that may change when the next may go on.
    pub(super) changed: Notify,
    /// Ends of calls may have been missed.
    pub(super) missed: Notify,
    metrics: Vec<PaceMetrics>,
}

/// An Originate that waits for its turn, or that has it: then its call is counted until it is over. Dropped before it
/// was written, it gives its turn back.
pub struct Grant {
    pacer: Arc<Pacer>,
    set: Set,
    ticket: Ticket,
    channel: String,
    /// Whether the bytes may be on their way.
    written: bool,
}

impl Pacer {
    /// The pace of `server`; `None` where no limit is about it. `metrics` gives the handles of one limit.
    ///
    /// # Errors
    /// The first glob that is none.
    pub fn new(
        server: &str,
        limits: &[Limit],
        metrics: impl Fn(&str) -> PaceMetrics,
    ) -> Result<Option<Arc<Self>>, GlobError> {
        let mut own = Vec::new();
        for limit in limits {
            if limit.is_about(server)? {
                own.push(limit.clone());
            }
        }
        if own.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self {
            matcher: Matcher::new(&own)?,
            core: Mutex::new(Core::new(&own, Duration::ZERO)),
            start: Instant::now(),
            changed: Notify::new(),
            missed: Notify::new(),
            metrics: own.iter().map(|limit| metrics(&limit.name)).collect(),
        })))
    }

    /// The limits that are about a command.
    pub(crate) fn limits_of(&self, command: &Command) -> Set {
        self.matcher.of(command)
    }

    /// Waits until the Originate of this channel may be sent. Dropped meanwhile, it waits no more.
    pub(crate) async fn turn(self: &Arc<Self>, set: Set, ticket: Ticket, channel: &str) -> Grant {
        let (tell, told) = oneshot::channel();
        let grant =
            Grant { pacer: Arc::clone(self), set, ticket, channel: channel.to_owned(), written: false };
        self.with(|core, _| core.wait(set, ticket, channel, tell));
        if told.await.is_err() {
            // Only where another came with the same ticket: nobody lets this one go on.
            std::future::pending::<()>().await;
        }
        grant
    }

    /// Looks at an event; cheap for all but the few that tell of a channel's beginning or end.
    pub fn seen(&self, frame: &Frame<'_>, is_ours: impl Fn(&[u8]) -> bool) {
        let (hung_up, made) = (frame.is_event("Hangup"), frame.is_event("Newchannel"));
        if !hung_up && !made && !frame.is_event("OriginateResponse") {
            return;
        }
        let Some(Ok(channel)) = frame.first("Uniqueid").map(std::str::from_utf8) else { return };
        if !channel.starts_with(CHANNEL_ID_PREFIX) {
            return;
        }
        if hung_up {
            self.with(|core, _| core.end(channel));
        } else if made {
            self.with(|core, now| core.appeared(channel, now));
        } else if frame.first("Response").is_some_and(|said| said.eq_ignore_ascii_case(b"Failure"))
            && frame.first("ActionID").is_some_and(is_ours)
        {
            self.with(|core, now| core.failed(channel, now));
        }
    }

    /// Events were missed: calls may have ended unseen.
    pub fn missed(&self) {
        self.missed.notify_one();
    }

    /// Works on the core; then whoever may go on is told.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Core<oneshot::Sender<()>>, Duration) -> T) -> T {
        let now = self.start.elapsed();
        let mut core = self.lock();
        let done = work(&mut core, now);
        while let Some(waiting) = core.grant(now) {
            // Whoever does not wait any more gives it back.
            let _ = waiting.send(());
        }
        for (metrics, gauges) in self.metrics.iter().zip(core.gauges()) {
            metrics.set(gauges.waiting, gauges.running, gauges.granted);
        }
        drop(core);
        self.changed.notify_one();
        done
    }

    /// When somebody may go on though nothing else happened.
    pub(super) fn wake(&self) -> Option<Instant> {
        let wake = self.lock().wake(self.start.elapsed())?;
        Some(self.start + wake)
    }

    /// The limits of these names.
    pub(super) fn named(&self, names: &[String]) -> Set {
        self.matcher.named(names)
    }

    /// The time, as the core counts it.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, Core<oneshot::Sender<()>>> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grant {
    /// The names of the limits that count its call.
    pub(crate) fn limits(&self) -> Vec<&str> {
        self.pacer.matcher.names(self.set)
    }

    /// Waits, where too much was written a moment ago. From then on the call counts as sent, unless
    /// [`Grant::take_back`] says otherwise.
    pub(crate) async fn write(&mut self) {
        loop {
            let written = self.pacer.with(|core, now| core.write(self.set, &self.channel, now));
            let Err(at) = written else { break };
            tokio::time::sleep_until((self.pacer.start + at).into()).await;
        }
        self.written = true;
    }

    /// Nothing was sent, or Asterisk refused it: there is no call.
    pub(crate) fn take_back(mut self) {
        self.written = false;
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let (set, ticket, channel) = (self.set, self.ticket, &self.channel);
        if self.written {
            self.pacer.with(|core, now| core.sent(channel, now));
        } else {
            self.pacer.with(|core, _| core.leave(set, ticket, channel));
        }
    }
}
