//! The configuration: one TOML file, environment variables over it, and typed values out of it.
//!
//! Every key stands in a table ([`keys`], and each bus's own), and everything else follows from the tables: what is
//! read, what is an error and where, what the reference says. A [`Config`] is right by construction; nobody checks
//! again. Errors are found all at once, each with its place and with what would be right.

mod bus;
mod error;
pub mod keys;
mod nearest;
mod overlay;
mod pace;
pub mod reference;
mod rules;
mod secret;
mod server;
mod single;
mod tree;
pub mod units;
mod url;
mod value;
mod walker;

#[cfg(all(test, feature = "kafka", feature = "nats", feature = "zeromq"))]
mod documents;
#[cfg(test)]
mod tests;

use std::{env::VarError, ffi::OsString, fs::File, io::Read, num::NonZeroUsize, path::Path};

use amibus_contract::Context;

use crate::{
    buses::{REGISTRY, Registration},
    filter,
};
use keys::TOP;
use overlay::Scope;
use tree::{Origin, Source, Table};
use walker::{Faults, walk};

pub use bus::Bus;
pub use error::{ConfigError, ConfigErrors, Place};
pub use nearest::nearest;
pub use overlay::VARIABLE_PREFIX;
pub use rules::{MAX_GLOB_BYTES, MAX_RULES};
pub use secret::MAX_SECRET_BYTES;
pub use server::{ClientCertificate, Login, MAX_SERVERS, Server, Tls};
pub use single::{COMMAND_BYTES, CommandConfig, Http, Log, LogFormat, MIN_SPOOL_BYTES, Shutdown, Spool};
pub use value::MAX_ENTRIES;

/// The longest configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// A whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The first words of all topics.
    pub prefix: String,
    /// What this process calls itself towards the buses.
    pub instance: String,
    /// How many threads carry messages.
    pub worker_threads: NonZeroUsize,
    /// The servers; at least one, no two of one name.
    pub servers: Vec<Server>,
    /// Which events go on.
    pub filters: Vec<filter::Rule>,
    /// What is kept between Asterisk and the buses.
    pub spool: Spool,
    /// The buses; at least one.
    pub buses: Vec<Bus>,
    /// How commands are carried out.
    pub command: CommandConfig,
    /// Health and metrics.
    pub http: Http,
    /// What amibus says about itself.
    pub log: Log,
    /// How amibus leaves.
    pub shutdown: Shutdown,
}

/// What a client of a bus (`tail`, `send`) needs of a configuration.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The first words of all topics.
    pub prefix: String,
    /// The buses that are configured, or the one that was asked for.
    pub buses: Vec<Bus>,
}

/// What a configuration is read from, beside the file.
pub struct Sources<'a> {
    /// The environment variables whose names begin with [`VARIABLE_PREFIX`].
    pub variables: Vec<(String, OsString)>,
    /// Looks up the environment variable of a secret.
    pub lookup: &'a dyn Fn(&str) -> Result<String, VarError>,
    /// Keys given on the command line, with their values: `bus.nats.url`.
    pub arguments: Vec<(String, String)>,
    /// The buses that there are.
    pub registry: &'a [Registration],
}

impl Sources<'static> {
    /// The environment of this process.
    pub fn process() -> Self {
        let ours = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok().filter(|name| name.starts_with(VARIABLE_PREFIX))?, value))
        };
        Self {
            variables: std::env::vars_os().filter_map(ours).collect(),
            lookup: &|name| std::env::var(name),
            arguments: Vec::new(),
            registry: REGISTRY,
        }
    }
}

