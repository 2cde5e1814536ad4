//! Commands in: replies, dead letters, and what comes again.

use std::{collections::BTreeSet, time::Duration};

use amibus_contract::{
    Bytes, Decision, FaultKind, Inlet, Kind, Reach, Rejection, Request, Scope, SharedBridge, Value,
    conformance::{Rig, message},
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    rig::{KafkaRig, config},
    values,
};

pub(crate) const SEEN_WITHIN: Duration = Duration::from_secs(30);
const QUIET_FOR: Duration = Duration::from_secs(2);

pub(crate) async fn inlet(rig: &KafkaRig, bridge: &SharedBridge) -> Box<dyn Inlet> {
    let scope = Scope { prefix: rig.prefix.clone(), servers: vec!["pbx1".into()] };
    bridge.inlet(&scope).await.expect("an inlet").expect("commands are configured")
}

pub(crate) async fn next(inlet: &mut dyn Inlet) -> Request {
    let next = tokio::time::timeout(SEEN_WITHIN, inlet.next()).await.expect("a command in time");
    next.expect("the inlet works").expect("the inlet is open")
}

pub(crate) async fn is_quiet(inlet: &mut dyn Inlet) {
    let more = tokio::time::timeout(QUIET_FOR, inlet.next()).await;
    assert!(more.is_err(), "{more:?}");
}

/// The number in a body made by [`send`].
fn number(request: &Request) -> usize {
    String::from_utf8_lossy(&request.body).parse().expect("a number")
}

async fn send(rig: &KafkaRig, numbers: std::ops::Range<usize>) {
    let topic = rig.topic("command");
    for n in numbers {
        rig.send(&topic, n.to_string().as_bytes(), n.to_string().as_bytes(), &[]).await;
    }
}

