//! The producer of events, shared by all outlets of a bridge.
//!
//! One producer for all lanes, since a thousand lanes must not be a thousand clients with threads and connections of
//! their own. It is two clients of librdkafka: one for the topics of which there is always something to store, one for
//! the others (see [`Generation`]). A topic is always the same client's. What keeps order within a key:
//!
//! - The idempotent producer stores a partition's records in the order of [`Generation::send`], without repeats,
//!   through its own retries.
//! - One request of each client is on its way to a broker at a time, and a record counts as stored once its place is
//!   known: what librdkafka only concludes is not believed.
//! - No record times out alone, and a record that the broker refuses for good ends the producer (librdkafka's
//!   gapless guarantee). So what is stored of a partition is at any time a prefix of what was sent.
//! - When a batch must be stopped, its whole producer is *retired*: under a lock that excludes senders everything
//!   queued is purged, nothing is sent through it again, and the next batch meets a fresh producer. Other lanes that
//!   had records in it see them fail and offer them again; for them it is an ordinary retry.
//!
//! - All that an outlet has on its way is in one producer: it waits for the reports of all before it changes to another
//!   one (see [`Front::batch_again`]), while other outlets still wait for what is in the former.
//!
//! A request that is on its way while its producer is purged may still be stored: as a repeat, later. Repeats carry
//! the same id; the first sight of each record is in order.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock, TryLockError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amibus_contract::{Fault, FaultKind, Kind, Message};
use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::Message as _,
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig},
};
use tokio::sync::OnceCell;

use crate::{
    asked::Asked, clients, faults, health::Listener, record, reports::Reports, settings::Settings,
    single::Singly,
};

/// How many records are handed over in one go, holding off a retirement.
const CHUNK_RECORDS: usize = 256;
/// How long purged records may take to be reported.
const PURGED_WITHIN: Duration = Duration::from_secs(2);

/// Who waits for the report of one record.
pub(crate) struct Ticket {
    reports: Arc<Reports>,
    index: usize,
}

/// The callbacks of a producer of events.
pub(crate) struct Context {
    listener: Listener,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.listener.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.listener.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let outcome = match result {
            // Without a place, librdkafka only concludes that the record was stored: see `IN_FLIGHT_REQUESTS`.
            Ok(stored) if stored.offset() < 0 => Err(RDKafkaErrorCode::NoOffset),
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        if outcome.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        ticket.reports.report(ticket.index, outcome);
    }
}

/// Why fewer records were taken than were given.
pub(crate) enum Halt {
    /// The producer's queue is full.
    Full,
    /// The producer is retired, or just being so.
    Retired,
    /// The next record is refused on our side.
    Refused(Fault),
}

/// One producer, from its making to its retirement.
///
/// With one request on its way, a client of librdkafka gives each next one to the first partition that has records. It
/// goes round the partitions of all topics that it was ever asked for, and begins one further each time
/// (`rd_kafka_broker_produce_toppars`): those that have none leave their turns to the first one behind them. Beside
/// those of two idle topics, the last of six had hardly a turn of its own, and its records waited for all others'. So
/// topics that are mostly idle have a client of their own.
pub(crate) struct Generation {
    busy: Asked<Context>,
    idle: Asked<Context>,
    failed: Arc<AtomicU64>,
    retired: RwLock<bool>,
    /// The one who retires it; all others wait for that.
    retiring: OnceCell<()>,
    single: bool,
}

impl Generation {
    fn new(settings: &Settings, listener: Listener, single: bool) -> Result<Self, Fault> {
        let failed = Arc::new(AtomicU64::new(0));
        let config = clients::front(settings, single);
        let client = || Asked::new(&config, Context { listener: listener.clone(), failed: failed.clone() });
        let (busy, idle) = (client()?, client()?);
        Ok(Self { busy, idle, failed, retired: RwLock::new(false), retiring: OnceCell::new(), single })
    }

    /// The client for the messages of that kind.
    fn of(&self, kind: Kind) -> &Asked<Context> {
        match kind {
            Kind::Event | Kind::Call => &self.busy,
            Kind::Link | Kind::Command | Kind::Response => &self.idle,
        }
    }

