//! Configurations and what is said about them, as transcripts.

use std::{env::VarError, io::Write as _, time::Duration};

use amibus_contract::{Context, Key, KeyKind, Problem, SharedBridge, Values};
use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::{ClientConfig, Config, Login, Place, Sources};
use crate::{
    buses::{Registration, testing::deaf},
    filter::Verdict,
};

const KEYS: &[Key] = &[
    Key::with_default("url", KeyKind::Text, "test://127.0.0.1", "Where it is."),
    Key::optional("password", KeyKind::Secret, "What lets us in."),
    Key::optional("tls.ca", KeyKind::Text, "Whom to trust."),
    Key::with_default("ratio", KeyKind::Number { min: 0.0, max: 1.0 }, "0.5", "A number."),
    Key::with_default("batch_messages", KeyKind::Integer { min: 1, max: 4096 }, "1024", "A batch."),
    Key::with_default("wait", KeyKind::Duration, "2s", "A wait."),
    Key::with_default("required", KeyKind::Flag, "true", "Whether it is needed."),
    Key::with_default("mode", KeyKind::Choice(&["fast", "safe"]), "safe", "A choice."),
    Key::optional("hosts", KeyKind::TextList, "Some words."),
    Key::optional("options", KeyKind::TextMap, "Passed through."),
];

fn open(values: &Values, _: &Context) -> Result<SharedBridge, Vec<Problem>> {
    match values.text("url") {
        Some(url) if url.starts_with("test://") => Ok(deaf()),
        _ => Err(vec![Problem::new("url", "must begin with test://")]),
    }
}

const TEST_REGISTRY: &[Registration] = &[Registration { name: "test", keys: KEYS, open }];

const GOOD: &str = r#"
[[server]]
name = "pbx-1"
url = "ami://127.0.0.1"
username = "amibus"
secret = "s3cret-inline"

[bus.test]
"#;

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let lookup = |name: &str| match name {
        "SET" => Ok("s3cret-of-env".to_owned()),
        "LATIN" => Err(VarError::NotUnicode("s3cret".into())),
        _ => Err(VarError::NotPresent),
    };
    let sources = Sources {
        variables: variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        lookup: &lookup,
        arguments: Vec::new(),
        registry: TEST_REGISTRY,
    };
    Config::parse(text, "a.toml", &sources).map_err(|errors| errors.to_string())
}

fn parse(text: &str) -> Result<Config, String> {
    parse_with(text, &[])
}

fn errors(text: &str) -> String {
    parse(text).expect_err("wrong configuration")
}

#[test]
fn a_small_file_gets_all_defaults() {
    let config = parse(GOOD).expect("valid");
    assert_eq!((config.prefix.as_str(), config.instance.as_str()), ("ami", "amibus"));
    assert_eq!(config.worker_threads.get(), 1, "one server, one bus");
    let server = config.servers.first().expect("one server");
    assert_eq!(server.url(), "ami://127.0.0.1:5038");
    assert_eq!(server.login, Login::Md5);
    assert_eq!(server.charset, encoding_rs::UTF_8);
    assert_eq!(server.reconnect_min, Duration::from_millis(250));
    assert_eq!(server.snapshot, ["CoreShowChannels", "BridgeList", "QueueStatus"]);
    assert_eq!(config.spool.max_bytes, 10 << 30);
    assert_eq!(config.command.journal_max_age, Duration::from_secs(7 * 86_400));
    assert!(config.command.allow.is_empty() && config.http.listen.is_none());
    let bus = config.buses.first().expect("one bus");
    assert_eq!((bus.name, bus.required, bus.batch_messages), ("test", true, 1024));
}

