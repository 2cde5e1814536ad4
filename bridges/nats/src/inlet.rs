//! Commands, from the micro service and from the stream alike.

use std::sync::Arc;

use amibus_contract::{BoxFuture, Fault, Inlet, Request, Scope};
use async_nats::jetstream::context::ContextBuilder;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    ahead::AheadCount,
    barrier::Barrier,
    depth::Consumers,
    dial::{self, Role},
    faults,
    handle::Way,
    hub::Hub,
    pull::{self, Pull},
    service,
    settings::CommandSettings,
};

/// Commands that wait for the root to ask; the rest waits in NATS.
const WAITING_COMMANDS: usize = 1;

/// A command that waits to be taken.
pub(crate) struct Arrived {
    pub(crate) request: Request,
    /// Of one that a stream keeps: until when the stream gives it to nobody else, as whoever keeps it extends that, and
    /// who is to be told that it was taken.
    pub(crate) kept: Option<(watch::Receiver<Instant>, oneshot::Sender<()>)>,
}

/// A command, or why there will be none until somebody mends it.
pub(crate) type Arrival = Result<Arrived, Fault>;

/// Where commands come in.
pub(crate) struct NatsInlet {
    arrivals: mpsc::Receiver<Arrival>,
    closed: watch::Receiver<bool>,
    tasks: JoinSet<()>,
    consumers: Option<Consumers>,
}

impl NatsInlet {
    pub(crate) async fn open(
        hub: &Arc<Hub>,
        commands: CommandSettings,
        scope: &Scope,
    ) -> Result<Self, Fault> {
        let settings = &hub.settings;
        let dialled = dial::dial(settings, Role::Commands).await?;
        let context = ContextBuilder::new()
            .timeout(settings.ack_timeout)
            .ack_timeout(settings.ack_timeout)
            .build(dialled.client.clone());
        let way = Way {
            dialled,
            context,
            prefix: scope.prefix.clone(),
            limit: settings.ack_timeout,
            lost: Arc::default(),
        };
        let (sender, arrivals) = mpsc::channel(WAITING_COMMANDS);
        let mut tasks = JoinSet::new();
        let served = service::start(&way, scope, commands.stream.is_none()).await?;
        let mut consumers = None;
        if let Some(stream) = &commands.stream {
            let names =
                scope.servers.iter().map(|server| pull::durable(&settings.instance, server)).collect();
            let (dialled, context, ahead) = (way.dialled.clone(), way.context.clone(), AheadCount::default());
            for server in &scope.servers {
                let pull = Pull {
                    way: way.clone(),
                    settings: commands.clone(),
                    instance: settings.instance.clone(),
                    server: server.clone(),
                    arrivals: sender.clone(),
                    ahead: ahead.clone(),
                };
                let consumer = pull.consumer().await?;
                tasks.spawn(pull.run(consumer));
            }
            consumers = Some(Consumers { dialled, context, stream: stream.clone(), names, ahead });
        }
        // A request that is sent after this is seen.
        let mut barrier = Barrier::new(&way.dialled).await?;
        way.dialled.within(way.limit, barrier.settle(&way.dialled)).await??;
        if let Some(said) = served.subjects().find_map(|subject| way.dialled.refusal(0, subject)) {
            return Err(faults::forbidden(&said));
        }
        tasks.spawn(service::serve(served, way, sender));
        Ok(Self { arrivals, closed: hub.closed(), tasks, consumers })
    }

    /// What takes commands from the stream, where there is one.
    pub(crate) fn consumers(&self) -> Option<Consumers> {
        self.consumers.clone()
    }

    async fn take(&mut self) -> Result<Option<Request>, Fault> {
        loop {
            let arrival = tokio::select! {
                biased;
                _ = self.closed.wait_for(|closed| *closed) => {
                    self.tasks.abort_all();
                    return Ok(None);
                }
                arrival = self.arrivals.recv() => arrival,
            };
            let Some(arrived) = arrival.transpose()? else { return Ok(None) };
            let Some((fresh_until, taken)) = arrived.kept else { return Ok(Some(arrived.request)) };
            let is_fresh = Instant::now() < *fresh_until.borrow();
            let _ = taken.send(());
            // Otherwise it was given up on while it waited here: the stream delivers it again.
            if is_fresh {
                return Ok(Some(arrived.request));
            }
        }
    }
}

impl Inlet for NatsInlet {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Request>, Fault>> {
        Box::pin(self.take())
    }
}
