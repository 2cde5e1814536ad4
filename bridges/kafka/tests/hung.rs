//! A broker that does not answer commits, or refuses them, and everything else at once: in front of the real one.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use amibus_contract::{Decision, conformance::Rig};
use amibus_services::{Kafka, KafkaOptions};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc},
};

use crate::{
    commands::{committed, inlet, next},
    rig::{KafkaRig, config},
    values,
};

/// The number of `OffsetCommit` in Kafka's protocol; it stands at the beginning of a request, after its length.
const OFFSET_COMMIT: i16 = 8;
/// No request of these tests is longer, in bytes.
const MAX_REQUEST: usize = 4 * 1024 * 1024;

#[derive(Default)]
struct Gate {
    holds: AtomicBool,
    swallowed: AtomicU64,
    /// Whether commits wait here, and all that follows them on their connection.
    delays: AtomicBool,
    delayed: AtomicU64,
    /// How many of the next commits the broker refuses.
    spoils: AtomicU64,
    /// Cuts all connections that there are.
    cut: Notify,
}

/// How often it is looked whether they may go on.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A broker behind the gate.
async fn rig() -> (KafkaRig, Arc<Gate>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let properties = format!("advertised.listeners=PLAINTEXT://{address}");
    let options = KafkaOptions { properties, ..KafkaOptions::default() };
    let kafka = tokio::task::block_in_place(|| Kafka::start(&options));
    let (broker, gate) = (kafka.brokers(), Arc::new(Gate::default()));
    let mut rig = KafkaRig::owning(kafka);
    rig.brokers.clone_from(&address);
    rig.values = values::values(&address).with("group", values::text(&format!("{}.group", rig.prefix)));
    let shared = Arc::clone(&gate);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(carry(client, broker.clone(), Arc::clone(&shared)));
        }
    });
    (rig, gate)
}

async fn carry(client: TcpStream, broker: String, gate: Arc<Gate>) -> io::Result<()> {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_broker, to_broker) = TcpStream::connect(broker).await?.into_split();
    tokio::select! {
        ended = requests(from_client, to_broker, &gate) => ended,
        ended = tokio::io::copy(&mut from_broker, &mut to_client) => ended.map(drop),
        () = gate.cut.notified() => Ok(()),
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, gate: &Gate) -> io::Result<()> {
    loop {
        let length = from.read_u32().await?;
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= MAX_REQUEST);
        let mut request = vec![0; bytes.ok_or(io::ErrorKind::InvalidData)?];
        from.read_exact(&mut request).await?;
        let is_commit = request.starts_with(&OFFSET_COMMIT.to_be_bytes());
        if is_commit && gate.holds.load(Ordering::Acquire) {
            gate.swallowed.fetch_add(1, Ordering::AcqRel);
            continue;
        }
        let one_less = |left: u64| left.checked_sub(1);
        if is_commit && gate.spoils.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less).is_ok() {
            spoil(&mut request);
        }
        if is_commit && gate.delays.load(Ordering::Acquire) {
            gate.delayed.fetch_add(1, Ordering::AcqRel);
            while gate.delays.load(Ordering::Acquire) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        to.write_u32(length).await?;
        to.write_all(&request).await?;
    }
}

