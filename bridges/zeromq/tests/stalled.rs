//! A subscriber that stops reading, in a test binary of its own so that this process's memory can be measured.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Peer, message, publish};

/// How much is published after the subscriber stopped: far more than may be kept for it.
const MESSAGES: usize = 150_000;
const MESSAGE_BYTES: usize = 2_000;
/// The queue's 4 MiB, twice over for the room that a growing buffer takes, and something for everything else.
const MOST_GROWTH_BYTES: usize = 24 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_subscriber_costs_neither_memory_nor_the_others_time() {
    let (bridge, mut outlet, address) = support::publishing(&support::values()).await;
    let options = json!({"address": address, "topics": ["ami."], "messages": MESSAGES});
    let mut stopped = Peer::start("count", &options);
    let mut reading = Peer::start("count", &options);
    stopped.ready().await;
    reading.ready().await;
    stopped.signal("STOP").await;
    let before = resident_bytes();
    let (mut most, mut longest, mut waits) = (before, Duration::ZERO, 0);
    for first in (0..MESSAGES).step_by(500) {
        let batch: Vec<_> = (first..first + 500).map(|n| message("pbx1", n, MESSAGE_BYTES)).collect();
        let start = Instant::now();
        publish(&mut *outlet, &batch).await;
        longest = longest.max(start.elapsed());
        waits += usize::from(start.elapsed() > Duration::from_millis(700));
        most = most.max(resident_bytes());
    }
    let said = reading.said_within(Duration::from_secs(120)).await.expect("it gets there");
    assert_eq!(
        (&said["seen"], &said["jumps"], &said["disconnects"]),
        (&json!(MESSAGES), &json!(0), &json!(0))
    );
    assert_eq!(bridge.stats().slow, 1, "the stopped one was let go: {:?}", bridge.stats());
    assert!(longest < Duration::from_secs(5) && waits <= 2, "waited {waits} times, {longest:?} at most");
    let growth = most - before;
    assert!(growth < MOST_GROWTH_BYTES, "{growth} bytes more than before");

    // It comes back by itself, and sees the rest from there.
    stopped.signal("CONT").await;
    stopped.ready().await;
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = pages.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    pages * 4096
}
