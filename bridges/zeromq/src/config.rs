//! What can be configured, and the limits that follow from it.

use std::time::Duration;

use amibus_contract::{Key, KeyKind, Problem, Values};

use crate::{
    address::Address,
    gate::{Limits, MAX_SKIPPED_BYTES},
};

const PUBLISH: &str = "publish";
const COMMANDS: &str = "commands";
const ALLOW_REMOTE: &str = "allow_remote";
const HANDSHAKE_TIMEOUT: &str = "handshake_timeout";
const MAX_PEERS: &str = "max_peers";
const MAX_COMMAND_BYTES: &str = "max_command_bytes";
const MAX_UNANSWERED: &str = "max_unanswered";
const MAX_MESSAGE_BYTES: &str = "max_message_bytes";
const SUBSCRIBER_QUEUE: &str = "subscriber_queue";
const SUBSCRIBER_PATIENCE: &str = "subscriber_patience";
const SUBSCRIBER_LEAST_RATE: &str = "subscriber_least_rate";

/// The least size of any limit, in bytes.
const LEAST_LIMIT_BYTES: u64 = 1024;
/// The largest message that may be configured, in bytes.
const MOST_MESSAGE_BYTES: u64 = 1 << 30;

/// How many commands of one requester may be unanswered at most; far fewer than the replies that the engine takes for
/// one peer before it waits with a lock held (see the module `thread`).
const MOST_UNANSWERED: i64 = 10_000;

/// The keys of `[bus.zeromq]`.
pub(crate) const KEYS: &[Key] = &[
    Key::required(
        PUBLISH,
        KeyKind::Text,
        "Where subscribers connect: `tcp://HOST:PORT` or `ipc://PATH`. Each message has two frames, topic and body. Port \
         `*` takes a free one.",
    ),
    Key::optional(
        COMMANDS,
        KeyKind::Text,
        "Where requesters (REQ, DEALER) connect to send commands, one frame each. Left out: no commands from ZeroMQ.",
    ),
    Key::with_default(
        ALLOW_REMOTE,
        KeyKind::Flag,
        "false",
        "Whether an address that other machines can reach is taken. There is neither authentication nor encryption on \
         this transport: whoever reaches it reads every event, and sends commands.",
    ),
    Key::with_default("required", KeyKind::Flag, "true", "Whether /ready needs this bus."),
    Key::with_default(
        "batch_messages",
        KeyKind::Integer { min: 1, max: 100_000 },
        "1024",
        "How many messages are published at once, at most. Where there are other buses, a server's lane that catches \
         up (more than twice as many wait) publishes at most 896, and twice as many each time that what waits does \
         not shrink quickly.",
    ),
    Key::with_default(
        "batch_bytes",
        KeyKind::Size,
        "1MiB",
        "How many bytes are published at once, at most (a single larger message goes alone).",
    ),
    Key::with_default(
        MAX_MESSAGE_BYTES,
        KeyKind::Size,
        "16MiB",
        "The largest message that is published, topic and body together; a larger one is left out and counted.",
    ),
    Key::with_default(
        MAX_COMMAND_BYTES,
        KeyKind::Size,
        "64KiB",
        "The largest command that is taken; a larger one is answered with a refusal.",
    ),
    Key::with_default(
        HANDSHAKE_TIMEOUT,
        KeyKind::Duration,
        "5s",
        "How long a peer may take for the handshake before it is disconnected.",
    ),
    Key::with_default(
        MAX_PEERS,
        KeyKind::Integer { min: 1, max: 100_000 },
        "256",
        "How many subscribers, and how many requesters, may be connected at once; each needs three file descriptors.",
    ),
    Key::with_default(
        MAX_UNANSWERED,
        KeyKind::Integer { min: 1, max: MOST_UNANSWERED },
        "64",
        "How many commands of one requester may be unanswered before no more are read from it.",
    ),
    Key::with_default(
        SUBSCRIBER_QUEUE,
        KeyKind::Size,
        "4MiB",
        "How many bytes may wait for one subscriber (or requester) that reads slowly. While it is full, publishing waits; that is, the \
         bus's lane waits, not the other buses.",
    ),
    Key::with_default(
        SUBSCRIBER_PATIENCE,
        KeyKind::Duration,
        "1s",
        "A subscriber whose queue is full is disconnected when it takes less than subscriber_least_rate over this time. It \
         may come back, and sees what it missed by the jump in `sequence`.",
    ),
    Key::with_default(
        SUBSCRIBER_LEAST_RATE,
        KeyKind::Size,
        "1MiB",
        "How many bytes a second a subscriber whose queue is full must take.",
    ),
];

/// The configuration of one bridge, valid.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) publish: Address,
    pub(crate) commands: Option<Address>,
    pub(crate) limits: Limits,
    pub(crate) max_message_bytes: usize,
}

