//! What amibus counts, under the names of Prometheus's conventions; `docs/metrics.md` says what each means.
//!
//! Whoever counts asks once for its handles ([`ServerMetrics`], [`LaneMetrics`], ...), resolved for its labels,
//! and then only touches atomics. What must add up is not counted so: each spool gives its account as one cut, when
//! somebody asks (`accounts`). The labels come from the configuration, never from a wire, so that the number
//! of series is bounded: one for each server, each bus, and each pair of them.

mod accounts;
mod pace;

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
        info::Info,
    },
    registry::{Registry, Unit},
};

pub use self::pace::PaceMetrics;
use self::{accounts::Accounts, pace::PaceFamilies};
use crate::spool::Account;

/// The upper bounds of the latency histogram's buckets, in seconds.
const LATENCY_BUCKETS_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Stands where a gap concerns every bus.
const ALL_BUSES: &str = "all";
/// Why a gap is announced that concerns every bus.
const SERVER_REASONS: [&str; 2] = ["disconnected", "skipped"];
/// Why one is announced that concerns one bus.
const LANE_REASONS: [&str; 2] = ["dropped", "damaged"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServerLabel {
    server: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GapLabels {
    server: String,
    bus: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    server: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BusLabel {
    bus: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FaultLabels {
    bus: &'static str,
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LaneLabels {
    server: String,
    bus: &'static str,
}

#[derive(Clone)]
struct Latency;

impl MetricConstructor<Histogram> for Latency {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LATENCY_BUCKETS_SECONDS)
    }
}

/// What is counted of one server. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct ServerMetrics {
    /// Bytes read from Asterisk.
    pub bytes_read: Counter,
    /// Sessions opened again after one ended.
    pub reconnects: Counter,
    /// 1 while the event session is logged in, else 0.
    pub link_up: Gauge,
    name: String,
    gaps: Family<GapLabels, Counter>,
}

impl ServerMetrics {
    /// The gaps announced to every bus for `reason`, one of the contract's words (`disconnected`, `skipped`).
    pub fn gaps(&self, reason: &'static str) -> Counter {
        let labels = GapLabels { server: self.name.clone(), bus: ALL_BUSES, reason };
        self.gaps.get_or_create_owned(&labels)
    }
}

/// What is counted of one server's messages to one bus, beside its account. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct LaneMetrics {
    server: String,
    bus: &'static str,
    gaps: Family<GapLabels, Counter>,
}

impl LaneMetrics {
    /// The gaps announced to this bus alone for `reason`, one of the contract's words (`dropped`, `damaged`).
    pub fn gaps(&self, reason: &'static str) -> Counter {
        let labels = GapLabels { server: self.server.clone(), bus: self.bus, reason };
        self.gaps.get_or_create_owned(&labels)
    }
}

/// What is counted of one bus. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct BusMetrics {
    /// 1 while the bus is reachable, else 0. Written by whoever answers `/metrics`.
    pub up: Gauge,
    /// Commands that came in.
    pub commands_received: Counter,
    /// Commands put on the dead-letter topic because they could not be read.
    pub commands_dead_lettered: Counter,
    latency: Histogram,
    faults: Family<FaultLabels, Counter>,
    commands_on_bus: Family<BusLabel, Gauge>,
    name: &'static str,
}

impl BusMetrics {
    /// Records how long a message took from being read from Asterisk to being safe on this bus.
    pub fn latency(&self, took: Duration) {
        self.latency.observe(took.as_secs_f64());
    }

    /// How many commands wait on the bus. A bus that keeps none has no such number.
    pub fn commands_waiting(&self, count: u64) {
        let waiting = self.commands_on_bus.get_or_create_owned(&BusLabel { bus: self.name });
        waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The faults of this kind (a [`amibus_contract::FaultKind`] as a word).
    pub fn faults(&self, kind: &'static str) -> Counter {
        self.faults.get_or_create_owned(&FaultLabels { bus: self.name, kind })
    }
}

/// What is counted of the commands for one server. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct CommandMetrics {
    /// Commands being worked on.
    pub running: Gauge,
    server: String,
    finished: Family<OutcomeLabels, Counter>,
}

impl CommandMetrics {
    /// The commands that ended so; `outcome` is one of the contract's words (`executed`, `refused`, ...).
    pub fn finished(&self, outcome: &'static str) -> Counter {
        self.finished.get_or_create_owned(&OutcomeLabels { server: self.server.clone(), outcome })
    }
}

