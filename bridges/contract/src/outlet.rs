//! Where messages leave for a bus.

use crate::{BoxFuture, Fault, Message};

/// How far a message has got. "Accepted" is not "durable", and a bridge says which of the two it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It has left this process (written to a socket); the bus confirmed nothing.
    Sent,
    /// The bus confirmed that it stored it.
    Stored,
}

/// What became of a batch: its first `safe` messages got as far as `reach`, and the rest did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// How many messages, from the batch's start, are safe. Later ones may have arrived too, but nothing says so:
    /// they are offered again.
    pub safe: usize,
    /// How far the safe ones got.
    pub reach: Reach,
    /// Why message number `safe` is not safe; `None` when the whole batch is, or is on its way ([`Outlet::advance`]).
    pub fault: Option<Fault>,
}

impl Published {
    /// A whole batch of `count` messages is safe.
    pub fn all(count: usize, reach: Reach) -> Self {
        Self { safe: count, reach, fault: None }
    }

    /// The first `safe` messages are safe, and the next one met `fault`.
    pub fn until(safe: usize, reach: Reach, fault: Fault) -> Self {
        Self { safe, reach, fault: Some(fault) }
    }
}

/// One lane of messages to a bus. The caller offers batches one after another and waits for each.
pub trait Outlet: Send {
    /// Publishes a batch in order, many messages in flight, and waits until each is as safe as this bus makes it.
    ///
    /// On a fault at message `n` the answer has `safe == n`. The bridge has by then stopped the batch so that
    /// offering messages `n..` again keeps the order of each key: a later message of the same key is never stored
    /// before an earlier one.
    ///
    /// # Cancellation
    /// Dropping the future leaves the whole batch in doubt; the caller offers it again.
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published>;

    /// As [`Outlet::publish`], but does not wait for all: without a fault, `safe` may be less than the batch has, though at
    /// least one of a batch that is not empty. The rest is on its way then. It is not sent again where the next batch that
    /// is offered so begins with it, so that the bus has something to do all along; where that begins with something
    /// else, or with [`Outlet::publish`], the rest is in doubt.
    ///
    /// With a fault, nothing is on its way any more, and everything from `safe` on is offered again, as ever.
    fn advance<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        self.publish(batch)
    }

    /// As [`Outlet::advance`], but answers also once `more` is ready, then perhaps with nothing that is safe and without a
    /// fault: there are messages that could follow those that are on their way. An outlet may do without.
    fn advance_until<'a>(
        &'a mut self,
        batch: &'a [Message],
        more: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Published> {
        drop(more);
        self.advance(batch)
    }

    /// Publishes a message that this bus refused for good ([`crate::Decision::Skip`]) where such messages are kept
    /// (a dead-letter topic or subject), with its cause, without what made it too large. Answers `Ok(false)` when the
    /// bus has no such place.
    ///
    /// # Errors
    /// As for publishing any message.
    fn dead_letter<'a>(
        &'a mut self,
        message: &'a Message,
        cause: &'a Fault,
    ) -> BoxFuture<'a, Result<bool, Fault>>;
}