impl Config {
    /// Reads the values; the error holds everything that is wrong with them.
    pub(crate) fn read(values: &Values) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader { values, problems: Vec::new() };
        let publish = reader.address(PUBLISH);
        let commands = reader.address(COMMANDS);
        if publish.is_none() && values.text(PUBLISH).is_none() {
            reader.problem(PUBLISH, "an address to publish on is needed, e.g. tcp://127.0.0.1:5556");
        }
        let same = publish.as_ref().zip(commands.as_ref()).is_some_and(|(a, b)| a == b && !a.is_open_ended());
        if same {
            reader.problem(COMMANDS, "commands need an address of their own, not the one of `publish`");
        }
        let limits = Limits {
            handshake_timeout: reader.duration(HANDSHAKE_TIMEOUT, Duration::from_secs(5)),
            max_peers: reader.integer(MAX_PEERS, 256),
            max_command_bytes: reader.size(MAX_COMMAND_BYTES, 64 << 10, MAX_SKIPPED_BYTES),
            max_unanswered: reader.integer(MAX_UNANSWERED, 64),
            queue_bytes: reader.size(SUBSCRIBER_QUEUE, 4 << 20, MOST_MESSAGE_BYTES),
            patience: reader.duration(SUBSCRIBER_PATIENCE, Duration::from_secs(1)),
            least_bytes_per_second: reader.size(SUBSCRIBER_LEAST_RATE, 1 << 20, MOST_MESSAGE_BYTES) as u64,
        };
        let max_message_bytes = reader.size(MAX_MESSAGE_BYTES, 16 << 20, MOST_MESSAGE_BYTES);
        match publish {
            Some(publish) if reader.problems.is_empty() => {
                Ok(Self { publish, commands, limits, max_message_bytes })
            }
            _ => Err(reader.problems),
        }
    }
}

struct Reader<'a> {
    values: &'a Values,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, key: &'static str, message: impl Into<String>) {
        self.problems.push(Problem::new(key, message));
    }

    fn address(&mut self, key: &'static str) -> Option<Address> {
        let text = self.values.text(key)?;
        match Address::parse(text) {
            Ok(address) if address.is_local() || self.values.flag(ALLOW_REMOTE) == Some(true) => {
                Some(address)
            }
            Ok(address) => {
                self.problem(
                    key,
                    format!(
                        "{address} is not a loopback address. ZeroMQ has neither authentication nor encryption here: \
                         whoever can reach it reads every event and sends commands. Use 127.0.0.1 or ipc://, or, where \
                         the network is trusted, set allow_remote = true"
                    ),
                );
                None
            }
            Err(wrong) => {
                self.problem(key, wrong);
                None
            }
        }
    }

    fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let value = self.values.duration(key).unwrap_or(default);
        if value.is_zero() {
            self.problem(key, "this must be longer than nothing, e.g. \"1s\"");
        }
        value
    }

    fn integer(&self, key: &'static str, default: usize) -> usize {
        self.values.integer(key).and_then(|v| usize::try_from(v).ok()).unwrap_or(default)
    }

    fn size(&mut self, key: &'static str, default: u64, most: u64) -> usize {
        let value = self.values.size(key).unwrap_or(default);
        if !(LEAST_LIMIT_BYTES..=most).contains(&value) {
            self.problem(key, format!("{value} bytes are out of bounds: {LEAST_LIMIT_BYTES} to {most}"));
        }
        usize::try_from(value).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use amibus_contract::Value;

    use super::*;

    fn values(pairs: &[(&'static str, &str)]) -> Values {
        let mut values = Values::default();
        for (key, text) in pairs {
            values = values.with(key, Value::Text((*text).to_owned()));
        }
        values
    }

    #[test]
    fn an_address_that_others_reach_is_refused_with_the_reason() {
        let open = values(&[(PUBLISH, "tcp://0.0.0.0:5556"), (COMMANDS, "tcp://10.0.0.1:5557")]);
        let problems = Config::read(&open).expect_err("not loopback");
        let keys: Vec<_> = problems.iter().map(|p| p.key).collect();
        assert_eq!(keys, [PUBLISH, COMMANDS], "both at once");
        assert!(problems.iter().all(|p| p.message.contains("neither authentication nor encryption")));
        assert!(Config::read(&open.with(ALLOW_REMOTE, Value::Flag(true))).is_ok());
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let wrong = values(&[(PUBLISH, "127.0.0.1:1")])
            .with(HANDSHAKE_TIMEOUT, Value::Duration(Duration::ZERO))
            .with(MAX_COMMAND_BYTES, Value::Size(1 << 40));
        let keys: Vec<_> = Config::read(&wrong).expect_err("wrong").iter().map(|p| p.key).collect();
        assert_eq!(keys, [PUBLISH, HANDSHAKE_TIMEOUT, MAX_COMMAND_BYTES]);
        assert_eq!(Config::read(&Values::default()).expect_err("nothing given").len(), 1);
    }

    #[test]
    fn commands_need_an_address_of_their_own() {
        let same = values(&[(PUBLISH, "tcp://127.0.0.1:5556"), (COMMANDS, "tcp://127.0.0.1:5556")]);
        assert_eq!(Config::read(&same).expect_err("the same twice").len(), 1);
        let free = values(&[(PUBLISH, "tcp://127.0.0.1:*"), (COMMANDS, "tcp://127.0.0.1:*")]);
        assert!(Config::read(&free).is_ok(), "two free ports are two addresses");
    }
}
