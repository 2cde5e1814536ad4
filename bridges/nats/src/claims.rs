//! Claims in a JetStream key-value bucket.
//!
//! Written as every client of such a bucket does (nats.io, ADR-8): an entry is the last message of `$KV.BUCKET.KEY`, a
//! revision its sequence, and a removed entry a message with `KV-Operation: DEL`. So `nats kv get BUCKET KEY` shows one.
//! Each write carries the revision that it expects, which the stream's leader compares. Reads ask the leader too: the
//! direct reads of a bucket may be answered by a server that is behind.
//!
//! The connection is its own, made at the first use. It is not resumed: what is left in its queue when it breaks is not
//! written later. A question that goes unanswered ends it, since async-nats remembers each.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use amibus_contract::{
    BoxFuture, Bytes, Claims, Fault, FaultKind,
    claims::{Created, Entry, Updated},
};
use async_nats::jetstream::{
    self, Context, ErrorCode,
    context::{PublishError, PublishErrorKind, RequestError},
    message::{PublishMessage, StreamMessage},
    stream::{RawMessageError, RawMessageErrorKind},
};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    bucket,
    dial::{self, Dialled, Role},
    faults,
    settings::{ClaimSettings, Settings},
};

/// How an entry that was removed is marked.
const OPERATION: &str = "KV-Operation";
const DELETED: &str = "DEL";
/// How often a write that met a change is tried anew, while that change cannot be read yet.
const TRIES: u32 = 20;
/// The pause before such a try.
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// How long a connection that could not be made is not tried again: whoever asks meanwhile gets the same fault.
const FAILED_FOR: Duration = Duration::from_millis(500);

/// The bucket, and the connection to it.
pub(crate) struct Bucket {
    settings: Settings,
    wanted: ClaimSettings,
    line: Mutex<Option<Arc<Line>>>,
    /// Whether the bucket was seen before.
    seen: AtomicBool,
    failed: std::sync::Mutex<Option<(Instant, Fault)>>,
}

/// A connection on which the bucket was seen.
struct Line {
    dialled: Dialled,
    context: Context,
    dropped: AtomicBool,
}

impl Line {
    fn alive(&self) -> bool {
        !self.dropped.load(Ordering::Acquire) && self.dialled.connected()
    }

    fn give_up(&self) {
        self.dropped.store(true, Ordering::Release);
    }
}

/// What a conditional write met.
enum Wrote {
    Made(u64),
    /// The entry has another revision.
    Conflict,
}

impl Bucket {
    pub(crate) fn new(settings: &Settings, wanted: ClaimSettings) -> Self {
        let (line, seen, failed) = (Mutex::new(None), AtomicBool::new(false), std::sync::Mutex::new(None));
        Self { settings: settings.clone(), wanted, line, seen, failed }
    }

