//! Kafka as a bridge.

use std::{sync::Arc, time::Duration};

use amibus_contract::{
    BoxFuture, Bridge, Client, Context, Fault, Inlet, Key, Kind, Outlet, Plug, Problem, Reach, Scope,
    SharedBridge, Values,
};
use tokio::time::Instant;

use crate::{
    client::KafkaClient,
    hub::Hub,
    inlet::{KafkaInlet, Members},
    keys,
    outlet::KafkaOutlet,
    probe,
    settings::Settings,
};

/// The kind of bus `[bus.kafka]`.
#[derive(Clone, Copy, Debug)]
pub struct Kafka;

impl Plug for Kafka {
    const NAME: &'static str = "kafka";
    const KEYS: &'static [Key] = keys::KEYS;

    fn open(values: &Values, context: &Context) -> Result<SharedBridge, Vec<Problem>> {
        let hub = Arc::new(Hub::new(Settings::new(values, context)?));
        Ok(Arc::new(KafkaBridge { hub, members: Members::default() }))
    }
}

struct KafkaBridge {
    hub: Arc<Hub>,
    members: Members,
}

impl Bridge for KafkaBridge {
    fn name(&self) -> &'static str {
        Kafka::NAME
    }

    fn reach(&self) -> Reach {
        Reach::Stored
    }

    fn promise(&self) -> String {
        let settings = &self.hub.settings;
        let copies = if settings.create_topics {
            format!(
                "topics made by amibus have {} replica(s) and {} partition(s)",
                settings.replication, settings.partitions
            )
        } else {
            "topics are not made by amibus".into()
        };
        format!(
            "stored by all in-sync replicas (acks=all, idempotent producer) in the topics {}.*; {copies}; a broker \
             acknowledges before its disk has it, so a copy survives its process, and more copies survive its power",
            settings.prefix
        )
    }

    fn status(&self) -> Result<(), String> {
        self.hub.health.status()
    }

    fn outlet<'a>(&'a self, _lane: &'a str) -> BoxFuture<'a, Result<Box<dyn Outlet>, Fault>> {
        Box::pin(async move {
            let [event, link, response] = [Kind::Event, Kind::Link, Kind::Response]
                .map(|kind| format!("{}.{}", self.hub.settings.prefix, kind.as_str()));
            let mut needed = vec![event.as_str(), link.as_str()];
            if !self.hub.settings.create_topics {
                needed.push(&response);
            }
            self.hub.ensure(&needed).await.inspect_err(|fault| self.hub.noted(fault))?;
            if !self.hub.topics.knows(&response) {
                // No event waits until it is made.
                let hub = self.hub.clone();
                tokio::spawn(async move {
                    if let Err(fault) = hub.ensure(&[&response]).await {
                        tracing::debug!(%fault, "the topic of responses is made with the first of them");
                    }
                });
            }
            let outlet: Box<dyn Outlet> = Box::new(KafkaOutlet::new(self.hub.clone()));
            Ok(outlet)
        })
    }

    fn inlet<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<Option<Box<dyn Inlet>>, Fault>> {
        Box::pin(async move {
            if !self.hub.settings.commands {
                return Ok(None);
            }
            let inlet: Box<dyn Inlet> = Box::new(KafkaInlet::open(&self.hub, &self.members, scope).await?);
            Ok(Some(inlet))
        })
    }

    fn keeps_commands(&self) -> bool {
        self.hub.settings.commands
    }

    fn commands_waiting(&self) -> BoxFuture<'_, Result<Option<u64>, Fault>> {
        Box::pin(std::future::ready(Ok(self.members.waiting())))
    }

    fn client<'a>(&'a self) -> BoxFuture<'a, Result<Box<dyn Client>, Fault>> {
        Box::pin(async move {
            let client: Box<dyn Client> = Box::new(KafkaClient::new(self.hub.clone()));
            Ok(client)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        Box::pin(probe::probe(&self.hub))
    }

    fn close(&self, limit: Duration) -> BoxFuture<'_, u64> {
        Box::pin(async move {
            let end = Instant::now() + limit;
            let rest = || end.saturating_duration_since(Instant::now());
            let events = self.hub.front.close(limit);
            let (lost, ()) = futures_util::future::join(events, self.members.close(limit)).await;
            // Replies and dead letters last: an acknowledge may still have been sending one.
            lost + self.hub.post.close(rest()).await
        })
    }
}
