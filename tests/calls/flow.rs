//! A sender at work: `flow.py` publishes commands at a pace, until all are published or it is told to end.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use amibus_services::Python;
use serde_json::json;

use super::judge::{Delivery, Fault, Told};
use super::rig::{PATIENCE, script, wait};
use super::stores;
use super::wiretap::VARIABLE;

/// What the ids of commands begin with that are no calls.
pub(super) const PING: &str = "ping";
/// More commands than any test publishes before it ends its flow.
pub(super) const PLENTY: usize = 50_000;

/// How commands come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bus {
    /// Requests, which nobody keeps: the sender makes them until they are answered.
    Nats,
    /// The same.
    ZeroMq,
    JetStream,
    Kafka,
}

impl Bus {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::ZeroMq => "zeromq",
            Self::JetStream => "jetstream",
            Self::Kafka => "kafka",
        }
    }
}

/// One sender.
pub(super) struct Flow {
    /// Until it is ended.
    python: Option<Python>,
    file: PathBuf,
    commands: usize,
    /// Commands a second.
    rate: u32,
}

impl Flow {
    /// Publishes these commands (JSON) for amibus whose topics begin with `prefix`, and stores what becomes of them beside
    /// the file `plan`.
    pub(super) fn start(
        bus: Bus,
        address: &str,
        prefix: &str,
        plan: &Path,
        commands: &[String],
        rate: u32,
    ) -> Self {
        fs::write(plan, commands.iter().map(|line| format!("{line}\n")).collect::<String>()).expect("a plan");
        let file = plan.with_extension("tsv");
        let (plan, store) = (plan.display().to_string(), file.display().to_string());
        let words = [bus.name(), address, prefix, &rate.to_string(), &plan, &store];
        let python = Python::spawn(script("flow.py"), &words);
        assert_eq!(python.line(PATIENCE).as_deref(), Some("ready"));
        Self { python: Some(python), file, commands: commands.len(), rate }
    }

    /// How many commands it publishes.
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    /// What it has published and what it was answered, as [`stores::flow`] counts.
    pub(super) fn stored(&self, first: u64) -> (Vec<Delivery>, Vec<Told>, u64) {
        stores::flow(&self.file, first)
    }

    /// When it heard no replies.
    pub(super) fn deaf(&self) -> Vec<Fault> {
        stores::deaf(&self.file)
    }

    fn published(&self) -> usize {
        self.stored(0).0.len()
    }

    /// Waits until all that was to be published is kept by its bus: so long beyond what its pace needs.
    pub(super) fn wait_until_sent(&self, beyond: Duration) {
        let left = self.commands.saturating_sub(self.published());
        if left > 0 {
            self.said_sent(beyond + self.needs(left));
        }
    }

    /// Ends it once `least` commands are published, so long beyond what its pace needs. Whatever was done before was done
    /// while it flowed.
    pub(super) fn end_after(&mut self, least: usize, beyond: Duration) {
        let left = least.saturating_sub(self.published());
        wait("so many commands", beyond + self.needs(left), || self.published() >= least);
        assert!(self.published() < self.commands, "the flow was over before it was to end");
        fs::write(self.file.with_extension("end"), "").expect("the sign to end");
        self.said_sent(beyond);
        self.commands = self.published();
    }

    /// Ends it, where all that was to be published is, and all that is wanted was answered: it listens no more.
    pub(super) fn dismiss(&mut self) {
        self.python = None;
    }

    fn said_sent(&self, within: Duration) {
        let python = self.python.as_ref().expect("it was not ended");
        assert_eq!(python.line(within).as_deref(), Some("sent"));
    }

    fn needs(&self, commands: usize) -> Duration {
        Duration::from_secs(commands as u64 / u64::from(self.rate))
    }
}

/// Originates of calls that last so many seconds; their ids begin with `name`.
pub(super) fn originates(name: &str, count: usize, seconds: impl Display) -> Vec<String> {
    let one = |n| {
        let id = format!("{name}-{n}");
        json!({
            "id": id, "server": "pbx", "action": "Originate",
            "fields": {
                "Channel": format!("Local/9{seconds}@calls/n"), "Context": "calls", "Exten": "leg", "Priority": 1,
                "Variable": { VARIABLE: id },
            },
        })
        .to_string()
    };
    (0..count).map(one).collect()
}

/// Commands that bring no call.
pub(super) fn pings(name: &str, count: usize) -> Vec<String> {
    let one =
        |n| json!({ "id": format!("{PING}-{name}-{n}"), "server": "pbx", "action": "Ping" }).to_string();
    (0..count).map(one).collect()
}
