//! What amibus counts, under the names of Prometheus's conventions.
//!
//! Whoever counts asks once for its handles ([`ServerMetrics`], [`LaneMetrics`], ...), resolved for its labels,
//! and then only touches atomics. The labels come from the configuration, never from a wire, so that the number
//! of series is bounded: one for each server, each bus, and each pair of them.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

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

/// The upper bounds of the latency histogram's buckets, in seconds.
const LATENCY_BUCKETS_SECONDS: [f64; 13] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Stands in the atomic for "nothing waits".
const NOTHING_WAITS: u64 = u64::MAX;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ServerLabel {
    server: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct GapLabels {
    server: String,
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
    /// Events read from Asterisk, filtered ones included.
    pub events_read: Counter,
    /// Events that a filter left out.
    pub events_filtered: Counter,
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
    /// The gaps announced for `reason`, one of the contract's words (`disconnected`, `skipped`, `dropped`, ...).
    pub fn gaps(&self, reason: &'static str) -> Counter {
        self.gaps.get_or_create_owned(&GapLabels { server: self.name.clone(), reason })
    }
}

/// What is counted of one server's messages to one bus. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct LaneMetrics {
    /// Messages that the bus made safe.
    pub published: Counter,
    /// Messages put on the bus's dead-letter topic.
    pub dead_lettered: Counter,
    /// Messages that this bus will not get: the log was full, or the bus refused them for good.
    pub dropped: Counter,
    /// Messages not yet safe on this bus.
    pub waiting: Gauge,
    waiting_seconds: Gauge<f64, AtomicU64>,
    oldest_unix_millis: Arc<AtomicU64>,
}

impl LaneMetrics {
    /// Says when the oldest message that is not yet safe on this bus was read; `None` when none waits.
    pub fn oldest_waiting(&self, read_at: Option<SystemTime>) {
        let millis = read_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_millis());
        let millis = millis.and_then(|millis| u64::try_from(millis).ok()).unwrap_or(NOTHING_WAITS);
        self.oldest_unix_millis.store(millis, Ordering::Relaxed);
    }

    fn refresh(&self, now: SystemTime) {
        let millis = self.oldest_unix_millis.load(Ordering::Relaxed);
        let age = if millis == NOTHING_WAITS {
            Duration::ZERO
        } else {
            now.duration_since(UNIX_EPOCH + Duration::from_millis(millis)).unwrap_or_default()
        };
        self.waiting_seconds.set(age.as_secs_f64());
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
    name: &'static str,
}

impl BusMetrics {
    /// Records how long a message took from being read from Asterisk to being safe on this bus.
    pub fn latency(&self, took: Duration) {
        self.latency.observe(took.as_secs_f64());
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
    events_read: Family<ServerLabel, Counter>,
    events_filtered: Family<ServerLabel, Counter>,
    bytes_read: Family<ServerLabel, Counter>,
    reconnects: Family<ServerLabel, Counter>,
    link_up: Family<ServerLabel, Gauge>,
    gaps: Family<GapLabels, Counter>,
    published: Family<LaneLabels, Counter>,
    dead_lettered: Family<LaneLabels, Counter>,
    dropped: Family<LaneLabels, Counter>,
    waiting: Family<LaneLabels, Gauge>,
    waiting_seconds: Family<LaneLabels, Gauge<f64, AtomicU64>>,
    bus_up: Family<BusLabel, Gauge>,
    latency: Family<BusLabel, Histogram, Latency>,
    faults: Family<FaultLabels, Counter>,
    commands_received: Family<BusLabel, Counter>,
    commands_dead_lettered: Family<BusLabel, Counter>,
    commands: Family<OutcomeLabels, Counter>,
    commands_running: Family<ServerLabel, Gauge>,
    lanes: Mutex<Vec<LaneMetrics>>,
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
            events_read: add(r, "events_read", "Events read from Asterisk, filtered ones included."),
            events_filtered: add(r, "events_filtered", "Events that a filter left out."),
            bytes_read: add_in(r, "read", "Bytes read from Asterisk.", Unit::Bytes),
            reconnects: add(r, "reconnects", "AMI sessions opened again after one ended."),
            link_up: add(r, "link_up", "Whether the event session is logged in (1) or not (0)."),
            gaps: add(r, "gaps", "Gaps announced in a server's events, by reason."),
            published: add(r, "messages_published", "Messages that the bus made safe."),
            dead_lettered: add(r, "messages_dead_lettered", "Messages put on the bus's dead-letter topic."),
            dropped: add(r, "messages_dropped", "Messages that the bus will not get."),
            waiting: add(r, "messages_waiting", "Messages not yet safe on the bus."),
            waiting_seconds: add_in(
                r,
                "oldest_waiting",
                "How long ago the oldest message that is not yet safe on the bus was read.",
                Unit::Seconds,
            ),
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
            commands: add(r, "commands", "Commands that ended, by outcome."),
            commands_running: add(r, "commands_running", "Commands being worked on."),
            lanes: Mutex::default(),
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
        ServerMetrics {
            events_read: self.events_read.get_or_create_owned(&label),
            events_filtered: self.events_filtered.get_or_create_owned(&label),
            bytes_read: self.bytes_read.get_or_create_owned(&label),
            reconnects: self.reconnects.get_or_create_owned(&label),
            link_up: self.link_up.get_or_create_owned(&label),
            name: label.server,
            gaps: self.gaps.clone(),
        }
    }

