//! Publishing to a JetStream stream: many in flight, each acknowledged by the stream that stored it.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use amibus_contract::{BoxFuture, Fault, FaultKind, Message, Outlet, Published, Reach};
use async_nats::jetstream::{
    Context,
    context::{PublishAckFuture, PublishError, PublishErrorKind},
    message::PublishMessage,
    publish::PublishAck,
};
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

use crate::{
    dead, faults, headers,
    held::Held,
    hub::{Hub, Line},
    look::{self, Blind},
    stream, subjects,
    window::Window,
};

/// How long the stream may be read before something is sent again.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// How often in a row that is tried before things are sent all the same. A stream without a leader takes some seconds to
/// find one; with the lane's pauses between them, of 50 ms to 5 s, so many tries take 26 s at the least.
const LOOK_TRIES: u32 = 12;

type Acknowledged = (usize, Result<PublishAck, PublishError>);
type Acks = FuturesUnordered<Pin<Box<dyn Future<Output = Acknowledged> + Send>>>;

/// An outlet with a stream behind it.
#[derive(Debug)]
pub(crate) struct JetOutlet {
    hub: Arc<Hub>,
    stream: String,
    on: Option<(Arc<Line>, Context)>,
    /// Since the stream refused something that it may take later, and until it takes a whole batch.
    cautious: bool,
    /// What the stream had when it was last read, and what it confirmed of a batch that is not safe as a whole.
    held: Held,
    /// The stream was read, or need not be, on this connection.
    looked: bool,
    /// How often in a row it could not be read.
    failed_looks: u32,
    /// When the stream last confirmed something; before that nobody knows how long ago it was.
    confirmed: Option<Instant>,
}

impl JetOutlet {
    pub(crate) fn new(hub: Arc<Hub>, stream: String) -> Self {
        Self {
            hub,
            stream,
            on: None,
            cautious: false,
            held: Held::default(),
            looked: false,
            failed_looks: 0,
            confirmed: None,
        }
    }

    async fn ready(&mut self) -> Result<(Arc<Line>, Context), Fault> {
        self.hub.open()?;
        if let Some((line, context)) = &self.on
            && line.alive()
        {
            return Ok((Arc::clone(line), context.clone()));
        }
        (self.on, self.looked) = (None, false);
        let line = self.hub.line().await?;
        let context = self.hub.context(&line.dialled);
        self.on = Some((Arc::clone(&line), context.clone()));
        Ok((line, context))
    }

    /// Reads what the stream has of a batch that may be a repeat which it has forgotten.
    async fn look(&mut self, line: &Line, context: &Context, batch: &[Message]) -> Result<(), Fault> {
        let Some(stream) = line.stream.as_ref().filter(|_| !batch.is_empty()) else { return Ok(()) };
        self.held.pass(batch);
        let window = stream.duplicate_window;
        let remembered = self.confirmed.is_some_and(|at| at.elapsed() < window / 2);
        if (self.looked || remembered) && !self.held.ends_before(batch) {
            self.looked = true;
            return Ok(());
        }
        let before = line.dialled.refused_so_far();
        let mut read = Held::default();
        let looking = tokio::time::timeout(LOOK_LIMIT, look::look(context, stream, batch, &mut read));
        let looked = tokio::select! {
            biased;
            looked = looking => {
                looked.unwrap_or_else(|_| Err(Blind::Failed(format!("it took longer than {LOOK_LIMIT:?}"))))
            }
            said = line.dialled.refused(before, |said| said.contains("\"$JS.")) => {
                Err(Blind::Refused(said.to_string()))
            }
            () = line.dialled.lost() => return Err(faults::lost()),
        };
        let name = &self.stream;
        match looked {
            Ok(()) => self.held = read,
            Err(blind) => {
                self.held.merge(read);
                self.failed_looks += 1;
                if let Blind::Failed(why) = &blind
                    && self.failed_looks < LOOK_TRIES
                {
                    let text = format!("what stream {name} has could not be read: {why}");
                    return Err(Fault::new(FaultKind::TimedOut, text));
                }
                self.held.give_up();
                let why = blind.why();
                tracing::warn!(
                    stream = name,
                    ?window,
                    why,
                    "cannot look for what is there; older repeats come in twice"
                );
            }
        }
        (self.looked, self.failed_looks) = (true, 0);
        Ok(())
    }

    /// How many messages of one key may be in flight; see the crate's notes on order.
    fn max_per_key(&self, line: &Line) -> usize {
        let settings = &self.hub.settings;
        if self.cautious {
            return 1;
        }
        let alone = line.dialled.client.server_info().cluster.is_none();
        let steady = alone && line.stream.as_ref().is_some_and(stream::takes_all_or_nothing);
        settings.max_in_flight_per_key.unwrap_or(if steady { settings.max_in_flight } else { 1 })
    }

