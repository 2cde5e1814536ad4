//! The buses that this program was built with: one line each.

#[cfg(any(feature = "kafka", feature = "nats", feature = "zeromq"))]
use amibus_contract::Plug;
use amibus_contract::{Context, Key, Problem, SharedBridge, Values};

#[cfg(test)]
pub(crate) mod testing;

/// Opens a bus from checked values; see [`amibus_contract::Plug::open`].
pub type Open = fn(&Values, &Context) -> Result<SharedBridge, Vec<Problem>>;

/// One kind of bus.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// The table's name: `[bus.NAME]`.
    pub name: &'static str,
    /// What it can be configured with.
    pub keys: &'static [Key],
    /// Checks the values and makes the bridge.
    pub open: Open,
}

#[cfg(any(feature = "kafka", feature = "nats", feature = "zeromq"))]
const fn of<P: Plug>() -> Registration {
    Registration { name: P::NAME, keys: P::KEYS, open: P::open }
}

/// Every bus that was compiled in.
pub const REGISTRY: &[Registration] = &[
    #[cfg(feature = "kafka")]
    of::<amibus_kafka::Kafka>(),
    #[cfg(feature = "nats")]
    of::<amibus_nats::Nats>(),
    #[cfg(feature = "zeromq")]
    of::<amibus_zeromq::ZeroMq>(),
];

/// Every bus that there is, with the cargo feature that compiles it in.
pub const KNOWN: [(&str, &str); 3] = [("kafka", "kafka"), ("nats", "nats"), ("zeromq", "zeromq")];
