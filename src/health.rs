//! What is well and what is not: each server's link, and each bus as its bridge sees it.
//!
//! The daemon writes, `/ready` reads. A process that drains is not ready, whatever else is well.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use amibus_contract::SharedBridge;
use serde::Serialize;
use tokio::sync::watch;

/// One server's link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum ServerState {
    /// Logged in; events flow.
    Up {
        /// Asterisk's version, where it told.
        asterisk: Option<String>,
    },
    /// Not logged in.
    Down {
        /// Why, in words.
        reason: String,
    },
}

/// One server as `/ready` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerReport {
    /// Its link.
    #[serde(flatten)]
    pub link: ServerState,
    /// Whether commands can be sent to it now; absent where no bus brings commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commands: Option<bool>,
    /// Why the disk refuses to take its events, in words; absent while it takes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool: Option<String>,
}

/// One bus as `/ready` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BusState {
    /// Whether the bus was reachable when last seen.
    pub ok: bool,
    /// Whether readiness needs it.
    pub required: bool,
    /// Why it is not reachable, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The whole, as `/ready` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every server is up and takes commands where any are taken, its spool is written, every required bus is
    /// reachable, and the process does not drain.
    pub ready: bool,
    /// Whether the process is on its way out.
    pub draining: bool,
    /// Each server by its configured name.
    pub servers: BTreeMap<String, ServerReport>,
    /// Each bus by its name.
    pub buses: BTreeMap<&'static str, BusState>,
}

/// Tells why a spool is not written, while it is not.
type Failing = Box<dyn Fn() -> Option<String> + Send + Sync>;

struct Bus {
    bridge: SharedBridge,
    required: bool,
}

/// The state that the daemon keeps and `/ready` shows. Shared behind an `Arc`.
pub struct Health {
    servers: BTreeMap<String, watch::Sender<ServerState>>,
    buses: BTreeMap<&'static str, Bus>,
    /// Whether commands can be sent to a server, where any are taken.
    commands: Mutex<BTreeMap<String, watch::Receiver<bool>>>,
    spools: Mutex<BTreeMap<String, Failing>>,
    draining: AtomicBool,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("report", &self.report()).finish()
    }
}

impl Health {
    /// The health of these servers, all still down, and of these buses with whether readiness needs each.
    pub fn new<S: Into<String>>(
        servers: impl IntoIterator<Item = S>,
        buses: impl IntoIterator<Item = (SharedBridge, bool)>,
    ) -> Self {
        let connecting = || ServerState::Down { reason: "not connected yet".to_owned() };
        Self {
            servers: servers
                .into_iter()
                .map(|name| (name.into(), watch::Sender::new(connecting())))
                .collect(),
            buses: buses
                .into_iter()
                .map(|(bridge, required)| (bridge.name(), Bus { bridge, required }))
                .collect(),
            commands: Mutex::default(),
            spools: Mutex::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Records a server's state; a name that is not configured is ignored.
    pub fn set_server(&self, server: &str, state: ServerState) {
        if let Some(slot) = self.servers.get(server) {
            slot.send_if_modified(|now| {
                let changed = *now != state;
                *now = state;
                changed
            });
        }
    }

    /// A server's state as it changes; `None` for a name that is not configured.
    pub fn watch_server(&self, server: &str) -> Option<watch::Receiver<ServerState>> {
        self.servers.get(server).map(watch::Sender::subscribe)
    }

    /// From now on readiness needs that commands can be sent to this server, which `ready` tells.
    pub fn needs_commands(&self, server: &str, ready: watch::Receiver<bool>) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned(), ready);
    }

    /// From now on readiness needs that this server's spool is written; `failing` tells why it is not.
    pub fn watch_spool(&self, server: &str, failing: impl Fn() -> Option<String> + Send + Sync + 'static) {
        let mut spools = self.spools.lock().unwrap_or_else(PoisonError::into_inner);
        spools.insert(server.to_owned(), Box::new(failing));
    }

    /// From now on the process is not ready: it drains.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Each bus with whether it was reachable when last seen.
    pub fn buses(&self) -> impl Iterator<Item = (&'static str, bool)> {
        self.buses.iter().map(|(name, bus)| (*name, bus.bridge.status().is_ok()))
    }

    /// Everything at this moment. Never blocks.
    pub fn report(&self) -> Report {
        let commands = self.commands.lock().unwrap_or_else(PoisonError::into_inner);
        let spools = self.spools.lock().unwrap_or_else(PoisonError::into_inner);
        let server = |(name, state): (&String, &watch::Sender<ServerState>)| {
            let commands = commands.get(name).map(|ready| *ready.borrow());
            let spool = spools.get(name).and_then(|failing| failing());
            (name.clone(), ServerReport { link: state.borrow().clone(), commands, spool })
        };
        let servers: BTreeMap<_, _> = self.servers.iter().map(server).collect();
        let buses: BTreeMap<_, _> = self
            .buses
            .iter()
            .map(|(name, bus)| {
                let reason = bus.bridge.status().err();
                (*name, BusState { ok: reason.is_none(), required: bus.required, reason })
            })
            .collect();
        let draining = self.draining.load(Ordering::Relaxed);
        let ready = !draining
            && servers.values().all(|server| {
                matches!(server.link, ServerState::Up { .. })
                    && server.commands != Some(false)
                    && server.spool.is_none()
            })
            && buses.values().all(|bus| bus.ok || !bus.required);
        Report { ready, draining, servers, buses }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_server_is_up_and_nothing_drains() {
        let health = Health::new(["a", "b"], []);
        assert!(!health.report().ready);
        health.set_server("a", ServerState::Up { asterisk: Some("22.1.0".into()) });
        health.set_server("nobody", ServerState::Up { asterisk: None });
        assert!(!health.report().ready);
        health.set_server("b", ServerState::Up { asterisk: None });
        assert!(health.report().ready);
        health.drain();
        assert!(!health.report().ready && health.report().draining);
    }

    #[test]
    fn a_server_that_takes_no_commands_yet_is_not_ready() {
        let health = Health::new(["a"], []);
        health.set_server("a", ServerState::Up { asterisk: None });
        let (send, ready) = watch::channel(false);
        health.needs_commands("a", ready);
        assert!(!health.report().ready);
        send.send_replace(true);
        assert!(health.report().ready);
        let json = serde_json::to_string(&health.report().servers).expect("serialises");
        assert_eq!(json, r#"{"a":{"state":"up","asterisk":null,"commands":true}}"#);
    }

    #[test]
    fn a_server_whose_spool_is_not_written_is_not_ready() {
        let health = Health::new(["a"], []);
        health.set_server("a", ServerState::Up { asterisk: None });
        let failing = std::sync::Arc::new(AtomicBool::new(true));
        let told = std::sync::Arc::clone(&failing);
        health.watch_spool("a", move || told.load(Ordering::Relaxed).then(|| "no space".to_owned()));
        assert!(!health.report().ready);
        let json = serde_json::to_string(&health.report().servers).expect("serialises");
        assert_eq!(json, r#"{"a":{"state":"up","asterisk":null,"spool":"no space"}}"#);
        failing.store(false, Ordering::Relaxed);
        assert!(health.report().ready);
    }

    #[test]
    fn the_report_reads_well() {
        let health = Health::new(["a"], []);
        health.set_server("a", ServerState::Down { reason: "wrong secret".into() });
        let json = serde_json::to_string(&health.report()).expect("serialises");
        assert_eq!(
            json,
            r#"{"ready":false,"draining":false,"servers":{"a":{"state":"down","reason":"wrong secret"}},"buses":{}}"#
        );
    }
}
