//! What the fuzzer begins with, run without a fuzzer.

use std::{fs, path::Path};

#[path = "../../fuzz/checks/decoder.rs"]
mod decoder;
#[path = "../../fuzz/checks/session.rs"]
mod session;

fn each_of(name: &str, run: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut count = 0;
    for seed in fs::read_dir(&seeds).unwrap() {
        run(&fs::read(seed.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 6, "only {count} seeds in {}", seeds.display());
}

#[test]
fn the_seeds_of_the_decoder() {
    each_of("decoder", decoder::run);
}

#[test]
fn the_seeds_of_the_session() {
    each_of("session", session::run);
}
