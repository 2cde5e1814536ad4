//! Messages on their way to a stream, and those that follow them, on one connection.

use std::{pin::Pin, sync::Arc};

use amibus_contract::{Fault, FaultKind, Message};
use async_nats::jetstream::{
    Context,
    context::{PublishError, PublishErrorKind},
    publish::PublishAck,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

use crate::{faults, hub::Line, window::Window};

/// The number of a message in its flight, and what the stream said to it.
type Acknowledged = (usize, Result<PublishAck, PublishError>);
type Acks = FuturesUnordered<Pin<Box<dyn Future<Output = Acknowledged> + Send>>>;

/// What was offered on one connection since everything before was safe. It ends with the connection, and with the first
/// fault: then nothing more leaves, and what is in flight is waited for.
pub(crate) struct Flight {
    pub(crate) line: Arc<Line>,
    stream: String,
    pub(crate) context: Context,
    pub(crate) window: Window,
    pub(crate) acks: Acks,
    /// How much the server had refused before.
    before: u64,
    /// The ids of the first and the last message that are not safe.
    ends: Option<(String, String)>,
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flight").field("window", &self.window).finish_non_exhaustive()
    }
}

impl Flight {
    pub(crate) fn new(line: Arc<Line>, context: Context, stream: &str, window: Window) -> Self {
        let before = line.dialled.refused_so_far();
        Self { line, stream: stream.to_owned(), context, window, acks: Acks::new(), before, ends: None }
    }

    /// These messages are not safe yet; they are to be offered again with what follows.
    pub(crate) fn leave(&mut self, left: &[Message]) {
        self.ends = ends(left);
    }

    /// How many messages of a batch were offered before; none where it does not begin with all that are not safe.
    pub(crate) fn known(&self, batch: &[Message]) -> Option<usize> {
        let known = self.window.end() - self.window.safe();
        (ends(batch.get(..known)?) == self.ends).then_some(known)
    }

    /// Waits until something is known of what is in flight.
    pub(crate) async fn wait(&mut self, batch: &[Message], first: usize) {
        let line = Arc::clone(&self.line);
        tokio::select! {
            biased;
            acknowledged = self.acks.next() => if let Some(one) = acknowledged {
                self.settle(batch, first, one);
            },
            () = line.dialled.lost() => {
                // What was acknowledged before is safe.
                self.settle_ready(batch, first);
                self.window.fail_all(&faults::lost());
            }
            said = line.dialled.refused(self.before, |said| {
                !concerned(&self.window, said, batch, first).is_empty()
            }) => {
                let concerned = concerned(&self.window, &said, batch, first);
                line.forget(concerned.len());
                for index in concerned {
                    self.window.fail(index, faults::forbidden(&said));
                }
            }
        }
    }

    /// Takes what is known by now; whether that was anything.
    pub(crate) fn settle_ready(&mut self, batch: &[Message], first: usize) -> bool {
        let mut any = false;
        while let Some(Some(one)) = self.acks.next().now_or_never() {
            self.settle(batch, first, one);
            any = true;
        }
        any
    }

    /// What the stream said to one message.
    pub(crate) fn settle(&mut self, batch: &[Message], first: usize, one: Acknowledged) {
        let (index, result) = one;
        let fault = match result {
            Ok(ack) if ack.stream == self.stream => return self.window.confirm(index),
            Ok(ack) => astray(&ack.stream, &self.stream),
            Err(error) => {
                if in_doubt(&error) {
                    self.line.give_up();
                }
                let subject = subject(batch, index - first);
                match self.line.dialled.refusal(self.before, subject) {
                    Some(said) => faults::forbidden(&said),
                    None => faults::publishing(&error, subject),
                }
            }
        };
        self.window.fail(index, fault);
    }
}

/// What awaits its acknowledgement in vain, because the server refused its subject with `said`. The first message of
/// `batch` is number `first`.
fn concerned(window: &Window, said: &str, batch: &[Message], first: usize) -> Vec<usize> {
    let refused = said.split('"').nth(1).unwrap_or_default();
    let mut sent = window.sent();
    sent.retain(|index| !refused.is_empty() && subject(batch, index - first) == refused);
    sent
}

fn ends(messages: &[Message]) -> Option<(String, String)> {
    let id = |message: &Message| message.attributes().id().to_owned();
    messages.first().map(id).zip(messages.last().map(id))
}

/// The subject of a message of a batch.
fn subject(batch: &[Message], at: usize) -> &str {
    batch.get(at).map(|message| message.topic.as_str()).unwrap_or_default()
}

/// Whether nobody knows what became of the message, so that the connection is not to be trusted any longer; with no
/// stream behind the subject, a new connection looks for it.
fn in_doubt(error: &PublishError) -> bool {
    matches!(
        error.kind(),
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::StreamNotFound
    )
}

fn astray(got: &str, wanted: &str) -> Fault {
    let text =
        format!("stream {got} took the message instead of {wanted}: their subjects or mirrors overlap");
    Fault::new(FaultKind::Missing, text)
}
