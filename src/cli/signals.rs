//! Signals that tell `amibus run` what to do.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals to leave that come this soon after the first count as the same one: a terminal and a supervisor may tell
/// the program and its process group, each on its own.
pub(super) const SAME_SIGNAL: Duration = Duration::from_secs(1);

pub(super) enum Told {
    Leave,
    Reload,
}

pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Leave,
            _ = self.interrupt.recv() => Told::Leave,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }

    /// Waits for a signal to leave. One to reload is kept for [`Signals::next`].
    async fn leave(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Waits until it is told to leave at once: by a signal to leave that comes [`SAME_SIGNAL`] after the first.
    /// `since` is when the first came, if it did, and is set when it does.
    pub(super) async fn at_once(&mut self, since: &mut Option<Instant>) {
        loop {
            self.leave().await;
            match *since {
                None => *since = Some(Instant::now()),
                Some(first) if first.elapsed() < SAME_SIGNAL => {}
                Some(_) => return,
            }
        }
    }
}
