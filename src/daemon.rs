//! The whole, put together: sessions, intakes, spools, lanes, and the engine of commands.
//!
//! Leaving goes the way of the data: take no more commands, finish what was begun, stop reading, deliver what is
//! queued, close the buses; each within what is left of one limit.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use amibus_contract::{Scope, SharedBridge};
use anyhow::Context as _;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    asterisk::{self, Actions, ClientCertificate, ServerSettings, Target, TlsSettings, run_events},
    command::{
        Engine,
        engine::{self, Nowhere},
        finals::Finals,
        journal::Journal,
        left_behind::ASKED_AGAIN_WITHIN,
        pace::{Keeper, Pacer},
        policy::Policy,
        shared::Shared,
    },
    config::{self, Config},
    filter::{Filter, Verdict},
    health::Health,
    intake::Intake,
    metrics::Metrics,
    normalize::Profile,
    outlet::{Budget, Lane},
    seen::{
        Seen,
        recover::{Past, recover},
    },
    spool::{self, Spool},
    writer::Writer,
};

/// The file of the journal of commands in `spool.dir`.
pub const JOURNAL_FILE: &str = "commands.sqlite";
/// What answers to commands for unknown servers are signed with.
const NOWHERE: &str = "unknown";

/// How often a bus is asked how many commands wait there.
const DEPTH_EVERY: Duration = Duration::from_secs(5);

/// How much of the time for leaving commands in work may use up.
const SHARE_FOR_COMMANDS: f64 = 0.7;

/// amibus at work.
pub struct Daemon {
    /// What is well and what is not.
    pub health: Arc<Health>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    spools: Vec<Arc<Spool>>,
    bridges: Vec<SharedBridge>,
    /// Ends inlets.
    stop: CancellationToken,
    /// Ends event sessions: these still tell the commands in work what became of their calls.
    stop_reading: CancellationToken,
    /// Ends commands in work and lanes that still deliver.
    give_up: CancellationToken,
    event_sessions: TaskTracker,
    action_sessions: TaskTracker,
    inlets: TaskTracker,
    lanes: JoinSet<u64>,
}

/// One server while the daemon is being put together.
struct Site {
    settings: Arc<ServerSettings>,
    writer: Arc<Writer>,
    spool: Arc<Spool>,
    seen: Seen,
    finals: Arc<Finals>,
}

