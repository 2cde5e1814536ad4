//! Publishing to a JetStream stream: many in flight, each acknowledged by the stream that stored it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amibus_contract::{BoxFuture, Fault, FaultKind, Message, Outlet, Published, Reach};
use async_nats::jetstream::{
    Context,
    context::{PublishAckFuture, PublishError, PublishErrorKind},
    message::PublishMessage,
};

use crate::{
    dead, faults,
    flight::Flight,
    headers,
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

/// An outlet with a stream behind it.
#[derive(Debug)]
pub(crate) struct JetOutlet {
    hub: Arc<Hub>,
    stream: String,
    on: Option<(Arc<Line>, Context)>,
    /// Since the stream refused something that it may take later, and until it takes a whole batch.
    cautious: bool,
    /// What was offered last and is on its way still.
    flight: Option<Flight>,
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
            flight: None,
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
        let steady = line.is_alone && line.stream.as_ref().is_some_and(stream::takes_all_or_nothing);
        settings.max_in_flight_per_key.unwrap_or(if steady { settings.max_in_flight } else { 1 })
    }

    /// Publishes until everything is safe, or with `whole` unset until a good part is.
    async fn go_on(&mut self, batch: &[Message], whole: bool) -> Published {
        if let Some(flight) = self.flight.take()
            && let Some(known) = flight.known(batch)
        {
            // What the stream has of the next ones is read between two flights, as connections change.
            let is_last = self.held.ends_before(batch) || !flight.line.alive();
            let offered = if is_last { batch.get(..known).unwrap_or_default() } else { batch };
            return self.fly(flight, offered, known, whole || is_last).await;
        }
        let (line, context) = match self.ready().await {
            Ok(ready) => ready,
            Err(fault) => return Published::until(0, Reach::Stored, fault),
        };
        if let Err(fault) = self.look(&line, &context, batch).await {
            return Published::until(0, Reach::Stored, fault);
        }
        let window = Window::new(self.hub.settings.max_in_flight, self.max_per_key(&line));
        let whole = whole || self.cautious;
        self.fly(Flight::new(line, context, &self.stream, window), batch, 0, whole).await
    }

    /// Publishes a batch of which the first `known` are on their way.
    async fn fly(&mut self, mut flight: Flight, batch: &[Message], known: usize, whole: bool) -> Published {
        self.held.pass(batch);
        let first = flight.window.safe();
        flight.window.offer(batch.iter().skip(known).map(Message::shared_key));
        let enough = if whole { batch.len() } else { batch.len().div_ceil(2) };
        loop {
            if let Err(fault) = self.hub.open() {
                flight.window.halt(fault);
            }
            while let Some(index) = flight.window.next() {
                let Some(message) = batch.get(index - first) else { break };
                if self.held.has(message) {
                    flight.window.confirm(index);
                    continue;
                }
                match send(&flight.context, message).await {
                    Ok(ack) => flight.acks.push(Box::pin(async move { (index, ack.await) })),
                    Err(error) => flight.settle(batch, first, (index, Err(error))),
                }
            }
            // Acknowledgements come many at a time.
            let has_news = flight.settle_ready(batch, first);
            if !flight.window.has_failed() && flight.window.safe() - first >= enough {
                break;
            }
            if !has_news {
                if !flight.window.is_waiting() {
                    break;
                }
                flight.wait(batch, first).await;
            }
        }
        self.answer(flight, batch, first)
    }

    /// What became of a batch, of which the first is number `first` in its flight.
    fn answer(&mut self, mut flight: Flight, batch: &[Message], first: usize) -> Published {
        let safe = flight.window.safe() - first;
        if safe > 0 {
            self.confirmed = Some(Instant::now());
        }
        let left = batch.get(safe..).unwrap_or_default();
        if !flight.window.has_failed() && !left.is_empty() {
            flight.leave(left);
            self.flight = Some(flight);
            return Published { safe, reach: Reach::Stored, fault: None };
        }
        let beyond = flight.window.confirmed_beyond();
        let published = flight.window.finish(first, Reach::Stored);
        beyond.into_iter().filter_map(|index| batch.get(index - first)).for_each(|one| self.held.keep(one));
        match &published.fault {
            Some(fault) if fault.kind == FaultKind::Refused => self.cautious = true,
            None if !batch.is_empty() => self.cautious = false,
            _ => {}
        }
        published
    }

    async fn set_aside(&mut self, message: &Message, cause: &Fault) -> Result<bool, Fault> {
        let (line, context) = self.ready().await?;
        let subject = subjects::dead(&message.topic);
        let id = format!("dead:{}", message.attributes().id());
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
    context.send_publish(subjects::of(&message.topic), publish).await
}

impl Outlet for JetOutlet {
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(async move {
            let begun = self.go_on(batch, true).await;
            let rest = batch.get(begun.safe..).unwrap_or_default();
            if begun.fault.is_some() || rest.is_empty() {
                return begun;
            }
            // What was on its way is stored; what is behind it is another flight.
            let ended = self.go_on(rest, true).await;
            Published { safe: begun.safe + ended.safe, ..ended }
        })
    }

    fn advance<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(self.go_on(batch, false))
    }

    fn dead_letter<'a>(
        &'a mut self,
        message: &'a Message,
        cause: &'a Fault,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(self.set_aside(message, cause))
    }
}
