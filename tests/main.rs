//! The tests of the whole: one binary, a module per promise.

mod accounting;
mod cli;
mod e2e;
mod gaps;
mod injection;
mod normalize;
mod outcomes;
