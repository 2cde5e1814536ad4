//! What a stream already holds of the messages that are about to be sent again.
//!
//! JetStream drops a repeat whose id it remembers, for as long as its duplicate window. What is sent again later than that
//! would be stored twice: after amibus was away, or after the server was. Then the stream itself is read before anything
//! is sent: backwards until messages of this server come that are older than what is to be sent, and from there to its
//! end, headers alone.
//!
//! A message counts as held only where its own id was read in the stream. Whatever could not be read is sent: the worst
//! that can come of it is a repeat.

use std::{collections::BTreeSet, time::Duration};

use amibus_contract::Message;
use async_nats::{
    HeaderMap,
    header::NATS_MESSAGE_ID,
    jetstream::{
        Context,
        consumer::{DeliverPolicy, pull},
        stream::Config,
    },
};
use futures_util::StreamExt;

use crate::{headers, subjects};

/// How far a message's place in the stream may be from its place in the log, in messages of one server: more than a batch.
const DISORDER: u64 = 4_096;
/// How many messages at the stream's end are looked at first.
const FIRST_LOOK: u64 = 4_096;
/// How many times more at each further look.
const WIDEN: u64 = 8;
/// The most messages of one server that are read.
const MAX_READ: u64 = 262_144;
/// The most ids that are held in memory, about 100 bytes each; what follows is read when it is due.
const MAX_HELD: usize = 8_192;
/// The most dead letters of which ids are held.
const MAX_DEAD: usize = 1_024;
/// How long the next message may take.
const NEXT_LIMIT: Duration = Duration::from_secs(5);
/// Where dead letters stand among the sequences, which they have none of.
const DEAD: u64 = u64::MAX;

/// What a stream holds from one sequence on.
#[derive(Debug, Default)]
pub(crate) struct Held {
    ids: BTreeSet<(u64, String)>,
    /// Something was left out from here on.
    until: Option<u64>,
}

impl Held {
    /// Whether the stream has this message.
    pub(crate) fn has(&self, message: &Message) -> bool {
        let Some(sequence) = sequence(message) else { return false };
        !self.ids.is_empty() && self.ids.contains(&(sequence, message.attributes.id.to_string()))
    }

    /// Whether the stream has the dead letter with this id.
    pub(crate) fn has_dead(&self, id: &str) -> bool {
        self.ids.contains(&(DEAD, id.to_owned()))
    }

    /// Whether it says nothing of a batch's last messages, and there is more to be read.
    pub(crate) fn ends_before(&self, batch: &[Message]) -> bool {
        let last = batch.last().and_then(sequence);
        self.until.zip(last).is_some_and(|(until, last)| last >= until)
    }

    /// Nothing before this batch will be asked for again.
    pub(crate) fn pass(&mut self, batch: &[Message]) {
        if let Some(first) = batch.first().and_then(sequence).filter(|_| !self.ids.is_empty()) {
            self.ids = self.ids.split_off(&(first.saturating_sub(DISORDER), String::new()));
        }
    }

    fn add(&mut self, from: u64, headers: &HeaderMap) {
        let Some(id) = headers.get(NATS_MESSAGE_ID).map(|id| id.as_str()) else { return };
        let at = if id.starts_with("dead:") {
            let known = self.ids.range((DEAD, String::new())..).count();
            Some(DEAD).filter(|_| known < MAX_DEAD)
        } else {
            number(headers)
        };
        if let Some(at) = at.filter(|at| *at >= from) {
            self.ids.insert((at, id.to_owned()));
        }
        // The last of all but the dead letters.
        while self.ids.len() > MAX_HELD
            && let Some(last) = self.ids.range(..(DEAD, String::new())).next_back().cloned()
        {
            self.ids.remove(&last);
            self.until = Some(self.until.map_or(last.0, |until| until.min(last.0)));
        }
    }
}