#[test]
fn all_errors_come_at_once_each_with_its_place() {
    let text = r#"prefx = "ami"

[[server]]
name = "PBX_1"
url = "http://127.0.0.1"
usrname = "amibus"
secret = { env = "UNSET" }
ping_interval = 10
login = "md"

[bus.test]
ratio = 1.5
batch_messages = "many"
ca = "/x"
options = { a = { b = 1 }, c = [1] }

[spol]
dir = "/x"

[http]
listen = "localhost"
"#;
    let expected = r#"a.toml:1:1: prefx: unknown key; did you mean "prefix"?
a.toml:3:1: server.PBX_1.username: missing; give a string
a.toml:4:1: server.PBX_1.name: a server's name is [a-z0-9][a-z0-9-]*, at most 128 bytes; got "PBX_1"
a.toml:5:1: server.PBX_1.url: AMI over HTTP comes in a later version; until then, write ami://HOST:5038, or amis://HOST:5039 for TLS
a.toml:6:1: server.PBX_1.usrname: unknown key; did you mean "username"?
a.toml:7:10: server.PBX_1.secret: the environment variable UNSET is not set
a.toml:8:17: server.PBX_1.ping_interval: a duration needs its unit, in quotes: "10s" or "10ms"
a.toml:9:9: server.PBX_1.login: must be one of "md5", "plain", not "md"; did you mean "md5"?
a.toml:12:9: bus.test.ratio: must be from 0 to 1, not 1.5
a.toml:13:18: bus.test.batch_messages: must be a whole number from 1 to 4096, without quotes
a.toml:14:1: bus.test.ca: unknown key; did you mean "tls.ca"?
a.toml:15:11: bus.test.options: c must be a string, a number, true or false, not a list
a.toml:17:2: spol: unknown key; did you mean "spool"?
a.toml:21:1: http.listen: must be an address and a port, e.g. "127.0.0.1:9438", not "localhost""#;
    assert_eq!(errors(text), expected);
}

#[test]
fn what_is_not_toml_is_told_with_its_place() {
    let text = errors("[bus.test]\nurl = \n");
    assert!(text.starts_with("a.toml:2:"), "{text}");
    assert!(text.contains("not TOML"), "{text}");
}

#[test]
fn nothing_configured_is_told_with_what_is_needed() {
    assert_eq!(
        errors(""),
        "a.toml:1:1: no [[server]]: amibus needs at least one Asterisk server, with name, url, username and secret\n\
         a.toml:1:1: no [bus.NAME]: amibus needs at least one bus of test"
    );
}

#[test]
fn a_bus_that_is_not_built_in_is_told_so() {
    let text = errors(&GOOD.replace("bus.test", "bus.kafka"));
    assert_eq!(
        text,
        "a.toml:8:6: bus.kafka: this amibus was built without the bus \"kafka\"; build it with the cargo feature \"kafka\""
    );
    let text = errors(&GOOD.replace("bus.test", "bus.tset"));
    assert_eq!(text, "a.toml:8:6: bus.tset: unknown bus; did you mean \"test\"?");
}

#[test]
fn what_only_the_bridge_knows_is_told_with_its_place() {
    let text = errors(&format!("{GOOD}wait = \"1s\"\nurl = \"x://\"\n"));
    assert_eq!(text, "a.toml:10:1: bus.test.url: must begin with test://");
}

#[test]
fn servers_share_no_name() {
    let again = GOOD.replace("[bus.test]", "");
    let text = errors(&format!("{again}{GOOD}"));
    assert_eq!(
        text,
        "a.toml:11:1: server.pbx-1.name: another server has this name already, at a.toml:3:1; names are unique"
    );
}

#[test]
fn a_single_bracket_is_recognised() {
    assert_eq!(
        errors(&GOOD.replace("[[server]]", "[server]")),
        "a.toml:2:1: server: write it as [[server]], with two brackets"
    );
}

