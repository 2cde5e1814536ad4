//! Limits in plain words.

use crate::{command::pace::Limit, config::units};

/// A limit in plain words, e.g. `all: every Originate on every server, each server for itself: at most 20 a second`.
pub fn limited(limit: &Limit) -> String {
    let channels = match limit.channels.is_empty() {
        true => "every Originate".to_owned(),
        false => format!("Originates to {}", limit.channels.join(", ")),
    };
    let servers = if limit.servers.is_empty() { "every server".to_owned() } else { limit.servers.join(", ") };
    let mut parts = Vec::new();
    if let Some(rate) = limit.calls_per_second {
        let burst =
            if limit.burst > 1 { format!(", {} of them at once", limit.burst) } else { String::new() };
        parts.push(format!("at most {rate} a second{burst}"));
    }
    if let Some(calls) = limit.concurrent_calls {
        let longest = units::show_duration(limit.longest_call);
        parts.push(format!("at most {calls} live, each counted for up to {longest}"));
    }
    format!("{}: {channels} on {servers}, each server for itself: {}", limit.name, parts.join("; "))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn limits_read_as_sentences() {
        let limit = Limit {
            name: "trunk-a".into(),
            servers: vec!["pbx1".into()],
            channels: vec!["PJSIP/*@trunk-a".into()],
            calls_per_second: Some(0.5),
            burst: 2,
            concurrent_calls: Some(30),
            longest_call: Duration::from_secs(4 * 3600),
        };
        assert_eq!(
            limited(&limit),
            "trunk-a: Originates to PJSIP/*@trunk-a on pbx1, each server for itself: at most 0.5 a second, 2 of them at \
             once; at most 30 live, each counted for up to 4h"
        );
        let all = Limit {
            servers: Vec::new(),
            channels: Vec::new(),
            burst: 1,
            concurrent_calls: None,
            name: "all".into(),
            ..limit
        };
        assert_eq!(
            limited(&all),
            "all: every Originate on every server, each server for itself: at most 0.5 a second"
        );
    }
}
