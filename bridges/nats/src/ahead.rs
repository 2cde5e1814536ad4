//! Commands that were fetched from a stream before anybody asked for them, so that thousands that wait there are not each
//! worth a question of their own.
//!
//! The stream has given them out, so it does not count them among those that wait any more: they are counted here until
//! they are taken.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{
    Message,
    consumer::{Consumer, pull},
};
use futures_util::StreamExt;
use tokio::time::Instant;

/// How long one question for the next command stands on the server.
const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// How many commands that are there already are asked for in one go, and how many bytes of them.
const MORE_AT_ONCE: usize = 32;
const MORE_BYTES: usize = 1024 * 1024;
/// How long what is there may take to come.
const MORE_WITHIN: Duration = Duration::from_secs(5);

/// How many commands were fetched by all who share this, and are not taken yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct AheadCount(Arc<AtomicU64>);

impl AheadCount {
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Commands that were fetched and are not taken yet, in the stream's order.
pub(crate) struct Ahead {
    messages: VecDeque<Message>,
    /// When the first of them came.
    pub(crate) since: Instant,
    count: AheadCount,
}

impl Ahead {
    /// The next command, and more behind it that are there already: these come `within` a time that leaves enough of
    /// `ack_wait`. None where none came while the question stood.
    pub(crate) async fn fetch(
        consumer: &Consumer<pull::Config>,
        within: Duration,
        count: &AheadCount,
    ) -> Result<Self, async_nats::Error> {
        let first = next(consumer).await?;
        let is_more = first.as_ref().and_then(|first| first.info().ok()).is_some_and(|info| info.pending > 0);
        let mut ahead = Self { messages: VecDeque::new(), since: Instant::now(), count: count.clone() };
        first.into_iter().for_each(|first| ahead.push(first));
        if is_more {
            // Whatever hinders this hinders the next question too.
            let _ = tokio::time::timeout(MORE_WITHIN.min(within), ahead.fetch_more(consumer)).await;
        }
        Ok(ahead)
    }

    pub(crate) fn first(&self) -> Option<&Message> {
        self.messages.front()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter()
    }

    /// The first was taken.
    pub(crate) fn taken(&mut self) {
        if self.messages.pop_front().is_some() {
            self.count.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn fetch_more(&mut self, consumer: &Consumer<pull::Config>) -> Result<(), async_nats::Error> {
        let asked = consumer.fetch().max_messages(MORE_AT_ONCE).max_bytes(MORE_BYTES);
        let mut more = asked.messages().await?;
        while let Some(message) = more.next().await {
            self.push(message?);
        }
        Ok(())
    }

    fn push(&mut self, message: Message) {
        self.messages.push_back(message);
        self.count.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is given up on is the stream's again: it delivers it anew after `ack_wait`.
impl Drop for Ahead {
    fn drop(&mut self) {
        self.count.0.fetch_sub(self.messages.len() as u64, Ordering::Relaxed);
    }
}

async fn next(consumer: &Consumer<pull::Config>) -> Result<Option<Message>, async_nats::Error> {
    let mut batch = consumer.batch().max_messages(1).expires(PULL_EXPIRES).messages().await?;
    batch.next().await.transpose()
}
