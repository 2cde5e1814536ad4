//! What the tests stand on: the recordings of real Asterisks ([`corpus`]) and the real servers.
//!
//! Nothing here is published. Every failure is a panic that says what to do, because a test that cannot have
//! its server must fail, not pass.

pub mod corpus;
