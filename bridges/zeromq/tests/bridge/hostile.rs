//! Peers that are broken, or mean it.

use std::time::Duration;

use amibus_contract::{Bridge, Scope, Value};
use amibus_zeromq::ZeroMq;

use crate::support::{self, ENORMOUS, GREETING, Peer, Raw, message, publish, until};

/// For peers that say nothing.
const SHORT: Duration = Duration::from_millis(700);
/// For those that are refused for what they say, which must not take so long.
const LONG: Duration = Duration::from_secs(10);

/// A bridge that listens for both, and a libzmq subscriber that must go on seeing everything.
struct Victim {
    bridge: std::sync::Arc<ZeroMq>,
    outlet: Box<dyn amibus_contract::Outlet>,
    _commands: tokio_util::task::AbortOnDropHandle<()>,
    good: Peer,
    next: usize,
}

impl Victim {
    async fn new() -> Self {
        Self::with_deadline(LONG).await
    }

    async fn with_deadline(deadline: Duration) -> Self {
        let values = support::values().with("handshake_timeout", Value::Duration(deadline));
        let (bridge, outlet, address) = support::publishing(&values).await;
        let scope = Scope { prefix: "ami".into(), servers: vec!["pbx1".into()] };
        let mut inlet = bridge.inlet(&scope).await.expect("an inlet").expect("configured");
        let commands = tokio::spawn(async move { while let Ok(Some(_)) = inlet.next().await {} });
        let good = Peer::observe(&address, &["ami.event."]).await;
        Self { bridge, outlet, _commands: tokio_util::task::AbortOnDropHandle::new(commands), good, next: 0 }
    }

    fn addresses(&self) -> [(String, &'static str); 2] {
        let publish = self.bridge.publish_address().expect("it listens");
        let commands = self.bridge.commands_address().expect("it listens");
        [(publish, "SUB"), (commands, "DEALER")]
    }

    /// The good subscriber still sees what is published.
    async fn lives(&mut self) {
        publish(&mut *self.outlet, &[message("pbx1", self.next, 100)]).await;
        let said = self.good.said().await;
        assert_eq!(said["topic"], "ami.event.pbx1.Test");
        assert!(support::bytes(&said["body"]).starts_with(format!("{:010}", self.next).as_bytes()));
        self.next += 1;
    }
}

#[tokio::test]
async fn a_frame_of_a_terabyte_ends_its_connection_only() {
    let mut victim = Victim::new().await;
    for (address, socket) in victim.addresses() {
        let mut amid_traffic = Raw::shaken(&address, socket).await;
        amid_traffic.send(ENORMOUS).await;
        amid_traffic.closed().await;
        for flags in [3, 6] {
            let mut again = Raw::shaken(&address, socket).await;
            again.send(&[&[flags], &ENORMOUS[1..]].concat()).await;
            again.closed().await;
        }
        for flags in [2, 6] {
            let mut instead_of_ready = Raw::connect(&address).await;
            instead_of_ready.send(GREETING).await;
            instead_of_ready.send(&[&[flags], &ENORMOUS[1..]].concat()).await;
            instead_of_ready.closed().await;
        }
        victim.lives().await;
    }
    assert_eq!(victim.bridge.stats().refused, 10);
}

#[tokio::test]
async fn what_is_no_zmtp_3_is_closed_at_once() {
    let mut victim = Victim::new().await;
    let openings: [&[u8]; 6] = [
        b"\x01\0",
        b"\xff\0\0\0\0\0\0\0\x01\x7f\x01\x08\0\0",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        &[0; 512],
        &[0xff; 512],
    ];
    for (address, _) in victim.addresses() {
        for opening in openings {
            let mut raw = Raw::connect(&address).await;
            raw.send(opening).await;
            let after = raw.closed().await;
            assert!(after < LONG, "{opening:?} was closed after {after:?}");
        }
        let mut plain = GREETING.to_vec();
        plain[12..17].copy_from_slice(b"PLAIN");
        let mut raw = Raw::connect(&address).await;
        raw.send(&plain).await;
        raw.closed().await;
        victim.lives().await;
    }
    let stats = victim.bridge.stats();
    assert_eq!((stats.refused, stats.silent), (14, 0));
}

#[tokio::test]
async fn a_silent_peer_is_closed_at_the_deadline() {
    let mut victim = Victim::with_deadline(SHORT).await;
    for (address, _) in victim.addresses() {
        for sent in [0, 1, 10, 40, 64] {
            let mut raw = Raw::connect(&address).await;
            raw.send(&GREETING[..sent]).await;
            let after = raw.closed().await;
            assert!(after > SHORT / 2, "{sent} bytes: closed after {after:?}, before its deadline");
        }
    }
    assert_eq!(victim.bridge.stats().silent, 10);
    victim.lives().await;
}

#[tokio::test]
async fn silent_peers_take_no_place_for_long() {
    let values = support::values()
        .with("handshake_timeout", Value::Duration(4 * SHORT))
        .with("max_peers", Value::Integer(8));
    let (bridge, mut outlet, address) = support::publishing(&values).await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(Raw::connect(&address).await);
    }
    // One too many is turned away at once; libzmq tries again until there is room.
    Raw::connect(&address).await.closed().await;
    assert_eq!((bridge.stats().turned_away, bridge.stats().silent), (1, 0));
    let mut good = Peer::observe(&address, &[""]).await;
    publish(&mut *outlet, &[message("pbx1", 0, 100)]).await;
    assert_eq!(good.said().await["topic"], "ami.event.pbx1.Test");
    for mut raw in silent {
        raw.closed().await;
    }
}

