//! The JetStream streams: looked at, and made where they are missing.

use std::time::Duration;

use amibus_contract::{Fault, FaultKind};
use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamError, GetStreamErrorKind, RequestError, RequestErrorKind},
    stream::{Config, DiscardPolicy, RetentionPolicy, StorageType},
};

use crate::{
    faults,
    settings::{CommandSettings, StreamSettings},
    subjects,
};

/// A command that nobody took for so long is of no use to anybody.
const COMMANDS_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Beyond this, new commands are refused: their sender learns of it, while dropping old ones would be silent.
const COMMANDS_MAX_BYTES: i64 = 256 * 1024 * 1024;

/// The stream for events as it is on the server, made where it is missing and that is wanted.
pub(crate) async fn events(
    context: &Context,
    prefix: &str,
    wanted: &StreamSettings,
) -> Result<Config, Fault> {
    let make = || Config {
        name: wanted.name.clone(),
        description: Some("What amibus publishes".to_owned()),
        subjects: subjects::kept(prefix),
        storage: StorageType::File,
        num_replicas: wanted.replicas,
        max_age: wanted.max_age,
        max_bytes: wanted.max_bytes.unwrap_or(-1),
        duplicate_window: wanted.duplicate_window,
        allow_direct: true,
        ..Config::default()
    };
    let config = find_or_make(context, &wanted.name, wanted.create.then(make)).await?;
    keeps_events(config, prefix)
}

/// The same stream, if it takes and keeps all that is published.
pub(crate) fn keeps_events(config: Config, prefix: &str) -> Result<Config, Fault> {
    if let Some(why) = takes_nothing(&config) {
        return Err(Fault::new(FaultKind::Missing, format!("stream {} {why}", config.name)));
    }
    let Some(lacking) = subjects::missing(&config.subjects, prefix) else { return Ok(config) };
    let name = &config.name;
    let all = config.subjects.iter().cloned().chain([lacking.clone()]).collect::<Vec<_>>().join(",");
    let remedy = format!("nats stream edit {name} --subjects='{all}'");
    Err(Fault::new(FaultKind::Missing, format!("stream {name} does not keep {lacking}; add it: {remedy}")))
}

/// Why nothing can be stored in it, or not so that we learn of it, and what to do.
fn takes_nothing(config: &Config) -> Option<String> {
    let name = &config.name;
    if let Some(mirrored) = &config.mirror {
        let origin = &mirrored.name;
        return Some(format!("is a mirror, which takes no messages itself; name `stream = {origin:?}`"));
    }
    if config.sealed {
        let remedy = "for good; make another (nats stream add) and name it in `stream`";
        return Some(format!("is sealed: it takes no messages, {remedy}"));
    }
    config.no_ack.then(|| {
        format!("acknowledges nothing (`no_ack`), so nothing counts as stored; nats stream edit {name} --ack")
    })
}

/// Whether the stream takes what comes in its order, as long as it takes anything: it makes room by itself, and there is
/// no other server that it could be led from.
pub(crate) fn takes_all_or_nothing(config: &Config) -> bool {
    config.discard == DiscardPolicy::Old
        && config.retention == RetentionPolicy::Limits
        && config.num_replicas <= 1
}

/// What its retention takes away from what `stored` promises, in words.
pub(crate) fn forgets(config: &Config) -> Option<&'static str> {
    match config.retention {
        RetentionPolicy::Limits => None,
        RetentionPolicy::Interest => Some(
            "retention interest: it drops what no consumer waits for, at once, though it acknowledges it",
        ),
        RetentionPolicy::WorkQueue => {
            Some("retention workqueue: each message goes to one consumer and is then deleted")
        }
    }
}

/// The stream for commands, likewise.
pub(crate) async fn commands(
    context: &Context,
    prefix: &str,
    wanted: &CommandSettings,
) -> Result<Config, Fault> {
    let name = wanted.stream.as_deref().unwrap_or_default();
    let make = || Config {
        name: name.to_owned(),
        description: Some("Commands for amibus, each kept until its outcome is recorded".to_owned()),
        subjects: subjects::commands(prefix),
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        num_replicas: wanted.replicas,
        max_age: COMMANDS_MAX_AGE,
        max_bytes: COMMANDS_MAX_BYTES,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    find_or_make(context, name, wanted.create.then(make)).await
}

/// The stream of that name, if there is one.
pub(crate) async fn find(context: &Context, name: &str) -> Result<Option<Config>, Fault> {
    let what = format!("stream {name}");
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream.cached_info().config.clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            GetStreamErrorKind::JetStream(said) => Err(faults::managing(&said, &what)),
            _ => Err(unanswered(&error, &what)),
        },
    }
}

/// There is no such stream, and none is to be made.
pub(crate) fn missing(name: &str) -> Fault {
    let remedy = format!("make it (nats stream add {name}), or let amibus do so with `create = true`");
    Fault::new(FaultKind::Missing, format!("stream {name} does not exist; {remedy}"))
}

/// The stream of that name, made where it is missing and `make` says how.
pub(crate) async fn find_or_make(
    context: &Context,
    name: &str,
    make: Option<Config>,
) -> Result<Config, Fault> {
    if let Some(config) = find(context, name).await? {
        return Ok(config);
    }
    let what = format!("stream {name}");
    let Some(config) = make else { return Err(missing(name)) };
    match context.create_stream(config).await {
        Ok(stream) => {
            tracing::info!(stream = name, "made the stream");
            Ok(stream.cached_info().config.clone())
        }
        Err(error) => Err(match error.kind() {
            CreateStreamErrorKind::JetStream(said) => faults::managing(&said, &format!("making {what}")),
            CreateStreamErrorKind::JetStreamUnavailable => faults::not_enabled(&what),
            _ => Fault::new(FaultKind::TimedOut, format!("making {what}: {error}")),
        }),
    }
}

fn unanswered(error: &GetStreamError, what: &str) -> Fault {
    use std::error::Error as _;
    match error.source().and_then(|source| source.downcast_ref::<RequestError>()) {
        Some(request) if request.kind() == RequestErrorKind::NoResponders => faults::not_enabled(what),
        Some(request) => faults::asking(request, what),
        None => Fault::new(FaultKind::Unreachable, format!("{what}: {error}")),
    }
}

/// What a stream's acknowledgement means, in words.
pub(crate) fn in_words(config: &Config) -> String {
    let storage = match config.storage {
        StorageType::File => "file storage",
        StorageType::Memory => "memory storage: gone when the server stops",
    };
    let replicas = config.num_replicas;
    let copies = if replicas == 1 { "one replica".to_owned() } else { format!("{replicas} replicas") };
    match forgets(config) {
        Some(how) => format!("{storage}, {copies}, {how}"),
        None => format!("{storage}, {copies}"),
    }
}

/// What is left of the order where several messages of a key are in flight, in words.
pub(crate) fn order_in_words(config: &Config, alone: bool, max_per_key: Option<usize>) -> &'static str {
    match max_per_key {
        Some(1) => "messages of a key keep their order",
        None if !alone || !takes_all_or_nothing(config) => "messages of a key keep their order",
        _ => {
            "messages of a key keep their order unless the stream refuses one for a moment (its disk is full): then what \
             was sent behind it may stand before it, once, until it has taken a whole batch again"
        }
    }
}