    async fn line(&self) -> Result<Arc<Line>, Fault> {
        let mut place = self.line.lock().await;
        if let Some(line) = place.as_ref().filter(|line| line.alive()) {
            return Ok(Arc::clone(line));
        }
        *place = None;
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, fault)) = failed
            && at.elapsed() < FAILED_FOR
        {
            return Err(fault);
        }
        let made = self.connect().await;
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) =
            made.as_ref().err().map(|fault| (Instant::now(), fault.clone()));
        let line = Arc::new(made?);
        *place = Some(Arc::clone(&line));
        Ok(line)
    }

    async fn connect(&self) -> Result<Line, Fault> {
        let dialled = dial::dial(&self.settings, Role::Claims).await?;
        let limit = self.settings.ack_timeout;
        let context = jetstream::context::ContextBuilder::new()
            .timeout(limit)
            .ack_timeout(limit)
            .build(dialled.client.clone());
        let found = bucket::open(&context, &self.wanted, &self.seen);
        let refused = dialled.refused(0, |said| said.contains("\"$JS."));
        tokio::select! {
            biased;
            found = found => found?,
            said = refused => return Err(faults::forbidden(&said)),
            () = dialled.lost() => return Err(faults::lost()),
        };
        Ok(Line { dialled, context, dropped: AtomicBool::new(false) })
    }

    /// Runs one question, within the limit and unless the server refuses it.
    async fn ask<T>(
        &self,
        line: &Line,
        subject: &str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let before = line.dialled.refused_so_far();
        let quoted = format!("\"{subject}\"");
        let refused = line.dialled.refused(before, |said| said.contains(&quoted));
        // A little more than async-nats waits by itself, so that its own words come first.
        let limit = self.settings.ack_timeout + Duration::from_millis(250);
        let done = tokio::select! {
            biased;
            done = line.dialled.within(limit, work) => done.and_then(|done| done),
            said = refused => Err(faults::forbidden(&said)),
        };
        if let Err(fault) = &done
            && matches!(
                fault.kind,
                FaultKind::TimedOut | FaultKind::Unreachable | FaultKind::Forbidden | FaultKind::Missing
            )
        {
            line.give_up();
        }
        done
    }

    /// The last message of a key, a mark of removal included.
    async fn last(&self, line: &Line, key: &str) -> Result<Option<StreamMessage>, Fault> {
        let subject = self.wanted.subject(key);
        let stream = self.wanted.stream();
        let asked = format!("$JS.API.STREAM.MSG.GET.{stream}");
        let question = async {
            let what = format!("bucket {}", self.wanted.bucket);
            let handle = line.context.get_stream_no_info(&stream).await;
            let handle =
                handle.map_err(|error| Fault::new(FaultKind::Missing, format!("{what}: {error}")))?;
            match handle.raw_message_builder().last_by_subject(subject).send().await {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(reading(&error, &what)),
            }
        };
        self.ask(line, &asked, question).await
    }

    async fn write(
        &self,
        line: &Line,
        key: &str,
        message: PublishMessage,
        expected: u64,
    ) -> Result<Wrote, Fault> {
        let subject = self.wanted.subject(key);
        let message = message.expected_last_subject_sequence(expected);
        let send = async {
            let sent = match line.context.send_publish(subject.clone(), message).await {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(ack) => Ok(Wrote::Made(ack.sequence)),
                Err(error) if is_conflict(&error) => Ok(Wrote::Conflict),
                Err(error) => Err(faults::publishing(&error, &subject)),
            }
        };
        self.ask(line, &subject, send).await
    }

    async fn make(&self, key: &str, value: Bytes) -> Result<Created, Fault> {
        let line = self.line().await?;
        let mut expected = 0;
        for _ in 0..TRIES {
            let message = PublishMessage::build().payload(value.clone());
            match self.write(&line, key, message, expected).await? {
                Wrote::Made(revision) => return Ok(Created::Made(revision)),
                Wrote::Conflict => {}
            }
            match self.last(&line, key).await?.map(living) {
                Some(Ok(entry)) => return Ok(Created::Exists(entry)),
                // Over the mark of one that was removed a new one is made.
                Some(Err(mark)) if mark != expected => expected = mark,
                // What was met is on its way through the cluster, or has gone meanwhile.
                Some(Err(_)) => tokio::time::sleep(TRY_AGAIN).await,
                None => {
                    expected = 0;
                    tokio::time::sleep(TRY_AGAIN).await;
                }
            }
        }
        Err(Fault::new(FaultKind::TimedOut, "the entry changes faster than it can be read"))
    }

    async fn look(&self, key: &str) -> Result<Option<Entry>, Fault> {
        let line = self.line().await?;
        Ok(self.last(&line, key).await?.and_then(|message| living(message).ok()))
    }

    async fn change(&self, key: &str, value: Bytes, revision: u64) -> Result<Updated, Fault> {
        let line = self.line().await?;
        let message = PublishMessage::build().payload(value);
        match self.write(&line, key, message, revision).await? {
            Wrote::Made(revision) => Ok(Updated::Made(revision)),
            Wrote::Conflict => {
                let last = self.last(&line, key).await?;
                Ok(Updated::Changed(last.and_then(|message| living(message).ok())))
            }
        }
    }

    async fn remove(&self, key: &str, revision: u64) -> Result<bool, Fault> {
        let line = self.line().await?;
        let mark = PublishMessage::build().header(OPERATION, DELETED);
        Ok(matches!(self.write(&line, key, mark, revision).await?, Wrote::Made(_)))
    }
}

impl Claims for Bucket {
    fn create<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<Created, Fault>> {
        Box::pin(self.make(key, value))
    }

    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Fault>> {
        Box::pin(self.look(key))
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
    ) -> BoxFuture<'a, Result<Updated, Fault>> {
        Box::pin(self.change(key, value, revision))
    }

    fn delete<'a>(&'a self, key: &'a str, revision: u64) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(self.remove(key, revision))
    }
}

/// The entry, or the revision at which it was removed.
fn living(message: StreamMessage) -> Result<Entry, u64> {
    // Others may remove with `PURGE`, and a server that ages entries out marks that with a reason.
    let removed = message.headers.get(OPERATION).is_some_and(|operation| operation.as_str() != "PUT")
        || message.headers.get(async_nats::header::NATS_MARKER_REASON).is_some();
    if removed {
        Err(message.sequence)
    } else {
        Ok(Entry { value: message.payload, revision: message.sequence })
    }
}

/// Whether the entry has another revision than was expected. A cluster says so in words of its own while the other
/// change is on its way, which async-nats does not tell apart.
fn is_conflict(error: &PublishError) -> bool {
    use std::error::Error as _;
    let said = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    error.kind() == PublishErrorKind::WrongLastSequence
        || said.is_some_and(|said| said.error_code() == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}

fn reading(error: &RawMessageError, what: &str) -> Fault {
    use std::error::Error as _;
    match (error.kind(), error.source().and_then(|source| source.downcast_ref::<RequestError>())) {
        (RawMessageErrorKind::JetStream(said), _) => faults::managing(&said, what),
        (_, Some(request)) => faults::asking(request, what),
        _ => Fault::new(FaultKind::Unreachable, format!("{what}: {error}")),
    }
}
