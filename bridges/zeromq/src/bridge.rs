//! The bridge: opens what is asked for when it is asked for, and ends it.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use amibus_contract::{
    BoxFuture, Bridge, Client, Context, Fault, FaultKind, Inlet, Key, Outlet, Plug, Problem, Reach, Scope,
    SharedBridge, Values,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    address::Address,
    client::ZeroMqClient,
    commands::{Commands, Requests},
    config::{Config, KEYS},
    gate::Role,
    inlet::ZeroMqInlet,
    outlet::ZeroMqOutlet,
    probe,
    publisher::Publisher,
    stats::{Counters, Stats},
};

/// ZeroMQ as a bus.
pub struct ZeroMq {
    shared: Arc<Shared>,
}

/// What the bridge and its outlets share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    stats: Arc<Counters>,
    pub(crate) closed: CancellationToken,
    publisher: tokio::sync::Mutex<Option<Arc<Publisher>>>,
    commands: tokio::sync::Mutex<Option<Arc<Commands>>>,
    seen: Mutex<Seen>,
}

/// What was last seen, for those who may not wait.
#[derive(Default)]
struct Seen {
    publish_address: Option<String>,
    commands_address: Option<String>,
    publish_fault: Option<String>,
    commands_fault: Option<String>,
}

impl ZeroMq {
    /// As [`Plug::open`], but gives the type itself, which knows where it listens.
    ///
    /// # Errors
    /// Everything that is wrong with the values.
    pub fn open_concrete(values: &Values, _context: &Context) -> Result<Arc<Self>, Vec<Problem>> {
        let shared = Shared {
            config: Config::read(values)?,
            stats: Arc::default(),
            closed: CancellationToken::new(),
            publisher: tokio::sync::Mutex::default(),
            commands: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
        };
        Ok(Arc::new(Self { shared: Arc::new(shared) }))
    }

    /// Where subscribers connect, with the port that was got, e.g. `tcp://127.0.0.1:40321`; `None` before the first
    /// outlet.
    pub fn publish_address(&self) -> Option<String> {
        self.shared.seen().publish_address.clone()
    }

    /// Where requesters connect; `None` before the inlet.
    pub fn commands_address(&self) -> Option<String> {
        self.shared.seen().commands_address.clone()
    }

    /// What the gate has seen.
    pub fn stats(&self) -> Stats {
        self.shared.stats.view()
    }
}

impl Shared {
    /// The publisher, opened where it is not open yet.
    pub(crate) async fn publisher(&self) -> Result<Arc<Publisher>, Fault> {
        let mut slot = self.publisher.lock().await;
        if self.closed.is_cancelled() {
            return Err(Fault::new(FaultKind::Closed, "the bridge is closed"));
        }
        if let Some(publisher) = slot.as_ref().filter(|publisher| publisher.is_alive()) {
            return Ok(Arc::clone(publisher));
        }
        if let Some(dead) = slot.take() {
            tracing::error!(
                "the ZeroMQ engine has ended by itself; its subscribers are disconnected, and it is opened again"
            );
            // What it had is lost; this frees the address.
            dead.close(Instant::now()).await;
        }
        let opened = Publisher::open(&self.config, Arc::clone(&self.stats)).await;
        let publisher = Arc::new(self.note(Role::Publish, opened)?);
        self.seen().publish_address = Some(publisher.address());
        tracing::info!(address = publisher.address(), "listening for ZeroMQ subscribers");
        *slot = Some(Arc::clone(&publisher));
        Ok(publisher)
    }

    /// The requests of an engine that is opened for them; `None` where no commands are configured.
    pub(crate) async fn requests(&self) -> Result<Option<Requests>, Fault> {
        let Some(address) = &self.config.commands else { return Ok(None) };
        let mut slot = self.commands.lock().await;
        if self.closed.is_cancelled() {
            return Err(Fault::new(FaultKind::Closed, "the bridge is closed"));
        }
        let opened = Commands::open(address, &self.config, Arc::clone(&self.stats)).await;
        let (commands, requests) = self.note(Role::Commands, opened)?;
        self.seen().commands_address = Some(commands.address());
        tracing::info!(address = commands.address(), "listening for ZeroMQ requesters");
        *slot = Some(commands);
        Ok(Some(requests))
    }

