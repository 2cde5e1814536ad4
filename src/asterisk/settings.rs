//! Where a server is, who logs in, and the times that are kept.

use std::{fmt, path::PathBuf, time::Duration};

use amibus_ami::{ActionIds, EventMask, Limits, LoginMethod, SessionConfig, config};
use secrecy::SecretString;

/// The port of AMI in the clear, where none is given.
pub const DEFAULT_AMI_PORT: u16 = 5038;
/// The port of AMI over TLS, where none is given.
pub const DEFAULT_AMIS_PORT: u16 = 5039;
/// From the first packet to the end of the login, TLS included. Asterisk pauses 1 s before it refuses one.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait before connecting again.
pub const DEFAULT_BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest wait before connecting again.
pub const DEFAULT_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The wait before connecting again where a person has to mend something first, such as the secret.
pub const DEFAULT_SLOW_RETRY: Duration = Duration::from_secs(60);
/// A session that lived this long makes the next wait short again.
pub const DEFAULT_STABLE_AFTER: Duration = Duration::from_secs(30);

/// Where and how to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `ami://`: TCP in the clear.
    Ami {
        /// A name or an address.
        host: String,
        /// The TCP port.
        port: u16,
    },
    /// `amis://`: TLS.
    Amis {
        /// A name or an address.
        host: String,
        /// The TCP port.
        port: u16,
        /// Whom to trust, and as whom to appear.
        tls: TlsSettings,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Ami { host, port } => ("ami", host, port),
            Self::Amis { host, port, .. } => ("amis", host, port),
        };
        let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{host}{close}:{port}")
    }
}

/// Whom to trust, and as whom to appear. The files are read again for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSettings {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate and the key to appear with.
    pub client: Option<ClientCertificate>,
    /// The name that the server's certificate has to be for, where it is not the host's.
    pub server_name: Option<String>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, with the chain that it needs.
    pub certificate_file: PathBuf,
    /// Its private key.
    pub key_file: PathBuf,
}

/// One Asterisk. [`ServerSettings::new`] fills in the default times and limits.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    /// The configured name, as in `ami.event.<name>`.
    pub name: String,
    /// Where it is.
    pub target: Target,
    /// The AMI user, a section of `manager.conf`.
    pub username: String,
    /// That user's secret.
    pub secret: SecretString,
    /// How the secret is shown to be known.
    pub login: LoginMethod,
    /// Which events are asked for.
    pub events: EventMask,
    /// From the first packet to the end of the login, TLS included.
    pub connect_timeout: Duration,
    /// Silence after which a ping is sent.
    pub ping_interval: Duration,
    /// Silence after a ping that means the connection is dead.
    pub ping_deadline: Duration,
    /// From the sending of an action of amibus's own to the end of its reply.
    pub action_deadline: Duration,
    /// The first wait before connecting again.
    pub backoff_min: Duration,
    /// The longest wait before connecting again.
    pub backoff_max: Duration,
    /// The wait before connecting again where a person has to mend something first.
    pub slow_retry: Duration,
    /// A session that lived this long makes the next wait short again.
    pub stable_after: Duration,
    /// The list actions whose items are given out after each login.
    pub snapshots: Vec<String>,
    /// Whether the user sees every SequenceNumber, so that a missing one is a missed event.
    pub every_number: bool,
    /// What a session will hold.
    pub limits: Limits,
    /// Where ActionIDs come from: one for the whole process.
    pub action_ids: ActionIds,
}

impl ServerSettings {
    /// MD5 login, all events, and the default times and limits.
    pub fn new(
        name: impl Into<String>,
        target: Target,
        username: impl Into<String>,
        secret: SecretString,
        action_ids: ActionIds,
    ) -> Self {
        Self {
            name: name.into(),
            target,
            username: username.into(),
            secret,
            login: LoginMethod::default(),
            events: EventMask::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            ping_interval: config::DEFAULT_PING_INTERVAL,
            ping_deadline: config::DEFAULT_PING_DEADLINE,
            action_deadline: config::DEFAULT_ACTION_DEADLINE,
            backoff_min: DEFAULT_BACKOFF_MIN,
            backoff_max: DEFAULT_BACKOFF_MAX,
            slow_retry: DEFAULT_SLOW_RETRY,
            stable_after: DEFAULT_STABLE_AFTER,
            snapshots: ["CoreShowChannels", "BridgeList", "QueueStatus"].map(str::to_owned).to_vec(),
            every_number: true,
            limits: Limits::default(),
            action_ids,
        }
    }

    /// What a session over a connection to this server needs; `login_within` is left for the login.
    pub fn session(&self, events: EventMask, login_within: Duration) -> SessionConfig {
        SessionConfig {
            username: self.username.clone(),
            secret: self.secret.clone(),
            login: self.login,
            event_mask: events,
            ping_interval: self.ping_interval,
            ping_deadline: self.ping_deadline,
            login_deadline: login_within,
            action_deadline: self.action_deadline,
            limits: self.limits.clone(),
            action_ids: self.action_ids.clone(),
        }
    }
}

/// ActionIDs that nobody can guess: to be made once in the life of the process.
///
/// # Panics
/// The system has no randomness, with which nothing else would work either.
pub fn action_ids() -> ActionIds {
    let mut entropy = [0; 16];
    if let Err(error) = getrandom::fill(&mut entropy) {
        panic!("the system gives no randomness: {error}");
    }
    ActionIds::new(entropy)
}