/// Everything that is counted, and its text for Prometheus.
pub struct Metrics {
    registry: Registry,
    accounts: Arc<Accounts>,
    bytes_read: Family<ServerLabel, Counter>,
    reconnects: Family<ServerLabel, Counter>,
    link_up: Family<ServerLabel, Gauge>,
    gaps: Family<GapLabels, Counter>,
    bus_up: Family<BusLabel, Gauge>,
    latency: Family<BusLabel, Histogram, Latency>,
    faults: Family<FaultLabels, Counter>,
    commands_received: Family<BusLabel, Counter>,
    commands_dead_lettered: Family<BusLabel, Counter>,
    commands_on_bus: Family<BusLabel, Gauge>,
    commands: Family<OutcomeLabels, Counter>,
    commands_running: Family<ServerLabel, Gauge>,
    pace: PaceFamilies,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("amibus");
        let r = &mut registry;
        r.register("build", "What is running.", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        Self {
            accounts: {
                let accounts = Arc::new(Accounts::default());
                r.register_collector(Box::new(Arc::clone(&accounts)));
                accounts
            },
            bytes_read: add_in(r, "read", "Bytes read from Asterisk.", Unit::Bytes),
            reconnects: add(r, "reconnects", "AMI sessions opened again after one ended."),
            link_up: add(r, "link_up", "Whether the event session is logged in (1) or not (0)."),
            gaps: add(r, "gaps", "Gaps announced in a server's events, by reason; to one bus, or to all."),
            bus_up: add(r, "bus_up", "Whether the bus was reachable when last seen (1) or not (0)."),
            latency: {
                let family = Family::new_with_constructor(Latency);
                let help = "From being read from Asterisk to being safe on the bus.";
                r.register_with_unit("publish_latency", help, Unit::Seconds, family.clone());
                family
            },
            faults: add(r, "publish_faults", "Faults that the bus answered with, by kind."),
            commands_received: add(r, "commands_received", "Commands that came in from the bus."),
            commands_dead_lettered: add(
                r,
                "commands_dead_lettered",
                "Commands that could not be read, put on the bus's dead-letter topic.",
            ),
            commands_on_bus: add(
                r,
                "commands_on_bus",
                "Commands that wait on a durable bus, taken by nobody yet.",
            ),
            commands: add(r, "commands", "Commands that ended, by outcome."),
            commands_running: add(r, "commands_running", "Commands being worked on."),
            pace: PaceFamilies::register(r),
            registry,
        }
    }
}

fn add<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn add_in<M>(registry: &mut Registry, name: &str, help: &str, unit: Unit) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register_with_unit(name, help, unit, metric.clone());
    metric
}

impl Metrics {
    /// The handles of one server, by its configured name.
    pub fn server(&self, server: &str) -> ServerMetrics {
        let label = ServerLabel { server: server.to_owned() };
        let metrics = ServerMetrics {
            bytes_read: self.bytes_read.get_or_create_owned(&label),
            reconnects: self.reconnects.get_or_create_owned(&label),
            link_up: self.link_up.get_or_create_owned(&label),
            name: label.server,
            gaps: self.gaps.clone(),
        };
        // Series that begin with their first gap would hide it from whoever asks for an increase.
        for reason in SERVER_REASONS {
            metrics.gaps(reason);
        }
        metrics
    }

    /// The handles of one server's messages to one bus. To be asked for once for each pair.
    pub fn lane(&self, server: &str, bus: &'static str) -> LaneMetrics {
        let lane = LaneMetrics { server: server.to_owned(), bus, gaps: self.gaps.clone() };
        for reason in LANE_REASONS {
            lane.gaps(reason);
        }
        lane
    }

    /// From now on shows the account of a server's spool, with its lanes for these buses.
    pub fn watch(
        &self,
        server: &str,
        buses: Vec<&'static str>,
        look: impl Fn() -> Option<Account> + Send + Sync + 'static,
    ) {
        self.accounts.watch(server, buses, Box::new(look));
    }

    /// The handles of one bus.
    pub fn bus(&self, bus: &'static str) -> BusMetrics {
        let label = BusLabel { bus };
        BusMetrics {
            up: self.bus_up.get_or_create_owned(&label),
            commands_received: self.commands_received.get_or_create_owned(&label),
            commands_dead_lettered: self.commands_dead_lettered.get_or_create_owned(&label),
            latency: self.latency.get_or_create_owned(&label),
            faults: self.faults.clone(),
            commands_on_bus: self.commands_on_bus.clone(),
            name: bus,
        }
    }

    /// The handles of the commands for one configured server. For commands whose server is unknown, pass `""`: a
    /// label must not come from a wire.
    pub fn commands(&self, server: &str) -> CommandMetrics {
        let label = ServerLabel { server: server.to_owned() };
        CommandMetrics {
            running: self.commands_running.get_or_create_owned(&label),
            server: label.server,
            finished: self.commands.clone(),
        }
    }

    /// The handles of one limit on one server, by their configured names.
    pub fn pace(&self, server: &str, limit: &str) -> PaceMetrics {
        self.pace.of(server, limit)
    }

    /// Everything as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(fmt::Error) => "# EOF\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
