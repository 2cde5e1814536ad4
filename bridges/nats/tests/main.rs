//! The bridge against a real `nats-server`, read back with a client that knows nothing of the bridge.

mod conformance;
mod rig;