    /// The handles of one server's messages to one bus. To be asked for once for each pair.
    pub fn lane(&self, server: &str, bus: &'static str) -> LaneMetrics {
        let labels = LaneLabels { server: server.to_owned(), bus };
        let lane = LaneMetrics {
            published: self.published.get_or_create_owned(&labels),
            dead_lettered: self.dead_lettered.get_or_create_owned(&labels),
            dropped: self.dropped.get_or_create_owned(&labels),
            waiting: self.waiting.get_or_create_owned(&labels),
            waiting_seconds: self.waiting_seconds.get_or_create_owned(&labels),
            oldest_unix_millis: Arc::new(AtomicU64::new(NOTHING_WAITS)),
        };
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(lane.clone());
        lane
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

    /// Everything as OpenMetrics text.
    pub fn encode(&self) -> String {
        let now = SystemTime::now();
        for lane in self.lanes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            lane.refresh(now);
        }
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            Err(fmt::Error) => "# EOF\n".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(text: &'a str, start: &str) -> Option<&'a str> {
        text.lines().find(|line| line.starts_with(start))
    }

    #[test]
    fn names_follow_the_conventions() {
        let metrics = Metrics::default();
        let server = metrics.server("pbx1");
        server.events_read.inc_by(3);
        server.bytes_read.inc_by(700);
        server.link_up.set(1);
        server.gaps("skipped").inc();
        metrics.commands("pbx1").finished("executed").inc();
        metrics.bus("nats").latency(Duration::from_millis(3));
        metrics.bus("nats").faults("unreachable").inc();
        let text = metrics.encode();
        for expected in [
            "amibus_events_read_total{server=\"pbx1\"} 3",
            "amibus_read_bytes_total{server=\"pbx1\"} 700",
            "amibus_link_up{server=\"pbx1\"} 1",
            "amibus_gaps_total{server=\"pbx1\",reason=\"skipped\"} 1",
            "amibus_commands_total{server=\"pbx1\",outcome=\"executed\"} 1",
            "amibus_publish_latency_seconds_bucket{le=\"0.005\",bus=\"nats\"} 1",
            "amibus_publish_faults_total{bus=\"nats\",kind=\"unreachable\"} 1",
        ] {
            assert!(text.lines().any(|line| line == expected), "{expected} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_oldest_waiting_message_ages_between_scrapes() {
        let metrics = Metrics::default();
        let lane = metrics.lane("pbx1", "kafka");
        let name = "amibus_oldest_waiting_seconds{server=\"pbx1\",bus=\"kafka\"}";
        assert_eq!(line(&metrics.encode(), name), Some(format!("{name} 0.0").as_str()));
        lane.oldest_waiting(Some(SystemTime::now() - Duration::from_secs(90)));
        let text = metrics.encode();
        let seconds: f64 = line(&text, name)
            .and_then(|line| line.rsplit(' ').next())
            .and_then(|value| value.parse().ok())
            .expect("a number");
        assert!((90.0..100.0).contains(&seconds), "{seconds}");
        lane.oldest_waiting(None);
        assert_eq!(line(&metrics.encode(), name), Some(format!("{name} 0.0").as_str()));
    }
}
