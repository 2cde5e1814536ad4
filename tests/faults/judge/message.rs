//! One line of a consumer's store (`consume.py` has the format).

use std::hash::{DefaultHasher, Hash, Hasher};

/// One message as the consumer stored it. Texts that are only compared are kept as hashes.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// `sequence`.
    pub(crate) sequence: u64,
    /// `id`, hashed.
    pub(crate) id: u64,
    /// What was in it, hashed: CRC of the body.
    pub(crate) crc: u64,
    /// The topic's last word (Kafka) and the key, hashed: within it there is an order.
    pub(crate) key: u64,
    /// What it says.
    pub(crate) what: What,
}

/// What a message says.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// An event of the source.
    Event { tag: String, n: u64, number: Option<u64>, lag_micros: Option<i64> },
    /// Something was not seen.
    Gap(Gap),
    /// The link is up, in this life of Asterisk.
    Up { boot: String },
    /// Anything else.
    Other,
}

/// An announced gap.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    /// `disconnected`, `skipped`, `dropped`, `damaged`.
    pub(crate) reason: String,
    /// First and last: SequenceNumbers, or `sequence`s where the log lost them.
    pub(crate) range: Option<(u64, u64)>,
    /// From and until, microseconds since 1970.
    pub(crate) times: Option<(u64, u64)>,
    /// The one bus that it concerns.
    pub(crate) bus: Option<String>,
}

impl Gap {
    /// Whether its range counts our own `sequence`.
    pub(crate) fn is_of_the_log(&self) -> bool {
        matches!(self.reason.as_str(), "dropped" | "damaged")
    }
}

impl Message {
    /// Reads a line.
    ///
    /// # Panics
    /// Where it is not one: then the consumer is wrong.
    pub(crate) fn parse(line: &str) -> Self {
        Self::read(line).unwrap_or_else(|| panic!("not a line of a consumer: {line:?}"))
    }

    /// The time from the source to the consumer, in microseconds.
    pub(crate) fn lag_micros(&self) -> Option<i64> {
        match self.what {
            What::Event { lag_micros, .. } => lag_micros,
            _ => None,
        }
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split('\t');
        let kind = words.next()?;
        // Kafka keeps an order within a topic only.
        let topic = words.next()?.split_once('/').map_or("", |(topic, _)| topic);
        let sequence = words.next()?.parse().ok()?;
        let (id, crc) = (hash(words.next()?), words.next()?.parse().ok()?);
        let key = hash(&(topic, words.next()?));
        let rest: Vec<&str> = words.collect();
        let what = match (kind, rest.as_slice()) {
            ("E", [tag, n, number, lag]) => What::Event {
                tag: (*tag).to_owned(),
                n: n.parse().ok()?,
                number: number.parse().ok(),
                lag_micros: lag.parse().ok(),
            },
            ("G", [reason, first, last, from, until, bus]) => What::Gap(Gap {
                reason: (*reason).to_owned(),
                range: first.parse().ok().zip(last.parse().ok()),
                times: from.parse().ok().zip(until.parse().ok()),
                bus: (*bus != "-").then(|| (*bus).to_owned()),
            }),
            ("L", ["up", boot]) => What::Up { boot: (*boot).to_owned() },
            ("L", [_, _]) | ("O", [_]) => What::Other,
            _ => return None,
        };
        Some(Self { sequence, id, crc, key, what })
    }
}

fn hash(text: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
