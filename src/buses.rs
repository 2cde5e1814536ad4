//! The buses that this program was built with: one line each.

use amibus_contract::{Context, Key, Plug, Problem, SharedBridge, Values};

/// Opens a bus from checked values; see [`Plug::open`].
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

const fn of<P: Plug>() -> Registration {
    Registration { name: P::NAME, keys: P::KEYS, open: P::open }
}

/// Every bus that was compiled in.
pub const REGISTRY: &[Registration] = &[];

/// Every bus that there is, with the cargo feature that compiles it in.
pub const KNOWN: [(&str, &str); 3] = [("kafka", "kafka"), ("nats", "nats"), ("zeromq", "zeromq")];
