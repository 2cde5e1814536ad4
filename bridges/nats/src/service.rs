//! Commands as requests to the NATS micro service `amibus`, which `nats micro ls` and `$SRV.INFO` show.
//!
//! A stream that captures `PREFIX.command.>` answers a request with its own acknowledgement, so requests have
//! subjects of their own, `PREFIX.request.>`; those of the commands are served only where no stream takes them.

use std::collections::HashMap;

use amibus_contract::{Fault, FaultKind, Request, Scope};
use async_nats::service::{Request as ServiceRequest, Service, ServiceExt, endpoint::Endpoint};
use futures_util::{FutureExt, StreamExt, stream::SelectAll};
use tokio::sync::mpsc;

use crate::{
    handle::{Asked, Way},
    inlet::{Arrival, Arrived},
    subjects,
};

const NAME: &str = "amibus";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Several processes share the requests of a server.
const QUEUE_GROUP: &str = "amibus";

/// The service and its endpoints; stopped when dropped.
pub(crate) struct Served {
    service: Option<Service>,
    requests: SelectAll<Endpoint>,
    subjects: Vec<String>,
}

impl Served {
    /// What is listened to.
    pub(crate) fn subjects(&self) -> impl Iterator<Item = &str> {
        self.subjects.iter().map(String::as_str)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(service) = self.service.take() {
            // Stopping only tells its task, without waiting.
            let _ = service.stop().now_or_never();
        }
    }
}

/// Starts the service for the servers of `scope`.
pub(crate) async fn start(way: &Way, scope: &Scope, with_commands: bool) -> Result<Served, Fault> {
    let failed = |error: async_nats::Error| Fault::new(FaultKind::Unreachable, format!("service: {error}"));
    let builder = way.dialled.client.service_builder();
    let description = "Carries out Asterisk manager actions";
    let service = builder.description(description).queue_group(QUEUE_GROUP).start(NAME, VERSION).await;
    let service = service.map_err(failed)?;
    let mut served = Served { service: None, requests: SelectAll::new(), subjects: Vec::new() };
    for server in &scope.servers {
        let mut wanted = vec![("request", subjects::requests_of(&scope.prefix, server))];
        if with_commands {
            wanted.push(("command", subjects::commands_of(&scope.prefix, server)));
        }
        for (word, subject) in wanted {
            let metadata = HashMap::from([("server".to_owned(), server.clone())]);
            let endpoint = service.endpoint_builder().name(format!("{word}-{server}")).metadata(metadata);
            served.requests.push(endpoint.add(&subject).await.map_err(failed)?);
            served.subjects.push(subject);
        }
    }
    served.service = Some(service);
    Ok(served)
}

/// Hands requests to the inlet until the connection is given up.
pub(crate) async fn serve(mut served: Served, way: Way, arrivals: mpsc::Sender<Arrival>) {
    while let Some(request) = served.requests.next().await {
        let arrived = Arrived { request: arrived(request, &way), kept: None };
        if arrivals.send(Ok(arrived)).await.is_err() {
            return;
        }
    }
}

fn arrived(mut request: ServiceRequest, way: &Way) -> Request {
    let (server, action) = {
        let (server, action) = subjects::words(&way.prefix, &request.message.subject);
        (server.map(str::to_owned), action.map(str::to_owned))
    };
    if request.message.reply.as_ref().is_some_and(|reply| !subjects::may_reply_to(&way.prefix, reply)) {
        let head: String = request.message.reply.iter().flat_map(|reply| reply.chars()).take(64).collect();
        tracing::warn!(reply = head, "a request asks for a reply where none may go");
        request.message.reply = None;
    }
    Request {
        server,
        action,
        identity: None,
        sent_at: None,
        sender: None,
        durable: false,
        reply_wanted: request.message.reply.is_some(),
        body: request.message.payload.clone(),
        handle: Box::new(Asked { way: way.clone(), request }),
    }
}