    /// Remembers for [`Bridge::status`] how it went.
    pub(crate) fn note<T>(&self, role: Role, result: Result<T, Fault>) -> Result<T, Fault> {
        let fault = result.as_ref().err().map(|fault| fault.message.clone());
        let mut seen = self.seen();
        match role {
            Role::Publish => seen.publish_fault = fault,
            Role::Commands => seen.commands_fault = fault,
        }
        drop(seen);
        result
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plug for ZeroMq {
    const NAME: &'static str = "zeromq";
    const KEYS: &'static [Key] = KEYS;

    fn open(values: &Values, context: &Context) -> Result<SharedBridge, Vec<Problem>> {
        let bridge = Self::open_concrete(values, context)?;
        Ok(bridge)
    }
}

impl Bridge for ZeroMq {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn reach(&self) -> Reach {
        Reach::Sent
    }

    fn promise(&self) -> String {
        let limits = &self.shared.config.limits;
        format!(
            "best effort on {}: a message counts as sent when it is queued for every connected subscriber; nothing is \
             stored. A subscriber that is away, or keeps a queue of {} bytes full for {:?}, misses messages and sees \
             the jump in `sequence`",
            self.publish_address().unwrap_or_else(|| self.shared.config.publish.to_string()),
            limits.queue_bytes,
            limits.patience,
        )
    }

    fn status(&self) -> Result<(), String> {
        let seen = self.shared.seen();
        seen.publish_fault.as_ref().or(seen.commands_fault.as_ref()).cloned().map_or(Ok(()), Err)
    }

    fn outlet<'a>(&'a self, _lane: &'a str) -> BoxFuture<'a, Result<Box<dyn Outlet>, Fault>> {
        Box::pin(async move {
            self.shared.publisher().await?;
            Ok(Box::new(ZeroMqOutlet::new(Arc::clone(&self.shared))) as Box<dyn Outlet>)
        })
    }

    fn inlet<'a>(&'a self, _scope: &'a Scope) -> BoxFuture<'a, Result<Option<Box<dyn Inlet>>, Fault>> {
        Box::pin(async move {
            let requests = self.shared.requests().await?;
            Ok(requests.map(|requests| {
                Box::new(ZeroMqInlet::new(Arc::clone(&self.shared), requests)) as Box<dyn Inlet>
            }))
        })
    }

    fn client<'a>(&'a self) -> BoxFuture<'a, Result<Box<dyn Client>, Fault>> {
        Box::pin(async move {
            let config = &self.shared.config;
            // A port that was only chosen when it was bound is known to nobody but this bridge.
            let known = |bound: Option<String>, configured: &Address| {
                let bound = bound.and_then(|text| Address::parse(&text).ok());
                let address =
                    bound.filter(|_| configured.is_open_ended()).unwrap_or_else(|| configured.clone());
                let unknown = || Fault::new(FaultKind::Missing, format!("{configured}: not listening yet"));
                (!address.is_open_ended()).then_some(address).ok_or_else(unknown)
            };
            let commands = config.commands.as_ref();
            let client = ZeroMqClient {
                events: known(self.publish_address(), &config.publish)?,
                commands: commands.and_then(|configured| known(self.commands_address(), configured).ok()),
                max_message_bytes: config.max_message_bytes,
                closed: self.shared.closed.clone(),
            };
            Ok(Box::new(client) as Box<dyn Client>)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        Box::pin(async move {
            let config = &self.shared.config;
            let mut lines = probe::address(&config.publish, self.publish_address(), "subscribers").await?;
            if let Some(commands) = &config.commands {
                lines.extend(probe::address(commands, self.commands_address(), "commands").await?);
            }
            Ok(lines)
        })
    }

    fn close(&self, limit: Duration) -> BoxFuture<'_, u64> {
        Box::pin(async move {
            let deadline = Instant::now() + limit;
            self.shared.closed.cancel();
            let publisher = self.shared.publisher.lock().await.take();
            let commands = self.shared.commands.lock().await.take();
            let events = async {
                match publisher {
                    Some(publisher) => publisher.close(deadline).await,
                    None => 0,
                }
            };
            let replies = async {
                match commands {
                    Some(commands) => commands.close(deadline).await,
                    None => 0,
                }
            };
            let (events, replies) = tokio::join!(events, replies);
            events + replies
        })
    }
}

#[cfg(test)]
mod tests {
    use amibus_contract::{Attributes, Kind, Message, Topic, Value};

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + SOON;
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn an_engine_that_ended_is_opened_again_at_its_address() {
        let directory = tempfile::tempdir().expect("a directory");
        let address = format!("ipc://{}", directory.path().join("events").display());
        let values = Values::default().with("publish", Value::Text(address.clone()));
        let context = Context { prefix: "ami".to_owned(), instance: "test".to_owned(), ..Context::default() };
        let bridge = ZeroMq::open_concrete(&values, &context).expect("a valid configuration");
        let first = bridge.shared.publisher().await.expect("listening");
        first.engine.abort();
        first.engine.ended().await;
        assert!(!first.is_alive() && first.publish(&[]).await.is_err());
        let second = bridge.shared.publisher().await.expect("listening again");
        assert!(second.is_alive() && second.publish(&[]).await.is_ok());
        assert_eq!(second.address(), address);
    }

