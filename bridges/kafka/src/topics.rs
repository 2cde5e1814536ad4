//! Topics: looked for, made where the configuration says so, and remembered.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use amibus_contract::{Decision, Fault, FaultKind};
use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::Client,
    config::FromClientConfigAndContext,
    error::{KafkaResult, RDKafkaErrorCode},
    metadata::Metadata,
};

use crate::{
    clients, faults,
    front::{Front, unusable},
    health::{Health, Listener},
    settings::Settings,
};

/// How long one question may take before the callbacks are asked what is wrong.
const SLICE: Duration = Duration::from_secs(1);
/// How long the cluster may take to give a new topic its leaders.
const LED_WITHIN: Duration = Duration::from_secs(10);
const LED_EVERY: Duration = Duration::from_millis(50);

/// A topic as the cluster shows it.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) partitions: Vec<i32>,
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
    led: bool,
}

/// The topics that are known to be there.
pub(crate) struct Topics {
    settings: Arc<Settings>,
    health: Arc<Health>,
    known: Mutex<HashSet<String>>,
    making: tokio::sync::Mutex<()>,
}

impl Topics {
    pub(crate) fn new(settings: Arc<Settings>, health: Arc<Health>) -> Self {
        Self { settings, health, known: Mutex::default(), making: tokio::sync::Mutex::default() }
    }

    /// Whether the topic was there when last seen.
    pub(crate) fn knows(&self, topic: &str) -> bool {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(topic)
    }

    /// To be looked for again.
    pub(crate) fn forget_all(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Makes sure that the topics are there.
    ///
    /// # Errors
    /// Besides those of the connection: [`FaultKind::Missing`] where one is missing and is not to be made.
    pub(crate) async fn ensure(&self, front: &Front, topics: &[&str]) -> Result<(), Fault> {
        if topics.iter().all(|topic| self.knows(topic)) {
            return Ok(());
        }
        let _one_at_a_time = self.making.lock().await;
        let mut missing = Vec::new();
        for topic in topics.iter().filter(|topic| !self.knows(topic)) {
            match self.look(front, topic).await? {
                Some(_) => self.remember(topic),
                None => missing.push((*topic).to_owned()),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if !self.settings.create_topics {
            return Err(self.remedy(&missing));
        }
        self.make(&missing).await?;
        for topic in &missing {
            self.wait_for_leaders(front, topic).await?;
            self.remember(topic);
        }
        Ok(())
    }

    /// The topic's shape, or `None` where there is no such topic.
    pub(crate) async fn look(&self, front: &Front, topic: &str) -> Result<Option<Shape>, Fault> {
        let generation = front.lease()?;
        let (health, limit, topic) = (self.health.clone(), self.settings.connect_timeout, topic.to_owned());
        let ask = move || {
            let client = generation.client(&topic);
            ask(&health, limit, &topic, |time| client.fetch_metadata(Some(&topic), time))
                .and_then(|metadata| shape(&metadata, &topic))
        };
        blocking(ask).await?
    }

    async fn make(&self, topics: &[String]) -> Result<(), Fault> {
        let listener = Listener(self.health.clone());
        let admin = AdminClient::from_config_and_context(&clients::common(&self.settings), listener)
            .map_err(|error| unusable(&error))?;
        let replicas = self.settings.replication;
        let new = |topic| NewTopic::new(topic, self.settings.partitions, TopicReplication::Fixed(replicas));
        let new: Vec<NewTopic<'_>> = topics.iter().map(|topic| new(topic)).collect();
        let limit = Some(self.settings.connect_timeout);
        let options = AdminOptions::new().request_timeout(limit).operation_timeout(limit);
        let results = admin.create_topics(&new, &options).await;
        // Its end waits for a thread.
        tokio::task::spawn_blocking(move || drop(admin));
        for result in results.map_err(|error| faults::of(&error, "making topics"))? {
            match result {
                Ok(topic) => tracing::info!(topic, "made a Kafka topic"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(faults::of_code(code, &format!("making the topic {topic}")));
                }
            }
        }
        Ok(())
    }

    async fn wait_for_leaders(&self, front: &Front, topic: &str) -> Result<(), Fault> {
        let start = Instant::now();
        while !self.look(front, topic).await?.is_some_and(|shape| shape.led) {
            if start.elapsed() > LED_WITHIN {
                let message = format!("the new topic {topic} has no leaders after {LED_WITHIN:?}");
                return Err(Fault::new(FaultKind::Unreachable, message));
            }
            tokio::time::sleep(LED_EVERY).await;
        }
        Ok(())
    }

    fn remember(&self, topic: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned());
    }

    pub(crate) fn remedy(&self, missing: &[String]) -> Fault {
        let (names, first) = (missing.join(", "), missing.first().map_or("", String::as_str));
        let message = format!(
            "no such topic: {names}. Make it (kafka-topics.sh --bootstrap-server {} --create --topic {first} \
             --partitions {} --replication-factor {}), or set create_topics = true",
            self.settings.brokers, self.settings.partitions, self.settings.replication
        );
        Fault::new(FaultKind::Missing, message)
    }
}

/// Asks the cluster within `limit`; a refused login is not waited out.
pub(crate) fn ask<T>(
    health: &Health,
    limit: Duration,
    what: &str,
    mut question: impl FnMut(Duration) -> KafkaResult<T>,
) -> Result<T, Fault> {
    let start = Instant::now();
    loop {
        let rest = limit.saturating_sub(start.elapsed());
        let error = match question(rest.min(SLICE)) {
            Ok(answer) => {
                health.answered();
                return Ok(answer);
            }
            Err(error) => error,
        };
        let trouble = health.trouble();
        if let Some(fault) = trouble.as_ref().filter(|fault| fault.decision == Decision::Stop) {
            return Err(fault.clone());
        }
        if rest <= SLICE {
            let fault = trouble.unwrap_or_else(|| faults::of(&error, what));
            health.unanswered(&fault);
            return Err(fault);
        }
    }
}

/// Runs what blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Fault::new(FaultKind::Closed, format!("the runtime is ending: {error}")))
}

fn shape(metadata: &Metadata, topic: &str) -> Result<Option<Shape>, Fault> {
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error().map(RDKafkaErrorCode::from) {
        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => {}
        Some(RDKafkaErrorCode::UnknownTopicOrPartition) => return Ok(None),
        Some(code) => return Err(faults::of_code(code, topic)),
    }
    let partitions = found.partitions();
    Ok(Some(Shape {
        partitions: partitions.iter().map(|p| p.id()).collect(),
        replicas: partitions.iter().map(|p| p.replicas().len()).min().unwrap_or(0),
        in_sync: partitions.iter().map(|p| p.isr().len()).min().unwrap_or(0),
        led: !partitions.is_empty() && partitions.iter().all(|p| p.leader() >= 0),
    }))
}

/// Asks a client of any kind for a topic's partitions.
pub(crate) fn partitions<C: ClientContext>(
    client: &Client<C>,
    health: &Health,
    limit: Duration,
    topic: &str,
) -> Result<Vec<i32>, Fault> {
    let metadata = ask(health, limit, topic, |time| client.fetch_metadata(Some(topic), time))?;
    Ok(shape(&metadata, topic)?.map(|shape| shape.partitions).unwrap_or_default())
}
