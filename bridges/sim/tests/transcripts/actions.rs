use amibus_sim::{Recording, SimOptions};

use crate::client::{eventually, header, logged_in, start};

#[tokio::test]
async fn answers_come_in_order_however_the_actions_are_cut() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "off").await;
    let mut all = String::new();
    for index in 0..200 {
        all += &format!("Action: Ping\r\nActionID: p{index}\r\n\r\n");
    }
    for piece in all.as_bytes().chunks(7) {
        client.send_bytes(piece).await;
    }
    for (index, answer) in client.messages(200).await.iter().enumerate() {
        assert_eq!(header(answer, "ActionID"), format!("p{index}"));
        assert_eq!(header(answer, "Ping"), "Pong");
    }
}

#[tokio::test]
async fn what_it_does_not_know_it_says_in_asterisks_words() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "off").await;
    assert_eq!(
        client.ask("Action: Nonsense\nActionID: n").await,
        "Response: Error\nActionID: n\n\
         Message: Invalid/unknown command: Nonsense. Use Action: ListCommands to show available commands.\n"
    );
    client.send("\n").await;
    assert_eq!(client.message().await, "Response: Error\nMessage: Missing action in request\n");
    let long = format!("Action: Ping\nActionID: l\nX: {}", "a".repeat(2000));
    let too_long = "Response: Error\nActionID: l\nMessage: Failed to parse message: line too long\n";
    assert_eq!(client.ask(&long).await, too_long);
}

#[tokio::test]
async fn the_event_mask_switches_and_a_bogus_one_switches_off() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "off").await;
    assert_eq!(client.ask("Action: Events\nEventMask: user").await, "Response: Success\nEvents: On\n");
    sim.play(&Recording::named("originate-answer-22").expect("embedded"), 1e5).await;
    client.send("Action: UserEvent\nUserEvent: Mine\nA: 1\nActionID: u\n\n").await;
    assert_eq!(client.message().await, "Response: Success\nActionID: u\nMessage: Event Sent\n");
    let event = client.message().await;
    assert!(event.starts_with("Event: UserEvent\nPrivilege: user,all\nTimestamp: "), "{event}");
    assert!(event.ends_with("UserEvent: Mine\nA: 1\nActionID: u\n"), "{event}");
    assert_eq!(client.ask("Action: Events\nEventMask: bogus").await, "Response: Success\nEvents: Off\n");
    client.send("Action: UserEvent\nUserEvent: Unseen\n\n").await;
    assert!(client.message().await.contains("Event Sent"));
    assert!(client.ask("Action: Ping").await.contains("Pong"), "and no event before it");
}

#[tokio::test]
async fn lists_show_the_channels_and_bridges_that_are_up() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "off").await;
    let empty = client.ask("Action: CoreShowChannels\nActionID: e").await;
    assert_eq!(empty, "Response: Success\nActionID: e\nEventList: start\nMessage: Channels will follow\n");
    assert!(client.message().await.ends_with("EventList: Complete\nListItems: 0\n"));

    let recording = Recording::named("dial-basic-22").expect("embedded");
    let play = sim.play(&recording, 5.0);
    let look = async {
        eventually("four channels", || sim.channels().len() == 4).await;
        client.ask("Action: CoreShowChannels\nActionID: c").await;
        let channels = client.through("EventList: Complete").await;
        let status = client.ask("Action: CoreStatus").await;
        (channels, status)
    };
    let (_, (channels, status)) = tokio::join!(play, look);
    assert_eq!(channels.len(), 5);
    assert!(channels[0].starts_with("Event: CoreShowChannel\nActionID: c\nChannel: Local/1001@flows-"));
    assert!(channels[0].contains("\nApplication: ") && channels[0].contains("\nBridgeId: "));
    assert_eq!(header(&channels[4], "ListItems"), "4");
    assert_eq!(header(&status, "CoreCurrentCalls"), "4");
    assert!(sim.channels().is_empty(), "the recording has hung up");

    client.ask("Action: BridgeList").await;
    assert!(client.message().await.ends_with("ListItems: 0\n"));
}

#[tokio::test]
async fn queues_settings_and_commands_answer() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "off").await;
    client.ask("Action: QueueStatus\nActionID: q").await;
    let queue = client.through("QueueStatusComplete").await;
    assert_eq!(queue.len(), 4);
    assert!(queue[0].ends_with("ActionID: q\n"), "app_queue writes it last");
    client.ask("Action: QueueSummary").await;
    assert!(client.message().await.starts_with("Event: QueueSummary\nQueue: support\n"));
    assert!(client.message().await.ends_with("ListItems: 1\n"));
    assert_eq!(header(&client.ask("Action: CoreSettings").await, "AsteriskVersion"), "22.10.1");
    let version = client.ask("Action: Command\nCommand: core show version\nActionID: v").await;
    assert_eq!(
        version,
        "Response: Success\nActionID: v\nMessage: Command output follows\nOutput: Asterisk 22.10.1 (simulated)\n"
    );
    let unknown = client.ask("Action: Command\nCommand: no such").await;
    assert!(unknown.starts_with("Response: Error\nMessage: Command output follows\nOutput: No such command"));
    let actions = sim.actions();
    assert_eq!(actions.last().map(AsRef::as_ref), Some(&b"Action: Command\r\nCommand: no such\r\n\r\n"[..]));
}

#[tokio::test]
async fn variables_are_kept() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "dialplan").await;
    assert_eq!(
        client.ask("Action: Setvar\nVariable: G\nValue: a: b").await,
        "Response: Success\nMessage: Variable Set\n"
    );
    assert!(client.message().await.ends_with("Variable: G\nValue: a: b\n"), "VarSet");
    assert_eq!(
        client.ask("Action: Getvar\nVariable: G").await,
        "Response: Success\nVariable: G\nValue: a: b\n"
    );
    assert_eq!(
        client.ask("Action: Getvar\nVariable: G\nChannel: Local/none").await,
        "Response: Error\nMessage: No such channel\n"
    );
}
