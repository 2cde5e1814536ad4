use std::time::{Duration, Instant};

use amibus_sim::SimOptions;

use crate::client::{eventually, header, logged_in, names, start};

fn quick() -> SimOptions {
    SimOptions { ring: Duration::from_millis(5), talk: Duration::from_millis(20), ..SimOptions::default() }
}

fn originate(channel: &str, more: &str) -> String {
    format!(
        "Action: Originate\nActionID: o1\nChannel: {channel}\nApplication: Wait\nData: 3\nAsync: true{more}"
    )
}

#[tokio::test]
async fn an_answered_call_runs_its_course() {
    let sim = start(SimOptions { channel_variables: vec!["TAG".to_owned()], ..quick() }).await;
    let mut client = logged_in(&sim, "on").await;
    let more = "\nChannelId: order-1\nOtherChannelId: order-1b\nVariable: TAG=first\nVariable: A=1,B=2\n\
                CallerID: \"Jürgen: the 'boss'\" <4711>";
    let queued = client.ask(&originate("Local/1000@flows", more)).await;
    assert_eq!(queued, "Response: Success\nActionID: o1\nMessage: Originate successfully queued\n");
    let mut events = client.through("Event: Hangup\n").await;
    events.push(client.message().await);
    assert_eq!(
        names(&events),
        [
            "Newchannel",
            "Newchannel",
            "Newexten",
            "VarSet",
            "VarSet",
            "VarSet",
            "NewCallerid",
            "NewConnectedLine",
            "LocalBridge",
            "DialBegin",
            "Newstate",
            "DialState",
            "Newstate",
            "Newstate",
            "DialEnd",
            "OriginateResponse",
            "Newexten",
            "HangupRequest",
            "Hangup",
            "Hangup",
        ]
    );
    assert_eq!(header(&events[0], "Uniqueid"), "order-1");
    assert_eq!(header(&events[1], "Uniqueid"), "order-1b");
    assert!(
        events[0].contains("\nChanVariable: TAG=\n") && events[6].contains("\nChanVariable: TAG=first\n")
    );
    assert!(events[0].contains("\nCallerIDName: <unknown>\n"));
    let caller = "\nCallerIDName: Jürgen: the \\'boss\\'\n";
    assert!(events[6].contains(caller), "C-escaped: {}", events[6]);
    let response = &events[15];
    let channel = header(&events[0], "Channel");
    let tail = format!(
        "ActionID: o1\nResponse: Success\nChannel: {channel}\nApplication: Wait\nData: 3\nReason: 4\n\
         Uniqueid: order-1\nCallerIDNum: 4711\nCallerIDName: Jürgen: the 'boss'\nChanVariable({channel}): TAG=first\n"
    );
    assert!(response.ends_with(&tail), "raw: {response}");
    let seen = sim.originates();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].action_id.as_str(), seen[0].channel_id.as_deref()), ("o1", Some("order-1")));
    let variables: Vec<String> =
        seen[0].variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(variables, ["TAG=first", "A=1", "B=2"]);
}

#[tokio::test]
async fn each_way_to_fail_has_its_reason() {
    let sim = start(quick()).await;
    let mut client = logged_in(&sim, "call").await;
    for (target, reason) in [("busy", "5"), ("congestion", "8"), ("noanswer", "3"), ("fail", "0")] {
        for technology in ["Local", "PJSIP"] {
            let began = Instant::now();
            client.ask(&originate(&format!("{technology}/{target}@phones"), "\nTimeout: 60")).await;
            let events = client.through("Event: OriginateResponse").await;
            let response = events.last().expect("a response");
            assert_eq!(header(response, "Response"), "Failure");
            assert_eq!(header(response, "Reason"), reason);
            assert_eq!(header(response, "Uniqueid"), "<unknown>");
            assert_eq!(header(response, "Channel"), format!("{technology}/{target}@phones"));
            assert!(
                target != "noanswer" || began.elapsed() >= Duration::from_millis(60),
                "the Timeout passes"
            );
            if technology == "Local" && target != "fail" {
                assert!(client.message().await.starts_with("Event: Hangup\n"), "the far half is last");
            }
        }
    }
    assert_eq!(sim.originates().len(), 8);
    assert!(sim.channels().is_empty());
}

#[tokio::test]
async fn a_failed_call_keeps_the_uniqueid_that_was_asked_for() {
    let sim = start(quick()).await;
    let mut client = logged_in(&sim, "call").await;
    client.ask(&originate("Local/busy@phones", "\nChannelId: mine")).await;
    let events = client.through("Event: OriginateResponse").await;
    assert_eq!(header(events.last().expect("a response"), "Uniqueid"), "mine");
}

