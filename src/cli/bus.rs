//! How `tail`, `send` and `dial` find their bus.

use std::path::{Path, PathBuf};

use amibus_contract::Client;

use super::Failure;
use crate::config::{Bus, ClientConfig, Sources};

/// The file that is read where none is named.
pub(super) const DEFAULT_FILE: &str = "amibus.toml";

/// Which bus, and where it is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Bus")]
pub(super) struct BusArgs {
    /// The configuration that amibus runs with; only its buses are read [default: amibus.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The bus, where several are configured: kafka, nats or zeromq
    #[arg(long, value_name = "NAME")]
    bus: Option<String>,
    /// A key of [bus.NAME], in place of the file's; with --bus and without -c, no file is read
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "bus")]
    set: Vec<String>,
    /// The first word of all topics, in place of the file's
    #[arg(long, value_name = "WORD")]
    prefix: Option<String>,
}

/// A bus that was found.
#[derive(Clone)]
pub(super) struct Found {
    pub(super) prefix: String,
    pub(super) bus: Bus,
}

impl BusArgs {
    /// Reads the file, or the arguments in its place.
    pub(super) fn find(&self) -> Result<Found, Failure> {
        let ClientConfig { prefix, buses } = self.load()?;
        match buses.as_slice() {
            [bus] => Ok(Found { prefix, bus: bus.clone() }),
            buses => {
                let names: Vec<&str> = buses.iter().map(|bus| bus.name).collect();
                let names = names.join(", ");
                Err(Failure::Usage(format!("several buses are configured ({names}): choose one with --bus")))
            }
        }
    }

    /// The same, for commands that nobody waits for one by one: the first bus that keeps them.
    pub(super) fn find_keeping(&self) -> Result<Found, Failure> {
        let ClientConfig { prefix, buses } = self.load()?;
        match buses.into_iter().find(|bus| bus.bridge.keeps_commands()) {
            Some(bus) => Ok(Found { prefix, bus }),
            None => Err(Failure::Usage(
                "this needs a bus that keeps commands until they are carried out: NATS with \
                 bus.nats.commands_stream, or Kafka, each with `commands = true`"
                    .to_owned(),
            )),
        }
    }

    /// The configured buses, one at least.
    fn load(&self) -> Result<ClientConfig, Failure> {
        let mut sources = Sources::process();
        sources.arguments = self.arguments()?;
        let file = match &self.config {
            Some(file) => Some(file.as_path()),
            None if self.set.is_empty() => Some(Path::new(DEFAULT_FILE)),
            None => None,
        };
        let config = ClientConfig::load(file, self.bus.as_deref(), &sources)?;
        if config.buses.is_empty() {
            let bus = self.bus.as_deref().unwrap_or_default();
            return Err(Failure::Usage(format!("the configuration has no [bus.{bus}]")));
        }
        Ok(config)
    }

    fn arguments(&self) -> Result<Vec<(String, String)>, Failure> {
        let mut arguments = Vec::new();
        if let Some(prefix) = &self.prefix {
            arguments.push(("prefix".to_owned(), prefix.clone()));
        }
        let Some(bus) = &self.bus else { return Ok(arguments) };
        for pair in &self.set {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Failure::Usage(format!(
                    "--set takes KEY=VALUE, e.g. url=nats://127.0.0.1:4222; got {pair:?}"
                )));
            };
            arguments.push((format!("bus.{bus}.{}", key.trim()), value.to_owned()));
        }
        Ok(arguments)
    }
}

impl Found {
    /// The consumer's and requester's side of the bus.
    pub(super) async fn client(&self) -> Result<Box<dyn Client>, Failure> {
        let client = self.bus.bridge.client().await;
        client.map_err(|fault| Failure::Failed(format!("the bus {} is not there: {fault}", self.bus.name)))
    }
}
