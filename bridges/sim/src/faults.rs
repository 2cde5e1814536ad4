//! What goes wrong, on demand.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::channel_actions;
use crate::classes;
use crate::event::Event;
use crate::player;
use crate::sim::Sim;

/// How long [`Sim::refuse`] and [`Sim::accept`] wait for the listening socket to follow.
const DOOR_WAIT: Duration = Duration::from_secs(10);
const CAUSE_UNKNOWN: u16 = 0;

/// What happens to a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// It is served.
    Open,
    /// The port is closed: connection refused.
    Refusing,
    /// It is accepted, and nothing ever comes.
    HalfOpen,
}

impl Sim {
    /// Closes every connection at once, whatever was still to be written. The port stays open.
    pub fn drop_sessions(&self) {
        self.world.lock().sessions.iter().for_each(|session| session.killed.cancel());
    }

    /// Reads nothing, writes nothing and lets nothing happen for this long, like SIGSTOP and SIGCONT.
    pub fn stall(&self, time: Duration) {
        self.world.stall_until(Instant::now() + time);
    }

    /// Every connection, present and future, stays open and silent for good, like a peer behind a broken
    /// network. [`Sim::accept`] serves new connections again; the silent ones stay so until they are dropped.
    pub fn half_open(&self) {
        let state = self.world.lock();
        self.world.door.send_replace(Door::HalfOpen);
        state.sessions.iter().for_each(|session| session.frozen.store(true, Ordering::Relaxed));
    }

    /// Writes half an event to every session that gets events, and closes it there.
    pub fn cut_mid_event(&self) {
        let mut state = self.world.lock();
        let event = Event::new("Newstate", "call,all")
            .line("Channel", "Local/cut@short-00000000;1")
            .line("Uniqueid", "0.0")
            .line("ConnectedLineName", "never to be read");
        let whole = self.world.stamp(&mut state, &event);
        for session in state.sessions.iter().filter(|session| session.wants(classes::ALL)) {
            session.respond(whole.slice(..whole.len() * 2 / 3));
            session.outbox.finish();
        }
    }

    /// Closes the port: new connections are refused. Present ones stay. Returns when the port is closed.
    ///
    /// # Errors
    /// When the port did not close.
    pub async fn refuse(&self) -> io::Result<()> {
        self.world.door.send_replace(Door::Refusing);
        self.wait_listening(false).await
    }

    /// Opens the port and serves new connections, after [`Sim::refuse`] or [`Sim::half_open`].
    ///
    /// # Errors
    /// When the port could not be opened again, because another process took it meanwhile.
    pub async fn accept(&self) -> io::Result<()> {
        self.world.door.send_replace(Door::Open);
        self.wait_listening(true).await
    }

    /// A restart as `core restart now` does it: every channel hangs up, `Shutdown`, end of file; then a new boot
    /// with everything counted from the beginning. The port stays open: with [`Sim::refuse`] before and
    /// [`Sim::accept`] after, there is a time in between.
    pub fn restart(&self) {
        let mut calls: Vec<String> =
            self.world.lock().floor.channels().iter().map(|channel| channel.linkedid.clone()).collect();
        calls.dedup();
        calls.iter().for_each(|linkedid| channel_actions::end_call(&self.world, linkedid, CAUSE_UNKNOWN));
        let shutdown =
            Event::new("Shutdown", "system,all").line("Shutdown", "Uncleanly").line("Restart", "True");
        self.world.publish(&shutdown);
        self.world.lock().sessions.iter().for_each(|session| session.outbox.finish());
        self.boot();
    }

    /// A crash: end of file alone, then a new boot.
    pub fn crash(&self) {
        self.drop_sessions();
        self.boot();
    }

    /// From now on (or no longer) every action, Login too, is answered by Error while events flow, as during a
    /// graceful stop.
    pub fn stopping(&self, yes: bool) {
        self.world.stopping.store(yes, Ordering::Relaxed);
    }

    /// Leaves out this many sequence numbers.
    pub fn skip_sequence(&self, count: u64) {
        self.world.lock().take_sequence(count);
    }

    /// Writes these very bytes to every session that gets events.
    pub fn emit(&self, raw: impl Into<Bytes>) {
        let mut state = self.world.lock();
        state.stats.events += 1;
        state.spread(&raw.into(), classes::ALL);
    }

    /// Writes at most this many bytes at a time from now on; `None` for no limit.
    pub fn write_chunk_bytes(&self, bytes: Option<usize>) {
        self.world.write_chunk_bytes.store(bytes.unwrap_or(0), Ordering::Relaxed);
    }

    fn boot(&self) {
        self.world.audience.send_replace(0);
        self.world.lock().reboot(&self.world.ended);
        self.world.stopping.store(false, Ordering::Relaxed);
        player::start_all(&self.world);
    }

    async fn wait_listening(&self, wanted: bool) -> io::Result<()> {
        let mut listening = self.world.listening.subscribe();
        let followed = listening.wait_for(|listening| *listening == wanted);
        match tokio::time::timeout(DOOR_WAIT, followed).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "the port of the simulated Asterisk did not follow",
            )),
        }
    }
}
