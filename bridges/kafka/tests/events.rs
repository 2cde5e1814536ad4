//! Events out: what is stored, in which order, and what is said when it is not.

use std::{collections::BTreeSet, time::Duration};

use amibus_contract::{
    Decision, FaultKind, Kind, Message, Outlet, Published, Reach, SharedBridge, Value,
    conformance::{Rig, message},
};
use amibus_services::{Kafka, KafkaOptions};

use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{
    rig::{Got, KafkaRig, Watcher, config, shared},
    values,
};

const SEEN_WITHIN: Duration = Duration::from_secs(20);
const QUIET_FOR: Duration = Duration::from_millis(600);
pub(crate) const KEYS: usize = 7;

pub(crate) fn events(rig: &KafkaRig, numbers: std::ops::Range<usize>, pad: usize) -> Vec<Message> {
    of_kinds(rig, &[Kind::Event], numbers, pad)
}

/// Of these kinds in turn.
pub(crate) fn of_kinds(
    rig: &KafkaRig,
    kinds: &[Kind],
    numbers: std::ops::Range<usize>,
    pad: usize,
) -> Vec<Message> {
    numbers.map(|n| message(rig.prefix(), kinds[n % kinds.len()], "pbx1", n, KEYS, pad)).collect()
}

pub(crate) fn number(body: &[u8]) -> usize {
    let text = String::from_utf8_lossy(body);
    let digits = text.split("\"n\":").nth(1).and_then(|rest| rest.split(',').next()).expect("a number");
    digits.parse().expect("a number")
}

