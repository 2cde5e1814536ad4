//! Graceful stops and restarts of a real Asterisk: it waits for its calls, and refuses everything meanwhile.

use super::*;

const CALL: [(&str, &str); 4] =
    [("Channel", "Local/s@stay"), ("Application", "Wait"), ("Data", "8"), ("Async", "true")];

/// Longer than silence is put up with: `ping_interval` and `ping_deadline` of [`settings`].
const WATCHED_FOR: Duration = Duration::from_secs(4);

/// The link lives while Asterisk waits for a call; who comes meanwhile is refused, and gets in afterwards.
async fn waits_for_a_call(asterisk: &mut Asterisk, command: &str, farewell: &str, comes_back: bool) {
    let watched = Watched::start(settings(asterisk, "full"));
    let (actions, shutdown) = acting(settings(asterisk, "full"));
    let up = watched.told("up ", 0).await;
    is_ready(&actions).await;
    assert!(run(&actions, "Originate", &CALL).await.unwrap().response.frame().is_success());
    watched.told("event OriginateResponse", up).await;
    // It is answered when the calls are over, if at all, so it has a session of its own.
    let (asker, asked) = acting(settings(asterisk, "full"));
    is_ready(&asker).await;
    let command = command.to_owned();
    let stop = tokio::spawn(async move { cli(&asker, &command).await });
    let refusing = async {
        while run(&actions, "CoreStatus", &[]).await.unwrap().response.frame().is_success() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, refusing).await.expect("a graceful stop under way");

    let begun = tokio::time::Instant::now();
    let mut late = Vec::new();
    for login in [LoginMethod::Plain, LoginMethod::Md5] {
        late.push(Watched::start(ServerSettings { login, ..settings(asterisk, "full") }));
    }
    for one in &late {
        one.told("down Asterisk is shutting down", 0).await;
    }
    while begun.elapsed() < WATCHED_FOR {
        let answer = run(&actions, "CoreStatus", &[]).await.expect("an answer");
        let frame = answer.response.frame();
        assert_eq!(frame.name(), b"Error");
        assert_eq!(frame.first("Message"), Some(b"Asterisk is shutting down".as_slice()));
        let lines = watched.told.lines();
        assert!(!lines.iter().any(|line| line.starts_with("down ")), "{lines:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    let down = watched.told("down ", up).await;
    assert_eq!(watched.told.lines()[down], farewell);
    if !comes_back {
        asterisk.restart();
    }
    let stop = timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert!(matches!(stop, Ok(_) | Err(ActionFailure::Lost { written: true })), "{stop:?}");
    asked.cancel();
    let gone = tokio::time::Instant::now();
    watched.told("up ", down).await;
    for one in late {
        one.told("up 22.", 0).await;
        one.stop().await;
    }
    is_ready(&actions).await;
    assert!(
        gone.elapsed() < settings(asterisk, "full").slow_retry / 2,
        "back only after {:?}",
        gone.elapsed()
    );
    shutdown.cancel();
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_stops_are_no_dead_links() {
    let dialplan = "[stay]\nexten => s,1,Answer()\n same => n,Wait(8)\n".to_owned();
    let mut asterisk =
        Asterisk::start(Version::V22, &AsteriskOptions { dialplan, ..AsteriskOptions::default() });
    waits_for_a_call(&mut asterisk, "core restart gracefully", "down Asterisk restarts", true).await;
    waits_for_a_call(&mut asterisk, "core stop gracefully", "down Asterisk has been stopped", false).await;
}
