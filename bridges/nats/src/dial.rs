//! Connecting, and what happens to a connection afterwards.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use amibus_contract::{Fault, FaultKind};
use async_nats::{AuthError, Client, ConnectOptions, Event, ServerError};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use crate::{faults, settings::Settings};

/// How many refusals of the server are remembered.
const MAX_REFUSALS: usize = 16;
/// Commands and replies that wait for the socket; publishing is bounded by `max_in_flight` besides.
const CLIENT_CAPACITY: usize = 1024;
/// Messages that wait to be taken, per subscription; async-nats drops the newest beyond. A feed has to take in bursts of
/// events; requests are answered one after another, and who does not get a place is better told so by its timeout.
const FEED_CAPACITY: usize = 8192;
pub(crate) const REQUESTS_CAPACITY: usize = 256;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Outlets; never resumed, see the crate's documentation on order.
    Publishing,
    Commands,
    /// The claims; never resumed either, so that nothing is claimed behind its caller's back.
    Claims,
    Client,
    Probe,
}

impl Role {
    /// Whether another connection takes its place when it breaks.
    fn is_replaced(self) -> bool {
        matches!(self, Self::Publishing | Self::Claims)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Publishing => "publishing",
            Self::Commands => "commands",
            Self::Claims => "claims",
            Self::Client => "client",
            Self::Probe => "check",
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) connected: bool,
    /// How often it was connected.
    pub(crate) connects: u64,
    /// What the server did not permit, latest last and numbered, e.g. `Permissions Violation for Publish to
    /// "ami.event.x.Y"`.
    refusals: VecDeque<(u64, Arc<str>)>,
    refused: u64,
}

impl Default for Link {
    fn default() -> Self {
        Self { connected: true, connects: 0, refusals: VecDeque::new(), refused: 0 }
    }
}

/// A connection and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Dialled {
    pub(crate) client: Client,
    pub(crate) link: watch::Receiver<Link>,
}

impl Dialled {
    pub(crate) fn connected(&self) -> bool {
        self.link.borrow().connected
    }

    /// The server's words that refuse `subject`, if it has said so, not counting the first `before` refusals.
    pub(crate) fn refusal(&self, before: u64, subject: &str) -> Option<Arc<str>> {
        let quoted = format!("\"{subject}\"");
        let link = self.link.borrow();
        let mut of_it =
            link.refusals.iter().filter(|(number, said)| *number >= before && said.contains(&quoted));
        of_it.next_back().map(|(_, said)| Arc::clone(said))
    }

    /// How much the server refused so far.
    pub(crate) fn refused_so_far(&self) -> u64 {
        self.link.borrow().refused
    }

    /// Waits until there is a connection; answers how many there were. Only for one that is resumed.
    pub(crate) async fn up(&self) -> u64 {
        self.link.clone().wait_for(|link| link.connected).await.map_or(0, |link| link.connects)
    }

    /// Waits until the connection is lost.
    pub(crate) async fn lost(&self) {
        let _ = self.link.clone().wait_for(|link| !link.connected).await;
    }

    /// Waits until the server refuses something that `concerns` us, not counting the first `before`; answers its words.
    pub(crate) async fn refused(&self, before: u64, concerns: impl Fn(&str) -> bool) -> Arc<str> {
        let mut link = self.link.clone();
        loop {
            let found = {
                let link = link.borrow_and_update();
                let mut new =
                    link.refusals.iter().filter(|(number, said)| *number >= before && concerns(said));
                new.next().map(|(_, said)| Arc::clone(said))
            };
            if let Some(said) = found {
                return said;
            }
            if link.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Runs `work` until it is done, the connection is lost or `limit` is over.
    pub(crate) async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Fault> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = self.lost() => Err(faults::lost()),
            () = tokio::time::sleep(limit) => {
                Err(Fault::new(FaultKind::TimedOut, format!("no answer from the server within {limit:?}")))
            }
        }
    }
}

/// Connects, once, within the settings' limits.
pub(crate) async fn dial(settings: &Settings, role: Role) -> Result<Dialled, Fault> {
    let (report, link) = watch::channel(Link::default());
    let sealed = Arc::new(AtomicBool::new(false));
    let options = options(settings, role, report, Arc::clone(&sealed));
    let begun = Instant::now();
    let limit = settings.dial_limit();
    let client = match timeout(limit, options.connect(settings.servers.as_slice())).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Err(faults::connecting(&error)),
        Err(_) => return Err(Fault::new(FaultKind::Unreachable, format!("no connection within {limit:?}"))),
    };
    if role.is_replaced() {
        sealed.store(true, Ordering::Release);
    }
    tracing::debug!(role = role.word(), took = ?begun.elapsed(), "connected to NATS");
    Ok(Dialled { client, link })
}

fn options(
    settings: &Settings,
    role: Role,
    report: watch::Sender<Link>,
    sealed: Arc<AtomicBool>,
) -> ConnectOptions {
    let login = settings.login.clone();
    let mut options = ConnectOptions::with_auth_callback(move |nonce| {
        let answer = if sealed.load(Ordering::Acquire) {
            Err("this connection is not resumed; a new one takes its place".to_owned())
        } else {
            login.answer(&nonce)
        };
        async move { answer.map_err(AuthError::new) }
    })
    .name(format!("{} {}", settings.name, role.word()))
    .connection_timeout(settings.connect_timeout)
    .request_timeout(Some(settings.ack_timeout))
    .ping_interval(settings.ping_interval)
    .client_capacity(CLIENT_CAPACITY)
    .subscription_capacity(if role == Role::Client { FEED_CAPACITY } else { REQUESTS_CAPACITY })
    .require_tls(settings.tls.required || settings.tls.first || settings.tls.own.is_some())
    .event_callback(move |event| {
        note(&report, event);
        async {}
    });
    if role.is_replaced() {
        options = options.max_reconnects(settings.servers.len()).ignore_discovered_servers();
    }
    if settings.tls.first {
        options = options.tls_first();
    }
    if let Some(ca) = &settings.tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((cert, key)) = &settings.tls.own {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    options
}

fn note(report: &watch::Sender<Link>, event: Event) {
    match event {
        Event::Connected => report.send_modify(|link| {
            link.connected = true;
            link.connects += 1;
        }),
        Event::Disconnected | Event::Closed => report.send_modify(|link| link.connected = false),
        Event::ServerError(ServerError::Other(said)) => {
            tracing::warn!(%said, "NATS refused something");
            report.send_modify(|link| {
                if link.refusals.len() == MAX_REFUSALS {
                    link.refusals.pop_front();
                }
                link.refusals.push_back((link.refused, said.into()));
                link.refused += 1;
            });
        }
        Event::SlowConsumer(_) => {
            tracing::warn!("messages from NATS came faster than they were taken; some were dropped");
        }
        _ => {}
    }
}
