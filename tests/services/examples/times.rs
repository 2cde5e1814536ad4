//! Prints how long each server takes to start, and to start again after SIGKILL.
#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use std::time::Instant;

use amibus_services::{Asterisk, AsteriskOptions, Kafka, Nats, Version};

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = run();
    println!("{what}: {:.2} s", start.elapsed().as_secs_f64());
    value
}

fn main() {
    let mut nats = timed("nats", Nats::jetstream);
    nats.kill();
    timed("nats again", || nats.restart());
    for version in [Version::V22, Version::V16] {
        let name = format!("asterisk {}", version.name());
        let mut asterisk = timed(&name, || Asterisk::start(version, &AsteriskOptions::default()));
        asterisk.kill();
        timed(&format!("{name} again"), || asterisk.restart());
        timed(&format!("{name} stop"), || asterisk.stop());
    }
    let mut kafka = timed("kafka", Kafka::plain);
    kafka.kill();
    timed("kafka again", || kafka.restart());
    timed("kafka stop", || kafka.stop());
}
