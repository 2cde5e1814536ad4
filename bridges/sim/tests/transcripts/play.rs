use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use amibus_sim::{Recording, SimOptions};

use crate::client::{header, logged_in, names, start};

const CALL: &str = "dial-basic-22";
const RECORDED: &[u8] = include_bytes!("../../recordings/dial-basic-22.s2c");
const FAST: f64 = 1e5;

fn call() -> Recording {
    Recording::named(CALL).expect("embedded")
}

fn unchanged() -> SimOptions {
    SimOptions { play: vec![call()], speed: FAST, rebase_time: false, ..SimOptions::default() }
}

#[tokio::test]
async fn played_unchanged_it_is_the_recording_byte_for_byte() {
    let sim = start(unchanged()).await;
    let mut client = logged_in(&sim, "on").await;
    let expected = String::from_utf8_lossy(RECORDED).replace("\r\n", "\n");
    let expected: Vec<&str> = expected.split("\n\n").filter(|message| !message.is_empty()).collect();
    let got = client.messages(expected.len()).await;
    let got: Vec<&str> = got.iter().map(|message| message.trim_end_matches('\n')).collect();
    // A value may be empty at the end of a message: only line ends are trimmed.
    assert_eq!(got, expected.iter().map(|message| message.trim_end_matches('\n')).collect::<Vec<_>>());
}

#[tokio::test]
async fn two_servers_and_two_sessions_say_the_same() {
    let options = SimOptions { sequence_numbers: true, ..unchanged() };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let sim = start(SimOptions { play: Vec::new(), ..options.clone() }).await;
        let mut one = logged_in(&sim, "call,dialplan").await;
        let mut two = logged_in(&sim, "call,dialplan").await;
        sim.play(&call(), FAST).await;
        let last = "SequenceNumber: 172\n";
        let seen = one.through(last).await;
        assert_eq!(seen, two.through(last).await);
        runs.push(seen);
    }
    assert_eq!(runs[0], runs[1], "the two logins took numbers 0 and 1, the call the rest");
}

#[tokio::test]
async fn a_fresh_round_has_fresh_names_used_alike() {
    let sim = start(SimOptions { sequence_numbers: true, ..SimOptions::default() }).await;
    let mut client = logged_in(&sim, "on").await;
    let mut rounds = Vec::new();
    for _ in 0..2 {
        assert_eq!(sim.play(&call(), FAST).await, 171);
        rounds.push(client.messages(171).await);
    }
    let ids = |round: &[String], name: &str| -> BTreeSet<String> {
        let value = |message: &String| message.lines().find_map(|l| l.strip_prefix(name)).map(str::to_owned);
        round.iter().filter_map(value).collect()
    };
    let recorded = Recording::named(CALL).map(|_| String::from_utf8_lossy(RECORDED).replace("\r\n", "\n"));
    let recorded: Vec<String> = recorded.expect("text").split("\n\n").map(str::to_owned).collect();
    for name in ["Uniqueid: ", "Linkedid: ", "Channel: ", "BridgeUniqueid: "] {
        let (first, second, old) = (ids(&rounds[0], name), ids(&rounds[1], name), ids(&recorded, name));
        assert_eq!(first.len(), old.len(), "as many {name} as recorded");
        assert!(first.is_disjoint(&second) && first.is_disjoint(&old), "{name} is fresh");
    }
    assert_eq!(names(&rounds[0]), names(&rounds[1]));
    let numbers: Vec<u64> =
        rounds.concat().iter().map(|m| header(m, "SequenceNumber").parse().expect("a number")).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "without a gap");
    let lines: Vec<&str> = rounds[0][0].lines().take(4).collect();
    assert!(lines[2].starts_with("Timestamp: ") && lines[3].starts_with("SequenceNumber: "));
}

#[tokio::test]
async fn pace_follows_the_recording() {
    let recording = call();
    let whole = recording.duration();
    assert!(whole > Duration::from_secs(9), "the recorded call takes {whole:?}");
    let sim = start(SimOptions::default()).await;
    let began = Instant::now();
    sim.play(&recording, 20.0).await;
    let took = began.elapsed();
    assert!(took >= whole / 20, "{took:?} is faster than asked");
    assert!(took < whole / 4, "{took:?} is much slower than asked");
}

#[tokio::test]
async fn without_timestamps_there_are_none_and_loops_go_on() {
    let options = SimOptions {
        play: vec![Recording::named("originate-answer-22").expect("embedded")],
        loop_play: true,
        speed: FAST,
        timestamp: false,
        ..SimOptions::default()
    };
    let sim = start(options).await;
    let mut client = logged_in(&sim, "call").await;
    let mut seen = BTreeSet::new();
    while seen.len() < 3 {
        let message = client.message().await;
        assert!(!message.contains("\nTimestamp: "));
        if message.starts_with("Event: OriginateResponse") {
            seen.insert(header(&message, "Uniqueid").to_owned());
        }
    }
}

#[tokio::test]
async fn latin1_servers_write_latin1() {
    let sim = start(SimOptions { latin1: true, ..SimOptions::default() }).await;
    let mut client = logged_in(&sim, "user").await;
    client.send("Action: UserEvent\nUserEvent: U\nName: Jürgen 漢\n\nAction: Logoff\n\n").await;
    let bytes = client.rest().await;
    assert!(bytes.windows(15).any(|window| window == b"Name: J\xfcrgen ?\r"), "{}", bytes.escape_ascii());
}

#[tokio::test]
async fn the_demo_goes_round_and_leaves_nothing_behind() {
    let options = SimOptions { speed: 1000.0, ..SimOptions::demo() };
    assert_eq!(options.play.len(), 3);
    let sim = start(options).await;
    let mut client = logged_in(&sim, "call").await;
    let mut calls = BTreeSet::new();
    while calls.len() < 12 {
        let message = client.message().await;
        if message.starts_with("Event: Hangup\n") {
            calls.insert(header(&message, "Linkedid").to_owned());
        }
        assert!(sim.channels().len() <= 10, "four, four and two channels at most: {:?}", sim.channels());
    }
}
