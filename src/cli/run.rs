//! `amibus run`: the bridge itself.

use std::{
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    Failure, Logging,
    bus::DEFAULT_FILE,
    signals::{Signals, Told},
};
use crate::{
    command::journal::Journal,
    config::{Bus, Config},
    daemon::{Daemon, JOURNAL_FILE},
    http, logging,
};

const SIGNALS: &str = "\
SIGTERM and SIGINT: stop reading, deliver what was read, leave within shutdown.drain; a second one, more than a second
later, leaves at once.
SIGHUP: read the file again; if it is right and http.listen and the journal can be had, drain and go on with it,
otherwise go on as before. log.level is taken too; log.format and worker_threads are not, they need a start.

Logs go to standard error, and lines that nobody reads there in time are lost and counted. `amibus check -c FILE`
tells what a configuration means.";

/// How often it is looked whether log lines were lost.
const LOST_PAUSE: Duration = Duration::from_secs(10);
/// How long a bus may take to be closed that was never at work.
const UNUSED_LIMIT: Duration = Duration::from_secs(1);

/// Bridge the configured servers and buses, until SIGTERM
#[derive(Debug, clap::Args)]
#[command(after_help = SIGNALS)]
pub(super) struct Args {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
}

pub(super) fn run(args: &Args, logging: Logging) -> Result<(), Failure> {
    let config = Config::load(&args.config)?;
    let mut log = logging.start_lossy(&config.log.level, config.log.format);
    super::block_on_threads(config.worker_threads, async {
        let signals = Signals::new().map_err(|error| Failure::Failed(format!("no signals: {error}")))?;
        let door = Door::open(config.http.listen, None).await.map_err(failed)?;
        let threads = config.worker_threads;
        let mut running = Running { file: &args.config, logging, log: &mut log, signals, threads };
        running.bridge(Plan { config, door }).await
    })
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::Failed(format!("{error:#}"))
}

/// What is asked of a configuration before it takes the place of the one at work.
struct Plan {
    config: Config,
    door: Door,
}

/// Where health and metrics are asked; the same over reloads that leave the address as it is.
#[derive(Clone)]
struct Door {
    address: Option<SocketAddr>,
    listener: Option<Arc<TcpListener>>,
}

impl Door {
    /// Listens on `address`, or goes on as `before` where that has the same.
    async fn open(address: Option<SocketAddr>, before: Option<&Self>) -> anyhow::Result<Self> {
        if let Some(before) = before.filter(|before| before.address == address) {
            return Ok(before.clone());
        }
        let listener = match address {
            None => None,
            Some(at) => {
                let bound = TcpListener::bind(at).await;
                Some(Arc::new(bound.with_context(|| format!("cannot listen on {at} (http.listen)"))?))
            }
        };
        Ok(Self { address, listener })
    }

    /// Answers until `stop`.
    fn serve(&self, daemon: &Daemon, stop: &CancellationToken) -> Option<JoinHandle<()>> {
        let listener = Arc::clone(self.listener.as_ref()?);
        // The port may have been left to the system to choose.
        if let Ok(address) = listener.local_addr() {
            info!(%address, "health and metrics: /live /ready /metrics /version");
        }
        let shown = http::Shown { health: daemon.health.clone(), metrics: daemon.metrics.clone() };
        Some(tokio::spawn(http::serve(listener, shown, stop.clone())))
    }
}

struct Running<'a> {
    file: &'a Path,
    logging: Logging,
    log: &'a mut logging::Log,
    signals: Signals,
    /// As many as carry messages from the start on.
    threads: NonZeroUsize,
}

