//! How many commands wait: in the stream, and with us for somebody to take them.

use std::sync::{Mutex, PoisonError};

use amibus_contract::{Fault, FaultKind};
use async_nats::jetstream::{consumer::pull, context::Context};

use crate::{ahead::AheadCount, dial::Dialled, faults};

/// The consumers that commands are taken by.
#[derive(Clone)]
pub(crate) struct Consumers {
    pub(crate) dialled: Dialled,
    pub(crate) context: Context,
    pub(crate) stream: String,
    pub(crate) names: Vec<String>,
    pub(crate) ahead: AheadCount,
}

/// The depth of the consumers of the inlet that is open.
#[derive(Default)]
pub(crate) struct Depth(Mutex<Option<Consumers>>);

impl Depth {
    pub(crate) fn of(&self, consumers: Option<Consumers>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = consumers;
    }

    /// Asked of the server only over a connection that stands: async-nats remembers each question without an answer.
    pub(crate) async fn waiting(&self) -> Result<Option<u64>, Fault> {
        let consumers = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Consumers { dialled, context, stream, names, ahead }) = consumers else { return Ok(None) };
        if !dialled.connected() {
            return Err(faults::lost());
        }
        let mut waiting = 0;
        for name in names {
            let asked = context.get_consumer_from_stream::<pull::Config, _, _>(&name, &stream);
            let consumer = tokio::select! {
                consumer = asked => consumer,
                () = dialled.lost() => return Err(faults::lost()),
            };
            let consumer = consumer.map_err(|error| {
                Fault::new(FaultKind::Unreachable, format!("consumer {name} of stream {stream}: {error}"))
            })?;
            waiting += consumer.cached_info().num_pending;
        }
        Ok(Some(waiting + ahead.now()))
    }
}
