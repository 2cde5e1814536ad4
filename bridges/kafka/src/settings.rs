//! Typed values become settings, with everything that is wrong with them told at once.

use std::{fmt, fs::File, time::Duration};

use amibus_contract::{Context, Problem, Values};
use rdkafka::ClientConfig;
use secrecy::ExposeSecret;

use crate::passthrough;

const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// The bounds of librdkafka's `message.max.bytes`, in bytes.
const MESSAGE_BYTES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000;
const DEFAULT_MECHANISM: &str = "SCRAM-SHA-512";

/// The settings of one bus, valid.
pub(crate) struct Settings {
    /// Where the cluster is and how we log in, and what the user passes through.
    pub(crate) base: Base,
    pub(crate) prefix: String,
    pub(crate) brokers: String,
    pub(crate) commands: bool,
    pub(crate) group: String,
    pub(crate) create_topics: bool,
    pub(crate) partitions: i32,
    pub(crate) replication: i32,
    pub(crate) connect_timeout: Duration,
    pub(crate) publish_timeout: Duration,
    pub(crate) max_message_bytes: u64,
}

/// A configuration that shows no values: librdkafka has more secrets than rdkafka hides.
pub(crate) struct Base(pub(crate) ClientConfig);

impl fmt::Debug for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<&str> = self.0.config_map().keys().copied().collect();
        names.sort_unstable();
        f.debug_tuple("Base").field(&names).finish()
    }
}

impl std::ops::Deref for Base {
    type Target = ClientConfig;

    fn deref(&self) -> &ClientConfig {
        &self.0
    }
}

impl Settings {
    /// Checks the values. Reads no more than whether the named files can be opened.
    pub(crate) fn new(values: &Values, context: &Context) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut base = ClientConfig::new();
        let brokers = brokers(values, &mut problems);
        base.set("bootstrap.servers", &brokers);
        base.set("client.id", values.text("client_id").unwrap_or(&context.instance));
        security(values, &mut base, &mut problems);
        if let Some(extra) = values.map("librdkafka") {
            problems.extend(passthrough::apply(extra, &mut base));
        }
        if let Err(error) = amibus_contract::message::check_prefix(&context.prefix) {
            problems.push(Problem::new("brokers", format!("the topics' prefix is not usable: {error}")));
        }
        let group = values.text("group").unwrap_or("amibus").to_owned();
        if group.trim().is_empty() {
            problems.push(Problem::new("group", "a consumer group has a name"));
        }
        let settings = Self {
            base: Base(base),
            prefix: context.prefix.clone(),
            brokers,
            commands: values.flag("commands").unwrap_or(false),
            group,
            create_topics: values.flag("create_topics").unwrap_or(true),
            partitions: count(values, "partitions", 6),
            replication: count(values, "replication", 1),
            connect_timeout: timeout(values, "connect_timeout", 5, &mut problems),
            publish_timeout: timeout(values, "publish_timeout", 30, &mut problems),
            max_message_bytes: max_message_bytes(values, &mut problems),
        };
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}

fn brokers(values: &Values, problems: &mut Vec<Problem>) -> String {
    let text = values.text("brokers").unwrap_or_default();
    let addresses: Vec<&str> = text.split(',').map(str::trim).collect();
    for address in &addresses {
        if let Some(message) = address_problem(address) {
            problems.push(Problem::new("brokers", message));
        }
    }
    addresses.join(",")
}

fn address_problem(address: &str) -> Option<String> {
    if address.is_empty() {
        return Some("an address is empty: write host:port, joined by commas".into());
    }
    if address.contains("://") || address.contains(char::is_whitespace) {
        return Some(format!("{address:?} is not host:port; what protects the connection is in security"));
    }
    let port = address.rsplit_once(':').map(|(_, port)| port).filter(|_| !address.ends_with(']'));
    let bad = port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0));
    bad.then(|| format!("{address:?} has no usable port: 1 to 65535"))
}