#[test]
fn secrets_come_from_three_places_and_are_never_shown() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"s3cret-of-file \r\n").expect("written");
    let path = file.path().display().to_string();
    for (spelling, expected) in [
        ("\"s3cret-inline\"".to_owned(), "s3cret-inline"),
        ("{ env = \"SET\" }".to_owned(), "s3cret-of-env"),
        (format!("{{ file = \"{path}\" }}"), "s3cret-of-file "),
    ] {
        let config = parse(&GOOD.replace("\"s3cret-inline\"", &spelling)).expect("valid");
        let server = config.servers.first().expect("one");
        assert_eq!(server.secret.expose_secret(), expected);
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    }
    for (spelling, expected) in [
        (
            "{ env = \"SET\", file = \"/x\" }",
            "the secret is given twice, by env and by file; keep one of them",
        ),
        ("{ file = \"/no/such\" }", "cannot read the file /no/such: No such file or directory (os error 2)"),
        ("{ env = \"LATIN\" }", "the environment variable LATIN is not UTF-8"),
        ("{ fiel = \"/x\" }", "unknown key \"fiel\" in a secret; did you mean \"file\"?"),
        ("{}", "the secret is given nowhere; write a string, { env = \"NAME\" } or { file = \"/path\" }"),
        ("12345", "a secret is a string, { env = \"NAME\" } or { file = \"/path\" }, not a whole number"),
        ("\"\"", "the secret is empty"),
    ] {
        let text = errors(&GOOD.replace("\"s3cret-inline\"", spelling));
        assert_eq!(text, format!("a.toml:6:10: server.pbx-1.secret: {expected}"));
    }
}

#[test]
fn variables_go_before_the_file() {
    let text = GOOD.replace("secret = \"s3cret-inline\"", "");
    let config = parse_with(
        &text,
        &[
            ("AMIBUS_SERVER__PBX_1__SECRET", "s3cret"),
            ("AMIBUS_SERVER__PBX_1__CONNECT_TIMEOUT", "3s"),
            ("AMIBUS_BUS__TEST__URL", "test://elsewhere"),
            ("AMIBUS_BUS__TEST__TLS__CA", "/ca"),
            ("AMIBUS_BUS__TEST__REQUIRED", "false"),
            ("AMIBUS_BUS__TEST__BATCH_MESSAGES", "7"),
            ("AMIBUS_BUS__TEST__HOSTS", "a, b"),
            ("AMIBUS_HTTP__LISTEN", "127.0.0.1:9438"),
            ("AMIBUS_PREFIX", "asterisk"),
            ("AMIBUS_SERVICE_HOST", "10.0.0.1"),
        ],
    )
    .expect("valid");
    let server = config.servers.first().expect("one");
    assert_eq!(server.secret.expose_secret(), "s3cret");
    assert_eq!(server.connect_timeout, Duration::from_secs(3));
    let bus = config.buses.first().expect("one");
    assert_eq!(bus.values.text("url"), Some("test://elsewhere"));
    assert_eq!(bus.values.text("tls.ca"), Some("/ca"));
    assert_eq!((bus.required, bus.batch_messages), (false, 7));
    assert_eq!(bus.values.list("hosts"), Some(["a".to_owned(), "b".to_owned()].as_slice()));
    assert_eq!(config.http.listen.map(|at| at.port()), Some(9438));
    assert_eq!(config.prefix, "asterisk");
}

#[test]
fn a_variable_that_means_nothing_is_an_error() {
    let variables = [
        ("AMIBUS_BUS__TEST__ULR", "test://"),
        ("AMIBUS_SERVER__PBX2__TOKEN", "x"),
        ("AMIBUS_BUS__TEST__RATIO", "much"),
    ];
    assert_eq!(
        parse_with(GOOD, &variables).expect_err("wrong"),
        "environment variable AMIBUS_BUS__TEST__RATIO: bus.test.ratio: must be a number from 0 to 1, not \"much\"\n\
         environment variable AMIBUS_BUS__TEST__ULR: sets nothing that is known; did you mean \"AMIBUS_BUS__TEST__URL\"?\n\
         environment variable AMIBUS_SERVER__PBX2__TOKEN: sets nothing that is known; it is AMIBUS_SERVER__NAME__KEY, \
         and the file's servers are pbx-1"
    );
}

