//! The configured values, checked.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use amibus_contract::{Context, Problem, Values};
use async_nats::ServerAddr;

use crate::login::Login;

const MAX_SERVERS: usize = 32;
const MAX_STREAM_NAME_BYTES: usize = 128;
/// What a command can be kept within on a busy machine.
pub(crate) const LEAST_ACK_WAIT: Duration = Duration::from_millis(300);

/// The bucket of the claims unless another is named.
const DEFAULT_CLAIMS_BUCKET: &str = "AMI_CLAIMS";
const DEFAULT_CLAIMS_MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What the bridge works with; every value is valid.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(crate) prefix: String,
    pub(crate) instance: String,
    pub(crate) name: String,
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) stream: Option<StreamSettings>,
    pub(crate) commands: Option<CommandSettings>,
    pub(crate) claims: Option<ClaimSettings>,
    pub(crate) login: Login,
    pub(crate) tls: Tls,
    pub(crate) connect_timeout: Duration,
    pub(crate) ack_timeout: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_in_flight_per_key: Option<usize>,
}

/// The stream that events go to.
#[derive(Clone, Debug)]
pub(crate) struct StreamSettings {
    pub(crate) name: String,
    pub(crate) create: bool,
    pub(crate) replicas: usize,
    pub(crate) max_age: Duration,
    pub(crate) max_bytes: Option<i64>,
    pub(crate) duplicate_window: Duration,
}

/// How commands are taken.
#[derive(Clone, Debug)]
pub(crate) struct CommandSettings {
    pub(crate) stream: Option<String>,
    pub(crate) create: bool,
    pub(crate) replicas: usize,
    pub(crate) ack_wait: Duration,
    pub(crate) max_ack_pending: i64,
}

/// The key-value bucket that claims are shared in.
#[derive(Clone, Debug)]
pub(crate) struct ClaimSettings {
    pub(crate) bucket: String,
    pub(crate) create: bool,
    pub(crate) replicas: usize,
    pub(crate) max_age: Duration,
    /// A bucket that forgets sooner is refused.
    pub(crate) least_age: Duration,
    pub(crate) max_bytes: Option<i64>,
}

impl ClaimSettings {
    /// The stream under the bucket.
    pub(crate) fn stream(&self) -> String {
        format!("KV_{}", self.bucket)
    }

    /// Where the entry of a key is written.
    pub(crate) fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }
}

/// How TLS is done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tls {
    pub(crate) required: bool,
    pub(crate) first: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) own: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// Checks the values.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn new(values: &Values, context: &Context) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let settings = Self {
            prefix: context.prefix.clone(),
            instance: context.instance.clone(),
            name: values.text("name").unwrap_or(&context.instance).to_owned(),
            servers: servers(values, &mut problems),
            stream: stream(values, &mut problems),
            commands: commands(values, &mut problems),
            claims: claims(values, context, &mut problems),
            login: Login::new(values, &mut problems),
            tls: Tls::new(values, &mut problems),
            connect_timeout: positive(values, "connect_timeout", 5, &mut problems),
            ack_timeout: positive(values, "ack_timeout", 5, &mut problems),
            ping_interval: positive(values, "ping_interval", 10, &mut problems),
            max_in_flight: count(values, "max_in_flight", 512),
            max_in_flight_per_key: values
                .integer("max_in_flight_per_key")
                .and_then(|count| usize::try_from(count).ok()),
        };
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// How long a stream must at least remember ids: as long as it may take from sending a message to sending it again
    /// on another connection, while the server still reads the old one.
    pub(crate) fn least_duplicate_window(&self) -> Duration {
        2 * (self.dial_limit() + self.ack_timeout + self.ping_interval)
    }

    /// How long connecting may take when every server has to be tried.
    pub(crate) fn dial_limit(&self) -> Duration {
        self.connect_timeout * u32::try_from(self.servers.len()).unwrap_or(1).max(1)
    }
}

fn servers(values: &Values, problems: &mut Vec<Problem>) -> Vec<ServerAddr> {
    let mut servers = Vec::new();
    let text = values.text("url").unwrap_or_default();
    for url in text.split(',').map(str::trim) {
        match url.parse::<ServerAddr>() {
            _ if url.is_empty() => problems.push(Problem::new("url", "is empty; e.g. nats://127.0.0.1:4222")),
            Ok(server) if server.has_user_pass() || server.password().is_some() => {
                problems.push(Problem::new("url", "holds a login; use `user` and `password`, or `token`"));
            }
            Ok(server) if matches!(server.scheme(), "nats" | "tls") => servers.push(server),
            Ok(_) => problems.push(Problem::new("url", format!("{url}: only nats:// and tls:// are spoken"))),
            Err(error) => problems.push(Problem::new("url", format!("{url}: {error}"))),
        }
    }
    if servers.len() > MAX_SERVERS {
        problems.push(Problem::new("url", format!("names more than {MAX_SERVERS} servers")));
    }
    servers
}