/// Makes a commit one of another generation of the group, which the broker refuses. Kafka's protocol has, since version 8: the
/// kind, the version, the correlation, the client's name after its two bytes of length, no tags, the group's name after
/// one byte of length and one, the generation.
fn spoil(request: &mut [u8]) {
    let version = i16::from_be_bytes([request[2], request[3]]);
    assert!(version >= 8, "version {version} is laid out otherwise");
    let tags = 10 + usize::from(u16::from_be_bytes([request[8], request[9]]));
    let group = usize::from(request[tags + 1]) - 1;
    assert!(request[tags] == 0 && group < 127, "no tags and a short name");
    let generation = tags + 2 + group;
    request[generation..generation + 4].copy_from_slice(&i32::MAX.to_be_bytes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_come_while_a_commit_hangs_and_it_counts_once_it_was_made() {
    let (mut rig, gate) = rig().await;
    // How long librdkafka waits for the answer to the commit before it asks again.
    rig.values = rig.values.with("librdkafka", values::extra(&[("socket.timeout.ms", "12000")]));
    rig.make_topic(&rig.topic("command"), 1, &[]).await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&rig, &bridge).await;
    let topic = rig.topic("command");
    rig.send(&topic, b"key", b"0", &[]).await;
    let first = next(&mut *inlet).await;
    gate.holds.store(true, Ordering::Release);
    let acknowledged = tokio::spawn(first.handle.acknowledge());
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while gate.swallowed.load(Ordering::Acquire) == 0 {
        assert!(std::time::Instant::now() < until, "nothing was committed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut open = Vec::new();
    for n in 1..4 {
        rig.send(&topic, b"key", b"more", &[]).await;
        let request = tokio::time::timeout(Duration::from_secs(8), inlet.next()).await;
        let request = request.unwrap_or_else(|_| panic!("command {n} is held up by the commit"));
        open.push(request.expect("the inlet works").expect("the inlet is open"));
    }
    let fault = acknowledged.await.expect("no panic").expect_err("nobody has committed it");
    assert_eq!(fault.kind, amibus_contract::FaultKind::TimedOut, "{fault}");
    assert_eq!(committed(&rig, 1), 0);
    gate.holds.store(false, Ordering::Release);
    for request in open {
        // Behind the commit that hangs: its own time may be over before.
        drop(tokio::spawn(request.handle.acknowledge()));
    }
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while committed(&rig, 1) != 4 {
        assert!(std::time::Instant::now() < until, "{} of 4 are committed", committed(&rig, 1));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_its_begin_while_the_member_leaves_is_not_begun_for_the_next() {
    let (rig, gate) = rig().await;
    rig.make_topic(&rig.topic("command"), 1, &[]).await;
    let (one, two) = (rig.bridge(), rig.bridge());
    let mut first = inlet(&rig, &one).await;
    for n in ["0", "1", "2"] {
        rig.send(&rig.topic("command"), b"key", n.as_bytes(), &[]).await;
    }
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut *first).await);
    }
    let [ran, again, never] = [0, 1, 2].map(|n: usize| held[n].handle.begin().expect("Kafka keeps it"));
    ran.begin().await.expect("ours");
    again.begin().await.expect("ours");
    gate.delays.store(true, Ordering::Release);
    let waiting = tokio::spawn(async move { tokio::join!(again.begin(), never.begin()) });
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while gate.delayed.load(Ordering::Acquire) == 0 {
        assert!(std::time::Instant::now() < until, "nothing was committed");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    drop(first);
    let refused = tokio::time::timeout(Duration::from_secs(2), waiting).await.expect("in time");
    assert!(matches!(refused, Ok((Err(_), Err(_)))), "{refused:?}");
    // They are given back, unsent, before that commit is made.
    drop(held);
    gate.delays.store(false, Ordering::Release);
    let mut second = inlet(&rig, &two).await;
    let mut begun = Vec::new();
    for _ in 0..3 {
        let request = next(&mut *second).await;
        begun.push(request.handle.begin().expect("Kafka keeps it").begun_before());
    }
    assert_eq!(begun, [true, false, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_commit_of_partitions_that_go_is_tried_again_and_one_that_fails_keeps_no_other() {
    const PARTITIONS: i32 = 4;
    let (rig, gate) = rig().await;
    rig.make_topic(&rig.topic("command"), PARTITIONS, &[]).await;
    let (one, two) = (rig.bridge(), rig.bridge());
    let mut first = inlet(&rig, &one).await;
    send_to_each(&rig, PARTITIONS).await;
    let (mut requests, mut held) = (Vec::new(), Vec::new());
    for _ in 0..PARTITIONS {
        let request = next(&mut *first).await;
        let begun = request.handle.begin().expect("Kafka keeps it");
        begun.begin().await.expect("ours");
        held.push(begun);
        requests.push(request);
    }
    // While the committer is busy with one partition, all the others are to say that their command was not sent.
    gate.delays.store(true, Ordering::Release);
    let again = Arc::clone(&held[0]);
    let waiting = tokio::spawn(async move { again.begin().await });
    until_many(&gate.delayed, 1).await;
    for begun in &held[1..] {
        begun.take_back();
    }
    drop(first);
    let refused = tokio::time::timeout(Duration::from_secs(2), waiting).await.expect("in time");
    assert!(matches!(refused, Ok(Err(_))), "{refused:?}");
    gate.spoils.store(2, Ordering::Release);
    gate.delays.store(false, Ordering::Release);
    let mut second = inlet(&rig, &two).await;
    for _ in 0..PARTITIONS {
        let request = next(&mut *second).await;
        assert!(!request.handle.begin().expect("Kafka keeps it").begun_before(), "{:?}", request.identity);
    }
    assert_eq!(gate.spoils.load(Ordering::Acquire), 0, "two failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_hangs_when_its_partition_goes_is_not_made_over_what_the_next_member_committed() {
    let (rig, gate) = rig().await;
    rig.make_topic(&rig.topic("command"), 2, &[]).await;
    let (one, two) = (rig.bridge(), rig.bridge());
    let mut first = inlet(&rig, &one).await;
    send_to_each(&rig, 2).await;
    let requests = [next(&mut *first).await, next(&mut *first).await];
    let mut begun = Vec::new();
    for request in &requests {
        begun.push(request.handle.begin().expect("Kafka keeps it"));
        begun[begun.len() - 1].begin().await.expect("ours");
    }
    // Of what is committed next nobody hears, while the connection stays.
    gate.holds.store(true, Ordering::Release);
    begun.iter().for_each(|begun| begun.take_back());
    until_many(&gate.swallowed, 1).await;
    let (tell, mut gone) = mpsc::channel(2);
    for request in requests {
        let tell = tell.clone();
        tokio::spawn(async move {
            request.handle.withdrawn().expect("Kafka tells").await;
            let identity = request.identity.clone();
            let _ = tell.send((identity, request.handle.acknowledge().await)).await;
        });
    }
    let mut second = inlet(&rig, &two).await;
    let gone = tokio::time::timeout(Duration::from_secs(30), gone.recv()).await.expect("one of them moves");
    let (moved, done) = gone.expect("told");
    assert!(done.is_err_and(|fault| fault.decision == Decision::Skip), "the member gave up that commit");
    // librdkafka makes it anew now, as a member that it still is.
    gate.holds.store(false, Ordering::Release);
    gate.cut.notify_waiters();
    let request = next(&mut *second).await;
    assert_eq!(request.identity, moved);
    request.handle.acknowledge().await.expect("committed");
    // The first one is a member still, and what it commits now comes after that commit.
    send_to_each(&rig, 2).await;
    let request = next(&mut *first).await;
    request.handle.acknowledge().await.expect("committed");
    assert_eq!(committed(&rig, 2), 1, "what the second has done counts");
}

/// Sends one command into each partition.
async fn send_to_each(rig: &KafkaRig, partitions: i32) {
    let producer: FutureProducer = config(&rig.brokers).create().expect("a producer");
    let topic = rig.topic("command");
    for partition in 0..partitions {
        let record = FutureRecord::<(), _>::to(&topic).partition(partition).payload("{}");
        producer.send(record, Duration::from_secs(20)).await.expect("stored");
    }
}

async fn until_many(count: &AtomicU64, many: u64) {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while count.load(Ordering::Acquire) < many {
        assert!(std::time::Instant::now() < until, "nothing was committed");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
