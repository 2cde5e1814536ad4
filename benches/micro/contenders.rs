//! Who is measured. Each goes through a whole recording once.

use crate::{naive, ours};

/// One way of doing something with every message of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// Counts `\r\n\r\n`.
    CountEnds,
    /// amibus's decoder: frames with their first line read.
    Decode,
    /// amibus: decode, normalize, encode, the CloudEvent and its attributes as a bus is given them.
    Event,
    /// amibus: the same without the envelope, `data` alone.
    Data,
    /// (a): `HashMap<String, String>`, `serde_json::Value`, text.
    MapAndValue,
    /// (b): borrowed headers, written by `serde_json` into one buffer.
    ZeroCopy,
}

impl Contender {
    pub(crate) const ALL: [Self; 6] =
        [Self::CountEnds, Self::Decode, Self::Event, Self::Data, Self::MapAndValue, Self::ZeroCopy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CountEnds => "count-ends",
            Self::Decode => "decode",
            Self::Event => "event",
            Self::Data => "data",
            Self::MapAndValue => "map-and-value",
            Self::ZeroCopy => "zero-copy",
        }
    }

    /// How many messages it found, and how many bytes it wrote of them.
    pub(crate) fn run(self, bytes: &[u8]) -> (u64, u64) {
        match self {
            Self::CountEnds => (naive::messages(bytes).count() as u64, 0),
            Self::Decode => ours::decode(bytes),
            Self::Event => ours::event(bytes),
            Self::Data => ours::data(bytes),
            Self::MapAndValue => naive::map_and_value(bytes),
            Self::ZeroCopy => naive::zero_copy(bytes),
        }
    }
}
