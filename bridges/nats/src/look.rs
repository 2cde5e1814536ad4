//! Reading what a stream already holds of the messages that are about to be sent again.
//!
//! JetStream drops a repeat whose id it remembers, for as long as its duplicate window. What is sent again later than that
//! would be stored twice: after amibus was away, or after the server was. Then the stream itself is read before anything
//! is sent: the place where this server's messages become as new as what is to be sent is searched backwards from the
//! stream's end, and what follows it is read, headers alone.

use std::{fmt::Display, time::Duration};

use amibus_contract::Message;
use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
    context::GetStreamErrorKind,
    stream::{Config, ConsumerErrorKind},
};
use futures_util::StreamExt;

use crate::{
    dial::REQUESTS_CAPACITY,
    held::{DISORDER, Held, Wanted, number, sequence},
    subjects::{self, Own},
};

/// How many messages at the stream's end are looked at first, and how close the search comes to the place it looks for.
const FIRST_LOOK: u64 = 4_096;
/// How many times more at each further look.
const WIDEN: u64 = 8;
/// The most messages of one server that are read at once; what follows is read when it is due.
const MAX_READ: u64 = 262_144;
/// How many messages the server is asked for at once. Up to one and a half times as many are on their way, which must be
/// fewer than a subscription keeps (`REQUESTS_CAPACITY`): async-nats drops the rest, and their absence shows late.
const PULLED: i64 = 128;
const _: () = assert!(2 * PULLED as usize <= REQUESTS_CAPACITY);
/// How long the next message may take.
const NEXT_LIMIT: Duration = Duration::from_secs(5);
/// How long the server keeps the consumer of a check.
const CHECK_KEPT: Duration = Duration::from_secs(5);
/// JetStream's codes for what may be taken later, though they are those of a refusal.
const HTTP_TIMED_OUT: usize = 408;
const HTTP_BUSY: usize = 429;

/// Why it is not known what a stream holds.
#[derive(Debug)]
pub(crate) enum Blind {
    /// That is refused: to ask again is of no use.
    Refused(String),
    /// Another try may tell.
    Failed(String),
}

impl Blind {
    /// In words.
    pub(crate) fn why(self) -> String {
        match self {
            Self::Refused(why) | Self::Failed(why) => why,
        }
    }

    fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// What JetStream says: its codes are those of HTTP.
    fn said(error: &jetstream::Error) -> Self {
        match error.code() {
            HTTP_TIMED_OUT | HTTP_BUSY => Self::failed(error),
            400..=499 => Self::Refused(error.to_string()),
            _ => Self::failed(error),
        }
    }
}

/// Reads what `stream` holds of the server that `batch` is of, from its first message on, into `held`: as far as it
/// comes, also where the future is dropped.
///
/// # Errors
/// Why that is not known.
pub(crate) async fn look(
    context: &Context,
    stream: &Config,
    batch: &[Message],
    held: &mut Held,
) -> Result<(), Blind> {
    let Some((first, from)) = batch.first().and_then(|first| Some((first, sequence(first)?))) else {
        return Ok(());
    };
    let wanted = Wanted { prefix: first.topic.prefix(), server: first.topic.server(), from };
    *held = Held::starting(from);
    let (live, dead) = filters(wanted.prefix, wanted.server, &stream.subjects);
    let info = context.get_stream(&stream.name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(said) => Blind::said(&said),
        _ => Blind::failed(error),
    })?;
    let state = &info.cached_info().state;
    if state.messages == 0 {
        return Ok(());
    }
    let reader = Reader { context, stream: &stream.name, wanted };
    let start = reader.place(&live, state.first_sequence.max(1), state.last_sequence).await?;
    if let Some(highest) = reader.read(&live, start, held).await? {
        // At least one batch further, or the same would be read for every batch.
        held.leave_out(highest.saturating_sub(DISORDER).max(from.saturating_add(DISORDER)));
    }
    if let Some(dead) = dead {
        reader.read(&dead, start, held).await?;
    }
    Ok(())
}

struct Reader<'a> {
    context: &'a Context,
    stream: &'a str,
    wanted: Wanted<'a>,
}