impl Running<'_> {
    /// Bridges, over reloads, until it is time to leave.
    async fn bridge(&mut self, mut plan: Plan) -> Result<(), Failure> {
        let mut daemon = Daemon::start(&plan.config).await.map_err(failed)?;
        while let Some(next) = self.until_told(&plan, daemon).await? {
            daemon = match Daemon::start(&next.config).await {
                Ok(daemon) => {
                    self.take_rest(&plan.config, &next.config);
                    plan = next;
                    daemon
                }
                Err(wrong) => {
                    error!("the configuration is not taken, since it does not start: {wrong:#}");
                    for bus in &next.config.buses {
                        bus.bridge.close(UNUSED_LIMIT).await;
                    }
                    plan.config.reopen().map_err(Failure::Failed)?;
                    Daemon::start(&plan.config).await.map_err(failed)?
                }
            };
        }
        Ok(())
    }

    /// Bridges as planned; answers the plan to go on with, or `None` when it is time to leave.
    async fn until_told(&mut self, plan: &Plan, daemon: Daemon) -> Result<Option<Plan>, Failure> {
        let config = &plan.config;
        let stop = CancellationToken::new();
        let serving = plan.door.serve(&daemon, &stop);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            servers = config.servers.len(),
            buses = config.buses.iter().map(|bus| bus.name).collect::<Vec<_>>().join(","),
            worker_threads = self.threads,
            "amibus runs"
        );
        let mut next = self.told(plan).await;
        let mut leaving = next.is_none().then(Instant::now);
        info!(limit = ?config.shutdown.drain, reload = next.is_some(), "draining");
        let at_once = tokio::select! {
            _ = daemon.leave(config.shutdown.drain) => false,
            () = self.signals.at_once(&mut leaving) => true,
        };
        if at_once {
            return Err(Failure::Failed("left at once, on a second signal".to_owned()));
        }
        stop.cancel();
        if let Some(serving) = serving {
            // It ends within a time of its own; a panic in there was printed already.
            let _ = serving.await;
        }
        if leaving.is_some() {
            next = None;
        }
        Ok(next)
    }

    /// Waits for a signal that changes something.
    async fn told(&mut self, plan: &Plan) -> Option<Plan> {
        loop {
            match timeout(LOST_PAUSE, self.signals.next()).await {
                Err(_) => {}
                Ok(Told::Leave) => return None,
                Ok(Told::Reload) => {
                    if let Some(next) = read_again(self.file, plan).await {
                        return Some(next);
                    }
                }
            }
            if let Some(keeper) = &mut self.log.keeper {
                keeper.tell_lost();
            }
        }
    }

    fn take_rest(&self, before: &Config, now: &Config) {
        if before.log.level != now.log.level {
            self.log.set(self.logging.level(&now.log.level));
            info!(level = now.log.level, "log.level is taken; -v and RUST_LOG go before it");
        }
        if before.log.format != now.log.format {
            warn!("log.format changed and is not taken before the next start");
        }
        if now.worker_threads != self.threads {
            let next = now.worker_threads;
            info!(next, "worker_threads, given or by servers, buses and cores, is taken at the next start");
        }
    }
}

/// Reads the file, and gets hold of what could be missing, while all goes on as before. `None`: it is not taken.
async fn read_again(file: &Path, before: &Plan) -> Option<Plan> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            for wrong in errors.0 {
                error!("the configuration is not taken: {wrong}");
            }
            return None;
        }
    };
    let had = async {
        journal_can_be_had(&before.config, &config)?;
        Door::open(config.http.listen, Some(&before.door)).await
    };
    match had.await {
        Ok(door) => Some(Plan { config, door }),
        Err(wrong) => {
            error!("the configuration is not taken: {wrong:#}");
            None
        }
    }
}

/// Opens the journal that `next` needs, where it is another one than `before` has open.
fn journal_can_be_had(before: &Config, next: &Config) -> anyhow::Result<()> {
    let takes_commands = |config: &Config| config.buses.iter().any(Bus::takes_commands);
    let same = before.spool.dir == next.spool.dir
        || std::fs::canonicalize(&before.spool.dir)
            .ok()
            .is_some_and(|dir| std::fs::canonicalize(&next.spool.dir).is_ok_and(|next| next == dir));
    let open = takes_commands(before) && same;
    if open || !takes_commands(next) {
        return Ok(());
    }
    let dir = &next.spool.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("spool.dir {} cannot be made", dir.display()))?;
    let path = dir.join(JOURNAL_FILE);
    let journal = Journal::open(&path, next.command.journal_max_age);
    journal.map(drop).with_context(|| format!("the journal of commands {}", path.display()))
}
