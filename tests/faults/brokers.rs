//! One NATS and one Kafka for all faults, each behind a wire that can be cut. A test has them alone.

use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amibus_services::{Kafka, KafkaOptions, Nats};

use super::netns::Way;
use super::wire::Wire;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Nats,
    Kafka,
}

impl Which {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Kafka => "Kafka",
        }
    }
}

/// The brokers and the wires to them.
pub(super) struct Brokers {
    pub(super) nats: Nats,
    pub(super) kafka: Kafka,
    /// Between the namespaces, if the test runs in one.
    pub(super) way: Option<Arc<Way>>,
    nats_wire: Wire,
    /// Through a proxy, Kafka's own consumers come this way too: a broker has one address.
    kafka_wire: Wire,
}

/// The turn of one test: no other runs. The brokers, if it wants them.
pub(super) struct Turn(MutexGuard<'static, Option<Brokers>>);

/// Waits for it.
pub(super) fn turn() -> Turn {
    static BROKERS: Mutex<Option<Brokers>> = Mutex::new(None);
    Turn(BROKERS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The brokers, alone, running and reachable.
pub(super) fn brokers() -> Turn {
    let mut turn = turn();
    turn.0.get_or_insert_with(Brokers::start).heal();
    turn
}

impl Deref for Turn {
    type Target = Brokers;
    fn deref(&self) -> &Brokers {
        self.0.as_ref().expect("the brokers were asked for")
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Brokers {
        self.0.as_mut().expect("the brokers were asked for")
    }
}

impl Brokers {
    fn start() -> Self {
        let way = Way::lay().map(Arc::new);
        let (nats_wire, kafka_wire) = (Wire::start(way.as_ref()), Wire::start(way.as_ref()));
        let nats = Nats::jetstream();
        nats_wire.lead_to(nats.port(0));
        let kafka = Kafka::start(&KafkaOptions {
            // The shortest session, so that members who died are missed soon.
            properties: format!(
                "advertised.listeners=PLAINTEXT://{}\ngroup.min.session.timeout.ms=1000",
                kafka_wire.address_of("@PORT@")
            ),
            ..KafkaOptions::default()
        });
        kafka_wire.lead_to(kafka.port(0));
        Self { nats, kafka, way, nats_wire, kafka_wire }
    }

    /// Undoes what a test that failed has left.
    fn heal(&mut self) {
        for which in [Which::Nats, Which::Kafka] {
            self.wire(which).mend();
            self.resume(which);
            let port = if which == Which::Nats { self.nats.port(0) } else { self.kafka.port(0) };
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                self.restart(which);
            }
        }
    }

    /// Where amibus finds NATS: through the wire.
    pub(super) fn nats_url(&self) -> String {
        format!("nats://{}", self.nats_wire.address())
    }

    /// Where everybody finds Kafka: through the wire.
    pub(super) fn kafka_address(&self) -> String {
        self.kafka_wire.address()
    }

    pub(super) fn wire(&self, which: Which) -> &Wire {
        match which {
            Which::Nats => &self.nats_wire,
            Which::Kafka => &self.kafka_wire,
        }
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self, which: Which) {
        match which {
            Which::Nats => self.nats.kill(),
            Which::Kafka => self.kafka.kill(),
        }
    }

    /// Starts it again on its data, and waits until it answers.
    pub(super) fn restart(&mut self, which: Which) {
        match which {
            Which::Nats => self.nats.restart(),
            Which::Kafka => self.kafka.restart(),
        }
    }

    /// SIGSTOP.
    pub(super) fn pause(&self, which: Which) {
        match which {
            Which::Nats => self.nats.pause(),
            Which::Kafka => self.kafka.pause(),
        }
    }

    /// SIGCONT.
    pub(super) fn resume(&self, which: Which) {
        match which {
            Which::Nats => self.nats.resume(),
            Which::Kafka => self.kafka.resume(),
        }
    }
}
