//! The action session in stopped time: every action ends in one answer, and the answer is true.

use std::{sync::Arc, time::Duration};

use amibus_ami::{Action, Limits};
use tokio::{io::DuplexStream, time::Instant};
use tokio_util::sync::CancellationToken;

use super::script::{Server, pipe, settings};
use crate::asterisk::{
    ActionFailure, ActionSession, Actions, ServerSettings,
    actions::{BOOT_DEADLINE, BOOT_GRACE},
    wire::Wire,
};

const BOOTED: &str = "Event: FullyBooted\n\n";

struct Bench {
    actions: Actions,
    session: ActionSession,
    wire: Wire,
    server: Server<DuplexStream>,
}

fn bench(settings: ServerSettings, pipe_bytes: usize) -> Bench {
    let (wire, server) = pipe(&settings, pipe_bytes);
    let (actions, session) = Actions::new(Arc::new(settings));
    Bench { actions, session, wire, server }
}

fn action(name: &str) -> Action {
    Action::new(name).unwrap()
}

fn within(seconds: u64) -> std::time::Instant {
    (Instant::now() + Duration::from_secs(seconds)).into_std()
}

async fn is_ready(actions: &Actions) {
    actions.ready().wait_for(|ready| *ready).await.unwrap();
}

/// Runs the session beside `script` until the script is over.
async fn play<T>(session: &mut ActionSession, wire: Wire, script: impl Future<Output = T>) -> T {
    let shutdown = CancellationToken::new();
    tokio::select! {
        ended = async { let ended = session.drive(wire, &shutdown).await; std::future::pending::<()>().await; ended } => {
            panic!("{ended:?}")
        }
        result = script => result,
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_is_answered() {
    let Bench { actions, mut session, wire, mut server } = bench(settings(0), 1 << 16);
    assert_eq!(actions.run(action("Ping"), within(1)).await, Err(ActionFailure::NotConnected));
    let script = async {
        server.logs_in().await;
        server.says(BOOTED).await;
        is_ready(&actions).await;
        let list = "Response: Success\nActionID: {id}\nEventList: start\n\nEvent: QueueParams\nActionID: {id}\n\n\
            Event: End\nActionID: {id}\nEventList: Complete\n\n";
        let (reply, ()) =
            tokio::join!(actions.run(action("QueueStatus"), within(5)), server.answers("QueueStatus", list));
        assert_eq!(reply.unwrap().items.len(), 1);
    };
    play(&mut session, wire, script).await;
}

#[tokio::test(start_paused = true)]
async fn fully_booted_is_waited_for_and_the_wait_is_bounded() {
    let Bench { actions, mut session, wire, mut server } = bench(settings(0), 1 << 16);
    let begun = Instant::now();
    let script = async {
        server.logs_in().await;
        tokio::time::sleep(BOOT_GRACE / 2).await;
        assert_eq!(actions.run(action("Ping"), within(1)).await, Err(ActionFailure::NotBooted));
        is_ready(&actions).await;
        assert_eq!(begun.elapsed().as_secs(), BOOT_GRACE.as_secs());
    };
    play(&mut session, wire, script).await;

    // Once FullyBooted was read, a session without it is a server that still boots.
    let Bench { actions, mut session, wire, mut server } = bench(settings(0), 1 << 16);
    play(&mut session, wire, async {
        server.logs_in().await;
        server.says(BOOTED).await;
        is_ready(&actions).await;
    })
    .await;
    let (wire, mut server) = pipe(&settings(0), 1 << 16);
    play(&mut session, wire, async {
        server.logs_in().await;
        for _ in 0..4 {
            server.answers("Ping", "Response: Success\nActionID: {id}\n\n").await;
        }
        assert_eq!(actions.run(action("Ping"), within(1)).await, Err(ActionFailure::NotBooted));
        server.says(BOOTED).await;
        is_ready(&actions).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_is_missed_once_is_waited_for_briefly_after_that() {
    let Bench { actions, mut session, wire, mut server } = bench(settings(0), 1 << 16);
    play(&mut session, wire, async {
        server.logs_in().await;
        server.says(BOOTED).await;
        is_ready(&actions).await;
    })
    .await;
    // The right to read it was taken away.
    for patience in [BOOT_DEADLINE, BOOT_GRACE] {
        let (wire, mut server) = pipe(&settings(0), 1 << 16);
        let begun = Instant::now();
        play(&mut session, wire, async {
            server.logs_in().await;
            let pings = async {
                loop {
                    server.answers("Ping", "Response: Success\nActionID: {id}\n\n").await;
                }
            };
            tokio::select! {
                () = pings => {}
                () = is_booting_no_more(&actions) => {}
            }
            assert_eq!(begun.elapsed().as_secs(), patience.as_secs());
        })
        .await;
    }
}

/// Ready after it was not: the state of the session before is not the one that is waited for.
async fn is_booting_no_more(actions: &Actions) {
    let mut ready = actions.ready();
    ready.wait_for(|ready| !*ready).await.unwrap();
    ready.wait_for(|ready| *ready).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_while_a_ping_is_overdue() {
    let settings = settings(0);
    let overdue = settings.ping_interval + settings.ping_deadline;
    let Bench { actions, mut session, wire, mut server } = bench(settings, 1 << 16);
    let script = async {
        server.logs_in().await;
        server.says(BOOTED).await;
        is_ready(&actions).await;
        let begun = Instant::now();
        let other = actions.clone();
        let reload = other.run(action("Reload"), within(60));
        let meanwhile = async {
            let (_, id) = server.hears("Reload").await;
            server.hears("Ping").await;
            actions.ready().wait_for(|ready| !*ready).await.unwrap();
            assert_eq!(begun.elapsed(), overdue);
            assert_eq!(actions.run(action("Hangup"), within(5)).await, Err(ActionFailure::NotConnected));
            // It was at work all the time.
            tokio::time::sleep(Duration::from_secs(20)).await;
            server.says(&format!("Response: Success\nActionID: {id}\n\n")).await;
            is_ready(&actions).await;
            let answer = server.answers("Hangup", "Response: Success\nActionID: {id}\n\n");
            let (hangup, ()) = tokio::join!(actions.run(action("Hangup"), within(5)), answer);
            assert!(hangup.is_ok());
        };
        let (reload, ()) = tokio::join!(reload, meanwhile);
        assert!(reload.is_ok());
    };
    play(&mut session, wire, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_says_what_asterisk_may_have_seen() {
    // So narrow that the second action cannot be handed over while the first is not read.
    let Bench { actions, mut session, wire, mut server } = bench(settings(0), 64);
    let shutdown = CancellationToken::new();
    let script = async {
        server.logs_in().await;
        server.says(BOOTED).await;
        is_ready(&actions).await;
        let long = action("Originate").header("Data", "x".repeat(500)).unwrap();
        let first = actions.run(long, within(60));
        let second = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            actions.run(action("Hangup"), within(60)).await
        };
        let close = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(server);
        };
        let (first, second, ()) = tokio::join!(first, second, close);
        assert_eq!(first, Err(ActionFailure::Lost { written: true }));
        assert_eq!(second, Err(ActionFailure::Lost { written: false }));
        assert!(!*actions.ready().borrow());
        assert_eq!(actions.run(action("Ping"), within(1)).await, Err(ActionFailure::NotConnected));
    };
    let (ended, ()) = tokio::join!(session.drive(wire, &shutdown), script);
    assert!(ended.since.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_is_no_answer_and_disturbs_nobody() {
    let Bench { actions, mut session, wire, mut server } = bench(settings(0), 1 << 16);
    let script = async {
        server.logs_in().await;
        server.says(BOOTED).await;
        is_ready(&actions).await;
        let begun = Instant::now();
        let (late, (_, id)) = tokio::join!(actions.run(action("Reload"), within(5)), server.hears("Reload"));
        assert_eq!(late, Err(ActionFailure::TimedOut { response: None }));
        assert_eq!(begun.elapsed().as_secs(), 5);
        server.says(&format!("Response: Success\nActionID: {id}\nMessage: late\n\n")).await;
        let answer = "Response: Success\nActionID: {id}\nMessage: in time\n\n";
        let (reply, ()) =
            tokio::join!(actions.run(action("Hangup"), within(5)), server.answers("Hangup", answer));
        assert_eq!(reply.unwrap().response.frame().first("Message"), Some(b"in time".as_slice()));
    };
    play(&mut session, wire, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_beyond_the_limit_fails_with_its_response() {
    let limits = Limits { list_items: 2, ..Limits::default() };
    let Bench { actions, mut session, wire, mut server } =
        bench(ServerSettings { limits, ..settings(0) }, 1 << 16);
    let script = async {
        server.logs_in().await;
        server.says(BOOTED).await;
        is_ready(&actions).await;
        let item = "Event: QueueMember\nActionID: {id}\n\n";
        let list = format!("Response: Success\nActionID: {{id}}\nEventList: start\n\n{}", item.repeat(3));
        let (reply, ()) =
            tokio::join!(actions.run(action("QueueStatus"), within(5)), server.answers("QueueStatus", &list));
        let Err(ActionFailure::TooLarge { limit: 2, unit: "events", response }) = reply else {
            panic!("{reply:?}")
        };
        assert!(response.frame().is_success());
    };
    play(&mut session, wire, script).await;
}

#[tokio::test(start_paused = true)]
async fn beyond_the_pending_limit_actions_wait_and_then_were_never_written() {
    let limits = Limits { pending_actions: 1, ..Limits::default() };
    let Bench { actions, mut session, wire, mut server } =
        bench(ServerSettings { limits, ..settings(0) }, 1 << 16);
    let script = async {
        server.logs_in().await;
        server.says(BOOTED).await;
        is_ready(&actions).await;
        let running = actions.run(action("Command"), within(20));
        let waiting = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let (short, long) = tokio::join!(
                actions.run(action("Hangup"), within(5)),
                actions.run(action("Status"), within(60))
            );
            (short, long)
        };
        let script = async {
            let (_, id) = server.hears("Command").await;
            tokio::time::sleep(Duration::from_secs(8)).await;
            server.says(&format!("Response: Success\nActionID: {id}\n\n")).await;
            server.answers("Status", "Response: Error\nActionID: {id}\n\n").await;
        };
        let (running, (short, long), ()) = tokio::join!(running, waiting, script);
        assert!(running.is_ok());
        assert_eq!(short, Err(ActionFailure::NeverWritten));
        assert_eq!(long.unwrap().response.frame().name(), b"Error");
    };
    play(&mut session, wire, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_what_runs_and_refuses_what_waits() {
    let limits = Limits { pending_actions: 1, ..Limits::default() };
    let Bench { actions, mut session, wire, mut server } =
        bench(ServerSettings { limits, ..settings(0) }, 1 << 16);
    let shutdown = CancellationToken::new();
    let client = async {
        is_ready(&actions).await;
        let (a, b) = (actions.clone(), actions.clone());
        let running = a.run(action("Command"), within(60));
        let waiting = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            b.run(action("Hangup"), within(60)).await
        };
        tokio::join!(running, waiting)
    };
    let script = async {
        server.logs_in().await;
        server.says(BOOTED).await;
        let (_, id) = server.hears("Command").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        shutdown.cancel();
        server.hears("Logoff").await;
        server.says(&format!("Response: Success\nActionID: {id}\n\n")).await;
        drop(server);
    };
    let run = async {
        session.drive(wire, &shutdown).await;
        // What `run` does once the session has ended; the token is cancelled.
        session.run(shutdown.clone()).await;
    };
    let ((), (running, waiting), ()) = tokio::join!(run, client, script);
    assert!(running.is_ok());
    assert_eq!(waiting, Err(ActionFailure::NotConnected));
}
