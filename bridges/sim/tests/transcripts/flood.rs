use std::time::Duration;

use amibus_sim::{Flood, SimOptions};

use crate::client::{Client, eventually, logged_in, start};

/// Parses the Seq of each whole event and returns how many there were, having checked that none is missing.
fn count_in_order(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let mut next = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("Seq: ")) {
        assert_eq!(line.parse(), Ok(next), "in order and none missing");
        next += 1;
    }
    next
}

async fn read_flood(client: &mut Client, last: u64) -> Vec<u8> {
    let end = format!("Seq: {last}\n");
    let mut all = Vec::new();
    for message in client.through(&end).await {
        all.extend_from_slice(message.as_bytes());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_a_flood_arrives_in_order() {
    let sim = start(SimOptions {
        sequence_numbers: true,
        write_timeout: Duration::from_secs(5),
        ..SimOptions::default()
    })
    .await;
    let mut client = logged_in(&sim, "user").await;
    let total = 20_000;
    let (flooded, bytes) = tokio::join!(sim.flood(0, total), read_flood(&mut client, total - 1));
    assert_eq!(flooded.events, total);
    assert_eq!(count_in_order(&bytes), total);
    let text = String::from_utf8_lossy(&bytes);
    let mut numbers =
        text.lines().filter_map(|line| line.strip_prefix("SequenceNumber: ")?.parse::<u64>().ok());
    let first = numbers.next().expect("numbered");
    assert!(numbers.zip(first + 1..).all(|(number, expected)| number == expected));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_keeps_to_its_rate_and_spreads_over_calls() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "user").await;
    let flood = Flood { tag: "t".into(), events_per_second: 10_000, total: 3_000, calls: 3, pad_bytes: 16 };
    let (flooded, bytes) = tokio::join!(sim.flood_with(&flood), read_flood(&mut client, 2_999));
    assert!(flooded.took >= Duration::from_millis(290), "{:?}", flooded.took);
    assert!(flooded.rate() > 1_000.0, "{}", flooded.rate());
    let text = String::from_utf8_lossy(&bytes);
    let ids: std::collections::BTreeSet<&str> =
        text.lines().filter_map(|l| l.strip_prefix("Linkedid: ")).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(text.matches("\nTag: t\n").count(), 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_dropped_in_the_middle_of_an_event() {
    // Where it is cut is the kernel's affair: rarely that is between two events.
    const TRIES: u64 = 5;
    let mut is_amid = false;
    let sim = start(SimOptions::default()).await;
    let mut other = logged_in(&sim, "call").await;
    let total = 60_000;
    let mut cuts = Vec::new();
    for dropped in 1..=TRIES {
        let mut stuck = logged_in(&sim, "user").await;
        let flooded = sim.flood(0, total).await;
        assert_eq!(flooded.events, total, "the flood goes on without it");
        eventually("the drop", || sim.stats().slow_sessions_dropped == dropped).await;
        let bytes = stuck.rest().await;
        let whole = count_in_order(&bytes);
        assert!(whole > 1_000 && whole < total, "{whole} events fitted into the socket's buffers");
        cuts.push(bytes[bytes.len() - 40..].escape_ascii().to_string());
        is_amid = !bytes.ends_with(b"\r\n\r\n");
        if is_amid {
            break;
        }
    }
    assert!(is_amid, "never amid an event: {cuts:?}");
    assert!(other.ask("Action: Ping").await.contains("Pong"), "others are not disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_poured_arrives_as_it_is() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "user").await;
    let before = sim.stats().events;
    let event = "Event: Odd\r\nPrivilege: call,all\r\nName:value\r\n\r\n";
    for _ in 0..3 {
        sim.pour(&event.repeat(100).into(), 100).await;
    }
    sim.pour(&"Event: Last\r\n\r\n".into(), 1).await;
    let mut came = client.through("Event: Last\n").await;
    came.pop();
    assert_eq!(came.len(), 300);
    assert!(came.iter().all(|one| *one == "Event: Odd\nPrivilege: call,all\nName:value\n"), "{came:?}");
    assert_eq!(sim.stats().events - before, 301);
}