impl Reader<'_> {
    /// A place in the stream, from `first` to `last`, before all that is wanted, and not long before where that can be
    /// told: in a stream with one log of the server, its messages lie in their order but for [`DISORDER`].
    async fn place(&self, filter: &str, first: u64, last: u64) -> Result<u64, Blind> {
        let (mut late, mut span) = (last, FIRST_LOOK);
        let mut early = loop {
            let start = last.saturating_sub(span).max(first);
            if self.begins_early(filter, start).await? {
                break start;
            }
            if start == first {
                return Ok(first);
            }
            (late, span) = (start, span.saturating_mul(WIDEN));
        };
        while late.saturating_sub(early) > FIRST_LOOK {
            let middle = early + (late - early) / 2;
            if self.begins_early(filter, middle).await? {
                early = middle;
            } else {
                late = middle;
            }
        }
        Ok(early)
    }

    /// Whether the server's first message from the stream's sequence `start` on is older than all that is wanted. Where
    /// none comes, one may lie further back.
    async fn begins_early(&self, filter: &str, start: u64) -> Result<bool, Blind> {
        let consumer = self.consumer(filter, start).await?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(false);
        }
        let mut messages = consumer.messages().await.map_err(Blind::failed)?;
        let message = next(&mut messages).await?;
        let own = subjects::own(self.wanted.prefix, self.wanted.server, &message.subject);
        let number = message.headers.as_ref().filter(|_| own == Some(Own::Message)).and_then(number);
        Ok(number.is_some_and(|number| number.saturating_add(DISORDER) < self.wanted.from))
    }

    /// Reads from the stream's sequence `start` on; answers the highest number that came where that is not all.
    async fn read(&self, filter: &str, start: u64, held: &mut Held) -> Result<Option<u64>, Blind> {
        let consumer = self.consumer(filter, start).await?;
        let mut pending = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.map_err(Blind::failed)?;
        let mut highest = 0;
        for _ in 0..MAX_READ {
            if pending == 0 {
                return Ok(None);
            }
            let message = next(&mut messages).await?;
            pending = message.info().map_err(Blind::failed)?.pending;
            let Some(headers) = &message.headers else { continue };
            highest = highest.max(held.add(&self.wanted, &message.subject, headers).unwrap_or_default());
        }
        Ok((pending > 0).then_some(highest))
    }

    async fn consumer(&self, filter: &str, start: u64) -> Result<Consumer<pull::OrderedConfig>, Blind> {
        let config = pull::OrderedConfig {
            description: Some("amibus looks for what it sent before".to_owned()),
            filter_subject: filter.to_owned(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: start },
            headers_only: true,
            max_batch: PULLED,
            ..pull::OrderedConfig::default()
        };
        let made = self.context.create_consumer_on_stream(config, self.stream).await;
        made.map_err(|error| match error.kind() {
            ConsumerErrorKind::JetStream(said) => Blind::said(&said),
            _ => Blind::failed(error),
        })
    }
}

async fn next(messages: &mut pull::Ordered) -> Result<jetstream::Message, Blind> {
    let next = tokio::time::timeout(NEXT_LIMIT, messages.next()).await;
    let message = next.ok().flatten().ok_or_else(|| Blind::failed("the stream's messages did not come"))?;
    message.map_err(Blind::failed)
}

/// Whether the stream may be read so, tried as for a server of this name: a consumer is made, and asked once.
///
/// # Errors
/// In words, why not.
pub(crate) async fn may_look(
    context: &Context,
    stream: &Config,
    prefix: &str,
    server: &str,
) -> Result<(), String> {
    let (filter_subject, _) = filters(prefix, server, &stream.subjects);
    let config = pull::Config {
        description: Some("amibus check tries to read".to_owned()),
        filter_subject,
        ack_policy: AckPolicy::None,
        headers_only: true,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: CHECK_KEPT,
        ..pull::Config::default()
    };
    let consumer = context.create_consumer_on_stream(config, &stream.name).await;
    let consumer = consumer.map_err(|error| error.to_string())?;
    let mut messages =
        consumer.fetch().max_messages(1).messages().await.map_err(|error| error.to_string())?;
    match tokio::time::timeout(NEXT_LIMIT, messages.next()).await {
        Ok(None | Some(Ok(_))) => Ok(()),
        Ok(Some(Err(error))) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// The subject of all that a lane publishes, and that of its dead letters where the stream keeps them. One subject each:
/// a consumer with several is slow, about 5 ms a message on nats-server 2.10.
fn filters(prefix: &str, server: &str, kept: &[String]) -> (String, Option<String>) {
    let dead = format!("{prefix}.dead.*.{server}.>");
    let keeps_dead = kept.iter().any(|subject| subjects::covers(subject, &dead));
    (format!("{prefix}.*.{server}.>"), keeps_dead.then_some(dead))
}