impl Daemon {
    /// Starts everything. Servers and buses that cannot be reached yet are tried again and again.
    ///
    /// # Errors
    /// When the journal cannot be opened, or a rule is none.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::default());
        let bridges: Vec<SharedBridge> = config.buses.iter().map(|bus| Arc::clone(&bus.bridge)).collect();
        let names = config.servers.iter().map(|server| server.name.clone());
        let required = config.buses.iter().map(|bus| (Arc::clone(&bus.bridge), bus.required));
        let health = Arc::new(Health::new(names, required));
        let sites = tokio::task::block_in_place(|| sites(config))?;
        let mut daemon = Self {
            health,
            metrics,
            spools: sites.iter().map(|site| Arc::clone(&site.spool)).collect(),
            bridges,
            stop: CancellationToken::new(),
            stop_reading: CancellationToken::new(),
            give_up: CancellationToken::new(),
            event_sessions: TaskTracker::new(),
            action_sessions: TaskTracker::new(),
            inlets: TaskTracker::new(),
            lanes: JoinSet::new(),
        };
        daemon.start_lanes(config, &sites);
        let servers = daemon.start_sessions(config, sites)?;
        daemon.start_commands(config, servers).await?;
        Ok(daemon)
    }

    fn start_lanes(&mut self, config: &Config, sites: &[Site]) {
        let budgets: Vec<_> = config.buses.iter().map(|bus| Budget::new(bus.total_bytes)).collect();
        for site in sites {
            let server = site.writer.server();
            let spool = Arc::downgrade(&site.spool);
            let buses = config.buses.iter().map(|bus| bus.name).collect();
            self.metrics.watch(server, buses, move || Some(spool.upgrade()?.account()));
            let spool = Arc::downgrade(&site.spool);
            self.health.watch_spool(server, move || spool.upgrade()?.status().failing);
            for (number, (bus, budget)) in config.buses.iter().zip(&budgets).enumerate() {
                let lane = Lane {
                    writer: Arc::clone(&site.writer),
                    spool: Arc::clone(&site.spool),
                    number,
                    bridge: Arc::clone(&bus.bridge),
                    batch_messages: bus.batch_messages,
                    batch_bytes: bus.batch_bytes,
                    budget: Arc::clone(budget),
                    has_company: config.buses.len() > 1,
                    metrics: self.metrics.lane(site.writer.server(), bus.name),
                    bus_metrics: self.metrics.bus(bus.name),
                };
                self.lanes.spawn(lane.run(self.give_up.clone()));
            }
        }
    }

    fn start_sessions(
        &self,
        config: &Config,
        sites: Vec<Site>,
    ) -> anyhow::Result<BTreeMap<String, engine::Server>> {
        let filter = Arc::new(Filter::new(&config.filters).context("[[filter]]")?);
        let mut servers = BTreeMap::new();
        for site in sites {
            let name = site.writer.server().to_owned();
            let pacer = Pacer::new(&name, &config.command.pace, |limit| self.metrics.pace(&name, limit))
                .context("[[command.pace]]")?;
            let intake = Intake {
                writer: Arc::clone(&site.writer),
                spool: Arc::clone(&site.spool),
                filter: Arc::clone(&filter),
                finals: Arc::clone(&site.finals),
                pacer: pacer.clone(),
                action_ids: site.settings.action_ids.clone(),
                metrics: self.metrics.server(&name),
                health: Arc::clone(&self.health),
                seen: site.seen,
            };
            self.event_sessions.spawn(run_events(
                Arc::clone(&site.settings),
                intake,
                self.stop_reading.clone(),
            ));
            let (actions, session) = Actions::new(Arc::clone(&site.settings));
            self.action_sessions.spawn(session.run(self.give_up.clone()));
            let server = engine::Server {
                writer: site.writer,
                spool: site.spool,
                actions,
                finals: site.finals,
                spool_dir: config.spool.dir.join(SPOOLS).join(&name),
                action_deadline: site.settings.action_deadline,
                metrics: self.metrics.commands(&name),
                permits: Arc::new(Semaphore::new(config.command.concurrency)),
                pacer,
            };
            servers.insert(name, server);
        }
        Ok(servers)
    }

    async fn start_commands(
        &self,
        config: &Config,
        servers: BTreeMap<String, engine::Server>,
    ) -> anyhow::Result<()> {
        if !config.buses.iter().any(config::Bus::takes_commands) {
            return Ok(());
        }
        let path = config.spool.dir.join(JOURNAL_FILE);
        let journal = open_journal(&config.spool.dir, &path, config.command.journal_max_age)?;
        let policy = Policy::new(&config.command.allow).context("[[command.allow]]")?;
        let nowhere = Nowhere {
            writer: Arc::new(Writer::new(Profile::new(NOWHERE, None)?, &config.prefix, &identity()?)?),
            spool: Spool::nowhere(),
            metrics: self.metrics.commands(""),
        };
        let settings = engine::Settings {
            max_command_bytes: config.command.max_command_bytes,
            default_deadline: Some(config.command.default_deadline),
            final_timeout: config.command.final_timeout,
        };
        for (name, server) in &servers {
            self.health.needs_commands(name, server.actions.ready());
        }
        let names = servers.keys().cloned().collect();
        let journal = Arc::new(journal);
        let keepers = keepers(&servers, &journal);
        let shared = shared(config);
        let engine = Engine::sharing(settings, policy, journal, servers, nowhere, shared);
        let recovered = engine.recover().await;
        let (unknown, calls) = recovered.with_context(|| format!("the journal {}", path.display()))?;
        if unknown + calls.count() > 0 {
            warn!(unknown, calls = calls.count(), "a process before this one ended with commands in flight");
        }
        for keeper in keepers {
            self.inlets.spawn(keeper.run(self.stop.clone()));
        }
        self.inlets.spawn(Arc::clone(&engine).look_up(calls, self.stop.clone()));
        self.inlets.spawn(Arc::clone(&engine).keep_logs(self.stop.clone()));
        self.inlets.spawn(Arc::clone(&engine).release_unsent(self.stop.clone()));
        let asked_again_within = config.command.default_deadline.max(ASKED_AGAIN_WITHIN);
        self.inlets.spawn(Arc::clone(&engine).end_left_behind(asked_again_within, self.stop.clone()));
        self.inlets.spawn(Arc::clone(&engine).release_left(self.stop.clone()));
        let scope = Scope { prefix: config.prefix.clone(), servers: names };
        for bus in config.buses.iter().filter(|bus| bus.takes_commands()) {
            let taking = Arc::clone(&engine).serve(
                Arc::clone(&bus.bridge),
                scope.clone(),
                self.metrics.bus(bus.name),
                self.stop.clone(),
                self.give_up.clone(),
            );
            self.inlets.spawn(taking);
            let (bridge, metrics) = (Arc::clone(&bus.bridge), self.metrics.bus(bus.name));
            let stop = self.stop.clone();
            self.inlets.spawn(async move {
                stop.run_until_cancelled(watch_depth(bridge, metrics)).await;
            });
        }
        Ok(())
    }

    /// Leaves in order within `limit`. Answers how many messages could not be delivered.
    pub async fn leave(mut self, limit: Duration) -> u64 {
        let deadline = Instant::now() + limit;
        // What commands in work may take; the rest is for delivering what is queued.
        let begun_by = Instant::now() + limit.mul_f64(SHARE_FOR_COMMANDS);
        self.health.drain();
        self.stop.cancel();
        for tasks in [&self.event_sessions, &self.action_sessions, &self.inlets] {
            tasks.close();
        }
        let give_up = self.give_up.clone();
        // Commands in work still need their sessions, and their outcomes still go to the spools.
        let _ = tokio::time::timeout_at(begun_by, self.inlets.wait()).await;
        self.stop_reading.cancel();
        let _ = tokio::time::timeout_at(deadline, self.event_sessions.wait()).await;
        for spool in &self.spools {
            spool.close();
        }
        let mut left = 0;
        let drained = async {
            while let Some(lane) = self.lanes.join_next().await {
                left += lane.unwrap_or_default();
            }
        };
        if tokio::time::timeout_at(deadline, drained).await.is_err() {
            give_up.cancel();
            while let Some(lane) = self.lanes.join_next().await {
                left += lane.unwrap_or_default();
            }
        }
        give_up.cancel();
        let rest = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(250));
        for bridge in &self.bridges {
            left += bridge.close(rest).await;
        }
        let spools = std::mem::take(&mut self.spools);
        // Each of them, also where one was not ready in time.
        let finished = tokio::task::spawn_blocking(move || {
            let in_time: Vec<bool> = spools.iter().map(|spool| spool.finish(rest)).collect();
            in_time.into_iter().all(|in_time| in_time)
        });
        if !finished.await.unwrap_or(false) {
            warn!(
                "the disk did not take the last of the spool in time; the next start finds it as after a kill"
            );
        }
        let ended = async { tokio::join!(self.inlets.wait(), self.action_sessions.wait()) };
        let _ = tokio::time::timeout(rest, ended).await;
        match left {
            0 => info!("everything was delivered"),
            left => warn!(messages = left, "left before everything was delivered (shutdown.drain)"),
        }
        left
    }
}