/// Offers again what a retryable fault left. Answers the faults.
pub(crate) async fn publish_all(outlet: &mut dyn Outlet, messages: &[Message], batch: usize) -> Vec<String> {
    let (mut at, mut faults) = (0, Vec::new());
    while at < messages.len() {
        let published = outlet.publish(&messages[at..messages.len().min(at + batch)]).await;
        at += published.safe;
        if let Some(fault) = published.fault {
            assert_eq!(fault.decision, Decision::Retry, "{fault}");
            faults.push(fault.to_string());
            assert!(faults.len() < 100, "{faults:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    faults
}

/// Collects until all of `wanted` were seen, then until it is quiet.
pub(crate) async fn see(watcher: &mut Watcher, wanted: impl IntoIterator<Item = usize>) -> Vec<Got> {
    let mut missing: BTreeSet<usize> = wanted.into_iter().collect();
    let mut seen = Vec::new();
    while !missing.is_empty() {
        let next = watcher.next(SEEN_WITHIN).await;
        let next = next.unwrap_or_else(|| panic!("never seen: {missing:?}"));
        missing.remove(&number(&next.body));
        seen.push(next);
    }
    while let Some(more) = watcher.next(QUIET_FOR).await {
        seen.push(more);
    }
    seen
}

/// The first sight of each number is in order within its key.
pub(crate) fn assert_order(seen: &[Got]) {
    let (mut known, mut last) = (BTreeSet::new(), std::collections::BTreeMap::new());
    for n in seen.iter().map(|got| number(&got.body)).filter(|n| known.insert(*n)) {
        if let Some(before) = last.insert(n % KEYS, n) {
            assert!(before < n, "{n} was stored after {before}");
        }
    }
}

pub(crate) async fn outlet(bridge: &SharedBridge) -> Box<dyn Outlet> {
    bridge.outlet("pbx1").await.expect("an outlet")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_killed_amid_batches_costs_no_fault_and_no_repeat() {
    const MESSAGES: usize = 60_000;
    const BATCH: usize = 1_000;
    let rig = KafkaRig::own();
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = events(&rig, 0..MESSAGES, 500);
    let (progress, mut stored) = tokio::sync::watch::channel(0);
    let offered = tokio::spawn(async move {
        let mut faults = Vec::new();
        for batch in messages.chunks(BATCH) {
            faults.extend(publish_all(&mut *outlet, batch, BATCH).await);
            progress.send_modify(|stored| *stored += batch.len());
        }
        faults
    });
    stored.wait_for(|stored| *stored >= 5 * BATCH).await.expect("some of it is stored");
    rig.kill_server().await;
    let before = *stored.borrow();
    assert!(before < MESSAGES, "too late to disturb it");
    rig.start_server().await;
    let faults = offered.await.expect("published");
    assert_eq!(faults, Vec::<String>::new(), "within the publish timeout the client itself retries");
    let seen = see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await;
    assert_order(&seen);
    assert_eq!(seen.len(), MESSAGES, "the idempotent producer repeats nothing");
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_told_in_time_and_nothing_is_lost_or_reordered() {
    const MESSAGES: usize = 6_000;
    let mut rig = KafkaRig::own();
    rig.values = rig.values.with("publish_timeout", Value::Duration(Duration::from_secs(2)));
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = events(&rig, 0..MESSAGES, 300);
    assert_eq!(outlet.publish(&messages[..1_000]).await, Published::all(1_000, Reach::Stored));
    rig.with_server(|kafka| kafka.pause());
    let start = std::time::Instant::now();
    let published = outlet.publish(&messages[1_000..]).await;
    let took = start.elapsed();
    rig.with_server(|kafka| kafka.resume());
    let fault = published.fault.expect("a hung broker, and yet published");
    assert_eq!(fault.decision, Decision::Retry, "{fault}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(bridge.status().is_err(), "nothing was stored in time, and yet the status is good");
    publish_all(&mut *outlet, &messages[1_000 + published.safe..], 1_000).await;
    assert_eq!(bridge.status(), Ok(()));
    let seen = see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await;
    assert_order(&seen);
}

/// The brokers' limit of the topic is lower than ours, so that the refusal comes from there.
async fn refused_by_the_broker(position: usize) {
    const BATCH: usize = 60;
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("event"), 3, &[("max.message.bytes", "5000")]).await;
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let mut batch = events(&rig, 0..BATCH, 10);
    batch[position] = message(rig.prefix(), Kind::Event, "pbx1", position, KEYS, 20_000);
    let published = outlet.publish(&batch).await;
    let fault = published.fault.expect("a refusal");
    assert_eq!(
        (published.safe, fault.decision, fault.kind),
        (position, Decision::Skip, FaultKind::TooLarge),
        "{fault}"
    );
    assert_eq!(outlet.dead_letter(&batch[position], &fault).await, Ok(true));
    let faults = publish_all(&mut *outlet, &batch[position + 1..], BATCH).await;
    assert_eq!(faults, Vec::<String>::new());
    let others = (0..BATCH).filter(|n| *n != position);
    let seen = see(&mut rig.watch(&[&rig.topic("event")]), others).await;
    assert_order(&seen);
    assert!(seen.iter().all(|got| number(&got.body) != position));
    let letter = rig.watch(&[&rig.topic("event-dlt")]).next(SEEN_WITHIN).await.expect("a dead letter");
    assert_eq!(letter.text("amibus_error_code"), Some("too_large"));
    assert!(letter.text("amibus_error_message").is_some_and(|why| why.contains("large")), "{letter:?}");
    assert_eq!(letter.text("kafka_dlt-original-topic"), Some(rig.topic("event").as_str()));
    assert_eq!(letter.text("ce_id"), Some(batch[position].attributes().id()));
    assert_eq!(letter.key.as_deref(), Some(batch[position].key().as_bytes()));
    assert!(letter.body.len() < 1_000 && letter.body.ends_with(b"}"), "{} bytes", letter.body.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_refuses_the_first_of_a_batch() {
    refused_by_the_broker(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_refuses_one_amid_a_batch() {
    refused_by_the_broker(31).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_refuses_the_last_of_a_batch() {
    refused_by_the_broker(59).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_too_large_is_not_taken_for_a_message_too_large() {
    const MESSAGES: usize = 200;
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("event"), 1, &[("max.message.bytes", "5000")]).await;
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let faults = publish_all(&mut *outlet, &events(&rig, 0..MESSAGES, 1_000), MESSAGES).await;
    assert_eq!(faults, Vec::<String>::new());
    assert_order(&see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await);
}

/// How many batches a broker wrote into the first partition of a topic: each came as a request of its own or as a part
/// of one (Kafka's protocol guide, "Record Batch": 8 bytes of offset, 4 of the length of the rest).
fn batches(kafka: &Kafka, topic: &str) -> usize {
    let log = kafka.directory().join(format!("data/{topic}-0/00000000000000000000.log"));
    let log = std::fs::read(log).expect("the partition's log");
    let (mut rest, mut batches) = (&log[..], 0);
    while let Some(length) = rest.get(8..12) {
        let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
        let Some(next) = rest.get(12 + length as usize..).filter(|_| length > 0) else { break };
        (rest, batches) = (next, batches + 1);
    }
    batches
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_refused_request_messages_go_singly_for_a_while_and_not_forever() {
    const MESSAGES: usize = 300;
    let (rig, kafka) = (KafkaRig::shared(), shared());
    let topic = rig.topic("event");
    rig.make_topic(&topic, 1, &[("max.message.bytes", "100000")]).await;
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let mut poisoned = events(&rig, 0..3, 10);
    poisoned[1] = message(rig.prefix(), Kind::Event, "pbx1", 1, KEYS, 200_000);
    let published = outlet.publish(&poisoned).await;
    assert_eq!(published.fault.map(|fault| fault.kind), Some(FaultKind::TooLarge));
    let mut wrote = Vec::new();
    let mut before = batches(kafka, &topic);
    for first in (0..8).map(|round| 3 + round * MESSAGES) {
        let messages = events(&rig, first..first + MESSAGES, 10);
        assert_eq!(outlet.publish(&messages).await, Published::all(MESSAGES, Reach::Stored));
        let after = batches(kafka, &topic);
        wrote.push(after - before);
        before = after;
    }
    assert_eq!(wrote.first(), Some(&MESSAGES), "one message a request: {wrote:?}");
    assert!(wrote.last().is_some_and(|batches| *batches < MESSAGES / 10), "singly for ever: {wrote:?}");
    let seen = see(&mut rig.watch(&[&topic]), (0..3 + 8 * MESSAGES).filter(|n| ![1, 2].contains(n))).await;
    assert_order(&seen);
    assert_eq!(seen.len(), 8 * MESSAGES + 1, "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changing_to_large_requests_again_disturbs_no_other_lane() {
    const LANES: usize = 3;
    const MESSAGES: usize = 3_000;
    const BATCH: usize = 100;
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("link"), 1, &[("max.message.bytes", "5000")]).await;
    let bridge = rig.bridge();
    let poison = [0, 1].map(|n| message(rig.prefix(), Kind::Link, "pbx2", n, 1, n * 20_000));
    let refused = outlet(&bridge).await.publish(&poison).await;
    assert_eq!((refused.safe, refused.fault.map(|fault| fault.kind)), (1, Some(FaultKind::TooLarge)));
    let lanes = (0..LANES).map(|lane| {
        let messages: Vec<Message> = (0..MESSAGES)
            .map(|n| message(&format!("{}-{lane}", rig.prefix), Kind::Event, "pbx1", n, KEYS, 200))
            .collect();
        let bridge = bridge.clone();
        tokio::spawn(async move { publish_all(&mut *outlet(&bridge).await, &messages, BATCH).await })
    });
    for (n, lane) in lanes.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(lane.await.expect("a lane"), Vec::<String>::new(), "nothing is taken back");
        let seen = see(&mut rig.watch(&[&format!("{}-{n}.event", rig.prefix)]), 0..MESSAGES).await;
        assert_order(&seen);
        assert_eq!(seen.len(), MESSAGES, "nothing twice");
    }
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_in_one_lane_costs_another_lane_no_message_and_no_order() {
    const MESSAGES: usize = 3_000;
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("link"), 1, &[("max.message.bytes", "5000")]).await;
    let bridge = rig.bridge();
    let (mut good, mut bad) = (outlet(&bridge).await, outlet(&bridge).await);
    let messages = events(&rig, 0..MESSAGES, 200);
    let offered = tokio::spawn(async move { publish_all(&mut *good, &messages, 200).await });
    let mut refused = 0;
    let poison = [message(rig.prefix(), Kind::Link, "pbx2", 0, 1, 20_000)];
    while !offered.is_finished() && refused < 10 {
        let published = bad.publish(&poison).await;
        refused += u32::from(published.fault.is_some_and(|fault| fault.decision == Decision::Skip));
    }
    assert!(refused > 0, "nothing was refused meanwhile");
    offered.await.expect("the good lane");
    assert_order(&see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_was_dropped_can_be_offered_again() {
    const MESSAGES: usize = 5_000;
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = events(&rig, 0..MESSAGES, 300);
    for micros in [0, 500, 3_000, 20_000, 60_000] {
        let dropped = tokio::time::timeout(Duration::from_micros(micros), outlet.publish(&messages)).await;
        assert!(dropped.is_err() || micros > 3_000, "stored within {micros} us");
    }
    publish_all(&mut *outlet, &messages, 1_000).await;
    assert_order(&see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_counts_what_could_not_be_delivered() {
    const MESSAGES: usize = 321;
    let rig = KafkaRig::own();
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    assert_eq!(outlet.publish(&events(&rig, 0..10, 10)).await.fault, None);
    rig.kill_server().await;
    let messages = of_kinds(&rig, &[Kind::Link, Kind::Event], 10..10 + MESSAGES, 10);
    let dropped = tokio::time::timeout(Duration::from_millis(300), outlet.publish(&messages)).await;
    assert!(dropped.is_err(), "no broker, and yet an answer: {dropped:?}");
    let lost = bridge.close(Duration::from_secs(1)).await;
    assert_eq!(lost, MESSAGES as u64);
    let after = outlet.publish(&messages).await.fault.expect("closed");
    assert_eq!((after.kind, after.decision), (FaultKind::Closed, Decision::Stop));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_follows_the_broker_while_nothing_is_published() {
    async fn until(bridge: &SharedBridge, good: bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while bridge.status().is_ok() != good {
            assert!(std::time::Instant::now() < deadline, "still {:?}", bridge.status());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let rig = KafkaRig::own();
    let bridge = rig.bridge();
    assert!(bridge.status().is_err(), "nobody was asked yet");
    let _outlet = outlet(&bridge).await;
    assert_eq!(bridge.status(), Ok(()));
    rig.kill_server().await;
    until(&bridge, false).await;
    rig.start_server().await;
    until(&bridge, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_as_configured_or_missed_with_the_remedy() {
    let mut rig = KafkaRig::shared();
    rig.values = rig.values.with("create_topics", Value::Flag(false)).with("partitions", Value::Integer(4));
    let bridge = rig.bridge();
    let fault = bridge.outlet("pbx1").await.err().expect("nothing is there");
    assert_eq!((fault.kind, fault.decision), (FaultKind::Missing, Decision::Stop));
    for word in
        [rig.topic("event"), "--create".into(), "--partitions 4".into(), "create_topics = true".into()]
    {
        assert!(fault.message.contains(&word), "{word} is not in {fault}");
    }
    let fault = bridge.probe().await.expect_err("nothing is there");
    assert_eq!(fault.kind, FaultKind::Missing, "{fault}");
    rig.values = rig.values.with("create_topics", Value::Flag(true));
    let making = rig.bridge();
    let lines = making.probe().await.expect("reachable");
    assert!(lines.iter().any(|line| line.contains("will be made with 4 partitions")), "{lines:?}");
    let _outlet = outlet(&making).await;
    let lines = bridge.probe().await.err().map(|fault| fault.message);
    assert!(
        lines.is_some_and(|line| line.contains("command")),
        "the command topic is made by the inlet only"
    );
    let lines = making.probe().await.expect("reachable");
    let event = lines.iter().find(|line| line.contains(&rig.topic("event"))).expect("a line for it");
    assert!(event.contains("4 partition(s), replication 1") && event.contains("only copy"), "{event}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_calls_partition_is_the_one_that_java_chooses() {
    // Kafka's own test vectors of its hash: UtilsTest.testMurmur2.
    let vectors = [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ("abc", 479_470_107),
    ];
    let rig = KafkaRig::shared();
    rig.make_topic(&rig.topic("event"), 97, &[]).await;
    let bridge = rig.bridge();
    let mut batch = events(&rig, 0..vectors.len(), 1);
    for (message, (key, _)) in batch.iter_mut().zip(vectors) {
        message.key = key.into();
    }
    assert_eq!(publish_all(&mut *outlet(&bridge).await, &batch, 100).await, Vec::<String>::new());
    for got in see(&mut rig.watch(&[&rig.topic("event")]), 0..vectors.len()).await {
        let (key, hash) = vectors[number(&got.body)];
        assert_eq!(got.partition, (hash & 0x7fff_ffff) % 97, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_passed_through() {
    let mut rig = KafkaRig::shared();
    let settings = values::extra(&[("compression.type", "zstd"), ("linger.ms", "20")]);
    rig.values = rig.values.with("librdkafka", settings);
    let bridge = rig.bridge();
    let messages = events(&rig, 0..500, 1_000);
    assert_eq!(publish_all(&mut *outlet(&bridge).await, &messages, 500).await, Vec::<String>::new());
    see(&mut rig.watch(&[&rig.topic("event")]), 0..500).await;
    rig.values = rig.values.with("librdkafka", values::extra(&[("enable.idempotence", "false")]));
    let problems = values::try_open(&rig.values, rig.prefix()).err().expect("a promise would break");
    assert!(problems.iter().all(|problem| problem.key == "librdkafka"), "{problems:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_deleted_is_made_again() {
    let mut rig = KafkaRig::owning(Kafka::start(&KafkaOptions::default()));
    rig.values = rig.values.with("publish_timeout", Value::Duration(Duration::from_secs(5)));
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    assert_eq!(publish_all(&mut *outlet, &events(&rig, 0..10, 1), 10).await, Vec::<String>::new());
    rig.delete_topic(&rig.topic("event")).await;
    publish_all(&mut *outlet, &events(&rig, 10..20, 1), 10).await;
    let mut watcher = rig.watch(&[&rig.topic("event")]);
    assert_order(&see(&mut watcher, 10..20).await);
}

/// A broker turns requests away from a partition that is just coming up. With several requests on their way, the
/// first was lost and reported as stored in one of some hundred topics: see `IN_FLIGHT_REQUESTS`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reported_as_stored_in_a_new_topic_is_there() {
    const LANES: usize = 4;
    const TOPICS: usize = 30;
    const MESSAGES: usize = 100;
    let mut rig = KafkaRig::shared();
    // One record a request makes many requests.
    let many = values::extra(&[("batch.num.messages", "1"), ("linger.ms", "0")]);
    rig.values = rig.values.with("partitions", Value::Integer(2)).with("librdkafka", many);
    let bridge = rig.bridge();
    let lane = |lane: usize| {
        let (bridge, brokers, own) = (bridge.clone(), rig.brokers.clone(), rig.prefix.clone());
        async move {
            let mut outlet = outlet(&bridge).await;
            let consumer: BaseConsumer = config(&brokers).create().expect("a consumer");
            for topic in 0..TOPICS {
                let prefix = format!("{own}-{lane}-{topic}");
                let messages: Vec<Message> =
                    (0..MESSAGES).map(|n| message(&prefix, Kind::Event, "pbx1", n, KEYS, 50)).collect();
                let faults = publish_all(&mut *outlet, &messages, MESSAGES).await;
                let ends = [0, 1].map(|partition| {
                    let topic = format!("{prefix}.event");
                    consumer
                        .fetch_watermarks(&topic, partition, SEEN_WITHIN)
                        .expect("the end of the partition")
                        .1
                });
                assert_eq!((ends.iter().sum(), faults), (MESSAGES as i64, Vec::new()), "{prefix}");
            }
        }
    };
    let lanes: Vec<_> = (0..LANES).map(|n| tokio::spawn(lane(n))).collect();
    for lane in lanes {
        lane.await.expect("a lane");
    }
}
