//! Commands that a member had begun, as whoever has their partition next finds them.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use amibus_contract::{Decision, Inlet, Request, Scope, SharedBridge, conformance::Rig};
use futures_util::future::join_all;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    groups::GroupInfo,
    producer::{FutureProducer, FutureRecord, Producer},
};
use tempfile::TempDir;

use crate::{
    commands::{inlet, is_quiet, next},
    rig::{KafkaRig, config},
    values,
};

const MEMBER: &str = "AMIBUS_KAFKA_BEGUN";
const WITHIN: Duration = Duration::from_secs(60);
/// Signs of life are asked for often, so that a member that died is found out soon.
const IMPATIENT: &[(&str, &str)] = &[("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
/// What one commit can tell of.
const WINDOW: usize = 15_000;
const MANY: usize = 200;

fn number(request: &Request) -> usize {
    String::from_utf8_lossy(&request.body).parse().expect("a number")
}

fn begun_before(request: &Request) -> bool {
    request.handle.begin().expect("Kafka keeps what was begun").begun_before()
}

async fn begin(request: &Request) -> bool {
    request.handle.begin().expect("Kafka keeps what was begun").begin().await.is_ok()
}

async fn impatient(partitions: i32) -> KafkaRig {
    let mut rig = KafkaRig::shared();
    rig.values = rig.values.with("librdkafka", values::extra(IMPATIENT));
    rig.make_topic(&rig.topic("command"), partitions, &[]).await;
    rig
}

/// Sends records whose bodies are numbers.
async fn send(rig: &KafkaRig, count: usize) {
    let mut config = config(&rig.brokers);
    let producer: FutureProducer = config.set("linger.ms", "100").create().expect("a producer");
    let topic = rig.topic("command");
    for chunk in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let bodies: Vec<String> = chunk.iter().map(ToString::to_string).collect();
        let records = bodies
            .iter()
            .map(|body| producer.send(FutureRecord::<(), _>::to(&topic).partition(0).payload(body), WITHIN));
        for sent in join_all(records).await {
            sent.expect("stored");
        }
    }
    producer.flush(WITHIN).expect("nothing is left");
}

/// A member of the group in a process of its own: of six commands it begins 0, 1, 2 and 5, acknowledges 1, and is told by
/// `go` to begin 4.
async fn member(brokers: &str, prefix: &str, directory: &Path) {
    let group = values::text(&format!("{prefix}.group"));
    let values = values::values(brokers).with("group", group).with("librdkafka", values::extra(IMPATIENT));
    let bridge = values::open(&values, prefix);
    let scope = Scope { prefix: prefix.to_owned(), servers: Vec::new() };
    let mut inlet = bridge.inlet(&scope).await.expect("an inlet").expect("commands are configured");
    let mut held = BTreeMap::new();
    while held.len() < 6 {
        let request = next(&mut *inlet).await;
        held.insert(number(&request), request);
    }
    for n in [0, 1, 2, 5] {
        assert!(begin(&held[&n]).await, "{n} is ours");
    }
    held.remove(&1).expect("held").handle.acknowledge().await.expect("committed");
    std::fs::write(directory.join("told"), "").expect("told");
    wait_for(&directory.join("go")).await;
    let begun = begin(&held[&4]).await;
    std::fs::write(directory.join("answer.new"), if begun { "begun" } else { "lost" }).expect("told");
    std::fs::rename(directory.join("answer.new"), directory.join("answer")).expect("told");
    tokio::time::sleep(Duration::from_secs(600)).await;
}

async fn wait_for(file: &Path) {
    let deadline = Instant::now() + WITHIN;
    while !file.exists() {
        assert!(Instant::now() < deadline, "{} never came", file.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether this is the process of such a member, which never ends by itself.
async fn is_member() -> bool {
    let Ok(arguments) = std::env::var(MEMBER) else { return false };
    let words: Vec<&str> = arguments.split(' ').collect();
    member(words[0], words[1], Path::new(words[2])).await;
    true
}

struct Other(Child);

impl Other {
    fn start(rig: &KafkaRig, test: &str, directory: &Path) -> Self {
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .args(["--exact", test])
            .env(MEMBER, format!("{} {} {}", rig.brokers, rig.prefix, directory.display()))
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("this program again"))
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(sent.expect("a shell's kill").success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client that is told what the group has, and takes part in it where it subscribes.
fn consumer(rig: &KafkaRig) -> BaseConsumer {
    let mut config = config(&rig.brokers);
    config.set("group.id", format!("{}.group", rig.prefix)).set("enable.auto.commit", "false");
    config.set("partition.assignment.strategy", "cooperative-sticky");
    config.create().expect("a consumer")
}

fn partition(rig: &KafkaRig) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(&rig.topic("command"), 0);
    list
}

/// The position of the partition, and what is said beside it.
fn committed(rig: &KafkaRig) -> (Offset, String) {
    let found = tokio::task::block_in_place(|| consumer(rig).committed_offsets(partition(rig), WITHIN));
    let found = found.expect("an answer");
    let element = &found.elements()[0];
    (element.offset(), element.metadata().to_owned())
}

async fn wait_for_members(rig: &KafkaRig, count: usize) {
    let (name, consumer) = (format!("{}.group", rig.prefix), consumer(rig));
    let deadline = Instant::now() + WITHIN;
    let are_there = || {
        // A broker that has just come up refuses for a while.
        let found = consumer.fetch_group_list(Some(&name), WITHIN);
        let stable = |group: &GroupInfo| group.members().len() == count && group.state() == "Stable";
        found.is_ok_and(|found| found.groups().iter().any(stable))
    };
    while !tokio::task::block_in_place(are_there) {
        assert!(Instant::now() < deadline, "the group never had {count} members");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The member that has the partition next, and what came to it of the six commands: all but the one that is done.
struct Heir {
    came: BTreeMap<usize, Request>,
    inlet: Box<dyn Inlet>,
    _bridge: SharedBridge,
    other: Other,
    directory: TempDir,
    rig: KafkaRig,
}

impl Heir {
    /// After a member in a process of its own (which runs this `test`) had begun its part and got this signal.
    async fn after(signal: &str, test: &str) -> Self {
        let rig = impatient(1).await;
        send(&rig, 6).await;
        let directory = tempfile::tempdir().expect("a directory");
        let other = Other::start(&rig, test, directory.path());
        wait_for(&directory.path().join("told")).await;
        other.signal(signal);
        let bridge = rig.bridge();
        let mut inlet = inlet(&rig, &bridge).await;
        let mut came = BTreeMap::new();
        for _ in 0..5 {
            let request = next(&mut *inlet).await;
            came.insert(number(&request), request);
        }
        Self { came, inlet, _bridge: bridge, other, directory, rig }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_member_had_begun_is_told_to_the_next() {
    if is_member().await {
        return;
    }
    let test = "begun::what_a_killed_member_had_begun_is_told_to_the_next";
    let mut heir = Heir::after("-KILL", test).await;
    let (came, inlet) = (&mut heir.came, &mut *heir.inlet);
    let begun: Vec<(usize, bool)> = came.iter().map(|(n, request)| (*n, begun_before(request))).collect();
    assert_eq!(begun, [(0, true), (2, true), (3, false), (4, false), (5, true)]);
    assert!(!begin(&came[&0]).await, "it is not begun again");
    assert!(begin(&came[&3]).await, "it is ours");
    // Given back and come again, it is still what somebody had begun.
    came.remove(&2);
    let again = next(inlet).await;
    assert_eq!((number(&again), begun_before(&again)), (2, true));
    again.handle.acknowledge().await.expect("committed");
    for request in std::mem::take(came).into_values() {
        request.handle.acknowledge().await.expect("committed");
    }
    is_quiet(inlet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_expelled_can_begin_nothing() {
    if is_member().await {
        return;
    }
    let test = "begun::a_member_that_was_expelled_can_begin_nothing";
    let Heir { came, other, directory, rig, .. } = &Heir::after("-STOP", test).await;
    let begun: Vec<usize> =
        came.iter().filter(|(_, request)| begun_before(request)).map(|(n, _)| *n).collect();
    assert_eq!(begun, [0, 2, 5]);
    // Begun, done, begun, twice nothing, and begun.
    let known = (Offset::Offset(0), "amibus2 EAE".to_owned());
    assert_eq!(committed(rig), known);
    std::fs::write(directory.path().join("go"), "").expect("told");
    other.signal("-CONT");
    wait_for(&directory.path().join("answer")).await;
    let answer = std::fs::read_to_string(directory.path().join("answer")).expect("an answer");
    assert_eq!(answer, "lost");
    // It joins again, and has told the group nothing that undoes what is known.
    wait_for_members(rig, 2).await;
    other.signal("-KILL");
    assert_eq!(committed(rig), known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_after_the_new_member_asked_where_to_read_from_counts() {
    let mut rig = KafkaRig::shared();
    // It must not lose the partition to the other one here, however slow the machine is.
    rig.values = rig.values.with("librdkafka", values::extra(&[("session.timeout.ms", "40000")]));
    rig.make_topic(&rig.topic("command"), 1, &[]).await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    wait_for_members(&rig, 1).await;
    // One that had the partition before, and whose commit comes late: it has none now.
    let late = consumer(&rig);
    late.subscribe(&[&rig.topic("command")]).expect("subscribed");
    let list = partition(&rig);
    let mut element = list.find_partition(&rig.topic("command"), 0).expect("added");
    element.set_offset(Offset::Offset(3)).expect("a position");
    // Done are those before 3, and 5; begun is 4.
    element.set_metadata("amibus2 FQ");
    let deadline = Instant::now() + WITHIN;
    let taken = || {
        assert!(late.poll(Duration::from_millis(20)).is_none(), "it has no partition");
        late.commit(&list, CommitMode::Sync).is_ok()
    };
    while !tokio::task::block_in_place(taken) {
        assert!(Instant::now() < deadline, "the broker never took it");
    }
    send(&rig, 7).await;
    let mut came = Vec::new();
    for _ in 0..3 {
        let request = next(&mut *inlet).await;
        came.push((number(&request), begun_before(&request)));
        request.handle.acknowledge().await.expect("committed");
    }
    assert_eq!(came, [(3, false), (4, true), (6, false)]);
    is_quiet(&mut *inlet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_another_one_fenced_says_so_ends_and_may_be_opened_anew() {
    let mut rig = impatient(1).await;
    rig.values = rig.values.with("librdkafka", values::extra(&[("group.instance.id", "the only one")]));
    let (one, two) = (rig.bridge(), rig.bridge());
    let mut first = inlet(&rig, &one).await;
    wait_for_members(&rig, 1).await;
    send(&rig, 1).await;
    let held = next(&mut *first).await;
    let mut second = inlet(&rig, &two).await;
    let fault = loop {
        match tokio::time::timeout(WITHIN, first.next()).await.expect("it ends") {
            Ok(Some(request)) => drop(request),
            Ok(None) => panic!("nobody knows why it ended"),
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault.decision, Decision::Stop, "{fault}");
    assert!(fault.to_string().contains("the same group.instance.id"), "{fault}");
    assert!(matches!(first.next().await, Ok(None)));
    // What it had is nobody's to begin there any more.
    assert!(!begin(&held).await);
    assert_eq!(number(&next(&mut *second).await), 0);
    drop((first, second));
    assert_eq!(number(&next(&mut *inlet(&rig, &one).await).await), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_begin_at_once_and_what_is_taken_back_or_done_is_not_marked() {
    let rig = impatient(1).await;
    send(&rig, MANY).await;
    let (one, two) = (rig.bridge(), rig.bridge());
    let mut first = inlet(&rig, &one).await;
    let mut held = BTreeMap::new();
    while held.len() < MANY {
        let request = next(&mut *first).await;
        held.insert(number(&request), request);
    }
    let begun = join_all(held.values().map(begin)).await;
    assert!(begun.iter().all(|begun| *begun));
    held[&7].handle.begin().expect("kept").take_back();
    held.remove(&3).expect("held").handle.acknowledge().await.expect("committed");
    // It leaves; what is not acknowledged comes to the other one.
    drop((first, held));
    let mut second = inlet(&rig, &two).await;
    let mut came = BTreeMap::new();
    for _ in 1..MANY {
        let request = next(&mut *second).await;
        came.insert(number(&request), request);
    }
    let unmarked: Vec<usize> =
        came.iter().filter(|(_, request)| !begun_before(request)).map(|(n, _)| *n).collect();
    assert_eq!((unmarked, came.contains_key(&3)), (vec![7], false));
    assert!(begin(&came[&7]).await, "it may be begun again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_keeps_a_whole_window_of_begun_commands() {
    let rig = impatient(1).await;
    send(&rig, 3).await;
    // Five begun commands a byte, as the metadata has it.
    let metadata = format!("amibus2 {}", "eXl5".repeat(WINDOW / 5 / 3));
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(&rig.topic("command"), 0);
    element.set_offset(Offset::Offset(0)).expect("a position");
    element.set_metadata(metadata);
    consumer(&rig).commit(&list, CommitMode::Sync).expect("it is not too long");
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    for n in 0..3 {
        let request = next(&mut *inlet).await;
        assert_eq!((number(&request), begun_before(&request)), (n, true));
        // The commit of this one has all the others.
        request.handle.acknowledge().await.expect("committed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_full_holds_up_no_other() {
    const MORE: usize = 500;
    const OTHER: usize = 1_000_000;
    let rig = KafkaRig::shared();
    let topic = rig.topic("command");
    rig.make_topic(&topic, 2, &[]).await;
    // All of them lie in one partition.
    send(&rig, WINDOW + MORE).await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    let mut held = BTreeMap::new();
    while held.len() < WINDOW {
        let request = next(&mut *inlet).await;
        held.insert(number(&request), request);
    }
    let producer: FutureProducer = config(&rig.brokers).create().expect("a producer");
    let body = OTHER.to_string();
    let other = FutureRecord::<(), _>::to(&topic).partition(1).payload(&body);
    producer.send(other, WITHIN).await.expect("stored");
    while !held.contains_key(&OTHER) {
        let request = next(&mut *inlet).await;
        held.insert(number(&request), request);
        assert!(held.len() < WINDOW + MORE, "the full one is read on");
    }
    // It goes on where its first are done.
    let first: Vec<Request> = (0..MORE).map(|n| held.remove(&n).expect("held")).collect();
    let done = tokio::spawn(join_all(first.into_iter().map(|request| request.handle.acknowledge())));
    while held.len() < WINDOW + 1 {
        let request = next(&mut *inlet).await;
        held.insert(number(&request), request);
    }
    assert!(done.await.expect("no panic").iter().all(Result::is_ok));
}
