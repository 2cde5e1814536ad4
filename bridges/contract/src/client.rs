//! The other side of a bus: what a service does there. Serves `amibus tail`, `amibus send`, `amibus dial` and the tests.

use std::time::Duration;

use crate::{BoxFuture, ByteString, Bytes, Fault, FaultKind, Kind};

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

/// Where the responses to [`Posted`] commands come in.
pub struct Replies {
    /// What [`Posted::reply_to`] takes: the bus's own name of the place.
    pub address: String,
    /// The responses; those that are published for everybody may come too, so the same one may come twice.
    /// A fault with [`crate::Decision::Retry`] says that the connection broke, and that what was published meanwhile
    /// may have been missed: to be asked for again. The feed goes on after it.
    pub feed: Box<dyn Feed>,
}

/// A command that the bus keeps until it is carried out.
#[derive(Clone, Debug)]
pub struct Posted<'a> {
    /// The first words of all topics.
    pub prefix: &'a str,
    /// The server to carry it out.
    pub server: &'a str,
    /// The AMI action.
    pub action: &'a str,
    /// The command's id.
    pub id: &'a str,
    /// Commands with the same key are carried out in the order in which they were published, where the bus has keys.
    pub key: &'a str,
    /// [`Replies::address`].
    pub reply_to: &'a str,
    /// The command.
    pub body: Bytes,
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

    /// A place for the responses to commands that are published with [`Client::publish_command`], listening from now
    /// on.
    ///
    /// # Errors
    /// [`FaultKind::Missing`] where the bus keeps no commands.
    fn replies<'a>(&'a mut self, prefix: &'a str) -> BoxFuture<'a, Result<Replies, Fault>> {
        let _ = prefix;
        Box::pin(async { Err(keeps_none()) })
    }

    /// Publishes a command, and does not wait for its response. `Ok`: the bus has stored it. One that is published
    /// twice is delivered twice, so that its response comes again.
    ///
    /// # Errors
    /// With [`crate::Decision::Retry`] it may have been stored all the same.
    fn publish_command<'a>(&'a mut self, command: Posted<'a>) -> BoxFuture<'a, Result<(), Fault>> {
        let _ = command;
        Box::pin(async { Err(keeps_none()) })
    }
}

fn keeps_none() -> Fault {
    Fault::new(FaultKind::Missing, "this bus keeps no commands")
}
