//! The `amibus` program.
fn main() {}
