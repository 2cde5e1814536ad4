//! What the spools count, taken from each of them at one moment when somebody asks.
//!
//! These series are not kept in atomics: they would be read one after the other while messages flow, and their sum
//! would hold only by chance. A server's spool gives all of its numbers under one lock.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet},
    metrics::MetricType,
    registry::Unit,
};

use super::{LaneLabels, ServerLabel};
use crate::spool::{Account, LaneAccount};

/// Gives the account of one server's spool, as long as there is one.
pub(crate) type Look = Box<dyn Fn() -> Option<Account> + Send + Sync>;

struct Watched {
    server: String,
    buses: Vec<&'static str>,
    look: Look,
}

/// The spools that are watched.
#[derive(Default)]
pub(super) struct Accounts(Mutex<Vec<Watched>>);

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").finish_non_exhaustive()
    }
}

impl Accounts {
    pub(super) fn watch(&self, server: &str, buses: Vec<&'static str>, look: Look) {
        let watched = Watched { server: server.to_owned(), buses, look };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
    }

    fn take(&self) -> Vec<Taken> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = |one: &Watched| {
            let account = (one.look)()?;
            let label = |&bus| LaneLabels { server: one.server.clone(), bus };
            let lanes = one.buses.iter().map(label).zip(account.lanes.iter().copied()).collect();
            Some(Taken { server: ServerLabel { server: one.server.clone() }, lanes, account })
        };
        watched.iter().filter_map(taken).collect()
    }
}

/// One server's account with its labels.
struct Taken {
    server: ServerLabel,
    lanes: Vec<(LaneLabels, LaneAccount)>,
    account: Account,
}

type OfServer = (&'static str, &'static str, fn(&Account) -> u64);
type OfLane = (&'static str, &'static str, fn(&LaneAccount) -> u64);

const SERVER_COUNTERS: [OfServer; 3] = [
    ("events_read", "Events read from Asterisk, filtered ones included.", |account| account.read),
    ("events_filtered", "Events that a filter left out.", |account| account.filtered),
    (
        "messages_own",
        "Messages that amibus itself put among the server's: its link and outcomes.",
        |account| account.own,
    ),
];

const SERVER_GAUGES: [OfServer; 2] = [
    ("spool_segments", "Segments of the server's spool.", |account| account.status.segments as u64),
    (
        "spool_failing",
        "Whether the disk refuses to take the server's spool (1), so that events are in memory only, or not (0).",
        |account| u64::from(account.status.failing.is_some()),
    ),
];

const SERVER_BYTES: [OfServer; 2] = [
    ("spool", "Bytes of the server's spool on disk.", |account| account.status.bytes),
    ("spool_unwritten", "Bytes of the server's spool that are not written yet.", |account| {
        account.status.unwritten_bytes as u64
    }),
];

const LANE_COUNTERS: [OfLane; 4] = [
    (
        "messages_recovered",
        "Places of the spool that the bus had not confirmed when the process started, damaged ones included.",
        |lane| lane.recovered,
    ),
    ("messages_published", "Messages that the bus made safe.", |lane| lane.published),
    ("messages_dead_lettered", "Messages put on the bus's dead-letter topic.", |lane| lane.dead_lettered),
    (
        "messages_dropped",
        "Messages that the bus will not get: no room, damage, or refused for good without a dead letter.",
        |lane| lane.dropped,
    ),
];

impl Collector for Accounts {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let taken = self.take();
        let now = SystemTime::now();
        for (kind, unit, table) in [
            (MetricType::Counter, None, &SERVER_COUNTERS[..]),
            (MetricType::Gauge, None, &SERVER_GAUGES[..]),
            (MetricType::Gauge, Some(Unit::Bytes), &SERVER_BYTES[..]),
        ] {
            for (name, help, value) in table {
                let samples = taken.iter().map(|one| (&one.server, value(&one.account)));
                family(&mut encoder, name, help, (kind, unit.as_ref()), samples)?;
            }
        }
        let lanes = || taken.iter().flat_map(|one| &one.lanes);
        for (name, help, value) in LANE_COUNTERS {
            let samples = lanes().map(|(labels, lane)| (labels, value(lane)));
            family(&mut encoder, name, help, (MetricType::Counter, None), samples)?;
        }
        let waiting = lanes().map(|(labels, lane)| (labels, lane.waiting));
        let help = "Messages in the spool that are not safe on the bus yet.";
        family(&mut encoder, "messages_waiting", help, (MetricType::Gauge, None), waiting)?;
        let help = "How long ago the oldest message that is not yet safe on the bus was read.";
        let mut oldest =
            encoder.encode_descriptor("oldest_waiting", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (labels, lane) in lanes() {
            let age = lane.oldest.and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
            oldest.encode_family(labels)?.encode_gauge(&age.as_secs_f64())?;
        }
        Ok(())
    }
}

fn family<'a, L: EncodeLabelSet + 'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    (kind, unit): (MetricType, Option<&Unit>),
    samples: impl Iterator<Item = (&'a L, u64)>,
) -> Result<(), fmt::Error> {
    let counter = matches!(kind, MetricType::Counter);
    let mut encoder = encoder.encode_descriptor(name, help, unit, kind)?;
    for (labels, value) in samples {
        let mut sample = encoder.encode_family(labels)?;
        if counter {
            sample.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        } else {
            sample.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))?;
        }
    }
    Ok(())
}
