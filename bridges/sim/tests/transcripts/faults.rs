use std::io::ErrorKind;
use std::time::{Duration, Instant};

use amibus_sim::SimOptions;
use tokio::net::TcpStream;

use crate::client::{Client, eventually, header, logged_in, names, start};

fn numbered() -> SimOptions {
    SimOptions { sequence_numbers: true, talk: Duration::from_secs(60), ..SimOptions::default() }
}

fn user_event(name: &str) -> String {
    format!("Action: UserEvent\nUserEvent: {name}\n\n")
}

async fn number_of_next_event(client: &mut Client) -> u64 {
    client.send(&user_event("Counted")).await;
    let messages = client.through("UserEvent: Counted").await;
    header(messages.last().expect("the event"), "SequenceNumber").parse().expect("a number")
}

#[tokio::test]
async fn dropped_sessions_end_and_new_ones_are_served() {
    let sim = start(numbered()).await;
    let mut client = logged_in(&sim, "on").await;
    sim.drop_sessions();
    assert!(client.rest().await.is_empty());
    eventually("no session", || sim.sessions() == 0).await;
    logged_in(&sim, "on").await;
}

#[tokio::test]
async fn a_stalled_server_goes_on_where_it_was() {
    let sim = start(numbered()).await;
    let mut client = logged_in(&sim, "user").await;
    sim.stall(Duration::from_millis(300));
    let began = Instant::now();
    client.send("Action: Ping\nActionID: late\n\n").await;
    assert!(client.is_silent(Duration::from_millis(100)).await);
    assert!(client.message().await.contains("ActionID: late"));
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn a_half_open_server_accepts_and_never_answers() {
    let sim = start(numbered()).await;
    let mut old = logged_in(&sim, "on").await;
    sim.half_open();
    let mut new = Client::silent(&sim).await;
    old.send("Action: Ping\n\n").await;
    sim.emit("Event: Unseen\r\n\r\n");
    assert!(old.is_silent(Duration::from_millis(100)).await);
    assert!(new.is_silent(Duration::from_millis(100)).await);
    sim.accept().await.expect("the port was open all the time");
    logged_in(&sim, "on").await;
    assert!(old.is_silent(Duration::from_millis(50)).await, "what was silent stays so");
    sim.drop_sessions();
    assert!(old.rest().await.is_empty());
}

#[tokio::test]
async fn an_event_is_cut_in_its_middle() {
    let sim = start(numbered()).await;
    let mut client = logged_in(&sim, "on").await;
    let mut deaf = logged_in(&sim, "off").await;
    client.through("Event: SuccessfulAuth").await;
    sim.cut_mid_event();
    let tail = client.rest().await;
    assert!(tail.starts_with(b"Event: Newstate\r\nPrivilege: call,all\r\n"), "{}", tail.escape_ascii());
    assert!(!tail.ends_with(b"\r\n\r\n"));
    assert!(deaf.ask("Action: Ping").await.contains("Pong"), "who gets no events is left alone");
}

#[tokio::test]
async fn a_refusing_server_refuses_and_takes_again() {
    let sim = start(numbered()).await;
    let mut old = logged_in(&sim, "off").await;
    sim.refuse().await.expect("closed");
    let error = TcpStream::connect(sim.addr()).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(old.ask("Action: Ping").await.contains("Pong"), "present sessions stay");
    sim.accept().await.expect("open again");
    logged_in(&sim, "off").await;
}

#[tokio::test]
async fn a_restart_hangs_up_says_so_and_counts_anew() {
    let sim = start(numbered()).await;
    let mut client = logged_in(&sim, "on").await;
    let ask = "Action: Originate\nChannel: Local/1@a\nApplication: Wait\nChannelId: up\nAsync: true";
    client.ask(ask).await;
    client.through("Reason: 4").await;
    sim.restart();
    let rest = String::from_utf8(client.rest().await).expect("text").replace("\r\n", "\n");
    let messages: Vec<String> = rest.split("\n\n").filter(|m| !m.is_empty()).map(str::to_owned).collect();
    let hangups = names(&messages).iter().filter(|name| **name == "Hangup").count();
    assert_eq!(hangups, 2, "both halves: {rest}");
    assert!(rest.ends_with("Shutdown: Uncleanly\nRestart: True\n\n"), "{rest}");
    assert!(sim.channels().is_empty());
    assert_eq!(sim.next_sequence(), 0);
    let mut client = logged_in(&sim, "on").await;
    assert_eq!(number_of_next_event(&mut client).await, 1, "the login took 0");
    assert_eq!((sim.stats().boots, sim.originates().len()), (2, 1), "what was seen is kept");
    client.ask(ask).await;
    client.through("Reason: 4").await;
    assert!(sim.originates()[1].dialled, "its channel died with the boot");
}

#[tokio::test]
async fn a_crash_says_nothing() {
    let sim = start(numbered()).await;
    let mut client = logged_in(&sim, "on").await;
    sim.crash();
    assert!(client.rest().await.is_empty());
    assert_eq!((sim.stats().boots, sim.next_sequence()), (2, 0));
}

#[tokio::test]
async fn skipped_numbers_are_missing() {
    let sim = start(numbered()).await;
    let mut client = logged_in(&sim, "on").await;
    let before = number_of_next_event(&mut client).await;
    sim.skip_sequence(5);
    assert_eq!(number_of_next_event(&mut client).await, before + 6);
}

#[tokio::test]
async fn literal_bytes_reach_every_event_session_and_no_other() {
    let sim = start(numbered()).await;
    let mut client = logged_in(&sim, "call").await;
    let mut deaf = logged_in(&sim, "off").await;
    sim.emit("Whatever: first line\r\nEvent: Forged\r\n\r\n");
    assert_eq!(client.message().await, "Whatever: first line\nEvent: Forged\n");
    assert!(deaf.ask("Action: Ping").await.contains("Pong"));
}

#[tokio::test]
async fn one_byte_at_a_time_says_the_same() {
    let sim = start(SimOptions { write_chunk_bytes: Some(1), ..numbered() }).await;
    let mut client = logged_in(&sim, "on").await;
    assert_eq!(number_of_next_event(&mut client).await, 1);
    sim.write_chunk_bytes(None);
    assert_eq!(number_of_next_event(&mut client).await, 2);
}

#[tokio::test]
async fn a_graceful_stop_refuses_actions_while_events_flow() {
    let sim = start(numbered()).await;
    let mut client = logged_in(&sim, "on").await;
    sim.stopping(true);
    assert!(client.ask("Action: Ping").await.starts_with("Response: Error\n"));
    sim.emit("Event: Still\r\n\r\n");
    assert_eq!(client.message().await, "Event: Still\n");
    sim.stopping(false);
    assert!(client.ask("Action: Ping").await.contains("Pong"));
}