#[test]
fn a_variable_for_a_server_needs_one_with_a_name() {
    let text = parse_with("[bus.test]\n", &[("AMIBUS_SERVER__PBX1__SECRET", "x")]).expect_err("wrong");
    assert!(text.ends_with("and the file has no [[server]] with a name"), "{text}");
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_told() {
    use std::os::unix::ffi::OsStringExt as _;
    let variables = vec![("AMIBUS_PREFIX".to_owned(), std::ffi::OsString::from_vec(vec![0xE4]))];
    let lookup = |_: &str| Err(VarError::NotPresent);
    let sources = Sources { variables, lookup: &lookup, arguments: Vec::new(), registry: TEST_REGISTRY };
    let errors = Config::parse(GOOD, "a.toml", &sources).expect_err("wrong");
    assert_eq!(errors.to_string(), "environment variable AMIBUS_PREFIX: is not UTF-8");
}

#[test]
fn rules_are_read_and_their_globs_checked() {
    let rules = r#"
[[filter]]
events = ["VarSet", "RTCP*"]
do = "drop"

[[filter]]
servers = ["pbx-*"]
fields.Context = "internal"
do = "keep"

[[command.allow]]
actions = ["Originate"]
fields.Channel = ["PJSIP/*", "Local/*@sales"]
"#;
    let config = parse(&format!("{GOOD}{rules}")).expect("valid");
    let [first, second] = config.filters.as_slice() else { panic!("two filters") };
    assert_eq!((first.verdict, first.servers.len(), first.events.len()), (Verdict::Drop, 0, 2));
    assert_eq!(second.fields, [("Context".to_owned(), vec!["internal".to_owned()])]);
    let allow = config.command.allow.first().expect("one rule");
    assert_eq!(allow.fields.first().map(|(name, globs)| (name.as_str(), globs.len())), Some(("Channel", 2)));

    let wrong = r#"
[[command.allow]]
actions = ["Orig[inate"]
servers = ["pbx2"]
fields.Context = []
"#;
    assert_eq!(
        errors(&format!("{GOOD}{wrong}")),
        "a.toml:11:1: command.allow #1.actions: \"Orig[inate\" is no glob: unclosed character class; missing ']'\n\
         a.toml:12:1: command.allow #1.servers: \"pbx2\" fits no configured server; did you mean \"pbx-1\"?\n\
         a.toml:13:1: command.allow #1.fields: Context: an empty list fits nothing; write [\"*\"] for any value"
    );
}

#[test]
fn what_a_rule_cannot_hold_is_told_with_its_place() {
    let many: Vec<String> = (0..300).map(|number| format!("\"{number}\"")).collect();
    let rules = format!(
        "[[filter]]\nevents = [{}]\ndo = \"drop\"\n[[command.allow]]\nactions = [\"{}\"]\n\
         fields.context = [\"a\"]\nfields.Context = [\"b\"]\n",
        many.join(","),
        "x".repeat(2000)
    );
    assert_eq!(
        errors(&format!("{GOOD}{rules}")),
        "a.toml:9:1: filter #1: more than 256 globs in one rule\n\
         a.toml:13:1: command.allow #1.actions: a glob is over 1024 bytes\n\
         a.toml:14:1: command.allow #1.fields: Context and context are the same field; give it once, with all its globs"
    );
}

#[test]
fn a_table_that_is_misspelled_is_told_the_nearest() {
    let text = errors(&GOOD.replace("username", "tsl.server_name = \"pbx\"\nusername"));
    assert_eq!(text, "a.toml:5:1: server.pbx-1.tsl: unknown key; did you mean \"tls\"?");
}

#[test]
fn tls_belongs_to_amis() {
    let text = errors(&GOOD.replace("username", "tls.server_name = \"pbx\"\nusername"));
    assert_eq!(
        text,
        "a.toml:5:5: server.pbx-1.tls.server_name: means nothing with ami://; write amis:// in url for TLS"
    );
    let tls = GOOD.replace("ami://", "amis://").replace("username", "tls.cert = \"/no/such\"\nusername");
    assert_eq!(
        errors(&tls),
        "a.toml:5:5: server.pbx-1.tls.cert: needs tls.key, the file with its private key\n\
         a.toml:5:5: server.pbx-1.tls.cert: cannot read the file /no/such: No such file or directory (os error 2)"
    );
}

#[test]
fn a_client_needs_only_its_bus() {
    let lookup = |_: &str| Err(VarError::NotPresent);
    let mut sources =
        Sources { variables: Vec::new(), lookup: &lookup, arguments: Vec::new(), registry: TEST_REGISTRY };
    sources.arguments = vec![("bus.test.url".into(), "test://there".into()), ("prefix".into(), "x".into())];
    sources.variables = vec![("AMIBUS_SERVER__PBX1__SECRET".into(), "x".into())];
    let client = ClientConfig::load(None, Some("test"), &sources).expect("valid");
    assert_eq!(client.prefix, "x");
    assert_eq!(client.buses.first().and_then(|bus| bus.values.text("url")), Some("test://there"));
    sources.arguments = vec![("bus.test.ulr".into(), "test://there".into())];
    let errors = ClientConfig::load(None, Some("test"), &sources).expect_err("wrong");
    assert_eq!(
        errors.to_string(),
        "argument bus.test.ulr=...: bus.test.ulr: unknown key; did you mean \"url\"?"
    );
}

#[test]
fn built_in_defaults_are_right() {
    for group in super::keys::GROUPS {
        for key in group.keys {
            if let Some(default) = key.default {
                let value = super::value::default(key.kind, default);
                assert!(value.is_ok(), "{} {}: {value:?}", group.name, key.name);
            }
        }
    }
}

/// A file that has some of everything.
const RICH: &str = r#"prefix = "ami"
[[server]]
name = "pbx-1"
url = "amis://[::1]:5039"
username = "amibus"
secret = { env = "SET" }
ping_interval = "1.5s"
snapshot = []
[[filter]]
events = ["VarSet"]
fields.Context = ["a", "b"]
do = "drop"
[bus.test]
hosts = ["ü", 'b']
options = { "a.b" = 1, c.d = true }
ratio = 1e-1
[[command.allow]]
actions = ["*"]
"#;

#[test]
fn the_rich_file_is_right() {
    parse(RICH).expect("valid");
}

proptest! {
    /// Whatever is done to a file, every error has a place within it, and no secret is told.
    #[test]
    fn a_damaged_file_is_an_error_with_a_place(
        at in 0..RICH.len(),
        cut in 0..20usize,
        put in "[a-z\\[\\]\"'={}.,0-9é\n #-]{0,8}",
    ) {
        let characters: Vec<char> = RICH.chars().collect();
        let at = at.min(characters.len());
        let end = (at + cut).min(characters.len());
        let text: String = characters[..at].iter().copied().chain(put.chars()).chain(characters[end..].iter().copied()).collect();
        let lookup = |name: &str| match name {
        "SET" => Ok("s3cret-of-env".to_owned()),
        "LATIN" => Err(VarError::NotUnicode("s3cret".into())),
        _ => Err(VarError::NotPresent),
    };
        let sources =
            Sources { variables: Vec::new(), lookup: &lookup, arguments: Vec::new(), registry: TEST_REGISTRY };
        if let Err(errors) = Config::parse(&text, "a.toml", &sources) {
            prop_assert!(!errors.0.is_empty());
            for error in errors.0 {
                let Place::File { line, column, .. } = error.place else { panic!("{error}") };
                let length = text.split('\n').nth(line - 1).map(|line| line.chars().count());
                prop_assert!(length.is_some_and(|length| column <= length + 1), "{error}\n{text}");
                prop_assert!(!error.message.contains("s3cret"), "{error}");
            }
        }
    }
}
