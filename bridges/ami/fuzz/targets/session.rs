//! One program of `checks/session.rs`. The seeds also run in `cargo test -p amibus-ami`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks/session.rs"]
mod check;

fuzz_target!(|data: &[u8]| check::run(data));
