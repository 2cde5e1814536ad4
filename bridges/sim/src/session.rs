//! One connection: a reader that answers actions in order, and the one writer of everything.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use crate::actions;
use crate::outbox::Outbox;
use crate::wire::ActionReader;
use crate::world::{World, is_up};

const READ_BYTES: usize = 16 << 10;

/// One connection as the rest of the server sees it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) outbox: Outbox,
    /// Closes the connection at once, whatever is still queued.
    pub(crate) killed: CancellationToken,
    /// Reads and answers nothing any more, like a peer that is gone.
    pub(crate) frozen: AtomicBool,
    pub(crate) challenge: Mutex<Option<String>>,
    user: Mutex<Option<String>>,
    read: AtomicU32,
    write: AtomicU32,
    mask: AtomicU32,
}

impl Session {
    pub(crate) fn new(id: u64, peer: SocketAddr, ended: &CancellationToken) -> Self {
        Self {
            id,
            peer,
            outbox: Outbox::default(),
            killed: ended.child_token(),
            frozen: AtomicBool::new(false),
            challenge: Mutex::new(None),
            user: Mutex::new(None),
            read: AtomicU32::new(0),
            write: AtomicU32::new(0),
            mask: AtomicU32::new(0),
        }
    }

    /// The user who has logged in.
    pub(crate) fn user(&self) -> Option<String> {
        self.user.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn log_in(&self, user: &str, read: u32, write: u32, mask: u32) {
        *self.user.lock().unwrap_or_else(PoisonError::into_inner) = Some(user.to_owned());
        self.read.store(read, Ordering::Relaxed);
        self.write.store(write, Ordering::Relaxed);
        self.mask.store(mask, Ordering::Relaxed);
    }

    pub(crate) fn set_mask(&self, mask: u32) {
        self.mask.store(mask, Ordering::Relaxed);
    }

    /// Whether events of one of these classes go to this session.
    pub(crate) fn wants(&self, classes: u32) -> bool {
        !is_up(&self.frozen)
            && self.mask.load(Ordering::Relaxed) & self.read.load(Ordering::Relaxed) & classes != 0
    }

    /// Whether the user may send actions of one of these classes; 0 is open to all.
    pub(crate) fn may(&self, classes: u32) -> bool {
        classes == 0 || self.write.load(Ordering::Relaxed) & classes != 0
    }

    /// Queues a response; without room the session is dropped.
    pub(crate) fn respond(&self, response: Bytes) {
        if !self.outbox.push(response) {
            self.killed.cancel();
        }
    }
}

/// Serves one connection until either side ends it.
pub(crate) async fn serve(world: Arc<World>, session: Arc<Session>, stream: TcpStream) {
    let (read, write) = stream.into_split();
    if !is_up(&session.frozen) {
        let banner = format!("Asterisk Call Manager/{}\r\n", world.options.version_banner);
        session.respond(Bytes::from(banner));
    }
    let writer = tokio::spawn(write_loop(Arc::clone(&world), Arc::clone(&session), write));
    let killed = session.killed.clone();
    killed.run_until_cancelled(read_loop(&world, &session, read)).await;
    session.killed.cancel();
    let _ = writer.await;
    world.remove(session.id);
}

async fn read_loop(world: &Arc<World>, session: &Arc<Session>, mut socket: OwnedReadHalf) {
    let mut buffer = vec![0; READ_BYTES];
    let mut reader = ActionReader::default();
    let mut actions = Vec::new();
    loop {
        world.running().await;
        let Ok(count) = socket.read(&mut buffer).await else { return };
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return };
        world.running().await;
        if is_up(&session.frozen) {
            continue;
        }
        reader.feed(bytes, &mut actions);
        for action in actions.drain(..) {
            if !world.options.latency.is_zero() {
                tokio::time::sleep(world.options.latency).await;
            }
            world.lock().keep_action(action.raw.clone());
            actions::handle(world, session, &action).await;
        }
    }
}

async fn write_loop(world: Arc<World>, session: Arc<Session>, mut socket: OwnedWriteHalf) {
    let killed = session.killed.clone();
    let all = async {
        while let Some(chunk) = session.outbox.next().await {
            if is_up(&session.frozen) {
                std::future::pending::<()>().await;
            }
            match write(&world, &mut socket, &chunk).await {
                Written::All => {}
                Written::Gone => return,
                Written::Stuck => {
                    world.lock().stats.slow_sessions_dropped += 1;
                    return;
                }
            }
        }
        let _ = socket.shutdown().await;
    };
    killed.run_until_cancelled(all).await;
    session.killed.cancel();
}

enum Written {
    All,
    /// The client has closed the connection.
    Gone,
    /// The client did not read for too long (`writetimeout`).
    Stuck,
}

async fn write(world: &World, socket: &mut OwnedWriteHalf, chunk: &[u8]) -> Written {
    let mut rest = chunk;
    while !rest.is_empty() {
        world.running().await;
        let limit = world.write_chunk_bytes.load(Ordering::Relaxed);
        let part = if limit == 0 { rest } else { rest.get(..limit).unwrap_or(rest) };
        match tokio::time::timeout(world.options.write_timeout, socket.write(part)).await {
            Ok(Ok(written)) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            Ok(_) => return Written::Gone,
            Err(_) => return Written::Stuck,
        }
    }
    Written::All
}
