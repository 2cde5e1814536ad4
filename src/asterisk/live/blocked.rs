//! Why there are two sessions: a real Asterisk runs one action of a session at a time, and writes nothing meanwhile.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_originate_that_waits_blocks_its_own_session_alone() {
    let asterisk = asterisk(Version::V22);
    let watched = Watched::start(settings(&asterisk, "full"));
    let up = watched.told("up ", 0).await;
    let (actions, _shutdown) = acting(settings(&asterisk, "full"));
    is_ready(&actions).await;

    // Without `Async`: it is answered when the phone, which only rings, has been given up.
    let blocked = actions.clone();
    let waiting = tokio::spawn(async move {
        let call = [("Channel", "Local/2004@phones"), ("Application", "Wait"), ("Data", "1")];
        run(&blocked, "Originate", &[&call[..], &[("Timeout", "6000")]].concat()).await
    });
    watched.told("event Newchannel", up).await;
    let begun = tokio::time::Instant::now();
    let behind = run(&actions, "CoreStatus", &[]).await;
    assert!(behind.unwrap().response.frame().is_success());
    assert!(begun.elapsed() > Duration::from_secs(4), "nothing was blocked: {:?}", begun.elapsed());
    let originate = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert!(!originate.response.frame().is_success(), "{originate:?}");

    // The events came at once, and the link was never taken for dead.
    let lines = watched.told.lines();
    assert!(lines.iter().any(|line| line == "event DialBegin" || line == "event Newexten"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("down ")), "{lines:?}");
    is_ready(&actions).await;
    assert!(run(&actions, "CoreStatus", &[]).await.unwrap().response.frame().is_success());
    watched.stop().await;
}