    async fn publish_all(&mut self, batch: &[Message]) -> Published {
        let (line, context) = match self.ready().await {
            Ok(ready) => ready,
            Err(fault) => return Published::until(0, Reach::Stored, fault),
        };
        if let Err(fault) = self.look(&line, &context, batch).await {
            return Published::until(0, Reach::Stored, fault);
        }
        let keys = batch.iter().map(|message| &*message.key).collect();
        let mut window = Window::new(keys, self.hub.settings.max_in_flight, self.max_per_key(&line));
        let mut acks = Acks::new();
        let on = Batch { line: &line, messages: batch, before: line.dialled.refused_so_far() };
        loop {
            if let Err(fault) = self.hub.open() {
                window.halt(fault);
            }
            while let Some(index) = window.next() {
                let Some(message) = batch.get(index) else { break };
                if self.held.has(message) {
                    window.confirm(index);
                    continue;
                }
                match send(&context, message).await {
                    Ok(ack) => acks.push(Box::pin(async move { (index, ack.await) })),
                    Err(error) => self.settle(&mut window, &on, (index, Err(error))),
                }
            }
            if !window.is_waiting() {
                break;
            }
            tokio::select! {
                biased;
                acknowledged = acks.next() => if let Some(one) = acknowledged {
                    self.settle(&mut window, &on, one);
                },
                () = line.dialled.lost() => {
                    // What was acknowledged before is safe.
                    while let Some(Some(one)) = acks.next().now_or_never() {
                        self.settle(&mut window, &on, one);
                    }
                    window.fail_all(&faults::lost());
                }
                said = line.dialled.refused(on.before, |said| !on.concerned(said, &window).is_empty()) => {
                    let concerned = on.concerned(&said, &window);
                    line.forget(concerned.len());
                    for index in concerned {
                        window.fail(index, faults::forbidden(&said));
                    }
                }
            }
        }
        let beyond = window.confirmed_beyond();
        let published = window.finish(Reach::Stored);
        beyond.into_iter().filter_map(|index| batch.get(index)).for_each(|message| self.held.keep(message));
        if published.safe > 0 {
            self.confirmed = Some(Instant::now());
        }
        match &published.fault {
            Some(fault) if fault.kind == FaultKind::Refused => self.cautious = true,
            None if !batch.is_empty() => self.cautious = false,
            _ => {}
        }
        published
    }

    fn settle(&self, window: &mut Window<'_>, on: &Batch<'_>, one: Acknowledged) {
        let (index, result) = one;
        let fault = match result {
            Ok(ack) if ack.stream == self.stream => return window.confirm(index),
            Ok(ack) => astray(&ack.stream, &self.stream),
            Err(error) => {
                if in_doubt(&error) {
                    on.line.give_up();
                }
                let subject = on.subject(index);
                match on.line.dialled.refusal(on.before, subject) {
                    Some(said) => faults::forbidden(&said),
                    None => faults::publishing(&error, subject),
                }
            }
        };
        window.fail(index, fault);
    }

    async fn set_aside(&mut self, message: &Message, cause: &Fault) -> Result<bool, Fault> {
        let (line, context) = self.ready().await?;
        let subject = subjects::dead(&message.topic);
        let id = format!("dead:{}", &*message.attributes.id);
        if self.held.has_dead(&id) {
            return Ok(true);
        }
        let mut map = async_nats::HeaderMap::new();
        headers::put(&mut map, async_nats::header::NATS_MESSAGE_ID, &id);
        let publish = PublishMessage::build().payload(dead::message(message, cause)).headers(map);
        let stored = async {
            match context.send_publish(subject.clone(), publish).await {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            }
        };
        let refused = line
            .dialled
            .refused(line.dialled.refused_so_far(), |said| said.contains(&format!("\"{subject}\"")));
        tokio::select! {
            biased;
            stored = stored => match stored {
                Ok(_) => Ok(true),
                // Nothing keeps that subject: an older stream, or one that was made by hand.
                Err(error) if error.kind() == PublishErrorKind::StreamNotFound => Ok(false),
                Err(error) => Err(faults::publishing(&error, &subject)),
            },
            () = line.dialled.lost() => Err(faults::lost()),
            said = refused => Err(faults::forbidden(&said)),
        }
    }
}

async fn send(context: &Context, message: &Message) -> Result<PublishAckFuture, PublishError> {
    let publish = PublishMessage::build().payload(message.body.clone()).headers(headers::of(message));
    context.send_publish(message.topic.as_str().to_owned(), publish).await
}

/// One batch on one connection.
struct Batch<'a> {
    line: &'a Line,
    messages: &'a [Message],
    /// How much the server had refused before.
    before: u64,
}

impl Batch<'_> {
    fn subject(&self, index: usize) -> &str {
        self.messages.get(index).map(|message| message.topic.as_str()).unwrap_or_default()
    }

    /// What awaits its acknowledgement in vain, because the server refused its subject with `said`.
    fn concerned(&self, said: &str, window: &Window<'_>) -> Vec<usize> {
        let subject = said.split('"').nth(1).unwrap_or_default();
        let mut sent = window.sent();
        sent.retain(|index| !subject.is_empty() && self.subject(*index) == subject);
        sent
    }
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

impl Outlet for JetOutlet {
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(self.publish_all(batch))
    }

    fn dead_letter<'a>(
        &'a mut self,
        message: &'a Message,
        cause: &'a Fault,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(self.set_aside(message, cause))
    }
}
