//! Graceful stops and restarts of a real Asterisk: it waits for its calls, and refuses everything meanwhile.

use super::*;

const CALL: [(&str, &str); 4] =
    [("Channel", "Local/s@stay"), ("Application", "Wait"), ("Data", "3600"), ("Async", "true")];
/// The call lasts until there is a file `leave`.
const DIALPLAN: &str = "\
[stay]
exten => s,1,Answer()
 same => n(stay),Wait(0.1)
 same => n,GotoIf($[\"${STAT(e,/srv/amibus/leave)}\"!=\"1\"]?stay)
";

const PING_DEADLINE: Duration = Duration::from_secs(5);
/// Longer than silence is put up with: `ping_interval` and `ping_deadline` of [`settings`].
const WATCHED_FOR: Duration = Duration::from_secs(7);

/// Who is put off for long does not come back within this test.
fn settings(asterisk: &Asterisk) -> ServerSettings {
    let slow_retry = Duration::from_secs(3_600);
    ServerSettings { ping_deadline: PING_DEADLINE, slow_retry, ..super::settings(asterisk, "full") }
}

/// The link lives while Asterisk waits for a call; who comes meanwhile is refused, and gets in afterwards.
async fn waits_for_a_call(asterisk: &mut Asterisk, command: &str, farewell: &str, comes_back: bool) {
    let leave = asterisk.directory().join("leave");
    let _ = std::fs::remove_file(&leave);
    let watched = Watched::start(settings(asterisk));
    let (actions, shutdown) = acting(settings(asterisk));
    let up = watched.told("up ", 0).await;
    is_ready(&actions).await;
    assert!(run(&actions, "Originate", &CALL).await.unwrap().response.frame().is_success());
    watched.told("event OriginateResponse", up).await;
    // It is answered when the calls are over, if at all, so it has a session of its own.
    let (asker, asked) = acting(settings(asterisk));
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
        late.push(Watched::start(ServerSettings { login, ..settings(asterisk) }));
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

    std::fs::write(&leave, "").expect("the call is told to end");
    let down = watched.told_farewell(farewell, up).await;
    if !comes_back {
        asterisk.restart();
    }
    let stop = timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert!(matches!(stop, Ok(_) | Err(ActionFailure::Lost { written: true })), "{stop:?}");
    asked.cancel();
    watched.told("up ", down).await;
    for one in late {
        one.told("up 22.", 0).await;
        one.stop().await;
    }
    is_ready(&actions).await;
    shutdown.cancel();
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_stops_are_no_dead_links() {
    let options = AsteriskOptions { dialplan: DIALPLAN.to_owned(), ..AsteriskOptions::default() };
    let mut asterisk = Asterisk::start(Version::V22, &options);
    waits_for_a_call(&mut asterisk, "core restart gracefully", "down Asterisk restarts", true).await;
    waits_for_a_call(&mut asterisk, "core stop gracefully", "down Asterisk has been stopped", false).await;
}
