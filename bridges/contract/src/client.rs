//! The other side of a bus: what a service does there. Serves `amibus tail`, `amibus send` and the tests.

use std::time::Duration;

use crate::{BoxFuture, ByteString, Bytes, Fault, Kind};

/// A message as a consumer got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The topic as the contract spells it where the bus carries it whole (NATS, ZeroMQ), else the bus's own.
    pub topic: ByteString,
    /// The record key, where the bus has one.
    pub key: Option<ByteString>,
    /// Headers, spelled as on the bus.
    pub headers: Vec<(String, String)>,
    /// The CloudEvent.
    pub body: Bytes,
}

/// A subscription.
pub trait Feed: Send {
    /// The next message; waits across outages; `Ok(None)` when it was closed.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Delivery>, Fault>>;
}

/// A consumer and requester.
pub trait Client: Send {
    /// Subscribes to messages of these kinds, of one server or of all, from now on. When the future is ready, the
    /// subscription is active: a message published afterwards is seen.
    ///
    /// # Errors
    /// When the bus is unreachable or does not permit it.
    fn subscribe<'a>(
        &'a mut self,
        prefix: &'a str,
        kinds: &'a [Kind],
        server: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Feed>, Fault>>;

    /// Publishes a command so that it is carried out, and waits for its response.
    ///
    /// `id` is the command's id, by which the response is recognised where the bus has no replies of its own.
    ///
    /// # Errors
    /// [`crate::FaultKind::TimedOut`] when no response came in time: the command may have run all the same.
    fn request<'a>(
        &'a mut self,
        prefix: &'a str,
        server: &'a str,
        action: &'a str,
        id: &'a str,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Bytes, Fault>>;
}
