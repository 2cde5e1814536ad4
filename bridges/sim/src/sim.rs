//! The handle on a simulated Asterisk.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use tokio::net::TcpListener;

use crate::flood::{self, Flood, Flooded, Numbered};
use crate::listener;
use crate::options::SimOptions;
use crate::originate::Originated;
use crate::player;
use crate::pour;
use crate::recording::Recording;
use crate::world::{Stats, World};

/// A simulated Asterisk on a port of 127.0.0.1. Dropping it ends it with all its connections.
#[derive(Debug)]
pub struct Sim {
    pub(crate) world: Arc<World>,
    addr: SocketAddr,
}

impl Sim {
    /// Listens and serves. Recordings begin to play with the first login that wants events.
    ///
    /// # Errors
    /// When the port cannot be opened.
    pub async fn start(options: SimOptions) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await?;
        let addr = listener.local_addr()?;
        let world = World::new(options);
        tokio::spawn(listener::run(Arc::clone(&world), listener, addr));
        player::start_all(&world);
        Ok(Self { world, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Plays one recording now, whoever listens, and returns how many events were published.
    pub async fn play(&self, recording: &Recording, speed: f64) -> u64 {
        player::play(&self.world, recording, speed).await
    }

    /// Publishes `total` numbered UserEvents at this rate (0: as fast as the readers allow).
    pub async fn flood(&self, events_per_second: u64, total: u64) -> Flooded {
        self.flood_with(&Flood { events_per_second, total, ..Flood::default() }).await
    }

    /// Publishes a flood with everything set.
    pub async fn flood_with(&self, flood: &Flood) -> Flooded {
        flood::run(&self.world, flood, |_| ()).await
    }

    /// The same, and tells of each event, in order, the number that it was given and when it was sent.
    pub async fn flood_told(&self, flood: &Flood, told: impl FnMut(Numbered)) -> Flooded {
        flood::run(&self.world, flood, told).await
    }

    /// Passes on the bytes of `count` whole events as they are, as soon as the readers have room for them.
    pub async fn pour(&self, events: &Bytes, count: u64) {
        pour::pour(&self.world, events, count).await;
    }

    /// The Originates that were answered by Success, oldest first; the last 200,000.
    pub fn originates(&self) -> Vec<Originated> {
        self.world.lock().originates()
    }

    /// The actions as they came, with their empty line, oldest first; the last 20,000.
    pub fn actions(&self) -> Vec<Bytes> {
        self.world.lock().actions()
    }

    /// Connections that are logged in.
    pub fn sessions(&self) -> usize {
        self.world.lock().sessions.iter().filter(|session| session.user().is_some()).count()
    }

    /// Names of the channels that are up, in the order in which they came.
    pub fn channels(&self) -> Vec<String> {
        self.world.lock().floor.channels().iter().map(|channel| channel.name.clone()).collect()
    }

    /// The number of the next event, if events are numbered.
    pub fn next_sequence(&self) -> u64 {
        self.world.lock().sequence
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.world.lock().stats
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.world.ended.cancel();
    }
}