/// A daemon that is dropped without leaving, or that failed to start, ends all that it began.
impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop.cancel();
        self.stop_reading.cancel();
        self.give_up.cancel();
    }
}

/// The claims that commands of every bus share, where a bus holds them.
fn shared(config: &Config) -> Option<Shared> {
    let (bus, claims) = config.buses.iter().find_map(|bus| Some((bus.name, bus.bridge.claims()?)))?;
    info!(bus, takeover = ?config.command.claim_takeover, "claims of commands are shared");
    // Processes that share a consumer have one name, so the name alone would tell nobody which of them it was.
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let instance = format!("{}@{}:{}", config.instance, host.trim(), std::process::id());
    Some(Shared::new(claims, &config.prefix, &instance, config.command.claim_takeover))
}

/// Asks now and then how many commands wait on a bus.
async fn watch_depth(bridge: SharedBridge, metrics: crate::metrics::BusMetrics) {
    loop {
        match bridge.commands_waiting().await {
            Ok(Some(waiting)) => metrics.commands_waiting(waiting),
            Ok(None) => {}
            Err(fault) => tracing::debug!(bus = bridge.name(), %fault, "how many commands wait is not known"),
        }
        tokio::time::sleep(DEPTH_EVERY).await;
    }
}

/// The folder of the servers' spools in `spool.dir`.
pub(crate) const SPOOLS: &str = "spool";

