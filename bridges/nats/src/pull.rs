//! Commands from a JetStream stream: a durable pull consumer for each server.
//!
//! A consumer of its own keeps one server's waiting commands from holding up another's. Its name is made of the
//! instance and the server: processes of one instance name share the work, and on a work-queue stream a second
//! instance name for the same server is refused, so that no call is dialled twice.

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use amibus_contract::{Decision, Fault, FaultKind, Request};
use async_nats::jetstream::{
    AckKind, Message,
    consumer::{self, AckPolicy, Consumer, DeliverPolicy, pull},
    stream::{ConsumerErrorKind, RetentionPolicy},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    ahead::{Ahead, AheadCount},
    faults,
    handle::{self, Way},
    headers,
    inlet::{Arrival, Arrived},
    settings::{CommandSettings, LEAST_ACK_WAIT},
    stream, subjects,
};

const TRY_AGAIN: Duration = Duration::from_millis(500);
const TRY_SELDOM: Duration = Duration::from_secs(15);
/// A waiting command is kept this many times within `ack_wait`.
const KEEPS_PER_WAIT: u32 = 3;

/// One server's commands.
pub(crate) struct Pull {
    pub(crate) way: Way,
    pub(crate) settings: CommandSettings,
    pub(crate) instance: String,
    pub(crate) server: String,
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    /// What all servers' tasks fetched and nobody took yet.
    pub(crate) ahead: AheadCount,
}

impl Pull {
    /// Hands commands to the inlet, across outages, until nobody takes them.
    pub(crate) async fn run(self, consumer: Consumer<pull::Config>) {
        tokio::select! {
            () = self.arrivals.closed() => {}
            () = self.deliver_for_ever(consumer) => {}
        }
    }

    async fn deliver_for_ever(&self, mut consumer: Consumer<pull::Config>) {
        loop {
            let fault = self.deliver(&consumer).await;
            tracing::debug!(server = self.server, %fault, "commands have to be asked for anew");
            consumer = self.find_again().await;
        }
    }

    /// Looks for the stream and the consumer until they are there. Each try is one question that may go unanswered,
    /// and async-nats keeps those: so the pause grows.
    async fn find_again(&self) -> Consumer<pull::Config> {
        let mut pause = TRY_AGAIN;
        loop {
            let connects = self.way.dialled.up().await;
            let fault = match self.consumer().await {
                Ok(consumer) => return consumer,
                Err(fault) => fault,
            };
            tracing::debug!(server = self.server, %fault, "commands cannot be asked for right now");
            if fault.decision == Decision::Stop {
                pause = TRY_SELDOM;
                let _ = self.arrivals.send(Err(fault)).await;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(TRY_SELDOM),
                () = self.another_connection(connects) => pause = TRY_AGAIN,
            }
        }
    }

    /// Waits until this connection is gone, or another one stands in its place.
    async fn another_connection(&self, connects: u64) {
        let mut link = self.way.dialled.link.clone();
        let _ = link.wait_for(|link| !link.connected || link.connects != connects).await;
    }

    /// The stream and the consumer, made where they are missing.
    pub(crate) async fn consumer(&self) -> Result<Consumer<pull::Config>, Fault> {
        let before = self.way.dialled.refused_so_far();
        let refused = self.way.dialled.refused(before, |said| said.contains("\"$JS."));
        tokio::select! {
            biased;
            made = self.make() => made,
            said = refused => Err(faults::forbidden(&said)),
            () = self.way.dialled.lost() => Err(faults::lost()),
        }
    }

    async fn make(&self) -> Result<Consumer<pull::Config>, Fault> {
        let found = stream::commands(&self.way.context, &self.way.prefix, &self.settings).await?;
        let filter = subjects::commands_of(&self.way.prefix, &self.server);
        if !found.subjects.iter().any(|subject| subjects::covers(subject, &filter)) {
            let text = format!("stream {} does not keep {filter}", found.name);
            return Err(Fault::new(FaultKind::Missing, text));
        }
        let durable = durable(&self.instance, &self.server);
        let config = pull::Config {
            durable_name: Some(durable.clone()),
            description: Some(format!("amibus carries out the commands for {}", self.server)),
            deliver_policy: first(found.retention),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.settings.ack_wait,
            filter_subject: filter.clone(),
            max_ack_pending: self.settings.max_ack_pending,
            ..pull::Config::default()
        };
        let what = format!("consumer {durable} of stream {}", found.name);
        match self.way.context.create_consumer_on_stream(config, found.name.clone()).await {
            Ok(consumer) => Ok(consumer),
            // One that is there with other unchangeable settings serves as well, where they fit.
            Err(error) => match self.way.context.get_consumer_from_stream(durable, found.name).await {
                Ok(consumer) => fitting(consumer, &filter, &what),
                Err(_) => Err(match error.kind() {
                    ConsumerErrorKind::JetStream(said) => faults::managing(&said, &what),
                    ConsumerErrorKind::TimedOut => faults::unanswered(&what),
                    _ => Fault::new(FaultKind::Unreachable, format!("{what}: {error}")),
                }),
            },
        }
    }

    /// Asks for one command after another until something stops it.
    async fn deliver(&self, consumer: &Consumer<pull::Config>) -> Fault {
        let connects = self.way.dialled.link.borrow().connects;
        let ack_wait = ack_wait(&consumer.cached_info().config);
        loop {
            let fetched = tokio::select! {
                fetched = Ahead::fetch(consumer, ack_wait / KEEPS_PER_WAIT, &self.ahead) => fetched,
                () = self.another_connection(connects) => return faults::lost(),
            };
            match fetched {
                Ok(waiting) => self.hand_over(waiting, ack_wait).await,
                Err(error) => return Fault::new(FaultKind::Unreachable, error.to_string()),
            }
        }
    }

