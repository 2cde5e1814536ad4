//! The producer of single records that nobody's order depends on: replies, dead letters, commands of our client.
//! It is apart from the producer of events, so that a reply topic that does not exist holds up no event.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amibus_contract::{Fault, FaultKind};
use rdkafka::{
    config::FromClientConfigAndContext,
    error::RDKafkaErrorCode,
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord, Producer, PurgeConfig},
    util::Timeout,
};

use crate::{clients, faults, front::unusable, health::Listener, settings::Settings};

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

/// The producer, made when first needed.
pub(crate) struct Post {
    settings: Arc<Settings>,
    listener: Listener,
    state: Mutex<State>,
}

enum State {
    Unused,
    Open(FutureProducer<Listener>),
    Closed,
}

impl Post {
    pub(crate) fn new(settings: Arc<Settings>, listener: Listener) -> Self {
        Self { settings, listener, state: Mutex::new(State::Unused) }
    }

    /// Stores one record, within the bus's publish timeout.
    pub(crate) async fn store(&self, letter: Letter<'_>) -> Result<Place, Fault> {
        let producer = self.producer()?;
        let record = FutureRecord {
            topic: letter.topic,
            partition: letter.partition,
            payload: Some(letter.body),
            key: letter.key,
            timestamp: None,
            headers: Some(letter.headers),
        };
        let wait = Timeout::After(self.settings.publish_timeout);
        match producer.send(record, wait).await {
            // Without a place, librdkafka only concludes that the record was stored.
            Ok(stored) if stored.offset < 0 => Err(faults::of_code(RDKafkaErrorCode::NoOffset, letter.topic)),
            Ok(stored) => Ok(Place { partition: stored.partition, offset: stored.offset }),
            Err((error, _)) => Err(faults::of(&error, letter.topic)),
        }
    }

    fn producer(&self) -> Result<FutureProducer<Listener>, Fault> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(producer) => Ok(producer.clone()),
            State::Closed => Err(Fault::new(FaultKind::Closed, "the connection to Kafka has been closed")),
            State::Unused => {
                let config = clients::post(&self.settings);
                let made = FutureProducer::from_config_and_context(&config, self.listener.clone())
                    .map_err(|error| unusable(&error))?;
                *state = State::Open(made.clone());
                Ok(made)
            }
        }
    }

    /// The next record meets a fresh producer, which has not learned yet that some topic is missing.
    pub(crate) fn renew(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::Open(producer) = &*state {
            let last = producer.clone();
            *state = State::Unused;
            // Its end waits for a thread. Whoever still sends through it holds it, too.
            let _ = std::thread::Builder::new().spawn(move || drop(last));
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
            drop(producer);
            u64::try_from(lost).unwrap_or(0)
        };
        tokio::task::spawn_blocking(finish).await.unwrap_or(0)
    }
}
