//! The producer of single records that nobody's order depends on: replies, dead letters, commands of our client.
//! It is apart from the producer of events, so that a reply topic that does not exist holds up no event.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amibus_contract::{Fault, FaultKind};
use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Message as _, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use crate::{asked::Asked, clients, faults, health::Listener, settings::Settings};

/// How long to wait for room in the producer's queue.
const ROOM_EVERY: Duration = Duration::from_millis(10);

/// A record to be stored on its own.
pub(crate) struct Letter<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) body: &'a [u8],
    pub(crate) headers: OwnedHeaders,
}

/// Where a record was stored.
pub(crate) struct Place {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
}

/// The callbacks of the producer.
struct Context(Listener);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<oneshot::Sender<Result<Place, KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiter: Self::DeliveryOpaque) {
        let result = match result {
            Ok(stored) => Ok(Place { partition: stored.partition(), offset: stored.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        let _ = waiter.send(result);
    }
}

/// The producer, made when first needed.
pub(crate) struct Post {
    settings: Arc<Settings>,
    listener: Listener,
    state: Mutex<State>,
}

enum State {
    Unused,
    Open(Arc<Asked<Context>>),
    Closed,
}

impl Post {
    pub(crate) fn new(settings: Arc<Settings>, listener: Listener) -> Self {
        Self { settings, listener, state: Mutex::new(State::Unused) }
    }

    /// Stores one record, within the bus's publish timeout.
    pub(crate) async fn store(&self, letter: Letter<'_>) -> Result<Place, Fault> {
        let producer = self.producer()?;
        let (waiter, report) = oneshot::channel();
        let mut record = BaseRecord::with_opaque_to(letter.topic, Box::new(waiter))
            .payload(letter.body)
            .headers(letter.headers);
        (record.partition, record.key) = (letter.partition, letter.key);
        let deadline = Instant::now() + self.settings.publish_timeout;
        while let Err((error, back)) = producer.send(record) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || Instant::now() >= deadline {
                return Err(faults::of(&error, letter.topic));
            }
            record = back;
            sleep(ROOM_EVERY).await;
        }
        match report.await {
            // Without a place, librdkafka only concludes that the record was stored.
            Ok(Ok(stored)) if stored.offset < 0 => {
                Err(faults::of_code(RDKafkaErrorCode::NoOffset, letter.topic))
            }
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(error)) => Err(faults::of(&error, letter.topic)),
            Err(_) => Err(Fault::new(FaultKind::Closed, "the producer ended before it reported")),
        }
    }

    fn producer(&self) -> Result<Arc<Asked<Context>>, Fault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(producer) => Ok(producer.clone()),
            State::Closed => Err(Fault::new(FaultKind::Closed, "the connection to Kafka has been closed")),
            State::Unused => {
                let context = Context(self.listener.clone());
                let made = Arc::new(Asked::new(&clients::post(&self.settings), context)?);
                *state = State::Open(made.clone());
                Ok(made)
            }
        }
    }

    /// The next record meets a fresh producer, which has not learned yet that some topic is missing.
    pub(crate) fn renew(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever still sends through it holds it.
        if let State::Open(_) = &*state {
            *state = State::Unused;
        }
    }

    /// Delivers what is queued within `limit`, and ends. Answers how many records could not be delivered.
    pub(crate) async fn close(&self, limit: Duration) -> u64 {
        let state = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *state, State::Closed)
        };
        let State::Open(producer) = state else { return 0 };
        let finish = move || {
            let flushed = producer.flush(limit);
            let lost = if flushed.is_ok() { 0 } else { producer.in_flight_count() };
            producer.purge(PurgeConfig::default().queue().inflight());
            u64::try_from(lost).unwrap_or(0)
        };
        tokio::task::spawn_blocking(finish).await.unwrap_or(0)
    }
}