    /// Queues messages; the first is number `first` in `reports`. Answers how many were taken (at most some hundred),
    /// and why not more.
    pub(crate) fn send(
        &self,
        messages: &[Message],
        first: usize,
        reports: &Arc<Reports>,
    ) -> (usize, Option<Halt>) {
        // Whoever retires it may hold the lock for as long as librdkafka's threads wait for a resolver.
        let retired = match self.retired.try_read() {
            Ok(retired) => retired,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return (0, Some(Halt::Retired)),
        };
        if *retired {
            return (0, Some(Halt::Retired));
        }
        for (taken, message) in messages.iter().take(CHUNK_RECORDS).enumerate() {
            let ticket = Box::new(Ticket { reports: reports.clone(), index: first + taken });
            let record = BaseRecord::with_opaque_to(message.topic.class(), ticket)
                .key(message.key())
                .payload(&message.body[..])
                .headers(record::headers(message));
            let producer = self.of(message.topic.kind());
            match producer.send(record) {
                Ok(()) => {}
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    return (taken, Some(Halt::Full));
                }
                Err((error, _)) if producer.client().fatal_error().is_some() => {
                    tracing::debug!(%error, "the producer has ended");
                    return (taken, Some(Halt::Retired));
                }
                Err((error, _)) => {
                    let bytes = message.body.len();
                    let what = format!("{} of {bytes} bytes", message.topic.as_str());
                    return (taken, Some(Halt::Refused(faults::of(&error, &what))));
                }
            }
        }
        (messages.len().min(CHUNK_RECORDS), None)
    }

    /// Whether each request holds one record.
    pub(crate) fn is_single(&self) -> bool {
        self.single
    }

    /// The client for questions about that topic: the one that stores in it, since a client keeps the partitions of each
    /// topic that it was asked for. Of a topic of nobody's, the idle one.
    pub(crate) fn client(&self, topic: &str) -> &rdkafka::client::Client<Context> {
        let word = topic.rsplit('.').next();
        let kind = Kind::ALL.into_iter().find(|kind| Some(kind.as_str()) == word);
        self.of(kind.unwrap_or(Kind::Command)).client()
    }

    fn both(&self) -> [&Asked<Context>; 2] {
        [&self.busy, &self.idle]
    }

    /// Takes back what is queued, for good. Blocks for some milliseconds, and where a resolver hangs until it gives up.
    fn retire(&self) {
        let mut retired = self.retired.write().unwrap_or_else(PoisonError::into_inner);
        if !std::mem::replace(&mut *retired, true) {
            self.both()
                .into_iter()
                .for_each(|client| client.purge(PurgeConfig::default().queue().inflight()));
        }
    }

    /// Waits for what is queued, then takes the rest back. Answers how many were not delivered.
    fn finish(&self, limit: Duration) -> u64 {
        let before = self.failed.load(Ordering::Relaxed);
        let end = Instant::now() + limit;
        for client in self.both() {
            if let Err(error) = client.flush(end.saturating_duration_since(Instant::now())) {
                tracing::warn!(%error, "not everything could be delivered before the end");
            }
        }
        self.retire();
        let end = Instant::now() + PURGED_WITHIN;
        for client in self.both() {
            let _ = client.flush(end.saturating_duration_since(Instant::now()));
        }
        self.failed.load(Ordering::Relaxed).saturating_sub(before)
    }
}

/// The current producer of events, made when first needed.
pub(crate) struct Front {
    settings: Arc<Settings>,
    listener: Listener,
    current: Mutex<Option<Arc<Generation>>>,
    /// The producer that was current before and was not retired; gone when its last batch is reported.
    former: Mutex<Weak<Generation>>,
    /// Whether each request shall hold one record.
    pub(crate) singly: Singly,
    closed: AtomicBool,
}

impl Front {
    /// None yet.
    pub(crate) fn new(settings: Arc<Settings>, listener: Listener) -> Self {
        let (current, former) = (Mutex::new(None), Mutex::new(Weak::new()));
        let (singly, closed) = (Singly::new(), AtomicBool::new(false));
        Self { settings, listener, current, former, singly, closed }
    }

    /// The current producer.
    pub(crate) fn lease(&self) -> Result<Arc<Generation>, Fault> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return Err(Fault::new(FaultKind::Closed, "the connection to Kafka has been closed"));
        }
        if let Some(generation) = &*current {
            return Ok(generation.clone());
        }
        let single = self.singly.is_on();
        let made = Arc::new(Generation::new(&self.settings, self.listener.clone(), single)?);
        *current = Some(made.clone());
        Ok(made)
    }

    /// A batch was stored as a whole.
    pub(crate) fn stored(&self, generation: &Generation, records: usize) {
        if generation.single {
            self.singly.stored(records);
        }
    }

    /// Where one record a request has lasted long enough: the next batch meets a producer that sends many. What is in
    /// the former one is delivered still.
    pub(crate) fn batch_again(&self) {
        if !self.singly.end() {
            return;
        }
        tracing::info!("requests to Kafka hold many messages again");
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(generation) = current.take_if(|current| current.single) {
            *self.former.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&generation);
        }
    }

    /// Ends a producer: when this is ready, nothing that is still queued in it can be stored.
    pub(crate) async fn retire(&self, generation: &Arc<Generation>) {
        {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            current.take_if(|current| Arc::ptr_eq(current, generation));
        }
        // One thread is enough, however many lanes wait and however long it takes.
        let retires = generation.clone();
        let ended = async || drop(tokio::task::spawn_blocking(move || retires.retire()).await);
        generation.retiring.get_or_init(ended).await;
    }

    /// Delivers what is queued within `limit`, and ends. Answers how many records could not be delivered.
    pub(crate) async fn close(&self, limit: Duration) -> u64 {
        let last = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            self.closed.store(true, Ordering::Release);
            current.take()
        };
        let former = self.former.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        let end = Instant::now() + limit;
        let finish = move || {
            let mut lost = 0;
            for generation in former.into_iter().chain(last) {
                lost += generation.finish(end.saturating_duration_since(Instant::now()));
            }
            lost
        };
        tokio::task::spawn_blocking(finish).await.unwrap_or(0)
    }
}