#[tokio::test]
async fn a_live_channel_id_is_not_dialled_twice() {
    let sim = start(SimOptions { talk: Duration::from_millis(200), ..quick() }).await;
    let mut client = logged_in(&sim, "call").await;
    let once = originate("Local/1000@flows", "\nChannelId: twice");
    client.ask(&once).await;
    client.through("Reason: 4").await;
    assert!(client.ask(&once).await.contains("Originate successfully queued"));
    let refused = client.message().await;
    assert_eq!((header(&refused, "Response"), header(&refused, "Reason")), ("Failure", "0"));
    assert_eq!(header(&refused, "Uniqueid"), "twice");
    client.through("Event: Hangup\n").await;
    client.through("Event: Hangup\n").await;
    client.ask(&once).await;
    client.through("Reason: 4").await;
    let dialled: Vec<bool> = sim.originates().iter().map(|originated| originated.dialled).collect();
    assert_eq!(dialled, [true, false, true], "accepted again after it hung up");
}

#[tokio::test]
async fn what_cannot_be_dialled_is_refused() {
    let sim = start(quick()).await;
    let mut client = logged_in(&sim, "off").await;
    let cases = [
        ("Action: Originate\nApplication: Wait", "Channel not specified"),
        (
            "Action: Originate\nChannel: Local/1@a\nContext: flows\nExten: nope\nPriority: 1\nAsync: true",
            "Extension does not exist.",
        ),
        ("Action: Originate\nChannel: Local/1@a", "Originate with 'Exten' requires 'Context' and 'Priority'"),
        ("Action: Originate\nChannel: Local/1@a\nApplication: Wait\nTimeout: soon", "Invalid timeout"),
    ];
    for (action, words) in cases {
        assert_eq!(client.ask(action).await, format!("Response: Error\nMessage: {words}\n"));
    }
    let long =
        format!("Action: Originate\nChannel: Local/1@a\nApplication: Wait\nChannelId: {}", "i".repeat(150));
    assert!(client.ask(&long).await.contains("Uniqueid length exceeds maximum of 149"));
    assert!(sim.originates().is_empty());
}

#[tokio::test]
async fn a_synchronous_originate_blocks_its_session_only() {
    let sim = start(SimOptions { ring: Duration::from_millis(200), ..quick() }).await;
    let mut blocked = logged_in(&sim, "call").await;
    let mut free = logged_in(&sim, "call").await;
    let began = Instant::now();
    blocked
        .send("Action: Originate\nActionID: s\nChannel: Local/1@a\nApplication: Wait\n\nAction: Ping\nActionID: behind\n\n")
        .await;
    assert!(free.message().await.starts_with("Event: Newchannel\n"));
    assert!(began.elapsed() < Duration::from_millis(200), "others see the events at once");
    let first = blocked.message().await;
    assert_eq!(first, "Response: Success\nActionID: s\nMessage: Originate successfully queued\n");
    assert!(began.elapsed() >= Duration::from_millis(200), "its answer waits for the call's");
    let after = blocked.through("ActionID: behind").await;
    assert!(after[0].starts_with("Event: Newchannel\n"), "then what happened meanwhile");
    assert!(!names(&after).contains(&"OriginateResponse"), "which a synchronous one does not get");

    blocked.send("Action: Originate\nActionID: b\nChannel: Local/busy@a\nApplication: Wait\n\n").await;
    let failed = blocked.through("ActionID: b").await;
    assert_eq!(
        failed.last().map(String::as_str),
        Some("Response: Error\nActionID: b\nMessage: Originate failed\n")
    );
}

#[tokio::test]
async fn hangup_ends_the_call() {
    let sim = start(SimOptions { talk: Duration::from_secs(60), ..quick() }).await;
    let mut client = logged_in(&sim, "call").await;
    client.ask(&originate("PJSIP/100", "\nChannelId: long")).await;
    client.through("Reason: 4").await;
    assert_eq!(
        client.ask("Action: Hangup\nActionID: h\nChannel: long\nCause: 17").await,
        "Response: Success\nActionID: h\nMessage: Channel Hungup\n"
    );
    let events = client.messages(2).await;
    assert_eq!(names(&events), ["HangupRequest", "Hangup"]);
    assert!(events[1].ends_with("Cause: 17\nCause-txt: User busy\n"));
    eventually("an empty floor", || sim.channels().is_empty()).await;
    assert_eq!(
        client.ask("Action: Hangup\nChannel: long").await,
        "Response: Error\nMessage: No such channel\n"
    );
}
