//! One event session in stopped time: what the sink is told, in which order, and when.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use amibus_ami::{LoginError, Retry};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::script::{Server, Told, pipe, settings};
use crate::asterisk::{
    DownReason, ServerSettings,
    actions::BOOT_GRACE,
    events::{HELD_BYTES, HELD_OVERHEAD_BYTES, IDENTITY_DEADLINE, REST, watch},
    link::Ended,
};

const PIPE_BYTES: usize = 1 << 20;

/// Runs a session against `script` and gives what the sink was told, and how it ended. The script's return
/// closes the connection.
async fn against<F: Future<Output = ()>>(
    settings: ServerSettings,
    script: impl FnOnce(Server<tokio::io::DuplexStream>) -> F,
) -> (Vec<String>, Ended) {
    let (wire, server) = pipe(&settings, PIPE_BYTES);
    let (mut told, mut boot) = (Told::default(), None);
    let shutdown = CancellationToken::new();
    let ended = tokio::join!(watch(&settings, wire, &mut told, &mut boot, &shutdown), script(server)).0;
    (told.lines(), ended)
}

#[tokio::test(start_paused = true)]
async fn up_comes_first_then_what_was_held_then_the_rest() {
    let (told, ended) = against(settings(0), async |mut server| {
        server.logs_in().await;
        server.says("Event: FullyBooted\n\nEvent: Newchannel\n\ntorn: 1\n\n").await;
        server.identifies("22.10.1+dfsg-1").await;
        let channels = "Response: Success\nActionID: {id}\nEventList: start\n\n\
            Event: CoreShowChannel\nActionID: {id}\n\nEvent: CoreShowChannelsComplete\nActionID: {id}\nEventList: Complete\n\n";
        server.answers("CoreShowChannels", channels).await;
        server.denies("BridgeList").await;
        server.says("Event: Hangup\n\ntorn: 2\n\n").await;
        server.answers("QueueStatus", "Response: Success\nActionID: {id}\nEventList: start\n\nEvent: E\nActionID: {id}\nEventList: Complete\n\n").await;
    })
    .await;
    assert_eq!(
        told,
        [
            "up 22.10.1, boot 2026-11-21T12:00:00, resumed false",
            "event FullyBooted",
            "event Newchannel",
            "other torn: 1",
            "snapshot CoreShowChannels, 1 items",
            "event Hangup",
            "other torn: 2",
            "snapshot QueueStatus, 0 items",
        ]
    );
    assert!(matches!(ended.reason, DownReason::Closed { cut: false }));
    assert!(ended.since.is_some());
}

#[tokio::test(start_paused = true)]
async fn snapshots_wait_for_the_boot() {
    let begun = Instant::now();
    let settings = ServerSettings { snapshots: vec!["QueueStatus".to_owned()], ..settings(0) };
    let list = "Response: Success\nActionID: {id}\nEventList: start\n\nEvent: QueueStatusComplete\nActionID: {id}\nEventList: Complete\n\n";
    let (told, _) = against(settings.clone(), async |mut server| {
        server.logs_in().await;
        server.identifies("22").await;
        sleep(BOOT_GRACE / 2).await;
        server.says("Event: FullyBooted\n\n").await;
        server.answers("QueueStatus", list).await;
        assert_eq!(begun.elapsed(), BOOT_GRACE / 2);
    })
    .await;
    assert_eq!(told[1..], ["event FullyBooted", "snapshot QueueStatus, 0 items"]);

    // A boot that takes longer: refused first, and asked for again.
    let (told, _) = against(settings, async |mut server| {
        server.logs_in().await;
        server.identifies("22").await;
        let unknown = "Response: Error\nActionID: {id}\nMessage: Invalid/unknown command\n\n";
        server.answers("QueueStatus", unknown).await;
        server.says("Event: FullyBooted\n\n").await;
        server.answers("QueueStatus", list).await;
        // What forges another does not make it ask a third time.
        server.says("Event: FullyBooted\n\n").await;
        server.answers("Ping", "Response: Success\nActionID: {id}\n\n").await;
    })
    .await;
    assert_eq!(told[1..], ["event FullyBooted", "snapshot QueueStatus, 0 items", "event FullyBooted"]);
}

#[tokio::test(start_paused = true)]
async fn many_small_events_are_held_no_longer_than_few_large_ones() {
    let begun = Instant::now();
    let (told, _) = against(settings(0), async |mut server| {
        server.logs_in().await;
        let events = "Event: A\n\n".repeat(1_000);
        for _ in 0..=HELD_BYTES / HELD_OVERHEAD_BYTES / 1_000 {
            server.says(&events).await;
        }
        for asked in ["CoreSettings", "CoreStatus", "Ping", "CoreShowChannels"] {
            server.hears(asked).await;
        }
        assert!(begun.elapsed() < IDENTITY_DEADLINE);
    })
    .await;
    assert_eq!(told[0], "up AMI 11.0.0, boot ?, resumed false");
}

