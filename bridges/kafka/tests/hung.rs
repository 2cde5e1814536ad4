//! A broker that does not answer commits, and everything else at once: in front of the real one.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use amibus_contract::conformance::Rig;
use amibus_services::{Kafka, KafkaOptions};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::{
    commands::{committed, inlet, next},
    rig::KafkaRig,
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