#[tokio::test]
async fn a_wrong_kind_of_socket_is_refused() {
    let mut victim = Victim::new().await;
    let [(publish, _), (commands, _)] = victim.addresses();
    for (address, ready) in [
        (&publish, &b"\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06DEALER"[..]),
        (&commands, b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB"),
        (&commands, b"\x04\x06\x05READY"),
        (&commands, b"\x04\x19\x05READY\x0bSocket-Type\0\0\xff\x03SUB"),
        (&commands, b"\x00\x03abc"),
    ] {
        let mut raw = Raw::connect(address).await;
        raw.send(GREETING).await;
        raw.send(ready).await;
        raw.closed().await;
    }
    assert_eq!(victim.bridge.stats().refused, 5);
    victim.lives().await;
}

#[tokio::test]
async fn broken_frames_after_the_handshake_end_the_connection() {
    let mut victim = Victim::new().await;
    let [(publish, _), (commands, _)] = victim.addresses();
    for (address, socket, bytes) in [
        (&publish, "SUB", &b"\x80\x01x"[..]),
        (&publish, "SUB", b"\x01\x01\x01\x00\x01\x01"),
        (&publish, "SUB", b"\x02\0\0\0\0\0\0\x08\0"),
        (&publish, "SUB", b"\x05\x05\x04PING"),
        (&publish, "SUB", b"\x04\x05\x04PING"),
        (&commands, "DEALER", b"\xf0\x01x"),
        (&commands, "DEALER", b"\x02\0\0\0\0\x01\0\0\x01"),
    ] {
        let mut raw = Raw::shaken(address, socket).await;
        raw.send(bytes).await;
        raw.closed().await;
    }
    assert_eq!(victim.bridge.stats().refused, 7);
    // A frame that never ends harms nobody, and neither does one cut off.
    let mut half = Raw::shaken(&commands, "DEALER").await;
    half.send(b"\x00\x20{\"id\"").await;
    drop(half);
    victim.lives().await;
}

#[tokio::test]
async fn subscriptions_are_bounded() {
    let mut victim = Victim::new().await;
    let [(publish, _), _] = victim.addresses();
    let mut raw = Raw::shaken(&publish, "SUB").await;
    for n in 0..1025u16 {
        let [high, low] = n.to_be_bytes();
        raw.send(&[0, 3, 1, high, low]).await;
    }
    raw.closed().await;
    assert_eq!(victim.bridge.stats().refused, 1);
    victim.lives().await;
}

#[tokio::test]
async fn pings_are_answered_between_messages() {
    let mut victim = Victim::new().await;
    for (address, socket) in victim.addresses() {
        let mut raw = Raw::shaken(&address, socket).await;
        raw.send(b"\x04\x0c\x04PING\0\x64hello").await;
        assert_eq!(raw.read(12).await, b"\x04\x0a\x04PONGhello");
        raw.send(b"\x04\x07\x04PING\0\0").await;
        assert_eq!(raw.read(7).await, b"\x04\x05\x04PONG");
    }
    victim.lives().await;
}

#[tokio::test]
async fn connections_leave_nothing_behind() {
    let mut victim = Victim::new().await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    let before = descriptors();
    for (address, socket) in victim.addresses() {
        let mut raws = Vec::new();
        for _ in 0..50 {
            let mut raw = Raw::shaken(&address, socket).await;
            if socket == "SUB" {
                raw.send(b"\0\x01\x01").await;
            }
            raws.push(raw);
        }
        victim.lives().await;
    }
    until(&victim.bridge, "the peers are gone", |s| s.subscribers == 1 && s.requesters == 0).await;
    victim.lives().await;
    // The kernel's side goes at its own pace, and other tests open files too.
    let deadline = std::time::Instant::now() + support::SOON;
    while descriptors() > before + 60 {
        assert!(std::time::Instant::now() < deadline, "{} open files, {before} before", descriptors());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn noise_harms_nobody() {
    let mut victim = Victim::new().await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // Small bytes are likelier to be flags and lengths.
            if state & 1 == 0 { (state >> 8) as u8 } else { (state >> 8) as u8 & 7 }
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    for (address, socket) in victim.addresses() {
        for round in 0..100 {
            let mut raw = match round % 3 {
                0 => Raw::connect(&address).await,
                1 => {
                    let mut raw = Raw::connect(&address).await;
                    raw.send(GREETING).await;
                    raw
                }
                _ => Raw::shaken(&address, socket).await,
            };
            use tokio::io::AsyncWriteExt;
            // It may be closed before all of it is written.
            let _ = raw.stream.write_all(&noise(1 + round * 37)).await;
        }
        victim.lives().await;
    }
    until(&victim.bridge, "they are gone", |s| s.subscribers == 1 && s.requesters == 0).await;
}

/// A server that does the handshake of a PUB, takes the client's subscriptions, confirms them, and then says `then`.
async fn mean_server(listener: &tokio::net::TcpListener, then: &[u8]) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut stream, _) = listener.accept().await.expect("a client");
    stream.write_all(GREETING).await.expect("sent");
    stream.write_all(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB").await.expect("sent");
    let mut seen = Vec::new();
    while !seen.windows(16).any(|w| w == b"~amibus.confirm.") {
        assert!(stream.read_buf(&mut seen).await.expect("it speaks") > 0, "the client left: {seen:?}");
    }
    stream.write_all(b"\x01\x10~amibus.confirm.\0\0").await.expect("sent");
    stream.write_all(then).await.expect("sent");
    let mut rest = Vec::new();
    // The client closes, with or without a reset.
    let _ = stream.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn a_client_of_ours_survives_a_mean_server_and_comes_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("tcp://{}", listener.local_addr().expect("bound"));
    let bridge = support::open(&support::values().with("publish", Value::Text(address.clone())));
    let mut client = bridge.client().await.expect("a client");
    let (feed, ()) = tokio::join!(client.subscribe("ami", &[amibus_contract::Kind::Event], None), async {
        tokio::time::timeout(support::SOON, mean_server(&listener, ENORMOUS)).await.expect("it left");
    });
    let mut feed = feed.expect("subscribed");
    drop(listener);
    let (_bridge, mut outlet, _) =
        support::publishing(&support::values().with("publish", Value::Text(address))).await;
    // It reconnects by itself; nothing tells when, so messages are sent until one comes.
    let deadline = std::time::Instant::now() + support::SOON;
    loop {
        publish(&mut *outlet, &[message("pbx1", 1, 10)]).await;
        if let Ok(seen) = tokio::time::timeout(Duration::from_millis(50), feed.next()).await {
            let seen = seen.expect("the feed works").expect("the feed is open");
            assert_eq!(&*seen.topic, "ami.event.pbx1.Test");
            return;
        }
        assert!(std::time::Instant::now() < deadline, "it did not come back");
    }
}