/// Reads what `stream` holds of the server that `batch` is of, from its first message on.
///
/// # Errors
/// In words, why that is not known.
pub(crate) async fn look(context: &Context, stream: &Config, batch: &[Message]) -> Result<Held, String> {
    let Some((first, from)) = batch.first().and_then(|first| Some((first, sequence(first)?))) else {
        return Ok(Held::default());
    };
    let (prefix, server) = (first.topic.prefix(), first.topic.server());
    let (live, dead) = filters(prefix, server, &stream.subjects);
    let info = context.get_stream(&stream.name).await.map_err(|error| error.to_string())?;
    let state = &info.cached_info().state;
    let mut span = FIRST_LOOK;
    loop {
        let start = state.last_sequence.saturating_sub(span).max(state.first_sequence).max(1);
        if state.messages == 0 || start > state.last_sequence {
            return Ok(Held::default());
        }
        let whole = start <= state.first_sequence.max(1);
        let mut held = Held::default();
        if read(context, stream, &live, start, (from, whole), &mut held).await? {
            if let Some(dead) = dead {
                read(context, stream, &dead, start, (from, true), &mut held).await?;
            }
            return Ok(held);
        }
        span = span.saturating_mul(WIDEN);
    }
}

/// Reads from the stream's sequence `start` to its end; `false` where that begins too late, unless it is the `whole`.
async fn read(
    context: &Context,
    stream: &Config,
    filter: &str,
    start: u64,
    (from, whole): (u64, bool),
    held: &mut Held,
) -> Result<bool, String> {
    let consumer = consumer(context, stream, filter, start).await?;
    let mut pending = consumer.cached_info().num_pending;
    if pending > MAX_READ {
        return Err(format!("more than {MAX_READ} messages of the server would have to be read"));
    }
    let mut early = whole;
    let mut messages = consumer.messages().await.map_err(|error| error.to_string())?;
    while pending > 0 {
        let next = tokio::time::timeout(NEXT_LIMIT, messages.next()).await;
        let message = next.ok().flatten().ok_or("the stream's messages did not come")?;
        let message = message.map_err(|error| error.to_string())?;
        pending = message.info().map_or(0, |info| info.pending);
        let Some(headers) = &message.headers else { continue };
        early |= number(headers).is_some_and(|number| number.saturating_add(DISORDER) < from);
        if !early {
            return Ok(false);
        }
        held.add(from, headers);
    }
    // Nothing of this server came: it may lie further back.
    Ok(early)
}

async fn consumer(
    context: &Context,
    stream: &Config,
    filter: &str,
    start: u64,
) -> Result<async_nats::jetstream::consumer::Consumer<pull::OrderedConfig>, String> {
    let config = pull::OrderedConfig {
        description: Some("amibus looks for what it sent before".to_owned()),
        filter_subject: filter.to_owned(),
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: start },
        headers_only: true,
        ..pull::OrderedConfig::default()
    };
    context.create_consumer_on_stream(config, &stream.name).await.map_err(|error| error.to_string())
}

/// Whether the stream may be read so, tried as for a server of this name.
///
/// # Errors
/// In words, why not.
pub(crate) async fn may_look(
    context: &Context,
    stream: &Config,
    prefix: &str,
    server: &str,
) -> Result<(), String> {
    let (live, _) = filters(prefix, server, &stream.subjects);
    consumer(context, stream, &live, 1).await.map(drop)
}

/// The subject of all that a lane publishes, and that of its dead letters where the stream keeps them. One subject each:
/// a consumer with several is slow, about 5 ms a message on nats-server 2.10.
fn filters(prefix: &str, server: &str, kept: &[String]) -> (String, Option<String>) {
    let dead = format!("{prefix}.dead.*.{server}.>");
    let keeps_dead = kept.iter().any(|subject| subjects::covers(subject, &dead));
    (format!("{prefix}.*.{server}.>"), keeps_dead.then_some(dead))
}

fn sequence(message: &Message) -> Option<u64> {
    message.attributes.sequence.as_deref()?.parse().ok()
}

fn number(map: &HeaderMap) -> Option<u64> {
    headers::find(Some(map), "ce-sequence")?.parse().ok()
}
