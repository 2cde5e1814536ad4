//! The tests of `normalize`, `route` and `filter` on recordings and on generated messages.

#[path = "normalize/mod.rs"]
mod normalize;
