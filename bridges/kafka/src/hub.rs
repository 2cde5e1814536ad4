//! What the parts of one bridge share.

use std::sync::{Arc, atomic::AtomicU64};

use amibus_contract::{Decision, Fault, FaultKind, Message};
use rdkafka::error::RDKafkaErrorCode;

use crate::{
    faults,
    front::Front,
    health::{Health, Listener},
    post::Post,
    settings::Settings,
    topics::Topics,
};

/// The settings, what is known of the cluster, and the producers.
pub(crate) struct Hub {
    pub(crate) settings: Arc<Settings>,
    pub(crate) health: Arc<Health>,
    pub(crate) topics: Topics,
    pub(crate) front: Front,
    pub(crate) post: Post,
    /// Commands that could neither be read nor set aside.
    pub(crate) lost_letters: AtomicU64,
}

impl Hub {
    pub(crate) fn new(settings: Settings) -> Self {
        let (settings, health) = (Arc::new(settings), Arc::new(Health::default()));
        let listener = Listener(health.clone());
        Self {
            topics: Topics::new(settings.clone(), health.clone()),
            front: Front::new(settings.clone(), listener.clone()),
            post: Post::new(settings.clone(), listener),
            settings,
            health,
            lost_letters: AtomicU64::new(0),
        }
    }

    /// Makes sure that topics are there.
    pub(crate) async fn ensure(&self, topics: &[&str]) -> Result<(), Fault> {
        self.topics.ensure(&self.front, topics).await
    }

    /// Makes sure that the topics of these messages are there.
    pub(crate) async fn ensure_classes(&self, batch: &[Message]) -> Result<(), Fault> {
        let unknown = self.unknown_classes(batch);
        if unknown.is_empty() { Ok(()) } else { self.ensure(&unknown).await }
    }

    /// The topics of these messages that were not seen yet.
    pub(crate) fn unknown_classes<'a>(&self, batch: &'a [Message]) -> Vec<&'a str> {
        let mut unknown: Vec<&str> = Vec::new();
        let mut last = "";
        for class in batch.iter().map(|message| message.topic.class()) {
            if class != last && !self.topics.knows(class) && !unknown.contains(&class) {
                unknown.push(class);
            }
            last = class;
        }
        unknown
    }

    /// The fault of a record that was not stored.
    pub(crate) fn fault(&self, code: RDKafkaErrorCode, what: &str) -> Fault {
        let fault = faults::of_code(code, what);
        if fault.kind != FaultKind::Missing {
            return fault;
        }
        // It was there. The next batch makes it again where that is configured.
        if self.settings.create_topics { fault.deciding(Decision::Retry) } else { fault }
    }

    /// The fault of a batch that took too long: what is wrong with the connection, where something is.
    pub(crate) fn late(&self, why: &str) -> Fault {
        let limit = self.settings.publish_timeout;
        self.health
            .trouble()
            .unwrap_or_else(|| Fault::new(FaultKind::TimedOut, format!("{why} (limit {limit:?})")))
    }

    /// Remembers a fault that concerns more than one message. The next batch looks for its topics again, since
    /// librdkafka waits for a topic that was deleted as it waits for a broker.
    pub(crate) fn noted(&self, fault: &Fault) {
        if fault.decision != Decision::Skip {
            self.topics.forget_all();
            self.health.not_stored(fault);
        }
    }
}