fn stream(values: &Values, problems: &mut Vec<Problem>) -> Option<StreamSettings> {
    let name = stream_name(values, "stream", problems)?;
    let max_age = values.duration("max_age").unwrap_or_default();
    let duplicate_window = values.duration("duplicate_window").unwrap_or(Duration::from_secs(120));
    if !max_age.is_zero() && duplicate_window > max_age {
        problems.push(Problem::new("duplicate_window", "is longer than max_age"));
    }
    Some(StreamSettings {
        name,
        create: values.flag("create").unwrap_or(true),
        replicas: count(values, "replicas", 1),
        max_age,
        max_bytes: values.size("max_bytes").map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        duplicate_window,
    })
}

fn commands(values: &Values, problems: &mut Vec<Problem>) -> Option<CommandSettings> {
    let stream = stream_name(values, "commands_stream", problems);
    if stream.is_some() && stream.as_deref() == values.text("stream") {
        problems.push(Problem::new(
            "commands_stream",
            "is the same as `stream`; commands need a stream of their own",
        ));
    }
    let ack_wait = values.duration("ack_wait").unwrap_or(Duration::from_secs(30));
    if ack_wait < LEAST_ACK_WAIT {
        problems.push(Problem::new("ack_wait", format!("is less than {} ms", LEAST_ACK_WAIT.as_millis())));
    }
    if !values.flag("commands").unwrap_or(false) {
        if stream.is_some() {
            problems.push(Problem::new("commands_stream", "is of no use without `commands = true`"));
        }
        return None;
    }
    Some(CommandSettings {
        stream,
        create: values.flag("create").unwrap_or(true),
        replicas: count(values, "replicas", 1),
        ack_wait,
        max_ack_pending: values.integer("max_ack_pending").unwrap_or(20_000),
    })
}

/// Left out, it is on where a stream keeps the commands: several processes may take from that.
fn claims(values: &Values, context: &Context, problems: &mut Vec<Problem>) -> Option<ClaimSettings> {
    let bucket = match values.text("claims_bucket") {
        Some("") => return None,
        Some(_) => stream_name(values, "claims_bucket", problems)?,
        None if values.text("commands_stream").is_some() => DEFAULT_CLAIMS_BUCKET.to_owned(),
        None => return None,
    };
    let least_age = context.claims_least_age;
    let max_age = values.duration("claims_max_age").unwrap_or(DEFAULT_CLAIMS_MAX_AGE.max(least_age));
    if max_age.is_zero() {
        problems.push(Problem::new("claims_max_age", "is zero"));
    } else if max_age < least_age {
        let message = format!(
            "is shorter than {least_age:?}, for which the journal knows a command (command.journal_max_age), or an owner may \
             be silent (three times command.claim_takeover)"
        );
        problems.push(Problem::new("claims_max_age", message));
    }
    Some(ClaimSettings {
        bucket,
        create: values.flag("create").unwrap_or(true),
        replicas: count(values, "replicas", 1),
        max_age,
        least_age,
        max_bytes: values.size("claims_max_bytes").map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
    })
}

fn stream_name(values: &Values, key: &'static str, problems: &mut Vec<Problem>) -> Option<String> {
    let name = values.text(key)?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_STREAM_NAME_BYTES || !name.chars().all(word) {
        let message = format!("{name:?}: a stream's name is 1 to {MAX_STREAM_NAME_BYTES} of [A-Za-z0-9_-]");
        problems.push(Problem::new(key, message));
    }
    Some(name.to_owned())
}

fn positive(values: &Values, key: &'static str, default_secs: u64, problems: &mut Vec<Problem>) -> Duration {
    let value = values.duration(key).unwrap_or(Duration::from_secs(default_secs));
    if value.is_zero() {
        problems.push(Problem::new(key, "is zero"));
    }
    value
}

fn count(values: &Values, key: &str, default: usize) -> usize {
    values.integer(key).and_then(|value| usize::try_from(value).ok()).unwrap_or(default)
}

impl Tls {
    fn new(values: &Values, problems: &mut Vec<Problem>) -> Self {
        let path = |key| values.text(key).map(PathBuf::from);
        let mut bad = |key, error: String| problems.push(Problem::new(key, error));
        let (ca, cert, key) = (path("tls.ca"), path("tls.cert"), path("tls.key"));
        for (name, path) in [("tls.ca", &ca), ("tls.cert", &cert)] {
            if let Some(path) = path
                && let Err(error) = crate::login::check_certificates(path)
            {
                bad(name, error);
            }
        }
        if let Some(path) = &key
            && let Err(error) = crate::login::check_key(path)
        {
            bad("tls.key", error);
        }
        let own = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (Some(_), None) => {
                bad("tls.key", "is missing; `tls.cert` needs it".to_owned());
                None
            }
            (None, Some(_)) => {
                bad("tls.cert", "is missing; `tls.key` needs it".to_owned());
                None
            }
            (None, None) => None,
        };
        let flag = |key| values.flag(key).unwrap_or(false);
        Self { required: flag("tls.required"), first: flag("tls.first"), ca, own }
    }
}

/// The logins that are configured, by key: more than one is a mistake.
pub(crate) fn logins(values: &Values) -> BTreeSet<&'static str> {
    let given = |key: &str| values.text(key).is_some() || values.secret(key).is_some();
    ["user", "token", "nkey", "credentials"].into_iter().filter(|key| given(key)).collect()
}
