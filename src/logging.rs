//! What amibus says about itself: on standard error, as text on a terminal and as JSON otherwise.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// The environment variable that goes before the configured level.
pub const VARIABLE: &str = "RUST_LOG";

/// Libraries that speak of every connection, or of what amibus says in its own words, below these levels.
const QUIET: &str = "zeromq=warn,async_nats=off,librdkafka=error,rdkafka=error";

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

/// Starts writing log lines. Called once; a second call changes nothing.
///
/// [`VARIABLE`] goes before `level`; a variable that cannot be read is ignored in favour of `level`.
pub fn start(level: &str, format: LogFormat) {
    let from_variable = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty());
    let filter = from_variable.and_then(|text| EnvFilter::try_new(text).ok());
    let quiet = ["info", "warn"].contains(&level).then(|| format!("{level},{QUIET}"));
    let level = quiet.as_deref().unwrap_or(level);
    let filter = filter.or_else(|| EnvFilter::try_new(level).ok()).unwrap_or_default();
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !stderr().is_terminal(),
    };
    // Without the module: a field called `target` would else be there twice in a line of JSON.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).with_target(false);
    // An error means that somebody else took the lines already, as a test may.
    let _ = if json {
        lines.json().flatten_event(true).with_current_span(false).try_init()
    } else {
        lines.with_ansi(stderr().is_terminal()).try_init()
    };
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn levels_are_checked() {
        for good in ["info", "warn,amibus::command=debug", "off"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert!(check("inof").expect_err("a typo").ends_with("did you mean \"info\"?"));
        assert!(check("amibus=loud").is_err());
    }
}
