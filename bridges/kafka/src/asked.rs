//! A producer whose reports are asked for by a thread of its own, seldom while there are none.
//!
//! rdkafka's own threads ask ten times a second, and at the end of each question it spins for up to a millisecond, since
//! what is left of the time is cut to whole milliseconds.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use amibus_contract::{Fault, FaultKind};
use rdkafka::{
    ClientConfig,
    config::FromClientConfigAndContext,
    producer::{BaseProducer, ProducerContext},
};

use crate::front::unusable;

/// How long one question for reports lasts; what comes is handed on at once. So long may also pass until a producer that
/// nobody has any more is gone.
const ASK: Duration = Duration::from_secs(1);

/// A producer. Dropping it does not block: its end takes up to half a second, and is the thread's, which has it last.
pub(crate) struct Asked<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    gone: Arc<AtomicBool>,
}

impl<C: ProducerContext + 'static> Asked<C> {
    /// Makes the producer and its thread.
    pub(crate) fn new(config: &ClientConfig, context: C) -> Result<Self, Fault> {
        let producer =
            BaseProducer::from_config_and_context(config, context).map_err(|error| unusable(&error))?;
        let (producer, gone) = (Arc::new(producer), Arc::<AtomicBool>::default());
        let (asked, ends) = (Arc::clone(&producer), Arc::clone(&gone));
        let ask = move || {
            while !ends.load(Ordering::Acquire) {
                asked.poll(ASK);
            }
        };
        std::thread::Builder::new().name("kafka reports".into()).spawn(ask).map_err(|error| {
            Fault::new(FaultKind::Full, format!("no thread for the producer's reports: {error}"))
        })?;
        Ok(Self { producer, gone })
    }
}

impl<C: ProducerContext + 'static> Deref for Asked<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for Asked<C> {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
    }
}
