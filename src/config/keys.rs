//! Every key of the configuration, in tables. The buses bring tables of their own.

use amibus_contract::{Key, KeyKind};

/// List actions whose items may be published as a snapshot: they read, and change nothing.
pub const SNAPSHOT_LISTS: [&str; 12] = [
    "Agents",
    "BridgeList",
    "ConfbridgeListRooms",
    "CoreShowChannels",
    "DeviceStateList",
    "ExtensionStateList",
    "ParkedCalls",
    "PJSIPShowContacts",
    "PJSIPShowEndpoints",
    "PresenceStateList",
    "QueueStatus",
    "QueueSummary",
];

/// One table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The table's name; empty for the keys at the top.
    pub name: &'static str,
    /// Whether it is written `[[name]]` and may be given several times.
    pub repeated: bool,
    /// What it is for, in a sentence or two.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

impl Group {
    /// The table's heading in the file.
    pub fn heading(&self) -> String {
        if self.repeated { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }
}

/// The tables of the file without the buses', in the order of the documentation.
pub const GROUPS: [Group; 10] = [
    Group { name: "", repeated: false, doc: "Keys at the top of the file.", keys: TOP },
    Group {
        name: "server",
        repeated: true,
        doc: "One Asterisk server. Give as many as there are.",
        keys: SERVER,
    },
    Group {
        name: "filter",
        repeated: true,
        doc: "Which events go on, decided before anything is stored. The first filter that fits an event decides; \
              an event that none fits is kept.",
        keys: FILTER,
    },
    Group {
        name: "spool",
        repeated: false,
        doc: "What is kept between Asterisk and the buses.",
        keys: SPOOL,
    },
    Group { name: "command", repeated: false, doc: "How commands are carried out.", keys: COMMAND },
    Group {
        name: "command.allow",
        repeated: true,
        doc: "What commands may do. Without a rule nothing is allowed; a command must fit one rule whole. Login, \
              Logoff, Challenge, Events, Filter and WaitEvent are never allowed.",
        keys: ALLOW,
    },
    Group {
        name: "command.pace",
        repeated: true,
        doc: "How many calls Originates may start a second, and how many may be live at once; for a whole server, or for a \
              group of channels such as a trunk. An Originate keeps to every limit that is about it; more wait on the bus, \
              in order.",
        keys: PACE,
    },
    Group {
        name: "http",
        repeated: false,
        doc: "Health and metrics: /live, /ready, /metrics and /version.",
        keys: HTTP,
    },
    Group {
        name: "log",
        repeated: false,
        doc: "What amibus says about itself, on standard error.",
        keys: LOG,
    },
    Group { name: "shutdown", repeated: false, doc: "How amibus leaves on SIGTERM.", keys: SHUTDOWN },
];

/// Keys at the top.
pub const TOP: &[Key] = &[
    Key::with_default(
        "prefix",
        KeyKind::Text,
        "ami",
        "The first word of all topics, e.g. `ami` in `ami.event.pbx1.Hangup`; several words may be joined by dots.",
    ),
    Key::with_default(
        "name",
        KeyKind::Text,
        "amibus",
        "What this process calls itself towards the buses (client id, connection name).",
    ),
    Key::optional(
        "worker_threads",
        KeyKind::Integer { min: 1, max: 1_024 },
        "How many threads carry messages between the servers and the buses; the log, the journal and some buses have \
         others. Left out: half as many as there are cores, but at most as many as there are pairs of a server and a \
         bus, and at least one. One carries over 100,000 events a second, if the bus does; each further one costs processor \
         time at lower rates, since it is woken for little. Not taken anew on SIGHUP.",
    ),
];

/// Keys of `[[server]]`.
pub const SERVER: &[Key] = &[
    Key::required(
        "name",
        KeyKind::Text,
        "The server's name in topics, `[a-z0-9][a-z0-9-]*`. No two servers share one.",
    ),
    Key::required(
        "url",
        KeyKind::Text,
        "Where its AMI listens: `ami://HOST:PORT` (port 5038 unless given) or `amis://HOST:PORT` for TLS (5039).",
    ),
    Key::required("username", KeyKind::Text, "The AMI user, a section of manager.conf."),
    Key::required("secret", KeyKind::Secret, "The AMI user's secret."),
    Key::with_default(
        "login",
        KeyKind::Choice(&["md5", "plain"]),
        "md5",
        "How to log in: `md5` (challenge and response, the secret stays here) or `plain`.",
    ),
    Key::with_default(
        "charset",
        KeyKind::Text,
        "utf-8",
        "The charset of header values that are not UTF-8, by its WHATWG label, e.g. `windows-1252`.",
    ),
    Key::optional(
        "tls.ca",
        KeyKind::Text,
        "A file of PEM certificates to trust in place of the system's. Only with `amis://`.",
    ),
    Key::optional("tls.cert", KeyKind::Text, "A file with our PEM certificate chain; needs `tls.key`."),
    Key::optional("tls.key", KeyKind::Text, "A file with the PEM private key of `tls.cert`."),
    Key::optional(
        "tls.server_name",
        KeyKind::Text,
        "The name that the server's certificate must carry, where it is not the host in `url`.",
    ),
    Key::with_default(
        "connect_timeout",
        KeyKind::Duration,
        "10s",
        "How long connecting, TLS and login may take together.",
    ),
    Key::with_default(
        "ping_interval",
        KeyKind::Duration,
        "10s",
        "How often a quiet session is asked for a sign of life.",
    ),
    Key::with_default(
        "ping_deadline",
        KeyKind::Duration,
        "5s",
        "How long that sign may take before the connection counts as dead.",
    ),
    Key::with_default("reconnect_min", KeyKind::Duration, "250ms", "The first wait before connecting again."),
    Key::with_default(
        "reconnect_max",
        KeyKind::Duration,
        "30s",
        "The longest wait before connecting again; waits double from the first, with jitter.",
    ),
    Key::with_default(
        "retry_wrong_secret",
        KeyKind::Duration,
        "60s",
        "The wait before logging in again when the login was refused.",
    ),
    Key::with_default(
        "sequence_numbers",
        KeyKind::Choice(&["all", "some"]),
        "all",
        "Which of Asterisk's SequenceNumbers (`debug = on` in manager.conf) this AMI user sees. `all`: one that is \
         missing is a missed event, and announced by a `gap` message. `some`: the user has not `read = all`, or has an \
         `eventfilter`, so that numbers are missing by nature; none is announced on a live session, and a gap after a \
         disconnect has the range of numbers without a count.",
    ),
    Key::with_default(
        "action_deadline",
        KeyKind::Duration,
        "30s",
        "How long an action may take to be answered, with its event list, before its outcome is `unknown`.",
    ),
    Key::with_default(
        "snapshot",
        KeyKind::TextList,
        "[\"CoreShowChannels\", \"BridgeList\", \"QueueStatus\"]",
        "List actions whose items are published after every (re)connect, so that consumers can correct their state; \
         `[]` for none. Known are Agents, BridgeList, ConfbridgeListRooms, CoreShowChannels, DeviceStateList, \
         ExtensionStateList, ParkedCalls, PJSIPShowContacts, PJSIPShowEndpoints, PresenceStateList, QueueStatus and \
         QueueSummary.",
    ),
];

/// Keys of `[[filter]]`.
pub const FILTER: &[Key] = &[
    Key::optional("servers", KeyKind::TextList, "Globs on the server's name; left out: every server."),
    Key::optional(
        "events",
        KeyKind::TextList,
        "Globs on the event's name, in any case; left out: every event.",
    ),
    Key::optional(
        "fields",
        KeyKind::ListMap,
        "Globs on header values: `fields.Context = [\"sales*\"]`. Each named header must be there and one of its \
         globs must fit.",
    ),
    Key::required("do", KeyKind::Choice(&["drop", "keep"]), "What becomes of an event that fits."),
];

/// Keys of `[spool]`.
pub const SPOOL: &[Key] = &[
    Key::with_default(
        "dir",
        KeyKind::Text,
        "/var/lib/amibus",
        "The folder for what must survive amibus: each server's log (`spool/<server>`) and the journal of commands \
         (`commands.sqlite`). Made if missing; one amibus at a time.",
    ),
    Key::with_default(
        "max_bytes",
        KeyKind::Size,
        "10GiB",
        "How much of each server's events is kept on disk for buses that cannot take them now. Beyond it the oldest \
         go, and each bus that missed some gets a `gap` message with their count.",
    ),
    Key::with_default(
        "max_age",
        KeyKind::Duration,
        "7d",
        "How long events are kept for a bus that does not take them; then as for `max_bytes`.",
    ),
    Key::with_default(
        "flush_interval",
        KeyKind::Duration,
        "1s",
        "How much a loss of power may cost. What was written survives the end of amibus in any case; `0s` syncs \
         each event to the disk before any bus is given it. Where 32 servers' logs or more are due at once, the \
         filesystem of `dir` is synced as a whole, with whatever else is on it (ext4 and XFS, since Linux 5.17).",
    ),
];

/// Keys of `[command]`.
pub const COMMAND: &[Key] = &[
    Key::with_default(
        "concurrency",
        KeyKind::Integer { min: 1, max: 10_000 },
        "64",
        "How many commands for one server are worked on at once; more wait.",
    ),
    Key::with_default(
        "max_command_bytes",
        KeyKind::Size,
        "64KiB",
        "The longest command taken; a longer one is rejected unread.",
    ),
    Key::with_default(
        "default_deadline",
        KeyKind::Duration,
        "5min",
        "How long a command without a deadline of its own may still be sent: since its bus took it, where the bus tells \
         (JetStream, Kafka), else since it came.",
    ),
    Key::with_default(
        "final_timeout",
        KeyKind::Duration,
        "2min",
        "How long an Originate with `wait: final` may take until its OriginateResponse, before its outcome is \
         told without what became of the call (`final_not_seen`).",
    ),
    Key::with_default(
        "journal_max_age",
        KeyKind::Duration,
        "7d",
        "How long the outcomes of commands are kept, so that a repeated id is recognised.",
    ),
    Key::with_default(
        "claim_takeover",
        KeyKind::Duration,
        "5min",
        "Where several amibus share their claims (`bus.nats.claims_bucket`): how long nothing may be heard of one that \
         sends a command until another one tells what became of it. The owner renews its claim every third of it.",
    ),
];

/// Keys of `[[command.allow]]`.
pub const ALLOW: &[Key] = &[
    Key::required(
        "actions",
        KeyKind::TextList,
        "Globs on the AMI action's name, in any case. Dangerous actions (docs/commands.md) must be written out.",
    ),
    Key::optional("servers", KeyKind::TextList, "Globs on the server's name; left out: every server."),
    Key::optional(
        "fields",
        KeyKind::ListMap,
        "Globs on fields: `fields.Context = [\"sales\"]`. Each named field must be given and every value of it must \
         fit one of its globs. Fields that run programs or dialplan or read secrets (Originate's Application, Data and \
         Context, Getvar's Variable, ...) are refused unless named here.",
    ),
];

/// Keys of `[[command.pace]]`.
pub const PACE: &[Key] = &[
    Key::required(
        "name",
        KeyKind::Text,
        "The limit's name in metrics and in the journal, `[a-z0-9][a-z0-9-]*`. No two limits share one.",
    ),
    Key::optional(
        "servers",
        KeyKind::TextList,
        "Globs on the server's name; left out: every server. Each server counts for itself.",
    ),
    Key::optional(
        "channels",
        KeyKind::TextList,
        "Globs on the Originate's `Channel`, in any case: `[\"PJSIP/*@trunk-a\"]`. A `*` does not cross a `/`. Left out: \
         every Originate of the server.",
    ),
    Key::optional(
        "calls_per_second",
        KeyKind::Number { min: 0.000_1, max: 10_000.0 },
        "How many calls may be started a second; a fraction too. Left out: any number.",
    ),
    Key::with_default(
        "burst",
        KeyKind::Integer { min: 1, max: 10_000 },
        "1",
        "How many of these may follow each other at once, after a pause.",
    ),
    Key::optional(
        "concurrent_calls",
        KeyKind::Integer { min: 1, max: 100_000 },
        "How many calls may be live at once; a call counts from just before it is sent until its channel hung up. Left \
         out: any number.",
    ),
    Key::with_default(
        "longest_call",
        KeyKind::Duration,
        "4h",
        "A call whose end was never seen, and that Asterisk does not tell of either, is not counted any longer.",
    ),
];

/// Keys of `[http]`.
pub const HTTP: &[Key] = &[Key::optional(
    "listen",
    KeyKind::Text,
    "The address and port to listen on, e.g. `127.0.0.1:9438`. Without it nothing listens.",
)];

/// Keys of `[log]`.
pub const LOG: &[Key] = &[
    Key::with_default(
        "level",
        KeyKind::Text,
        "info",
        "`error`, `warn`, `info`, `debug`, `trace`, or directives such as `warn,amibus::command=debug`. The \
         environment variable RUST_LOG goes before it. Taken anew on SIGHUP.",
    ),
    Key::with_default(
        "format",
        KeyKind::Choice(&["auto", "text", "json"]),
        "auto",
        "`auto`: text on a terminal, JSON otherwise. Not taken anew on SIGHUP.",
    ),
];

/// Keys of `[shutdown]`.
pub const SHUTDOWN: &[Key] = &[Key::with_default(
    "drain",
    KeyKind::Duration,
    "8s",
    "How long to go on delivering what was read and finishing what was begun, before leaving all the same.",
)];
