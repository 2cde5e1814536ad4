//! A limit as configured, and which Originates it is about.

use std::time::Duration;

use globset::GlobMatcher;

use super::Set;
use crate::command::{
    decode::Command,
    policy::{GlobError, globs},
};

/// The most limits of one process.
pub const MAX_LIMITS: usize = 64;

/// One `[[command.pace]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// Its name in metrics and in the journal, `[a-z0-9][a-z0-9-]*`; no two share one.
    pub name: String,
    /// Globs on the server's name; empty: every server. Each server counts for itself.
    pub servers: Vec<String>,
    /// Globs on `Channel`, in any case; empty: every Originate.
    pub channels: Vec<String>,
    /// Calls a second, above nought.
    pub calls_per_second: Option<f64>,
    /// Calls that may follow each other at once, after a pause; at least 1.
    pub burst: u32,
    /// Calls at once.
    pub concurrent_calls: Option<usize>,
    /// How old a call may become before it is not counted any more.
    pub longest_call: Duration,
}

/// The limits of one server, ready to be asked.
#[derive(Debug)]
pub(super) struct Matcher {
    limits: Vec<(String, Vec<GlobMatcher>)>,
}

impl Limit {
    /// Whether it is about this server.
    ///
    /// # Errors
    /// The first glob that is none.
    pub fn is_about(&self, server: &str) -> Result<bool, GlobError> {
        let globs = globs(&self.servers, false)?;
        Ok(globs.is_empty() || globs.iter().any(|glob| glob.is_match(server)))
    }
}

impl Matcher {
    /// # Errors
    /// The first glob that is none.
    pub(super) fn new(limits: &[Limit]) -> Result<Self, GlobError> {
        let compile = |limit: &Limit| Ok((limit.name.clone(), globs(&limit.channels, true)?));
        Ok(Self { limits: limits.iter().take(MAX_LIMITS).map(compile).collect::<Result<_, _>>()? })
    }

    /// The limits that are about a command; none of what is no Originate.
    ///
    /// Wider than an allow rule reads a glob, so that no spelling goes round a limit: in any case, as Asterisk reads the
    /// technology, and without the blanks around it.
    pub(super) fn of(&self, command: &Command) -> Set {
        if !command.action.eq_ignore_ascii_case("Originate") {
            return 0;
        }
        let channels = || {
            let named = command.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Channel"));
            named.map(|(_, value)| value.trim())
        };
        self.set(|(_, globs)| {
            globs.is_empty() || channels().any(|channel| globs.iter().any(|glob| glob.is_match(channel)))
        })
    }

    /// The limits of these names; what is not configured any more does not count.
    pub(super) fn named(&self, names: &[String]) -> Set {
        self.set(|(name, _)| names.contains(name))
    }

    /// The names of the limits in a set.
    pub(super) fn names(&self, set: Set) -> Vec<&str> {
        super::members(set).filter_map(|place| Some(&*self.limits.get(place)?.0)).collect()
    }

    fn set(&self, holds: impl Fn(&(String, Vec<GlobMatcher>)) -> bool) -> Set {
        let places = self.limits.iter().enumerate().filter(|(_, limit)| holds(limit));
        places.fold(0, |set, (place, _)| set | (1 << place))
    }
}

#[cfg(test)]
pub(super) fn limit(name: &str) -> Limit {
    Limit {
        name: name.into(),
        servers: Vec::new(),
        channels: Vec::new(),
        calls_per_second: None,
        burst: 1,
        concurrent_calls: None,
        longest_call: Duration::from_secs(4 * 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::decode::Wait;

    fn command(action: &str, channel: &str) -> Command {
        Command {
            id: None,
            server: "pbx1".into(),
            action: action.into(),
            deadline: None,
            wait: Wait::Response,
            headers: vec![("channel".into(), channel.into())],
            payload_hash: String::new(),
        }
    }

    #[test]
    fn an_originate_has_every_limit_that_fits_its_channel() {
        let trunk = Limit { channels: vec!["PJSIP/*@trunk-a".into()], ..limit("trunk-a") };
        let matcher = Matcher::new(&[limit("all"), trunk]).expect("globs");
        assert_eq!(matcher.of(&command("Originate", "PJSIP/1@trunk-a")), 0b11);
        assert_eq!(matcher.of(&command("originate", "pjsip/1@TRUNK-A ")), 0b11);
        assert_eq!(matcher.of(&command("Originate", "PJSIP/1@trunk-b")), 0b01);
        assert_eq!(matcher.of(&command("Ping", "PJSIP/1@trunk-a")), 0);
        assert_eq!(matcher.names(0b11), ["all", "trunk-a"]);
        assert_eq!(matcher.named(&["gone".into(), "trunk-a".into()]), 0b10);
    }

    #[test]
    fn a_limit_is_about_the_servers_that_fit() {
        let some = Limit { servers: vec!["pbx*".into()], ..limit("some") };
        assert_eq!((some.is_about("pbx1"), some.is_about("other")), (Ok(true), Ok(false)));
        assert_eq!(limit("all").is_about("other"), Ok(true));
    }
}
