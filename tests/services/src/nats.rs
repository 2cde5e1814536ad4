//! A real `nats-server`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::cache;
use crate::process::Process;

const READY_SECONDS: u64 = 20;

/// What differs between the NATS servers of the tests.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Whether streams and key-value buckets are to be had, on disk in the server's directory.
    pub jetstream: bool,
    /// More lines of its configuration file: users, tokens, nkeys, TLS, limits.
    pub config: String,
}

/// One `nats-server`, killed when dropped. Its other operations are those of [`Process`].
#[derive(Debug)]
pub struct Nats {
    process: Process,
}

impl Nats {
    /// Starts one and waits until it greets.
    ///
    /// # Panics
    /// Where it is not installed or does not start.
    #[must_use]
    pub fn start(options: &NatsOptions) -> Self {
        let program = cache::installed("nats/nats-server", "nats");
        let mut process = Process::prepare("nats");
        let config = process.directory().join("nats.conf");
        let mut text = format!("host: \"127.0.0.1\"\nport: {}\n{}\n", process.port(0), options.config);
        if options.jetstream {
            let store = process.directory().join("jetstream");
            text.push_str(&format!("jetstream {{ store_dir: \"{}\" }}\n", store.display()));
        }
        fs::write(&config, text).expect("the configuration of nats");
        let command = vec![program.display().to_string(), "-c".to_owned(), config.display().to_string()];
        process.start(command, READY_SECONDS, greets);
        Self { process }
    }

    /// With JetStream and nothing else.
    #[must_use]
    pub fn jetstream() -> Self {
        Self::start(&NatsOptions { jetstream: true, ..NatsOptions::default() })
    }

    /// `nats://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.process.port(0))
    }

    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.process.port(0))
    }

    /// Starts it again on the same port and data, and waits until it greets.
    pub fn restart(&mut self) {
        self.process.restart(READY_SECONDS, greets);
    }
}

/// The first thing a server says is `INFO {...}`; with JetStream that is after its streams were recovered.
fn greets(process: &Process) -> bool {
    let Ok(stream) = TcpStream::connect(("127.0.0.1", process.port(0))) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).is_ok() && line.starts_with("INFO ")
}

impl Deref for Nats {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Nats {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