fn sites(config: &Config) -> anyhow::Result<Vec<Site>> {
    let action_ids = asterisk::action_ids();
    config.servers.iter().map(|server| site(config, server, &action_ids)).collect()
}

fn site(
    config: &Config,
    server: &config::Server,
    action_ids: &amibus_ami::ActionIds,
) -> anyhow::Result<Site> {
    let dir = config.spool.dir.join(SPOOLS).join(&server.name);
    let buses: Vec<&str> = config.buses.iter().map(|bus| bus.name).collect();
    let options = spool::Options {
        max_bytes: config.spool.max_bytes,
        max_age: Some(config.spool.max_age),
        flush_interval: config.spool.flush_interval,
        pinned: config.buses.iter().any(config::Bus::takes_commands),
        ..spool::Options::default()
    };
    let opened = spool::open(&dir, options, &buses).context("spool.dir")?;
    let recovery = opened.recovery();
    if !recovery.clean {
        info!(
            server = server.name,
            records = recovery.next.saturating_sub(1),
            bytes = recovery.bytes,
            damages = ?recovery.damages,
            "the spool was not closed; what was written is there"
        );
    }
    let last = recovery.last;
    let profile = Profile::new(&server.name, Some(server.charset.name()))?;
    let writer = Writer::new(profile, &config.prefix, &opened.identity())?.with_origin(&opened.origin());
    let writer = Arc::new(writer);
    let past = Past {
        dir: &dir,
        writer: &writer,
        last,
        every_number: server.every_number,
        filtered: config.filters.iter().any(|rule| rule.verdict == Verdict::Drop),
    };
    let seen = recover(&past).context("spool.dir")?;
    let decoder = Arc::clone(&writer);
    let spool = opened.start(Arc::new(move |body| decoder.read(body))).context("spool.dir")?;
    Ok(Site { settings: Arc::new(settings(server, action_ids)), writer, spool, seen, finals: Arc::default() })
}

/// What the connector needs of a configured server.
pub fn settings(server: &config::Server, action_ids: &amibus_ami::ActionIds) -> ServerSettings {
    let (host, port) = (server.host.clone(), server.port);
    let target = match &server.tls {
        None => Target::Ami { host, port },
        Some(tls) => Target::Amis {
            host,
            port,
            tls: TlsSettings {
                ca_file: tls.ca.clone(),
                client: tls.client.as_ref().map(|client| ClientCertificate {
                    certificate_file: client.cert.clone(),
                    key_file: client.key.clone(),
                }),
                server_name: tls.server_name.clone(),
            },
        },
    };
    let (name, username) = (server.name.clone(), server.username.clone());
    ServerSettings {
        login: match server.login {
            config::Login::Md5 => amibus_ami::LoginMethod::Md5,
            config::Login::Plain => amibus_ami::LoginMethod::Plain,
        },
        connect_timeout: server.connect_timeout,
        ping_interval: server.ping_interval,
        ping_deadline: server.ping_deadline,
        action_deadline: server.action_deadline,
        every_number: server.every_number,
        backoff_min: server.reconnect_min,
        backoff_max: server.reconnect_max,
        slow_retry: server.retry_wrong_secret,
        snapshots: server.snapshot.iter().map(|&list| list.to_owned()).collect(),
        ..ServerSettings::new(name, target, username, server.secret.clone(), action_ids.clone())
    }
}

/// Who keeps count of each server's calls, where they are limited.
fn keepers(servers: &BTreeMap<String, engine::Server>, journal: &Arc<Journal>) -> Vec<Keeper> {
    let keeper = |(name, server): (&String, &engine::Server)| {
        Some(Keeper {
            server: name.clone(),
            pacer: Arc::clone(server.pacer.as_ref()?),
            actions: server.actions.clone(),
            action_deadline: server.action_deadline,
            journal: Arc::clone(journal),
        })
    };
    servers.iter().filter_map(keeper).collect()
}

fn open_journal(dir: &Path, path: &Path, max_age: Duration) -> anyhow::Result<Journal> {
    std::fs::create_dir_all(dir).with_context(|| format!("spool.dir {} cannot be made", dir.display()))?;
    Journal::open(path, max_age).with_context(|| format!("the journal of commands {}", path.display()))
}

/// The identity of a log that ends with this process.
fn identity() -> anyhow::Result<String> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|e| anyhow::anyhow!("the system gives no randomness: {e}"))?;
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{:x}-{random}", since.as_secs()))
}