/// The committed positions of all partitions, added up.
pub(crate) fn committed(rig: &KafkaRig, partitions: i32) -> i64 {
    let mut config = config(&rig.brokers);
    config.set("group.id", format!("{}.group", rig.prefix));
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_range(&rig.topic("command"), 0, partitions - 1);
    // A broker that has just come back refuses for a while.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let found = loop {
        match consumer.committed_offsets(list.clone(), Duration::from_secs(5)) {
            Ok(found) => break found,
            Err(error) => assert!(std::time::Instant::now() < deadline, "no positions: {error}"),
        }
    };
    let positions = found
        .elements()
        .iter()
        .map(|element| match element.offset() {
            Offset::Offset(position) => position,
            _ => 0,
        })
        .collect::<Vec<_>>();
    positions.iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_goes_where_spring_asks_for_it() {
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    let replies = rig.topic("orders.replies");
    rig.make_topic(&replies, 4, &[]).await;
    let correlation = b"\xff\x00\x80 not text";
    let headers: &[(&str, &[u8])] = &[
        ("kafka_replyTopic", replies.as_bytes()),
        ("kafka_replyPartition", &[0, 0, 0, 3]),
        ("kafka_correlationId", correlation),
        ("ce_type", b"ami.command.Originate"),
        ("ce_source", b"/orders"),
    ];
    let (partition, offset) = rig.send(&rig.topic("command"), b"key", b"{}", headers).await;
    let mut request = next(&mut *inlet).await;
    assert!(request.reply_wanted && request.durable);
    assert_eq!((request.action.as_deref(), request.sender.as_deref()), (Some("Originate"), Some("/orders")));
    assert_eq!(request.identity, Some(format!("{}:{partition}:{offset}", rig.topic("command"))));
    let response = message(&rig.prefix, Kind::Response, "pbx1", 1, 1, 10);
    assert_eq!(request.handle.reply(&response).await, Ok(Reach::Stored));
    let reply = rig.watch(&[&replies]).next(SEEN_WITHIN).await.expect("a reply");
    assert_eq!((reply.partition, reply.header("kafka_correlationId")), (3, Some(&correlation[..])));
    assert_eq!(reply.body, response.body);
    assert_eq!(reply.text("ce_correlationid"), response.attributes().correlation());
    assert_eq!(reply.text("content-type"), Some("application/cloudevents+json"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_topic_that_is_missing_or_not_for_replies_holds_up_nothing() {
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    let (events, missing) = (rig.topic("event"), rig.topic("nowhere"));
    for topic in [&events, &missing] {
        rig.send(&rig.topic("command"), b"key", b"1", &[("kafka_replyTopic", topic.as_bytes())]).await;
    }
    let response = message(&rig.prefix, Kind::Response, "pbx1", 1, 1, 10);
    let mut wanted = Vec::new();
    for _ in 0..2 {
        let mut request = next(&mut *inlet).await;
        wanted.push(request.reply_wanted);
        let sent = request.handle.reply(&response).await;
        assert_eq!(
            sent.is_err(),
            request.reply_wanted,
            "only one topic may be replied to, and it is not there: {sent:?}"
        );
        request.handle.acknowledge().await.expect("committed all the same");
    }
    wanted.sort_unstable();
    assert_eq!(wanted, [false, true]);
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let event = message(&rig.prefix, Kind::Event, "pbx1", 1, 1, 10);
    assert_eq!(outlet.publish(&[event]).await.fault, None, "events are not disturbed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_command_is_kept_with_its_cause() {
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    let headers: &[(&str, &[u8])] = &[("x-order", b"8812"), ("x-raw", b"\xff\x00")];
    let (partition, offset) = rig.send(&rig.topic("command"), b"the key", b"\xffnot json", headers).await;
    let request = next(&mut *inlet).await;
    let cause = Rejection {
        code: "malformed".into(),
        message: "not JSON".into(),
        field: Some("fields.Exten".into()),
    };
    request.handle.dead_letter(cause).await.expect("set aside");
    let letter = rig.watch(&[&rig.topic("command-dlt")]).next(SEEN_WITHIN).await.expect("a dead letter");
    assert_eq!((letter.key.as_deref(), &letter.body[..]), (Some(&b"the key"[..]), &b"\xffnot json"[..]));
    let (topic, partition, place) = (rig.topic("command"), partition.to_be_bytes(), offset.to_be_bytes());
    let expected: &[(&str, &[u8])] = &[
        ("x-order", b"8812"),
        ("x-raw", b"\xff\x00"),
        ("amibus_error_code", b"malformed"),
        ("amibus_error_message", b"not JSON"),
        ("amibus_error_field", b"fields.Exten"),
        ("kafka_dlt-original-topic", topic.as_bytes()),
        ("kafka_dlt-original-partition", &partition),
        ("kafka_dlt-original-offset", &place),
    ];
    for (name, value) in expected {
        assert_eq!(letter.header(name), Some(*value), "{name}");
    }
    assert_eq!(committed(&rig, 6), offset + 1, "acknowledged, too");
}

const KILLED: &str = "AMIBUS_KAFKA_KILLED";
const COMMANDS: usize = 24;

/// In a process of its own, which is killed: acknowledges every odd command, and tells when that is committed.
async fn acknowledge_the_odd_and_wait(brokers: &str, prefix: &str, told: &str) {
    let group = values::text(&format!("{prefix}.group"));
    let values = values::values(brokers).with("group", group);
    let bridge = values::open(&values, prefix);
    let scope = Scope { prefix: prefix.to_owned(), servers: Vec::new() };
    let mut inlet = bridge.inlet(&scope).await.expect("an inlet").expect("commands are configured");
    let mut open = Vec::new();
    for _ in 0..COMMANDS {
        open.push(next(&mut *inlet).await);
    }
    // In reverse, so that every one is out of order.
    while let Some(request) = open.pop() {
        if number(&request) % 2 == 1 {
            request.handle.acknowledge().await.expect("committed");
        } else {
            std::mem::forget(request);
        }
    }
    std::fs::write(told, "done").expect("told");
    tokio::time::sleep(Duration::from_secs(600)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_exactly_the_unacknowledged_come_again() {
    if let Ok(arguments) = std::env::var(KILLED) {
        let mut arguments = arguments.split(' ').map(str::to_owned);
        let mut argument = || arguments.next().expect("an argument");
        return acknowledge_the_odd_and_wait(&argument(), &argument(), &argument()).await;
    }
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("command"), 3, &[]).await;
    send(&rig, 0..COMMANDS).await;
    let directory = tempfile::tempdir().expect("a directory");
    let told = directory.path().join("told");
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "commands::after_a_kill_exactly_the_unacknowledged_come_again"])
        .env(KILLED, format!("{} {} {}", rig.brokers, rig.prefix, told.display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("this program again");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !told.exists() {
        let running = matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline;
        assert!(running, "the other process did not acknowledge");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    let even: BTreeSet<usize> = (0..COMMANDS).filter(|n| n % 2 == 0).collect();
    let mut again = BTreeSet::new();
    for _ in 0..even.len() {
        let request = next(&mut *inlet).await;
        assert!(again.insert(number(&request)), "twice: {request:?}");
        request.handle.acknowledge().await.expect("committed");
    }
    assert_eq!(again, even);
    is_quiet(&mut *inlet).await;
    assert_eq!(committed(&rig, 3), COMMANDS as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_topic_is_told_with_the_time_at_which_it_came() {
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    assert_eq!(bridge.commands_waiting().await, Ok(None), "no inlet is open");
    let mut inlet = inlet(&rig, &bridge).await;
    let before = std::time::SystemTime::now();
    send(&rig, 0..60).await;
    let request = next(&mut *inlet).await;
    let sent_at = request.sent_at.expect("the record's time");
    assert!(sent_at >= before - Duration::from_secs(1) && sent_at <= std::time::SystemTime::now());
    request.handle.acknowledge().await.expect("acknowledged");
    let until = async |least: u64, most: u64| {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let waiting = bridge.commands_waiting().await.expect("known").expect("a member runs");
            if (least..=most).contains(&waiting) {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{waiting} wait, not {least} to {most}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // Of the others, the member reads up to 16 in a turn, and up to 16 wait to be asked for.
    until(59 - 2 * 16, 59).await;
    for _ in 1..60 {
        next(&mut *inlet).await.handle.acknowledge().await.expect("acknowledged");
    }
    until(0, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_asks_for_long_and_each_command_comes_once() {
    const MANY: usize = 300;
    let mut rig = KafkaRig::shared();
    let impatient = values::extra(&[("max.poll.interval.ms", "6000"), ("session.timeout.ms", "6000")]);
    rig.values = rig.values.with("librdkafka", impatient);
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    send(&rig, 0..MANY).await;
    // Longer than the group waits for a member that does not ask.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let mut seen = BTreeSet::new();
    let mut open = Vec::new();
    for _ in 0..MANY {
        let request = next(&mut *inlet).await;
        assert!(seen.insert(number(&request)), "twice: {request:?}");
        open.push(request);
    }
    for request in open {
        request.handle.acknowledge().await.expect("still a member");
    }
    is_quiet(&mut *inlet).await;
    assert_eq!(committed(&rig, 6), MANY as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_member_takes_its_share_and_what_was_not_done() {
    const MANY: usize = 60;
    let rig = KafkaRig::shared();
    let (one, two) = (rig.bridge(), rig.bridge());
    let mut first = inlet(&rig, &one).await;
    send(&rig, 0..MANY).await;
    let mut open = Vec::new();
    for _ in 0..MANY {
        open.push(next(&mut *first).await);
    }
    let mut second = inlet(&rig, &two).await;
    // What the second member gets was not acknowledged by the first, which had it all.
    let mut moved = BTreeSet::new();
    let request = next(&mut *second).await;
    moved.insert(number(&request));
    request.handle.acknowledge().await.expect("committed");
    while let Ok(more) = tokio::time::timeout(QUIET_FOR, second.next()).await {
        let request = more.expect("the inlet works").expect("the inlet is open");
        assert!(moved.insert(number(&request)), "twice: {request:?}");
        request.handle.acknowledge().await.expect("committed");
    }
    assert!(moved.len() < MANY, "not all of them");
    for request in open {
        let n = number(&request);
        let fault = request.handle.acknowledge().await.err();
        assert_eq!(fault.is_some(), moved.contains(&n), "command {n}: {fault:?}");
        if let Some(fault) = fault {
            assert_eq!((fault.kind, fault.decision), (FaultKind::Refused, Decision::Skip), "{fault}");
        }
    }
    assert_eq!(committed(&rig, 6), MANY as i64, "every one is acknowledged by somebody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_to_a_second_member_is_withdrawn_from_the_first_before_it_comes_there() {
    const MANY: usize = 40;
    let rig = KafkaRig::shared();
    let (one, two) = (rig.bridge(), rig.bridge());
    let mut first = inlet(&rig, &one).await;
    send(&rig, 0..MANY).await;
    let (tell, mut withdrawn) = tokio::sync::mpsc::unbounded_channel();
    let mut staying = BTreeSet::new();
    for _ in 0..MANY {
        let request = next(&mut *first).await;
        let (n, tell) = (number(&request), tell.clone());
        staying.insert(n);
        tokio::spawn(async move {
            request.handle.withdrawn().expect("Kafka tells").await;
            // Given back at once, as the engine does with what it has not begun.
            drop(request);
            let _ = tell.send(n);
        });
    }
    let mut second = inlet(&rig, &two).await;
    let mut moved = BTreeSet::new();
    while let Ok(more) =
        tokio::time::timeout(if moved.is_empty() { SEEN_WITHIN } else { QUIET_FOR }, second.next()).await
    {
        let request = more.expect("the inlet works").expect("the inlet is open");
        while let Ok(n) = withdrawn.try_recv() {
            staying.remove(&n);
        }
        assert!(!staying.contains(&number(&request)), "{} is in two hands", number(&request));
        moved.insert(number(&request));
        request.handle.acknowledge().await.expect("committed");
    }
    assert!(!moved.is_empty() && moved.len() < MANY, "a share of them: {moved:?}");
    assert_eq!(moved.len() + staying.len(), MANY, "only those that moved are withdrawn");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_is_dropped_undone_comes_again_to_the_same_process() {
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("command"), 1, &[]).await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    send(&rig, 0..4).await;
    let mut open = Vec::new();
    for n in 0..4 {
        let request = next(&mut *inlet).await;
        assert_eq!(number(&request), n);
        open.push(request);
    }
    let third = open.remove(2);
    third.handle.acknowledge().await.expect("noted");
    drop(open.remove(1));
    let again = next(&mut *inlet).await;
    assert_eq!(number(&again), 1);
    is_quiet(&mut *inlet).await;
    for request in open.into_iter().chain([again]) {
        request.handle.acknowledge().await.expect("committed");
    }
    assert_eq!(committed(&rig, 1), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledge_while_the_broker_is_away_is_kept_for_later() {
    let mut rig = KafkaRig::own();
    // Otherwise the partitions are lost before the broker is back, and the command comes again.
    rig.values = rig.values.with("librdkafka", values::extra(&[("session.timeout.ms", "45000")]));
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    send(&rig, 0..1).await;
    let request = next(&mut *inlet).await;
    rig.kill_server().await;
    let fault = request.handle.acknowledge().await.expect_err("nobody there to commit");
    assert_eq!(fault.decision, Decision::Retry, "{fault}");
    rig.start_server().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while committed(&rig, 6) != 1 {
        assert!(std::time::Instant::now() < deadline, "not committed after the broker came back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    send(&rig, 1..2).await;
    let request = next(&mut *inlet).await;
    assert_eq!(number(&request), 1, "the first does not come again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commands_unless_configured() {
    let mut rig = KafkaRig::shared();
    rig.values = rig.values.with("commands", Value::Flag(false));
    let scope = Scope { prefix: rig.prefix.clone(), servers: Vec::new() };
    assert!(rig.bridge().inlet(&scope).await.expect("an answer").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_response_says_so() {
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let mut client = bridge.client().await.expect("a client");
    let body = Bytes::from_static(b"{}");
    let asked = client.request(&rig.prefix, "pbx1", "Ping", "order-1", body, Duration::from_secs(1));
    let fault = asked.await.expect_err("nobody answers");
    assert_eq!(fault.kind, FaultKind::TimedOut, "{fault}");
    let sent = rig.watch(&[&rig.topic("command")]).next(SEEN_WITHIN).await.expect("the command");
    assert_eq!(sent.text("ce_type"), Some(format!("{}.command.Ping", rig.prefix).as_str()));
    assert_eq!(sent.body, b"{}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probing_tells_about_topics_and_the_group_and_makes_nothing() {
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let before = bridge.probe().await.expect("reachable");
    assert!(
        before.iter().any(|line| line.starts_with("cluster ") && line.contains("1 broker(s)")),
        "{before:?}"
    );
    assert_eq!(bridge.probe().await, Ok(before), "nothing was made");
    let mut inlet = inlet(&rig, &bridge).await;
    send(&rig, 0..1).await;
    next(&mut *inlet).await.handle.acknowledge().await.expect("committed");
    let after = bridge.probe().await.expect("reachable");
    let group = after.iter().find(|line| line.starts_with("group ")).expect("a line for the group");
    assert!(group.contains("positions in 1 of 6"), "{group}");
}
