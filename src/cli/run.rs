//! `amibus run`: the bridge itself.

use std::path::PathBuf;

use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Failure, Logging, bus::DEFAULT_FILE};
use crate::{config::Config, daemon::Daemon, http};

const SIGNALS: &str = "\
SIGTERM and SIGINT: stop reading, deliver what was read, leave within shutdown.drain; a second one leaves at once.
SIGHUP: read the file again; if it is right, drain and go on with it, otherwise go on as before.

Logs go to standard error. `amibus check -c FILE` tells what a configuration means.";

/// Bridge the configured servers and buses, until SIGTERM
#[derive(Debug, clap::Args)]
#[command(after_help = SIGNALS)]
pub(super) struct Args {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
}

pub(super) fn run(args: &Args, logging: Logging) -> Result<(), Failure> {
    super::block_on(async {
        let mut config = Config::load(&args.config)?;
        logging.start(&config.log.level, config.log.format);
        let mut signals = Signals::new().map_err(|error| Failure::Failed(format!("no signals: {error}")))?;
        while let Some(next) = until_told(&config, &args.config, &mut signals).await? {
            config = next;
        }
        Ok(())
    })
}

/// Bridges as `config` says; answers the configuration to go on with, or `None` when it is time to leave.
async fn until_told(
    config: &Config,
    file: &std::path::Path,
    signals: &mut Signals,
) -> Result<Option<Config>, Failure> {
    let failed = |error: anyhow::Error| Failure::Failed(format!("{error:#}"));
    let listener = listen(config).await?;
    let daemon = Daemon::start(config).await.map_err(failed)?;
    let stop = CancellationToken::new();
    let shown = http::Shown { health: daemon.health.clone(), metrics: daemon.metrics.clone() };
    let serving: Option<JoinHandle<()>> =
        listener.map(|listener| tokio::spawn(http::serve(listener, shown, stop.clone())));
    info!(
        version = env!("CARGO_PKG_VERSION"),
        servers = config.servers.len(),
        buses = config.buses.iter().map(|bus| bus.name).collect::<Vec<_>>().join(","),
        "amibus runs"
    );
    let next = loop {
        match signals.next().await {
            Told::Leave => break None,
            Told::Reload => match Config::load(file) {
                Ok(next) => break Some(next),
                Err(errors) => {
                    for wrong in errors.0 {
                        error!("the configuration is not taken: {wrong}");
                    }
                }
            },
        }
    };
    info!(limit = ?config.shutdown.drain, reload = next.is_some(), "draining");
    tokio::select! {
        _ = daemon.leave(config.shutdown.drain) => {}
        () = signals.leave() => return Err(Failure::Failed("left at once, on a second signal".to_owned())),
    }
    stop.cancel();
    if let Some(serving) = serving {
        // It ends within a time of its own; a panic in there was printed already.
        let _ = serving.await;
    }
    Ok(next)
}

async fn listen(config: &Config) -> Result<Option<TcpListener>, Failure> {
    let Some(address) = config.http.listen else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    let listener = listener
        .map_err(|error| Failure::Failed(format!("cannot listen on {address} (http.listen): {error}")))?;
    // The port may have been left to the system to choose.
    if let Ok(address) = listener.local_addr() {
        info!(%address, "health and metrics: /live /ready /metrics /version");
    }
    Ok(Some(listener))
}

enum Told {
    Leave,
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Leave,
            _ = self.interrupt.recv() => Told::Leave,
            _ = self.hang_up.recv() => Told::Reload,
        }
    }

    async fn leave(&mut self) {
        while !matches!(self.next().await, Told::Leave) {}
    }
}
