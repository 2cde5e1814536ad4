//! A bus of which a test says what its outlets and inlets do.

use std::{sync::Arc, time::Duration};

use amibus_contract::{
    BoxFuture, Bridge, Client, Fault, FaultKind, Inlet, Outlet, Reach, Scope, SharedBridge,
};

/// Its name.
pub(crate) const BUS: &str = "test";

type Opened<T> = Result<Box<T>, Fault>;

struct Bus<O, I> {
    outlet: O,
    inlet: I,
}

/// A bus that can be configured and nothing else.
pub(crate) fn deaf() -> SharedBridge {
    Arc::new(Bus { outlet: |_: &str| Err(refusal()), inlet: || None })
}

/// A bus that takes no commands; `outlet` makes an outlet for a lane's name.
pub(crate) fn of_outlets<O: Outlet + 'static>(
    outlet: impl Fn(&str) -> O + Send + Sync + 'static,
) -> SharedBridge {
    Arc::new(Bus { outlet: move |lane: &str| Ok(Box::new(outlet(lane)) as Box<dyn Outlet>), inlet: || None })
}

/// A bus that publishes nothing.
pub(crate) fn of_inlets<I: Inlet + 'static>(inlet: impl Fn() -> I + Send + Sync + 'static) -> SharedBridge {
    Arc::new(Bus {
        outlet: |_: &str| Err(refusal()),
        inlet: move || Some(Box::new(inlet()) as Box<dyn Inlet>),
    })
}

fn refusal() -> Fault {
    Fault::new(FaultKind::Closed, "it has none")
}

impl<O, I> Bridge for Bus<O, I>
where
    O: Fn(&str) -> Opened<dyn Outlet> + Send + Sync,
    I: Fn() -> Option<Box<dyn Inlet>> + Send + Sync,
{
    fn name(&self) -> &'static str {
        BUS
    }
    fn reach(&self) -> Reach {
        Reach::Stored
    }
    fn promise(&self) -> String {
        "what a test wants".to_owned()
    }
    fn status(&self) -> Result<(), String> {
        Ok(())
    }
    fn outlet<'a>(&'a self, lane: &'a str) -> BoxFuture<'a, Opened<dyn Outlet>> {
        Box::pin(async move { (self.outlet)(lane) })
    }
    fn inlet<'a>(&'a self, _: &'a Scope) -> BoxFuture<'a, Result<Option<Box<dyn Inlet>>, Fault>> {
        Box::pin(async { Ok((self.inlet)()) })
    }
    fn client<'a>(&'a self) -> BoxFuture<'a, Opened<dyn Client>> {
        Box::pin(async { Err(refusal()) })
    }
    fn probe(&self) -> BoxFuture<'_, Result<Vec<String>, Fault>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn close(&self, _: Duration) -> BoxFuture<'_, u64> {
        Box::pin(async { 0 })
    }
}