fn security(values: &Values, base: &mut ClientConfig, problems: &mut Vec<Problem>) {
    let security = values.text("security").unwrap_or("plaintext");
    let (sasl, tls) = (security.starts_with("sasl"), security.ends_with("tls"));
    let protocol = match (sasl, tls) {
        (false, false) => "plaintext",
        (false, true) => "ssl",
        (true, false) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    base.set("security.protocol", protocol);
    if sasl {
        login(values, base, problems);
    } else {
        for key in ["sasl.mechanism", "sasl.username", "sasl.password"] {
            unused(values, key, security, "sasl_plaintext or sasl_tls", problems);
        }
    }
    if tls {
        certificates(values, base, problems);
    } else {
        for key in ["tls.ca", "tls.cert", "tls.key", "tls.key_password"] {
            unused(values, key, security, "tls or sasl_tls", problems);
        }
    }
}

/// A login that is configured and would not be used is a mistake, not a preference.
fn unused(values: &Values, key: &'static str, security: &str, right: &str, problems: &mut Vec<Problem>) {
    if values.0.contains_key(key) {
        let message = format!("without effect while security is {security}: set security to {right}");
        problems.push(Problem::new(key, message));
    }
}

fn login(values: &Values, base: &mut ClientConfig, problems: &mut Vec<Problem>) {
    base.set("sasl.mechanisms", values.text("sasl.mechanism").unwrap_or(DEFAULT_MECHANISM));
    match values.text("sasl.username").filter(|name| !name.is_empty()) {
        Some(name) => drop(base.set("sasl.username", name)),
        None => problems.push(Problem::new("sasl.username", "a SASL login needs a user name")),
    }
    match values.secret("sasl.password") {
        Some(password) => drop(base.set("sasl.password", password.expose_secret())),
        None => problems.push(Problem::new("sasl.password", "a SASL login needs a password")),
    }
}

fn certificates(values: &Values, base: &mut ClientConfig, problems: &mut Vec<Problem>) {
    // A librdkafka with an OpenSSL of its own looks for the system's authorities where distributions keep them.
    base.set("ssl.ca.location", values.text("tls.ca").unwrap_or("probe"));
    for (key, setting) in [("tls.cert", "ssl.certificate.location"), ("tls.key", "ssl.key.location")] {
        if let Some(path) = values.text(key) {
            base.set(setting, path);
        }
    }
    for key in ["tls.ca", "tls.cert", "tls.key"] {
        if let Some(path) = values.text(key)
            && let Err(error) = File::open(path)
        {
            problems.push(Problem::new(key, format!("{path} cannot be read: {error}")));
        }
    }
    match (values.text("tls.cert"), values.text("tls.key")) {
        (Some(_), None) => problems.push(Problem::new("tls.key", "tls.cert needs its key")),
        (None, Some(_)) => problems.push(Problem::new("tls.cert", "tls.key needs its certificate")),
        _ => {}
    }
    if let Some(password) = values.secret("tls.key_password") {
        base.set("ssl.key.password", password.expose_secret());
    }
    let verify = values.flag("tls.verify_hostname").unwrap_or(true);
    base.set("ssl.endpoint.identification.algorithm", if verify { "https" } else { "none" });
}

fn count(values: &Values, key: &str, default: i32) -> i32 {
    values.integer(key).and_then(|n| i32::try_from(n).ok()).unwrap_or(default)
}

fn timeout(
    values: &Values,
    key: &'static str,
    default_seconds: u64,
    problems: &mut Vec<Problem>,
) -> Duration {
    let time = values.duration(key).unwrap_or(Duration::from_secs(default_seconds));
    if !(MIN_TIMEOUT..=MAX_TIMEOUT).contains(&time) {
        problems.push(Problem::new(key, format!("from {MIN_TIMEOUT:?} to {MAX_TIMEOUT:?}, got {time:?}")));
    }
    time
}

fn max_message_bytes(values: &Values, problems: &mut Vec<Problem>) -> u64 {
    let bytes = values.size("max_message_bytes").unwrap_or(1_000_000);
    if !MESSAGE_BYTES.contains(&bytes) {
        let message = format!("from {} to {} bytes, got {bytes}", MESSAGE_BYTES.start(), MESSAGE_BYTES.end());
        problems.push(Problem::new("max_message_bytes", message));
    }
    bytes
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
