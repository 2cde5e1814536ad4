//! What amibus says about itself: on standard error, as text on a terminal and as JSON otherwise.

mod lossy;

use std::io::{IsTerminal, stderr};

use tracing::{level_filters::LevelFilter, warn};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{MakeWriter, writer::BoxMakeWriter},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::config::LogFormat;

pub use lossy::{END_LIMIT, Keeper, MAX_WAITING_LINES};

/// The environment variable that goes before the configured level.
pub const VARIABLE: &str = "RUST_LOG";

/// Libraries that speak of every connection, or of what amibus says in its own words: not above these levels, unless
/// somebody names them.
const QUIET: [(&str, LevelFilter); 5] = [
    ("zeromq", LevelFilter::WARN),
    // Warns of a socket that is gone already when it is to be removed.
    ("zeromq::transport::ipc", LevelFilter::ERROR),
    ("async_nats", LevelFilter::OFF),
    ("librdkafka", LevelFilter::ERROR),
    ("rdkafka", LevelFilter::ERROR),
];

/// Whether `level` is a level or a list of directives.
///
/// # Errors
/// What is wrong, in words.
pub fn check(level: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let plain = level.chars().all(|c| c.is_ascii_alphanumeric());
    if plain && !LEVELS.contains(&level) {
        let near = crate::config::nearest(level, LEVELS).map(|near| format!("; did you mean {near:?}?"));
        return Err(format!(
            "{level:?} is no level; known are {}{}",
            LEVELS.join(", "),
            near.unwrap_or_default()
        ));
    }
    EnvFilter::try_new(level).map(drop).map_err(|error| format!("{level:?} is no level: {error}"))
}

/// Changes the level of a log that was started.
#[derive(Debug)]
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    /// Present where lines go through a thread of their own.
    pub keeper: Option<Keeper>,
}

impl Log {
    /// Takes another level; [`VARIABLE`] still goes before it.
    pub fn set(&self, level: &str) {
        if let Err(error) = self.filter.reload(filter(level)) {
            warn!(%error, "the level of the log is as before");
        }
    }
}

/// Starts writing log lines, each at once. Called once; a second call changes nothing.
///
/// [`VARIABLE`] goes before `level`; a variable that cannot be read is ignored in favour of `level`.
pub fn start(level: &str, format: LogFormat) {
    let _ = start_with(level, format, stderr);
}

/// As [`start`], and nobody waits for a standard error that is not read: see [`Keeper`].
pub fn start_lossy(level: &str, format: LogFormat) -> Log {
    match lossy::to_stderr() {
        Ok((lines, keeper)) => Log { keeper: Some(keeper), ..start_with(level, format, lines) },
        Err(_) => start_with(level, format, stderr),
    }
}

fn start_with<W>(level: &str, format: LogFormat, to: W) -> Log
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    let (filter, handle) = reload::Layer::new(filter(level));
    // Without the module: a field called `target` would else be there twice in a line of JSON.
    let lines = tracing_subscriber::fmt::layer().with_writer(BoxMakeWriter::new(to)).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    // An error means that somebody else took the lines already, as a test may.
    let _ = if json {
        registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init()
    } else {
        registry.with(lines.with_ansi(stderr().is_terminal())).try_init()
    };
    Log { filter: handle, keeper: None }
}

fn filter(level: &str) -> EnvFilter {
    let from_variable = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let from_variable = from_variable.and_then(|text| EnvFilter::try_new(quietened(&text)).ok());
    from_variable.or_else(|| EnvFilter::try_new(quietened(level)).ok()).unwrap_or_default()
}

/// `directives`, and [`QUIET`] for what they do not name. Nothing becomes louder by it.
fn quietened(directives: &str) -> String {
    let each = || directives.split(',').map(str::trim).filter(|text| !text.is_empty());
    let general = each().filter_map(|text| text.parse::<LevelFilter>().ok()).next_back();
    let mut out = directives.to_owned();
    for (target, level) in QUIET {
        // Whoever names a library has named its modules too.
        let names = |name: &str| {
            target.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        let named = each().filter_map(|text| text.split(['=', '[']).next()).any(names);
        if !named && general.is_some_and(|general| level < general) {
            out.push_str(&format!(",{target}={level}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{check, quietened};

    #[test]
    fn levels_are_checked() {
        for good in ["info", "warn,amibus::command=debug", "off"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert!(check("inof").expect_err("a typo").ends_with("did you mean \"info\"?"));
        assert!(check("amibus=loud").is_err());
    }

    #[test]
    fn loud_libraries_are_quiet_unless_they_are_named() {
        let all = ",zeromq=warn,zeromq::transport::ipc=error,async_nats=off,librdkafka=error,rdkafka=error";
        for (given, added) in [
            ("info", all),
            ("debug", all),
            ("amibus::command=debug,info", all),
            ("off", ""),
            ("error", ",async_nats=off"),
            ("amibus=debug", ""),
            ("debug,async_nats=trace,zeromq=debug", ",librdkafka=error,rdkafka=error"),
        ] {
            assert_eq!(quietened(given), format!("{given}{added}"));
            assert_eq!(check(&quietened(given)), Ok(()));
        }
    }
}
