//! One lane's way out; all lanes share the publisher.

use std::sync::Arc;

use amibus_contract::{BoxFuture, Fault, FaultKind, Message, Outlet, Published, Reach};

use crate::bridge::Shared;

pub(crate) struct ZeroMqOutlet {
    shared: Arc<Shared>,
}

impl ZeroMqOutlet {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What is wrong with a message, whoever may subscribe to it.
    fn fault_of(&self, message: &Message) -> Option<Fault> {
        let bytes = message.topic.as_str().len() + message.body.len();
        let limit = self.shared.config.max_message_bytes;
        (bytes > limit)
            .then(|| Fault::new(FaultKind::TooLarge, format!("{bytes} bytes; max_message_bytes is {limit}")))
    }
}

impl Outlet for ZeroMqOutlet {
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(async move {
            let refused = batch.iter().enumerate().find_map(|(n, m)| Some((n, self.fault_of(m)?)));
            let good = refused.as_ref().map_or(batch.len(), |(n, _)| *n);
            let sent =
                async { self.shared.publisher().await?.publish(batch.get(..good).unwrap_or_default()).await };
            match (sent.await, refused) {
                (Err(fault), _) => Published::until(0, Reach::Sent, fault),
                (Ok(()), Some((n, fault))) => Published::until(n, Reach::Sent, fault),
                (Ok(()), None) => Published::all(batch.len(), Reach::Sent),
            }
        })
    }

    /// There is no place for such messages here.
    fn dead_letter<'a>(
        &'a mut self,
        _message: &'a Message,
        _cause: &'a Fault,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(async { Ok(false) })
    }
}