impl Config {
    /// Reads and checks a file, with the environment of this process over it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::parse(&read(path)?, &path.display().to_string(), &Sources::process())
    }

    /// Opens the buses anew, from the same values: those that were at work cannot be used again.
    ///
    /// # Errors
    /// What a bus finds wrong now, in words.
    pub fn reopen(&mut self) -> Result<(), String> {
        let context = Context {
            prefix: self.prefix.clone(),
            instance: self.instance.clone(),
            claims_least_age: self.command.claims_least_age(),
        };
        self.buses.iter_mut().try_for_each(|bus| bus.reopen(&context))
    }

    /// Checks the text of a file, called `file` in errors.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file: &str, sources: &Sources<'_>) -> Result<Self, ConfigErrors> {
        let mut faults = Faults::new(Source { file, text }, sources.lookup);
        let root = tree_of(sources, Scope::All, &mut faults)?;
        let config = config(&root, sources.registry, &mut faults);
        if faults.is_empty() { Ok(config) } else { Err(faults.into_errors()) }
    }
}

impl ClientConfig {
    /// Reads what a client needs of a file; what concerns servers and commands is neither checked nor resolved.
    /// `only` names the one bus that is wanted. Without a file, the arguments alone must do.
    ///
    /// # Errors
    /// Everything that is wrong with these parts.
    pub fn load(
        path: Option<&Path>,
        only: Option<&str>,
        sources: &Sources<'_>,
    ) -> Result<Self, ConfigErrors> {
        let text = path.map_or_else(|| Ok(String::new()), read)?;
        let file = path.map_or_else(|| "command line".to_owned(), |path| path.display().to_string());
        let mut faults = Faults::new(Source { file: &file, text: &text }, sources.lookup);
        let root = tree_of(sources, Scope::Client, &mut faults)?;
        let top = walk(&root, &Origin::File(0), "", TOP, &TABLES, &mut faults);
        let context = single::context(&top, &mut faults);
        let buses = bus::buses(&root, sources.registry, only, &context, &mut faults);
        let client = Self { prefix: context.prefix, buses };
        if faults.is_empty() { Ok(client) } else { Err(faults.into_errors()) }
    }
}

/// The tables at the top of the file.
const TABLES: [&str; 8] = ["bus", "command", "filter", "http", "log", "server", "shutdown", "spool"];

fn read(path: &Path) -> Result<String, ConfigErrors> {
    let cannot = |message: String| {
        let place = Place::File { file: path.display().to_string(), line: 1, column: 1 };
        ConfigErrors(vec![ConfigError { place, key: String::new(), message }])
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| cannot(format!("cannot read the file: {error}")))?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| cannot(format!("cannot read the file: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(cannot(format!("the file is over {MAX_FILE_BYTES} bytes; is it the right one?")));
    }
    String::from_utf8(bytes).map_err(|_| cannot("the file is not UTF-8, as TOML is".to_owned()))
}

fn tree_of(sources: &Sources<'_>, scope: Scope, faults: &mut Faults<'_>) -> Result<Table, ConfigErrors> {
    let mut root = faults.source.parse().map_err(ConfigErrors)?;
    overlay::apply(&mut root, &sources.variables, sources.registry, scope, faults);
    for (key, value) in &sources.arguments {
        let path: Vec<&str> = key.split('.').collect();
        root.put(&path, value, &Origin::Argument(format!("{key}=...")));
    }
    Ok(root)
}

fn config(root: &Table, registry: &[Registration], faults: &mut Faults<'_>) -> Config {
    let top = walk(root, &Origin::File(0), "", TOP, &TABLES, faults);
    let context = single::context(&top, faults);
    let servers = server::servers(root, faults);
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let filters = rules::filters(root, &names, faults);
    let command = single::command(root, &names, faults);
    let context = Context { claims_least_age: command.claims_least_age(), ..context };
    let buses = bus::buses(root, registry, None, &context, faults);
    Config {
        worker_threads: single::worker_threads(&top, servers.len() * buses.len()),
        filters,
        command,
        spool: single::spool(root, faults),
        buses,
        http: single::http(root, faults),
        log: single::log(root, faults),
        shutdown: single::shutdown(root, faults),
        prefix: context.prefix,
        instance: context.instance,
        servers,
    }
}
