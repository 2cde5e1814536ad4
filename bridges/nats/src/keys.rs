//! What the bus can be configured with.

use amibus_contract::{Key, KeyKind};

const COUNT: KeyKind = KeyKind::Integer { min: 1, max: 65_536 };

/// The most messages that are offered at once: as many as can be looked for in a stream at once.
pub(crate) const MAX_BATCH_MESSAGES: usize = 4_096;

/// The keys of `[bus.nats]`.
pub const KEYS: &[Key] = &[
    Key::required(
        "url",
        KeyKind::Text,
        "The server, or several of one cluster with commas between them: `nats://HOST:PORT`, or `tls://HOST:PORT`.",
    ),
    Key::with_default("required", KeyKind::Flag, "true", "Whether `/ready` needs this bus."),
    Key::optional(
        "name",
        KeyKind::Text,
        "How the connections are named on the server; the instance's name else.",
    ),
    Key::optional(
        "stream",
        KeyKind::Text,
        "The JetStream stream that keeps what is published. Without it messages go by core NATS: at most once, and \
         only to who listens.",
    ),
    Key::with_default(
        "create",
        KeyKind::Flag,
        "true",
        "Whether streams that are missing are made. Streams that are there are never changed.",
    ),
    Key::with_default(
        "replicas",
        KeyKind::Integer { min: 1, max: 5 },
        "1",
        "How many servers of the cluster keep a stream that is made.",
    ),
    Key::with_default("max_age", KeyKind::Duration, "7d", "How long a stream that is made keeps a message."),
    Key::optional(
        "max_bytes",
        KeyKind::Size,
        "How much the stream that is made keeps; the oldest goes first.",
    ),
    Key::with_default(
        "duplicate_window",
        KeyKind::Duration,
        "2min",
        "How long the stream that is made remembers ids, to drop repeats. What is sent again later, after amibus or the server was away, is first looked for in the stream, where that may be read ($JS.API.CONSUMER.>).",
    ),
    Key::with_default(
        "commands",
        KeyKind::Flag,
        "false",
        "Whether commands are taken, as the micro service `amibus`: requests to `PREFIX.request.SERVER.ACTION`, and \
         to `PREFIX.command.SERVER.ACTION` where no `commands_stream` is named.",
    ),
    Key::optional(
        "commands_stream",
        KeyKind::Text,
        "The JetStream stream that keeps commands, published to `PREFIX.command.SERVER.ACTION`, until their outcome \
         is recorded. Needs `commands = true`.",
    ),
    Key::with_default(
        "ack_wait",
        KeyKind::Duration,
        "30s",
        "After how long a command from the stream that nobody works on is delivered again.",
    ),
    Key::with_default(
        "max_ack_pending",
        COUNT,
        "20000",
        "How many commands of one server the stream may have given out and not yet got back: those in work, and those that \
         wait for a server that is away or for their pace. One more waits in the stream, and whatever is behind it too.",
    ),
    Key::optional(
        "claims_bucket",
        KeyKind::Text,
        "The key-value bucket in which every amibus on this NATS claims a command before it sends it, whichever bus \
         brought it, so that two of them never run one command. Left out: `AMI_CLAIMS` where a `commands_stream` is named, \
         else none; `\"\"` for none. Made where it is missing, with `create`.",
    ),
    Key::optional(
        "claims_max_age",
        KeyKind::Duration,
        "How long the bucket that is made keeps a claim and its outcome. Left out: 7 days, or `command.journal_max_age` \
         where that is longer. Not shorter than that, than three times `command.claim_takeover`, nor than a bus may deliver \
         a command again. A bucket that is there and forgets sooner is refused.",
    ),
    Key::optional(
        "claims_max_bytes",
        KeyKind::Size,
        "How much the bucket that is made keeps; about 1 KiB a command, 64 KiB at most. While it is full, no command is sent.",
    ),
    Key::optional("user", KeyKind::Text, "The user to log in as, with `password`."),
    Key::optional("password", KeyKind::Secret, "The user's password."),
    Key::optional("token", KeyKind::Secret, "The token to log in with."),
    Key::optional("nkey", KeyKind::Secret, "The seed of the user's nkey, `SU...`."),
    Key::optional("credentials", KeyKind::Text, "The path of a credentials file: a user's JWT and seed."),
    Key::with_default("tls.required", KeyKind::Flag, "false", "Whether to refuse a server without TLS."),
    Key::with_default(
        "tls.first",
        KeyKind::Flag,
        "false",
        "Whether TLS begins before the server's greeting.",
    ),
    Key::optional("tls.ca", KeyKind::Text, "The path of the authorities to trust, PEM; else the system's."),
    Key::optional("tls.cert", KeyKind::Text, "The path of our certificate and its chain, PEM."),
    Key::optional("tls.key", KeyKind::Text, "The path of our certificate's private key, PEM."),
    Key::with_default(
        "connect_timeout",
        KeyKind::Duration,
        "5s",
        "How long connecting to one server may take.",
    ),
    Key::with_default(
        "ack_timeout",
        KeyKind::Duration,
        "5s",
        "How long the server may take to confirm a message or an acknowledgement.",
    ),
    Key::with_default(
        "ping_interval",
        KeyKind::Duration,
        "10s",
        "How often a quiet server is asked for a sign.",
    ),
    Key::with_default(
        "max_in_flight",
        COUNT,
        "512",
        "How many messages of one Asterisk may await their confirmation.",
    ),
    Key::optional(
        "max_in_flight_per_key",
        COUNT,
        "How many of those may be of one call. Left out: any number where a server that stands alone makes room in the \
         stream by itself (limits, discard old, one replica), 1 elsewhere. Above 1, a message that the stream refused for \
         a moment can end up behind a later one of its call.",
    ),
    Key::with_default(
        "batch_messages",
        KeyKind::Integer { min: 1, max: MAX_BATCH_MESSAGES as i64 },
        "1024",
        "How many messages of a server are offered at once, those that are on their way included. Where there are \
         other buses, a server's lane that catches up (more than twice as many wait) offers at most 896, and twice \
         as many each time that what waits does not shrink quickly.",
    ),
    Key::with_default("batch_bytes", KeyKind::Size, "1MiB", "How many bytes are offered at once, likewise."),
    Key::with_default(
        "total_bytes",
        KeyKind::Size,
        "16MiB",
        "How many bytes are offered at once for all servers together, beyond the 16 KiB that each may always have.",
    ),
];
