//! What the benchmarks share: medians of interleaved repeats, and the paper that figures are written on.

pub(crate) mod machine;
pub(crate) mod spread;
pub(crate) mod table;
