//! What the figures were measured on, as far as they depend on it, and when.

use std::{env, fs, thread};

use serde_json::{Value, json};

/// Cores, processor, kernel, date, and the commit that `benches/run` says in `BENCH_COMMIT`.
pub(crate) fn describe() -> Value {
    json!({
        "cores": thread::available_parallelism().map_or(1, usize::from),
        "processor": processor().unwrap_or_default(),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "commit": env::var("BENCH_COMMIT").unwrap_or_default(),
        "date": jiff::Timestamp::now().to_string(),
    })
}

fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
