//! The bridge itself.

use std::{sync::Arc, time::Duration};

use amibus_contract::{
    BoxFuture, Bridge, Claims, Client, Context, Fault, Inlet, Key, Outlet, Plug, Problem, Reach, Scope,
    SharedBridge, Values,
};

use crate::{
    claims::Bucket, client::NatsClient, core::CoreOutlet, depth::Depth, hub::Hub, inlet::NatsInlet,
    jet::JetOutlet, keys::KEYS, probe, settings::Settings, stream,
};

/// The kind of bus.
#[derive(Clone, Copy, Debug)]
pub struct Nats;

impl Plug for Nats {
    const NAME: &'static str = "nats";
    const KEYS: &'static [Key] = KEYS;

    fn open(values: &Values, context: &Context) -> Result<SharedBridge, Vec<Problem>> {
        let settings = Settings::new(values, context)?;
        let claims = settings.claims.clone().map(|wanted| Arc::new(Bucket::new(&settings, wanted)));
        Ok(Arc::new(NatsBridge { claims, hub: Arc::new(Hub::new(settings)), depth: Depth::default() }))
    }
}

struct NatsBridge {
    hub: Arc<Hub>,
    claims: Option<Arc<Bucket>>,
    depth: Depth,
}

impl Bridge for NatsBridge {
    fn name(&self) -> &'static str {
        Nats::NAME
    }

    fn reach(&self) -> Reach {
        if self.hub.settings.stream.is_some() { Reach::Stored } else { Reach::Sent }
    }

    fn promise(&self) -> String {
        let Some(wanted) = &self.hub.settings.stream else {
            return "read by the NATS server, which hands it to whoever listens at that moment and keeps nothing; \
                    what a broken connection leaves in doubt is sent again with the same id"
                .to_owned();
        };
        let settings = &self.hub.settings;
        let line = self.hub.status().ok();
        let found = line.as_ref().and_then(|line| Some((line, line.stream.as_ref()?)));
        let (how, order) = match found {
            Some((line, config)) => {
                let order = stream::order_in_words(config, line.is_alone, settings.max_in_flight_per_key);
                (stream::in_words(config), order)
            }
            None => ("not looked at yet".to_owned(), "the order depends on the stream"),
        };
        format!(
            "stored by JetStream stream {} ({how}); survives a killed server, but not a power cut within its \
             `sync_interval` (2 min unless set); {order}; refused messages are set aside under {}.dead.>",
            wanted.name, settings.prefix
        )
    }

    fn status(&self) -> Result<(), String> {
        self.hub.status().map(drop)
    }

    fn outlet<'a>(&'a self, _lane: &'a str) -> BoxFuture<'a, Result<Box<dyn Outlet>, Fault>> {
        Box::pin(async move {
            self.hub.open()?;
            self.hub.keep();
            let hub = Arc::clone(&self.hub);
            Ok(match &self.hub.settings.stream {
                Some(stream) => {
                    let stream = stream.name.clone();
                    Box::new(JetOutlet::new(hub, stream)) as Box<dyn Outlet>
                }
                None => Box::new(CoreOutlet::new(hub)),
            })
        })
    }

    fn inlet<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Result<Option<Box<dyn Inlet>>, Fault>> {
        Box::pin(async move {
            let Some(commands) = self.hub.settings.commands.clone() else { return Ok(None) };
            self.hub.keep();
            let inlet = NatsInlet::open(&self.hub, commands, scope).await?;
            self.depth.of(inlet.consumers());
            Ok(Some(Box::new(inlet) as Box<dyn Inlet>))
        })
    }

    fn keeps_commands(&self) -> bool {
        self.hub.settings.commands.as_ref().is_some_and(|commands| commands.stream.is_some())
    }

    fn claims(&self) -> Option<Arc<dyn Claims>> {
        self.claims.clone().map(|claims| claims as Arc<dyn Claims>)
    }

    fn commands_waiting(&self) -> BoxFuture<'_, Result<Option<u64>, Fault>> {
        Box::pin(self.depth.waiting())
    }

    fn client<'a>(&'a self) -> BoxFuture<'a, Result<Box<dyn Client>, Fault>> {
        Box::pin(async move {
            let client = NatsClient::open(&self.hub.settings).await?;
            Ok(Box::new(client) as Box<dyn Client>)
        })
    }

    fn probe(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        Box::pin(probe::probe(&self.hub))
    }

    /// An outlet has no queue of its own: what it accepted was confirmed before its answer. So nothing is left.
    fn close(&self, limit: Duration) -> BoxFuture<'_, u64> {
        Box::pin(async move {
            let _ = tokio::time::timeout(limit, self.hub.close()).await;
            0
        })
    }
}
