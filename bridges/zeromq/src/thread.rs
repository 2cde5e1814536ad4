//! A thread of its own for each socket of the engine (the `zeromq` crate).
//!
//! # Why
//! The crate (0.7.0) keeps its peers in `scc::HashMap`s and locks their buckets in two ways: its accept tasks wait as
//! tasks (`peer_connected`: `upsert_async`), while `recv` blocks its thread (`get_sync` in xpub.rs, `remove_sync` in
//! xpub.rs and backend.rs). A released lock is handed to who waits first. If that is a task, tokio puts it into the
//! slot of the releasing worker from which no other worker steals; if that worker blocks for the same bucket next,
//! neither ever goes on: the bus is dead, and a worker of the daemon with it. Subscribers that connect while others
//! subscribe are enough.
//!
//! On one thread no bucket is ever contended, for none is held across a wait: `XPubSocket::send` has let go of the map
//! when it writes, and `GenericSocketBackend::send_to_peer` waits with a bucket only where 100,000 replies to one peer
//! wait (`max_unanswered` allows far fewer). So all that touches a socket of the crate, and every task that it
//! spawns, runs here; everybody else talks to it by channels and by its private socket. The sockets of `client` have
//! one peer each and block for it only when it leaves, before another comes: they need no thread.

use std::{os::unix::net::UnixListener, thread};

use amibus_contract::{Fault, FaultKind};
use tokio::{runtime::Builder, sync::oneshot};
use tokio_util::sync::CancellationToken;
use zeromq::Socket;

/// A running thread; dropping this makes it end soon, and waits for nothing.
pub(crate) struct EngineThread {
    ended: CancellationToken,
    abort: CancellationToken,
}

impl EngineThread {
    /// Runs `work` on a socket that listens on `listener`, as soon as it does; then this is ready.
    pub(crate) async fn listen<S, W, F>(
        name: &'static str,
        listener: UnixListener,
        work: W,
    ) -> Result<Self, Fault>
    where
        S: Socket,
        W: FnOnce(S) -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let (listening, is_listening) = oneshot::channel();
        let thread = Self::start(name, async move || {
            let mut socket = S::new();
            let bound = socket.bind_listener(listener).await;
            let is_bound = bound.is_ok();
            // Where nobody waits any more, this thread has been told to end.
            let _ = listening.send(bound.map(drop).map_err(broken));
            if is_bound {
                work(socket).await;
            }
        })?;
        is_listening.await.map_err(|_| ended())??;
        Ok(thread)
    }

    /// Runs `work`, and whatever it spawns as long as it runs. Thread names have up to 15 bytes.
    pub(crate) fn start<W, F>(name: &'static str, work: W) -> Result<Self, Fault>
    where
        W: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let (ended, abort) = (CancellationToken::new(), CancellationToken::new());
        let (gone, aborted) = (ended.clone().drop_guard(), abort.clone());
        let body = move || {
            // Told last, after a panic too: by then the runtime is gone, and every connection of the crate with it.
            let _gone = gone;
            match Builder::new_current_thread().enable_all().thread_name(name).build() {
                Ok(runtime) => {
                    let _ = runtime.block_on(aborted.run_until_cancelled(async { work().await }));
                }
                Err(error) => tracing::error!(%error, "the ZeroMQ engine cannot start"),
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(body).map_err(broken)?;
        Ok(Self { ended, abort })
    }

    /// Whether it is over, by its work's end or by a panic.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until it is over.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Drops its work at the next wait, and ends.
    pub(crate) fn abort(&self) {
        self.abort.cancel();
    }
}

impl Drop for EngineThread {
    fn drop(&mut self) {
        self.abort();
    }
}

/// The engine failed.
pub(crate) fn broken(error: impl std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Unreachable, format!("the ZeroMQ engine failed: {error}"))
}

/// The engine is not there any more.
pub(crate) fn ended() -> Fault {
    Fault::new(FaultKind::Unreachable, "the ZeroMQ engine has ended")
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::mpsc,
        time::{Duration, Instant},
    };

    use zeromq::XPubSocket;

    use super::*;
    use crate::engine::PrivateSocket;

    const SOON: Duration = Duration::from_secs(10);

    async fn ends(thread: &EngineThread) {
        tokio::time::timeout(SOON, thread.ended()).await.expect("it ends in time");
        assert!(thread.has_ended());
    }

    #[tokio::test]
    async fn work_runs_on_a_thread_of_that_name_until_it_returns() {
        let (name, is_named) = oneshot::channel();
        let thread = EngineThread::start("amibus-zmq-test", async move || {
            name.send(thread::current().name().map(str::to_owned)).expect("awaited");
        });
        assert_eq!(is_named.await.expect("told").as_deref(), Some("amibus-zmq-test"));
        ends(&thread.expect("started")).await;
    }

    #[tokio::test]
    async fn a_panic_is_an_end() {
        let thread = EngineThread::start("amibus-zmq-test", async || panic!("on purpose")).expect("started");
        ends(&thread).await;
    }

    #[tokio::test]
    async fn dropped_it_ends_with_what_it_spawned_and_nobody_waits() {
        struct Told(mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let (sender, gone) = mpsc::channel();
        let (spawned, is_spawned) = oneshot::channel();
        let thread = EngineThread::start("amibus-zmq-test", async move || {
            let (work, task) = (Told(sender.clone()), Told(sender));
            tokio::spawn(async move {
                let _task = task;
                pending::<()>().await;
            });
            tokio::task::yield_now().await;
            spawned.send(()).expect("awaited");
            pending::<()>().await;
            drop(work);
        })
        .expect("started");
        is_spawned.await.expect("told");
        let ended = thread.ended.clone();
        let start = Instant::now();
        drop(thread);
        assert!(start.elapsed() < Duration::from_secs(1), "dropping waits for nothing");
        tokio::time::timeout(SOON, ended.cancelled()).await.expect("it ends in time");
        assert_eq!(gone.try_iter().count(), 2, "neither its work nor its task is left");
    }

    #[tokio::test]
    async fn a_socket_listens_when_it_is_ready_and_not_when_it_has_ended() {
        let (socket, listener) = PrivateSocket::listen().expect("a socket");
        let work = |engine: XPubSocket| async move {
            let _engine = engine;
            pending::<()>().await;
        };
        let thread = EngineThread::listen("amibus-zmq-test", listener, work).await.expect("listening");
        let _peer = std::os::unix::net::UnixStream::connect(socket.path()).expect("it listens");
        thread.abort();
        ends(&thread).await;
        assert!(std::os::unix::net::UnixStream::connect(socket.path()).is_err(), "nobody listens");
    }
}