    #[tokio::test]
    async fn commands_are_taken_again_after_their_engine_ended() {
        let directory = tempfile::tempdir().expect("a directory");
        let place = directory.path().join("place");
        std::fs::create_dir(&place).expect("a directory");
        let address = |name| format!("ipc://{}", place.join(name).display());
        let values = Values::default()
            .with("publish", Value::Text(address("events")))
            .with("commands", Value::Text(address("commands")));
        let context = Context { prefix: "ami".to_owned(), instance: "test".to_owned(), ..Context::default() };
        let bridge = ZeroMq::open_concrete(&values, &context).expect("a valid configuration");
        let scope = Scope { prefix: "ami".to_owned(), servers: vec![] };
        let mut inlet = bridge.inlet(&scope).await.expect("an inlet").expect("configured");
        let first = bridge.shared.commands.lock().await.clone().expect("open");
        // Where it cannot listen again at first.
        std::fs::remove_dir_all(&place).expect("removed");
        first.engine.abort();
        let taking = tokio::spawn(async move { (inlet.next().await, inlet) });
        until("the fault is told", || bridge.status().is_err_and(|fault| fault.contains("cannot listen on")))
            .await;
        std::fs::create_dir(&place).expect("a directory");
        until("it listens again", || bridge.status().is_ok()).await;
        assert_eq!(bridge.commands_address(), Some(address("commands")));

        let mut client = bridge.client().await.expect("a client");
        let asked = client.request("ami", "pbx1", "Ping", "1", "{}".into(), SOON);
        let answered = async {
            let (request, inlet) = taking.await.expect("no panic");
            let mut request = request.expect("no fault").expect("a request");
            assert_eq!(&request.body[..], b"{}");
            let reply = Message {
                topic: Topic::new("ami", Kind::Event, "pbx1", "Test").expect("a topic"),
                key: "call".into(),
                attributes: Attributes::default(),
                body: "done".into(),
            };
            request.handle.reply(&reply).await.expect("the reply goes out");
            inlet
        };
        let (response, mut inlet) = tokio::join!(asked, answered);
        assert_eq!(&response.expect("a response")[..], b"done");
        assert_eq!(bridge.close(SOON).await, 0);
        assert!(inlet.next().await.expect("no fault").is_none(), "closed");
    }
}
