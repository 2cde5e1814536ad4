//! The door: accepts, refuses, or accepts and never answers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::faults::Door;
use crate::session::{self, Session};
use crate::world::{SESSIONS_MAX, World};

/// How long a refused port is tried again before the listener gives up, since another process may have taken it.
const REBIND_TRIES: u32 = 500;
const REBIND_PAUSE: Duration = Duration::from_millis(10);

/// Serves until the handle is dropped.
pub(crate) async fn run(world: Arc<World>, listener: TcpListener, addr: SocketAddr) {
    let ended = world.ended.clone();
    ended.run_until_cancelled(serve(world, listener, addr)).await;
}

async fn serve(world: Arc<World>, listener: TcpListener, addr: SocketAddr) {
    let mut listener = listener;
    let mut door = world.door.subscribe();
    loop {
        world.listening.send_replace(true);
        accept_while_open(&world, &listener, &mut door).await;
        drop(listener);
        world.listening.send_replace(false);
        if door.wait_for(|door| *door != Door::Refusing).await.is_err() {
            return;
        }
        match rebind(addr).await {
            Ok(again) => listener = again,
            Err(_) => return,
        }
    }
}

async fn accept_while_open(
    world: &Arc<World>,
    listener: &TcpListener,
    door: &mut tokio::sync::watch::Receiver<Door>,
) {
    loop {
        tokio::select! {
            biased;
            _ = door.wait_for(|door| *door == Door::Refusing) => return,
            taken = listener.accept() => if let Ok((stream, peer)) = taken { take(world, stream, peer) },
        }
    }
}

fn take(world: &Arc<World>, stream: TcpStream, peer: SocketAddr) {
    // Each event must leave at once: with Nagle's algorithm the client would see another pace.
    let _ = stream.set_nodelay(true);
    let session = {
        let mut state = world.lock();
        state.stats.connections += 1;
        if state.sessions.len() >= SESSIONS_MAX {
            return;
        }
        let session = Arc::new(Session::new(state.stats.connections, peer, &world.ended));
        session.frozen.store(*world.door.borrow() == Door::HalfOpen, Ordering::Relaxed);
        state.sessions.push(Arc::clone(&session));
        session
    };
    tokio::spawn(session::serve(Arc::clone(world), session, stream));
}

async fn rebind(addr: SocketAddr) -> io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return Ok(listener),
            Err(error) if tries >= REBIND_TRIES => return Err(error),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(REBIND_PAUSE).await;
    }
}
