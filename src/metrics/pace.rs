//! What is counted of one limit of one server.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LimitLabels {
    server: String,
    limit: String,
}

/// What is counted of one limit of one server.
#[derive(Clone, Debug)]
pub struct PaceMetrics {
    waiting: Gauge,
    calls: Gauge,
    granted: Counter,
}

impl PaceMetrics {
    /// How many Originates wait for it, how many calls it counts, and how many it has let go on since the start.
    pub fn set(&self, waiting: usize, calls: usize, granted: u64) {
        let whole = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.waiting.set(whole(waiting));
        self.calls.set(whole(calls));
        self.granted.inc_by(granted.saturating_sub(self.granted.get()));
    }
}

/// The families of all limits.
#[derive(Default)]
pub(super) struct PaceFamilies {
    waiting: Family<LimitLabels, Gauge>,
    calls: Family<LimitLabels, Gauge>,
    granted: Family<LimitLabels, Counter>,
}

impl PaceFamilies {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            waiting: super::add(registry, "pace_waiting", "Originates that wait for the limit."),
            calls: super::add(registry, "pace_calls", "Calls that the limit counts."),
            granted: super::add(registry, "pace_granted", "Originates that the limit let go on."),
        }
    }

    pub(super) fn of(&self, server: &str, limit: &str) -> PaceMetrics {
        let labels = LimitLabels { server: server.to_owned(), limit: limit.to_owned() };
        PaceMetrics {
            waiting: self.waiting.get_or_create_owned(&labels),
            calls: self.calls.get_or_create_owned(&labels),
            granted: self.granted.get_or_create_owned(&labels),
        }
    }
}
