//! `[[command.pace]]`: how many calls a second, and how many at once.

use std::{collections::BTreeMap, time::Duration};

use amibus_contract::message::check_server;

use super::{
    keys::PACE,
    rules::{globs, server_globs},
    server::tables,
    tree::{Entry, Origin, Raw},
    units,
    walker::{Faults, Section, walk},
};
use crate::command::pace::{Limit, MAX_LIMITS};

/// The least `longest_call`: ends of calls are looked for about once a minute.
const LEAST_LONGEST_CALL: Duration = Duration::from_secs(60);

/// All `[[command.pace]]` tables.
pub(super) fn limits(entry: Option<&Entry>, servers: &[&str], faults: &mut Faults<'_>) -> Vec<Limit> {
    let Some(entry) = entry else { return Vec::new() };
    let tables = tables(entry, "command.pace", faults);
    if tables.len() > MAX_LIMITS {
        faults.note(&entry.key, "command.pace", format!("more than {MAX_LIMITS} limits"));
        return Vec::new();
    }
    let mut seen: BTreeMap<String, Origin> = BTreeMap::new();
    let mut limits = Vec::new();
    for (index, (table, here)) in tables.into_iter().enumerate() {
        let path = match table.0.get("name").map(|entry| &entry.node.raw) {
            Some(Raw::Text(name)) => format!("command.pace.{name}"),
            _ => format!("command.pace #{}", index + 1),
        };
        let section = walk(table, here, &path, PACE, &[], faults);
        let limit = limit(&section, servers, faults);
        if let Some(first) = seen.get(&limit.name) {
            let first = faults.source.place(first);
            section.note(
                faults,
                "name",
                format!("another limit has this name already, at {first}; names are unique"),
            );
        }
        seen.insert(limit.name.clone(), section.origin("name").clone());
        limits.push(limit);
    }
    limits
}

fn limit(section: &Section, servers: &[&str], faults: &mut Faults<'_>) -> Limit {
    let values = &section.values;
    let name = values.text("name").unwrap_or_default().to_owned();
    if values.text("name").is_some() && check_server(&name).is_err() {
        section.note(faults, "name", format!("{name:?} must be [a-z0-9][a-z0-9-]*, e.g. \"trunk-a\""));
    }
    let limit = Limit {
        servers: server_globs(section, servers, faults),
        channels: globs(section, "channels", faults),
        calls_per_second: values.number("calls_per_second"),
        burst: values.integer("burst").and_then(|calls| u32::try_from(calls).ok()).unwrap_or(1),
        concurrent_calls: values.integer("concurrent_calls").and_then(|calls| usize::try_from(calls).ok()),
        longest_call: values.duration("longest_call").unwrap_or(LEAST_LONGEST_CALL),
        name,
    };
    let (rate, at_once) = (section.is_given("calls_per_second"), section.is_given("concurrent_calls"));
    if !rate && !at_once {
        section.note(faults, "", "limits nothing: give calls_per_second, concurrent_calls or both");
    }
    if section.is_given("burst") && !rate {
        section.note(
            faults,
            "burst",
            "needs calls_per_second: it is how many calls may go before it at once",
        );
    }
    if section.is_given("longest_call") && !at_once {
        section.note(
            faults,
            "longest_call",
            "needs concurrent_calls: a limit without it does not count live calls",
        );
    }
    if values.duration("longest_call").is_some_and(|longest| longest < LEAST_LONGEST_CALL) {
        let least = units::show_duration(LEAST_LONGEST_CALL);
        section.note(faults, "longest_call", format!("must be at least \"{least}\""));
    }
    limit
}

#[cfg(all(test, feature = "zeromq"))]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    const SERVER: &str = "[[server]]\nname = \"pbx1\"\nurl = \"ami://127.0.0.1\"\nusername = \"u\"\nsecret = \"s\"\n\
                          [bus.zeromq]\npublish = \"tcp://127.0.0.1:1\"\n";

    fn parse(text: &str) -> Result<Vec<Limit>, String> {
        let sources = Sources { variables: Vec::new(), ..Sources::process() };
        let config = Config::parse(&format!("{SERVER}{text}"), "a.toml", &sources);
        config.map(|config| config.command.pace).map_err(|errors| errors.to_string())
    }

    #[test]
    fn limits_are_read_with_their_defaults() {
        let text = "[[command.pace]]\nname = \"a\"\ncalls_per_second = 0.5\n\
                    [[command.pace]]\nname = \"b-2\"\nchannels = [\"PJSIP/*\"]\nconcurrent_calls = 3\nlongest_call = \"1h\"\n";
        let limits = parse(text).expect("right");
        let [a, b] = limits.as_slice() else { panic!("two") };
        assert_eq!((a.calls_per_second, a.burst, a.concurrent_calls), (Some(0.5), 1, None));
        assert_eq!((b.concurrent_calls, b.longest_call), (Some(3), Duration::from_secs(3600)));
        assert_eq!((a.channels.len(), b.channels.as_slice()), (0, &["PJSIP/*".to_owned()][..]));
        assert_eq!(parse("").expect("right"), []);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_its_remedy() {
        let text = "[[command.pace]]\nname = \"Trunk\"\nservers = [\"pbx2\"]\n\
                    [[command.pace]]\nname = \"a\"\ncalls_per_second = 0\nlongest_call = \"2h\"\n\
                    [[command.pace]]\nname = \"a\"\nburst = 2\nconcurrent_calls = 1\nlongest_call = \"10s\"\n";
        assert_eq!(
            parse(text).expect_err("wrong"),
            "a.toml:8:1: command.pace.Trunk: limits nothing: give calls_per_second, concurrent_calls or both\n\
             a.toml:9:1: command.pace.Trunk.name: \"Trunk\" must be [a-z0-9][a-z0-9-]*, e.g. \"trunk-a\"\n\
             a.toml:10:1: command.pace.Trunk.servers: \"pbx2\" fits no configured server; did you mean \"pbx1\"?\n\
             a.toml:13:20: command.pace.a.calls_per_second: must be from 0.0001 to 10000, not 0\n\
             a.toml:14:1: command.pace.a.longest_call: needs concurrent_calls: a limit without it does not count live calls\n\
             a.toml:16:1: command.pace.a.name: another limit has this name already, at a.toml:12:1; names are unique\n\
             a.toml:17:1: command.pace.a.burst: needs calls_per_second: it is how many calls may go before it at once\n\
             a.toml:19:1: command.pace.a.longest_call: must be at least \"1min\""
        );
    }
}