/// A configuration that passed its checks and yet makes no client: a certificate that cannot be parsed, for one.
pub(crate) fn unusable(error: &KafkaError) -> Fault {
    // rdkafka would tell the value, too, which may be a secret.
    let words = match error {
        KafkaError::ClientConfig(_, _, name, _) => format!("{name} is not taken"),
        other => other.to_string(),
    };
    let fault = Fault::new(FaultKind::Refused, format!("no client with this configuration: {words}"));
    fault.deciding(amibus_contract::Decision::Stop)
}

#[cfg(test)]
mod tests {
    use amibus_contract::{Value, Values};

    use super::*;

    fn front() -> Front {
        let values = Values::default().with("brokers", Value::Text("127.0.0.1:1".into()));
        let context = amibus_contract::Context { prefix: "ami".into(), ..Default::default() };
        let settings = Settings::new(&values, &context).unwrap_or_else(|problems| panic!("{problems:?}"));
        Front::new(Arc::new(settings), Listener(Arc::new(crate::health::Health::default())))
    }

    fn generation() -> Arc<Generation> {
        front().lease().unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// The threads that block serve all buses and the log: lanes that wait for one retirement need one of them.
    #[test]
    fn a_retirement_that_hangs_leaves_threads_to_others() {
        const LANES: usize = 16;
        let (front, builder) = (front(), &mut tokio::runtime::Builder::new_current_thread());
        let runtime = builder.enable_time().max_blocking_threads(2).build().expect("a runtime");
        let generation = front.lease().unwrap_or_else(|fault| panic!("{fault}"));
        let hangs = generation.retired.write().expect("nobody panicked");
        let other = runtime.block_on(async {
            let mut lanes: Vec<_> = (0..LANES).map(|_| Box::pin(front.retire(&generation))).collect();
            for lane in &mut lanes {
                assert!(futures_util::poll!(lane).is_pending());
            }
            tokio::time::timeout(Duration::from_secs(10), tokio::task::spawn_blocking(|| 7)).await
        });
        drop(hangs);
        assert_eq!(other.ok().and_then(Result::ok), Some(7));
        runtime.block_on(front.retire(&generation));
        assert!(*generation.retired.read().expect("nobody panicked"));
    }

    /// A sender that waited for it would hold up everything else that its thread carries.
    #[test]
    fn nothing_waits_for_a_retirement_that_hangs() {
        let (generation, reports) = (generation(), Arc::new(Reports::new(0)));
        let (_, free) = generation.send(&[], 0, &reports);
        assert!(free.is_none());
        let hangs = generation.retired.write().expect("nobody panicked");
        std::thread::scope(|scope| {
            let (told, answer) = std::sync::mpsc::channel();
            let (generation, reports) = (&*generation, &reports);
            scope.spawn(move || {
                let (taken, halt) = generation.send(&[], 0, reports);
                let _ = told.send((taken, matches!(halt, Some(Halt::Retired))));
            });
            let answer = answer.recv_timeout(Duration::from_secs(10));
            drop(hangs);
            assert_eq!(answer, Ok((0, true)));
        });
    }

    #[test]
    fn the_client_of_busy_topics_is_never_asked_for_an_idle_one() {
        let generation = generation();
        let is_busy = |topic: &str| std::ptr::eq(generation.client(topic), generation.busy.client());
        for kind in Kind::ALL {
            let stores = std::ptr::eq(generation.of(kind), &generation.busy);
            assert_eq!(is_busy(&format!("a.b.{}", kind.as_str())), stores, "{kind:?}");
        }
        assert!(is_busy("ami.event") && !is_busy("ami.link") && !is_busy("ami.response"));
        assert!(!is_busy("ami.event.dead") && !is_busy("ami") && !is_busy("event-ish"));
    }
}
