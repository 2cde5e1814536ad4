//! A record of the command topic as a request, and the way back to who sent it.
//!
//! Replies go as Spring Kafka's `ReplyingKafkaTemplate` asks for them: to the topic in `kafka_replyTopic`, into the
//! partition in `kafka_replyPartition` (four bytes, big-endian) where it is given, with `kafka_correlationId` as it
//! came, byte for byte.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use amibus_contract::{
    Begin, BoxFuture, Bytes, Decision, Fault, FaultKind, Handle, Kind, Message, Reach, Rejection, Request,
};
use rdkafka::message::{BorrowedMessage, Message as _};

use crate::{
    group::{Claim, Group},
    hub::Hub,
    letters::{self, Original},
    post::Letter,
    record,
};

/// Where a reply goes.
pub(crate) const REPLY_TOPIC: &str = "kafka_replyTopic";
/// Into which partition.
const REPLY_PARTITION: &str = "kafka_replyPartition";
/// What it answers.
pub(crate) const CORRELATION: &str = "kafka_correlationId";

/// The longest topic name that Kafka takes, in bytes.
const TOPIC_BYTES: usize = 249;
/// The longest correlation that is echoed, in bytes.
const CORRELATION_BYTES: usize = 4_096;
/// The longest sender that is kept, in bytes.
const SENDER_BYTES: usize = 256;
/// How long an acknowledge waits for its commit.
const COMMITTED_WITHIN: Duration = Duration::from_secs(10);

/// What the headers of a command say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Words {
    action: Option<String>,
    sender: Option<String>,
    reply_topic: Option<String>,
    reply_partition: Option<i32>,
    correlation: Option<Vec<u8>>,
}

impl Words {
    fn read(headers: &impl rdkafka::message::Headers, prefix: &str) -> Self {
        let mut words = Self::default();
        record::each(headers, |name, value| words.take(name, value, prefix));
        words
    }

    fn take(&mut self, name: &str, value: &[u8], prefix: &str) {
        let text = std::str::from_utf8(value).ok();
        match name {
            "ce_type" => self.action = text.and_then(|kind| action(kind, prefix)),
            "ce_source" => self.sender = text.filter(|text| text.len() <= SENDER_BYTES).map(str::to_owned),
            REPLY_TOPIC => {
                self.reply_topic = text.filter(|topic| may_reply(topic, prefix)).map(str::to_owned)
            }
            REPLY_PARTITION => self.reply_partition = value.try_into().ok().map(i32::from_be_bytes),
            CORRELATION if value.len() <= CORRELATION_BYTES => self.correlation = Some(value.to_vec()),
            _ => {}
        }
    }
}

/// `ami.command.Originate` names an action.
fn action(kind: &str, prefix: &str) -> Option<String> {
    let rest = kind.strip_prefix(prefix).or(kind.strip_prefix("ami"))?;
    let action = rest.strip_prefix(".command.")?;
    (!action.is_empty() && action.len() <= amibus_contract::message::MAX_TOPIC_WORD_BYTES)
        .then(|| action.to_owned())
}

/// Whether a sender may have its reply in that topic: not in Kafka's own, and not where it would pass for an event
/// or a command of ours.
fn may_reply(topic: &str, prefix: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let ours = topic.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).is_some_and(|word| {
        let word = word.strip_suffix("-dlt").unwrap_or(word);
        Kind::ALL.iter().any(|kind| kind.as_str() == word)
    });
    !topic.is_empty()
        && topic.len() <= TOPIC_BYTES
        && topic.bytes().all(plain)
        && !topic.starts_with("__")
        && !ours
}

/// A request of a record.
pub(crate) fn request(
    hub: &Arc<Hub>,
    group: &Arc<Group>,
    record: &BorrowedMessage<'_>,
    claim: Claim,
) -> Request {
    let words =
        record.headers().map(|headers| Words::read(headers, &hub.settings.prefix)).unwrap_or_default();
    let body = Bytes::copy_from_slice(record.payload().unwrap_or_default());
    let original = Original {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        offset: record.offset(),
        timestamp_ms: record.timestamp().to_millis(),
        key: record.key().map(<[u8]>::to_vec),
        body: body.clone(),
        headers: record.headers().map(|headers| headers.detach()).unwrap_or_default(),
    };
    Request {
        server: None,
        action: words.action.clone(),
        identity: Some(identity(record.topic(), record.partition(), record.offset())),
        sent_at: record.timestamp().to_millis().and_then(since_1970),
        sender: words.sender.clone(),
        durable: true,
        reply_wanted: words.reply_topic.is_some(),
        body,
        handle: Box::new(KafkaHandle {
            hub: hub.clone(),
            words,
            original,
            claim: Held { group: group.clone(), claim: Some(claim) },
        }),
    }
}