    /// Hands the commands over, one after another, as the inlet takes them. Each is kept from the moment it was fetched, by
    /// one clock for all, until it is taken: the engine may be full for longer than `ack_wait`.
    async fn hand_over(&self, mut waiting: Ahead, ack_wait: Duration) {
        let connects = self.way.dialled.link.borrow().connects;
        let mut kept = Kept::new(waiting.since, ack_wait);
        while let Some(message) = waiting.first().cloned() {
            let Some(permit) = self.keeping(&waiting, &mut kept, connects, self.arrivals.reserve()).await
            else {
                return;
            };
            let Ok(permit) = permit else { return };
            let (fresh, taken) = (kept.fresh.subscribe(), oneshot::channel());
            permit
                .send(Ok(Arrived { request: self.arrived(message, ack_wait), kept: Some((fresh, taken.0)) }));
            // It lies in the channel until somebody asks.
            if self.keeping(&waiting, &mut kept, connects, taken.1).await.is_none() {
                return;
            }
            waiting.taken();
        }
    }

    /// Waits, and meanwhile keeps the commands that wait. `None`: the connection is another one, so the stream may have given
    /// them to somebody else.
    async fn keeping<T>(
        &self,
        waiting: &Ahead,
        kept: &mut Kept,
        connects: u64,
        wait: impl Future<Output = T>,
    ) -> Option<T> {
        let mut wait = pin!(wait);
        loop {
            tokio::select! {
                biased;
                done = &mut wait => return Some(done),
                () = self.another_connection(connects) => return None,
                () = tokio::time::sleep_until(kept.due) => {
                    for message in waiting.all() {
                        let _ = message.ack_with(AckKind::Progress).await;
                    }
                    kept.now();
                }
            }
        }
    }

    fn arrived(&self, message: Message, ack_wait: Duration) -> Request {
        let (server, action) = subjects::words(&self.way.prefix, &message.subject);
        let (server, action) = (server.map(str::to_owned), action.map(str::to_owned));
        let identity = identity(&message);
        let reply_to = headers::find(message.headers.as_ref(), headers::REPLY_TO)
            .filter(|subject| subjects::may_reply_to(&self.way.prefix, subject))
            .map(async_nats::Subject::from);
        Request {
            server,
            action,
            identity: Some(identity.clone()),
            sent_at: sent_at(&message),
            sender: None,
            durable: true,
            reply_wanted: reply_to.is_some(),
            body: message.payload.clone(),
            handle: Box::new(handle::Kept { way: self.way.clone(), message, identity, ack_wait, reply_to }),
        }
    }
}

/// When waiting commands were kept last.
struct Kept {
    every: Duration,
    fresh_for: Duration,
    due: Instant,
    /// Until when the stream gives them to nobody else, for certain.
    fresh: watch::Sender<Instant>,
}

impl Kept {
    fn new(fetched: Instant, ack_wait: Duration) -> Self {
        let (every, fresh_for) = (ack_wait / KEEPS_PER_WAIT, ack_wait / KEEPS_PER_WAIT * 2);
        Self { every, fresh_for, due: fetched + every, fresh: watch::Sender::new(fetched + fresh_for) }
    }

    fn now(&mut self) {
        let now = Instant::now();
        self.due = now + self.every;
        self.fresh.send_replace(now + self.fresh_for);
    }
}

/// A consumer that somebody else made, if each command comes to us and is ours to acknowledge.
fn fitting(
    consumer: Consumer<pull::Config>,
    filter: &str,
    what: &str,
) -> Result<Consumer<pull::Config>, Fault> {
    let info = consumer.cached_info();
    let config = &info.config;
    let filters = [std::slice::from_ref(&config.filter_subject), &config.filter_subjects[..]].concat();
    let mut filters = filters.iter().filter(|subject| !subject.is_empty());
    let why = if config.ack_policy != AckPolicy::Explicit {
        format!("its ack policy is {:?} and has to be explicit", config.ack_policy)
    } else if !(filters.next().is_some_and(|subject| subject == filter) && filters.next().is_none()) {
        format!("it has to filter {filter} and nothing else")
    } else {
        return Ok(consumer);
    };
    let remedy = format!("nats consumer rm {} {}", info.stream_name, info.name);
    let text = format!("{what} is there already, and {why}; remove it, and amibus makes its own: {remedy}");
    Err(Fault::new(FaultKind::Missing, text))
}

/// How long the server waits for a sign before it delivers a command again.
fn ack_wait(config: &consumer::Config) -> Duration {
    let first = config.backoff.first().copied().unwrap_or(config.ack_wait);
    first.max(LEAST_ACK_WAIT)
}

/// `STREAM:SEQUENCE`, the same at each delivery.
fn identity(message: &Message) -> String {
    match message.info() {
        Ok(info) => format!("{}:{}", info.stream, info.stream_sequence),
        Err(_) => message.reply.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// When the stream took it.
fn sent_at(message: &Message) -> Option<SystemTime> {
    message.info().ok().map(|info| SystemTime::from(info.published))
}

/// Where a new consumer begins. What is on a work queue was never done. A stream that keeps what was done holds
/// commands that must not be run again, so there only what comes from now on is taken.
fn first(retention: RetentionPolicy) -> DeliverPolicy {
    match retention {
        RetentionPolicy::Limits => DeliverPolicy::New,
        RetentionPolicy::WorkQueue | RetentionPolicy::Interest => DeliverPolicy::All,
    }
}

/// A consumer's name must not hold what a subject gives a meaning to.
pub(crate) fn durable(instance: &str, server: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
    format!("{}-{server}", instance.chars().map(safe).collect::<String>())
}