#[tokio::test(start_paused = true)]
async fn who_may_not_ask_is_still_up() {
    let (told, _) = against(settings(0), async |mut server| {
        server.logs_in().await;
        server.denies("CoreSettings").await;
        server.says("Event: A\n\n").await;
        server.denies("CoreStatus").await;
        server.pongs().await;
        server.denies_snapshots().await;
    })
    .await;
    assert_eq!(told, ["up AMI 11.0.0, boot ?, resumed false", "event A"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_say_who_it_is_is_not_waited_for() {
    let begun = Instant::now();
    let (told, _) = against(settings(0), async |mut server| {
        server.logs_in().await;
        server.says("Event: A\n\n").await;
        server.hears("CoreSettings").await;
        server.hears("CoreStatus").await;
        server.hears("Ping").await;
        server.hears("CoreShowChannels").await;
        assert_eq!(begun.elapsed(), IDENTITY_DEADLINE);
    })
    .await;
    assert_eq!(told, ["up AMI 11.0.0, boot ?, resumed false", "event A"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_is_bounded() {
    let begun = Instant::now();
    let (told, _) = against(settings(0), async |mut server| {
        server.logs_in().await;
        let event = format!("Event: Big\nValue: {}\n\n", "x".repeat(HELD_BYTES / 10));
        for _ in 0..11 {
            server.says(&event).await;
        }
        server.hears("CoreSettings").await;
        server.hears("CoreStatus").await;
        server.hears("Ping").await;
        server.hears("CoreShowChannels").await;
        assert!(begun.elapsed() < IDENTITY_DEADLINE);
    })
    .await;
    assert_eq!(told.len(), 12);
    assert_eq!(told[0], "up AMI 11.0.0, boot ?, resumed false");
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_the_end_is_told() {
    let (told, ended) = against(settings(0), async |mut server| {
        server.logs_in().await;
        server.says("Event: A\n\nEvent: B\nChann").await;
    })
    .await;
    assert_eq!(told, ["up AMI 11.0.0, boot ?, resumed false", "event A"]);
    assert!(matches!(ended.reason, DownReason::Closed { cut: true }), "{}", ended.reason);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_left_after_the_ping_deadline() {
    let settings = settings(0);
    let patience = settings.ping_interval + settings.ping_deadline;
    let begun = Instant::now();
    let (_, ended) = against(settings, async |mut server| {
        server.logs_in().await;
        server.identifies("22").await;
        server.denies_snapshots().await;
        server.hears("Ping").await;
        sleep(Duration::from_secs(600)).await;
    })
    .await;
    assert!(matches!(ended.reason, DownReason::Dead(_)), "{}", ended.reason);
    assert_eq!(ended.reason.retry(), Retry::Soon);
    assert_eq!(ended.since.unwrap() - begun, Duration::ZERO);
    assert!(begun.elapsed() >= patience);
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_is_not_a_dead_link() {
    let (told, ended) = against(settings(0), async |mut server| {
        server.logs_in().await;
        server.identifies("22").await;
        server.denies_snapshots().await;
        for _ in 0..20 {
            server.denies("Ping").await;
        }
        server.says("Event: Hangup\n\nEvent: Shutdown\nShutdown: Cleanly\nRestart: True\n\n").await;
    })
    .await;
    assert_eq!(told[1..], ["event Hangup", "event Shutdown"]);
    assert_eq!(ended.reason.to_string(), "Asterisk restarts");
}

#[tokio::test(start_paused = true)]
async fn a_login_during_a_graceful_stop_is_tried_again_soon() {
    let (told, ended) = against(settings(0), async |mut server| {
        server.says("Asterisk Call Manager/11.0.0\n").await;
        let answer = "Response: Error\nActionID: {id}\nMessage: Asterisk is shutting down\n\n";
        server.answers("Login", answer).await;
    })
    .await;
    assert!(told.is_empty());
    assert!(matches!(ended.reason, DownReason::Refused(LoginError::ShuttingDown)));
    assert_eq!(ended.reason.retry(), Retry::Soon);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_is_told_apart() {
    let (told, ended) = against(settings(0), async |mut server| {
        server.says("Asterisk Call Manager/11.0.0\n").await;
        server.answers("Login", "Response: Error\nActionID: {id}\nMessage: Authentication failed\n\n").await;
    })
    .await;
    assert!(told.is_empty());
    assert!(matches!(ended.reason, DownReason::Refused(LoginError::WrongSecret)));
    assert_eq!(ended.reason.retry(), Retry::Slowly);
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_amibus_logs_off_and_tells_what_still_comes() {
    let settings = settings(0);
    let (wire, mut server) = pipe(&settings, PIPE_BYTES);
    let (mut told, mut boot) = (Told::default(), None);
    let shutdown = CancellationToken::new();
    let script = async {
        server.logs_in().await;
        server.identifies("22").await;
        server.denies_snapshots().await;
        shutdown.cancel();
        let (_, id) = server.hears("Logoff").await;
        server.says(&format!("Event: Last\n\nResponse: Goodbye\nActionID: {id}\n\n")).await;
        drop(server);
    };
    let (ended, ()) = tokio::join!(watch(&settings, wire, &mut told, &mut boot, &shutdown), script);
    assert!(matches!(ended.reason, DownReason::Stopping));
    assert_eq!(told.lines()[1..], ["event Last"]);
}

#[tokio::test(start_paused = true)]
async fn it_rests_after_each_read_while_the_sink_is_behind() {
    const EVENTS: usize = 20_000;
    const BEHIND: u64 = 3;
    let settings = settings(0);
    let (wire, mut server) = pipe(&settings, PIPE_BYTES);
    let (mut told, mut boot) = (Told::default(), None);
    let behind = Arc::clone(&told.behind);
    let shutdown = CancellationToken::new();
    let script = async {
        server.logs_in().await;
        server.identifies("22").await;
        server.denies_snapshots().await;
        sleep(Duration::from_millis(1)).await;
        let begun = Instant::now();
        behind.store(BEHIND, Relaxed);
        server.says(&"Event: Flood\n\n".repeat(EVENTS)).await;
        while behind.load(Relaxed) > 0 {
            sleep(Duration::from_micros(1)).await;
        }
        drop(server);
        begun
    };
    let (_, begun) = tokio::join!(watch(&settings, wire, &mut told, &mut boot, &shutdown), script);
    assert_eq!(begun.elapsed().as_millis(), u128::from(BEHIND) * REST.as_millis(), "and no longer");
    assert_eq!(told.lines().len(), 1 + EVENTS);
}