/// Kafka's time of a record: its sender's, or the broker's where the topic is set so.
fn since_1970(millis: i64) -> Option<SystemTime> {
    let millis = u64::try_from(millis).ok().filter(|millis| *millis > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

/// What names a record for good.
pub(crate) fn identity(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}:{partition}:{offset}")
}

/// A claim that is given back when it is dropped.
struct Held {
    group: Arc<Group>,
    claim: Option<Claim>,
}

impl Held {
    /// Where the command's begin is kept.
    fn begin(&self) -> Option<Arc<dyn Begin>> {
        let begin = Committed { group: self.group.clone(), claim: self.claim? };
        Some(Arc::new(begin))
    }

    async fn acknowledge(mut self) -> Result<(), Fault> {
        let Some(claim) = self.claim.take() else { return Ok(()) };
        let answer = self.group.acknowledge(claim);
        match tokio::time::timeout(COMMITTED_WITHIN, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                Err(Fault::new(FaultKind::Closed, "the inlet was closed before this was committed"))
            }
            Err(_) => {
                let message = format!("not committed within {COMMITTED_WITHIN:?}; it is tried on");
                Err(Fault::new(FaultKind::TimedOut, message))
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            self.group.give_back(claim);
        }
    }
}

/// What the group's commits say of one command.
struct Committed {
    group: Arc<Group>,
    claim: Claim,
}

impl Begin for Committed {
    fn begun_before(&self) -> bool {
        self.claim.begun
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), Fault>> {
        let answer = self.group.begin(self.claim);
        Box::pin(async move {
            let closed = || Fault::new(FaultKind::Closed, "the inlet was closed before this was begun");
            answer.await.unwrap_or_else(|_| Err(closed().deciding(Decision::Skip)))
        })
    }

    fn take_back(&self) {
        self.group.take_back(self.claim);
    }
}

struct KafkaHandle {
    hub: Arc<Hub>,
    words: Words,
    original: Original,
    claim: Held,
}

impl KafkaHandle {
    async fn answer(&self, response: &Message) -> Result<Reach, Fault> {
        let Some(topic) = &self.words.reply_topic else { return Ok(Reach::Sent) };
        let mut headers = record::headers(response);
        if let Some(correlation) = &self.words.correlation {
            headers = record::with(headers, CORRELATION, correlation.as_slice());
        }
        let key = Some(str::as_bytes(response.key()));
        let partition = self.words.reply_partition;
        self.hub.post.store(Letter { topic, partition, key, body: &response.body, headers }).await?;
        Ok(Reach::Stored)
    }
}

impl Handle for KafkaHandle {
    fn reply<'a>(&'a mut self, response: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>> {
        Box::pin(self.answer(response))
    }

    fn keep(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn keep_every(&self) -> Option<Duration> {
        None
    }

    fn withdrawn(&self) -> Option<BoxFuture<'static, ()>> {
        let going = self.claim.claim.as_ref().and_then(|claim| self.claim.group.withdrawal(claim));
        Some(Box::pin(async move {
            if let Some(mut going) = going {
                // An end of it: the partition has gone.
                let _ = going.wait_for(|going| *going).await;
            }
        }))
    }

    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(self.claim.acknowledge())
    }

    fn begin(&self) -> Option<Arc<dyn Begin>> {
        self.claim.begin()
    }

    fn dead_letter(self: Box<Self>, cause: Rejection) -> BoxFuture<'static, Result<(), Fault>> {
        Box::pin(async move {
            letters::refused_by_us(&self.hub, &self.original, &cause).await?;
            self.claim.acknowledge().await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(headers: &[(&str, &[u8])]) -> Words {
        let mut words = Words::default();
        for (name, value) in headers {
            words.take(name, value, "my.ami");
        }
        words
    }

    #[test]
    fn springs_headers_are_read() {
        let read = words(&[
            ("kafka_replyTopic", b"orders.replies"),
            ("kafka_replyPartition", &[0, 0, 1, 2]),
            ("kafka_correlationId", b"\xff\x00raw"),
            ("ce_type", b"my.ami.command.Originate"),
            ("ce_source", b"/orders"),
        ]);
        assert_eq!(read.reply_topic.as_deref(), Some("orders.replies"));
        assert_eq!(read.reply_partition, Some(258));
        assert_eq!(read.correlation.as_deref(), Some(&b"\xff\x00raw"[..]));
        assert_eq!((read.action.as_deref(), read.sender.as_deref()), (Some("Originate"), Some("/orders")));
    }

    #[test]
    fn headers_of_another_shape_say_nothing() {
        let long = "x".repeat(300);
        let read = words(&[
            ("kafka_replyPartition", b"12"),
            ("ce_type", b"my.ami.command."),
            ("ce_source", long.as_bytes()),
            ("kafka_replyTopic", b"\xff"),
        ]);
        assert_eq!(read, Words::default());
    }

    #[test]
    fn a_reply_goes_into_no_topic_of_kafkas_or_ours() {
        for topic in
            ["", "__consumer_offsets", "a b", "my.ami.event", "my.ami.command", "my.ami.command-dlt", "ä"]
        {
            assert!(!may_reply(topic, "my.ami"), "{topic:?}");
        }
        assert!(
            may_reply("my.ami.replies", "my.ami")
                && may_reply("x", "my.ami")
                && may_reply("my.ami.events", "my.ami")
        );
        assert!(!may_reply(&"x".repeat(250), "my.ami"));
    }
}
