//! Everything that the demo needs, started on free ports of loopback.

use std::{env::VarError, net::SocketAddr, sync::Arc, time::Duration};

use amibus_contract::{Client, Feed, Kind, SharedBridge};
use amibus_sim::{Sim, SimOptions, User};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Failure, failed};
use crate::{
    buses::REGISTRY,
    config::{Config, Sources},
    daemon::Daemon,
    health::ServerState,
    http,
};

/// The simulated Asterisk's name in topics.
pub(super) const SERVER: &str = "pbx1";
/// The first word of all topics.
pub(super) const PREFIX: &str = "ami";
/// How long the bridge may take to log in.
const UP_LIMIT: Duration = Duration::from_secs(15);
/// How long leaving may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// The parts, running.
pub(super) struct Stage {
    pub(super) sim: Sim,
    pub(super) publish: String,
    pub(super) commands: String,
    pub(super) http: SocketAddr,
    pub(super) feed: Option<Box<dyn Feed>>,
    bridge: SharedBridge,
    daemon: Daemon,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    /// Holds the journal of commands; gone with the demo.
    folder: std::path::PathBuf,
}

impl Stage {
    /// Starts the simulated Asterisk and the bridge.
    pub(super) async fn set() -> Result<Self, Failure> {
        let secret = random()?;
        let options = SimOptions {
            users: vec![User::new("amibus", &secret)],
            play: Vec::new(),
            loop_play: false,
            ring: Duration::from_millis(800),
            talk: Duration::from_millis(1500),
            ..SimOptions::demo()
        };
        let sim =
            Sim::start(options).await.map_err(|error| failed(&format!("no simulated Asterisk: {error}")))?;
        let publish = format!("tcp://127.0.0.1:{}", free_port().await?);
        let commands = format!("tcp://127.0.0.1:{}", free_port().await?);
        let folder = std::env::temp_dir().join(format!("amibus-demo-{}", random()?));
        let text = configuration(&sim, &secret, &publish, &commands, &folder);
        let sources = Sources {
            variables: Vec::new(),
            lookup: &|_| Err(VarError::NotPresent),
            arguments: Vec::new(),
            registry: REGISTRY,
        };
        let config = Config::parse(&text, "demo", &sources)?;
        let bridge = config.buses.first().map(|bus| bus.bridge.clone());
        let bridge = bridge.ok_or_else(|| failed("no bus"))?;
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| failed(&error.to_string()))?;
        let http = listener.local_addr().map_err(|error| failed(&error.to_string()))?;
        let daemon = Daemon::start(&config).await.map_err(|error| failed(&format!("{error:#}")))?;
        let stop = CancellationToken::new();
        let shown = http::Shown { health: daemon.health.clone(), metrics: daemon.metrics.clone() };
        let serving = tokio::spawn(http::serve(Arc::new(listener), shown, stop.clone()));
        Ok(Self { sim, publish, commands, http, feed: None, bridge, daemon, stop, serving, folder })
    }

    /// Subscribes; from now on [`Stage::feed`] holds what comes.
    pub(super) async fn feed(&mut self, kinds: &[Kind]) -> Result<(), Failure> {
        let feed = self.client().await?.subscribe(PREFIX, kinds, None).await;
        self.feed = Some(feed.map_err(|fault| failed(&format!("cannot subscribe: {fault}")))?);
        Ok(())
    }

    /// A client of the bus, as any other program would be one.
    pub(super) async fn client(&self) -> Result<Box<dyn Client>, Failure> {
        self.bridge.client().await.map_err(|fault| failed(&format!("the bus is not there: {fault}")))
    }

    /// Waits until the bridge has logged in.
    pub(super) async fn link_up(&self) -> Result<(), Failure> {
        let state = self.daemon.health.watch_server(SERVER);
        let mut state = state.ok_or_else(|| failed("the server is not configured"))?;
        let up = state.wait_for(|state| matches!(state, ServerState::Up { .. }));
        match timeout(UP_LIMIT, up).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(failed("the bridge did not log in to the simulated Asterisk")),
        }
    }

    /// Drains and ends everything.
    pub(super) async fn leave(self) {
        self.daemon.leave(LEAVE_LIMIT).await;
        self.stop.cancel();
        // It ends within a time of its own; a panic in there was printed already.
        let _ = self.serving.await;
        // What could not be removed is in the system's folder for such things.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn configuration(sim: &Sim, secret: &str, publish: &str, commands: &str, folder: &std::path::Path) -> String {
    format!(
        r#"
[[server]]
name = "{SERVER}"
url = "ami://{}"
username = "amibus"
secret = "{secret}"

[bus.zeromq]
publish = "{publish}"
commands = "{commands}"

[spool]
dir = {:?}

[[command.allow]]
actions = ["Originate"]
fields.Channel = ["PJSIP/*"]
fields.Context = ["sales"]
"#,
        sim.addr(),
        folder.display().to_string()
    )
}

/// A port that was free a moment ago: the bus listens by itself, so it cannot be handed the socket.
async fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| failed(&error.to_string()))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| failed(&error.to_string()))
}

fn random() -> Result<String, Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| failed(&format!("no randomness: {error}")))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}
