//! The wire to one server, whole until it is cut: a proxy, or the way between namespaces where there is one.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use super::netns::{self, Way};
use super::proxy::Proxy;

/// One wire.
#[derive(Debug)]
pub(super) enum Wire {
    /// Cut in the test process, inside a message too.
    Proxy(Proxy),
    /// Cut in a router, packet by packet.
    Way { way: Arc<Way>, port: OnceLock<u16> },
}

impl Wire {
    /// Leads nowhere until [`Wire::lead_to`].
    pub(super) fn start(way: Option<&Arc<Way>>) -> Self {
        match way {
            Some(way) => Self::Way { way: Arc::clone(way), port: OnceLock::new() },
            None => Self::Proxy(Proxy::start(None)),
        }
    }

    /// To the server on this port.
    pub(super) fn lead_to(&self, port: u16) {
        match self {
            Self::Proxy(proxy) => proxy.lead_to(port),
            Self::Way { port: known, .. } => _ = known.set(port),
        }
    }

    /// Where amibus finds the server.
    pub(super) fn address(&self) -> String {
        match self {
            Self::Proxy(_) => self.address_of(""),
            Self::Way { port, .. } => self.address_of(port.get().expect("the wire leads somewhere")),
        }
    }

    /// The same, where the server has this port.
    pub(super) fn address_of(&self, port: impl Display) -> String {
        match self {
            Self::Proxy(proxy) => netns::address(proxy.port()),
            Self::Way { .. } => netns::address(port),
        }
    }

    /// Nothing goes through, and nobody is told.
    pub(super) fn half_open(&self) {
        match self {
            Self::Proxy(proxy) => proxy.half_open(),
            Self::Way { way, port } => port.get().into_iter().for_each(|port| way.half_open(*port)),
        }
    }

    /// What is there is reset, and nothing new begins.
    pub(super) fn refuse(&self) {
        match self {
            Self::Proxy(proxy) => proxy.refuse(),
            Self::Way { way, port } => port.get().into_iter().for_each(|port| way.refuse(*port)),
        }
    }

    /// Carries again. Connections that were half-open go on where they were, if nobody gave them up.
    pub(super) fn mend(&self) {
        match self {
            Self::Proxy(proxy) => proxy.mend(),
            Self::Way { way, .. } => way.mend(),
        }
    }
}
