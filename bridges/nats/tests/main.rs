//! The bridge against a real `nats-server`, read back with a client that knows nothing of the bridge.

mod claims;
mod cluster;
mod commands;
mod conformance;
mod faults;
mod flight;
mod found;
mod hostile;
mod jwt;
mod logins;
mod order;
mod rig;
mod streams;
mod window;
