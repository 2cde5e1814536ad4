//! Commands from libzmq, well and badly framed.

use std::{sync::Arc, time::Duration};

use amibus_contract::{Bridge, Decision, Inlet, Request, Scope, Value, Values};
use amibus_zeromq::ZeroMq;
use serde_json::{Value as Json, json};

use crate::support::{self, Peer, Raw, SOON, base64, bytes, message, until};

async fn listening(values: &Values) -> (Arc<ZeroMq>, Box<dyn Inlet>, String) {
    let bridge = support::open(values);
    let scope = Scope { prefix: "ami".into(), servers: vec!["pbx1".into()] };
    let inlet = bridge.inlet(&scope).await.expect("an inlet").expect("configured");
    let address = bridge.commands_address().expect("it listens");
    (bridge, inlet, address)
}

fn ask(address: &str, kind: &str, messages: &[&[&[u8]]]) -> Peer {
    let messages: Vec<Vec<String>> =
        messages.iter().map(|frames| frames.iter().map(|frame| base64(frame)).collect()).collect();
    Peer::start("ask", &json!({"address": address, "kind": kind, "messages": messages}))
}

async fn next(inlet: &mut dyn Inlet) -> Request {
    let next = tokio::time::timeout(SOON, inlet.next()).await.expect("a request in time");
    next.expect("the inlet works").expect("the inlet is open")
}

fn reply_frames(said: &Json) -> Vec<Vec<u8>> {
    said["reply"].as_array().unwrap_or_else(|| panic!("a reply, not {said}")).iter().map(bytes).collect()
}

#[tokio::test]
async fn each_envelope_comes_back_as_it_was() {
    let (_bridge, mut inlet, address) = listening(&support::values()).await;
    let body = br#"{"id":"1"}"#;
    for (kind, sent, envelope) in [
        ("REQ", vec![&body[..]], vec![]),
        ("DEALER", vec![&b""[..], body], vec![b"".to_vec()]),
        ("DEALER", vec![&body[..]], vec![]),
        ("DEALER", vec![&b"route"[..], b"", body], vec![b"route".to_vec(), b"".to_vec()]),
    ] {
        let mut peer = ask(&address, kind, &[&sent]);
        let mut request = next(&mut *inlet).await;
        assert_eq!(&request.body[..], body);
        assert!(request.reply_wanted && !request.durable && request.identity.is_none());
        assert!(request.sender.as_deref().is_some_and(|s| s.starts_with("127.0.0.1:")), "{request:?}");
        request.handle.reply(&message("pbx1", 5, 20)).await.expect("the reply goes out");
        assert!(request.handle.reply(&message("pbx1", 6, 20)).await.is_err(), "one reply");
        request.handle.acknowledge().await.expect("nothing to do");
        assert_eq!(peer.said().await["sent"], true);
        let mut frames = reply_frames(&peer.said().await);
        assert!(frames.pop().expect("a body").starts_with(b"0000000005"));
        assert_eq!(frames, envelope, "{kind}");
    }
}

#[tokio::test]
async fn badly_framed_commands_are_refused_by_name_and_the_next_one_works() {
    let (_bridge, mut inlet, address) = listening(&support::values()).await;
    let large = vec![b'x'; 70_000];
    let bad: [(&[&[u8]], &str); 7] = [
        (&[b"", b"a", b"b"], "got 2"),
        (&[b"a", b"b", b"c"], "got 3"),
        (&[b""], "no command"),
        (&[b"", b""], "empty"),
        (&[b"{}", b""], "no command"),
        (&[b"", &large], "70000 bytes"),
        (&[b"x" as &[u8]; 40], "40 frames"),
    ];
    for (frames, word) in bad {
        let mut peer = ask(&address, "DEALER", &[frames, &[b"", b"good"]]);
        assert_eq!(peer.said().await["sent"], true);
        let frames = reply_frames(&peer.said().await);
        let reply: Json = serde_json::from_slice(frames.last().expect("a body")).expect("JSON");
        assert_eq!(reply["data"]["outcome"], "rejected", "{reply}");
        let too_large = word.ends_with("bytes");
        let code = if too_large { "too_large" } else { "malformed" };
        assert_eq!(reply["data"]["error"]["code"], code);
        assert_eq!(reply["data"]["error"]["field"], if too_large { Json::Null } else { "frames".into() });
        assert!(reply["data"]["error"]["message"].as_str().is_some_and(|m| m.contains(word)), "{reply}");
        assert_eq!(&next(&mut *inlet).await.body[..], b"good");
    }
}

#[tokio::test]
async fn an_oversized_command_of_a_req_is_answered() {
    let values = support::values().with("max_command_bytes", Value::Size(1024));
    let (_bridge, _inlet, address) = listening(&values).await;
    let options = json!({"address": address, "kind": "REQ", "messages": [[3 << 20]]});
    let mut peer = Peer::start("ask", &options);
    assert_eq!(peer.said().await["sent"], true);
    let frames = reply_frames(&peer.said().await);
    assert!(String::from_utf8_lossy(&frames[0]).contains("at most 1024 are taken"), "{frames:?}");
}

#[tokio::test]
async fn a_command_of_the_limit_arrives_whole() {
    let (_bridge, mut inlet, address) = listening(&support::values()).await;
    let body: Vec<u8> = (0..64 << 10).map(|n| (n % 251) as u8).collect();
    let _peer = ask(&address, "REQ", &[&[&body]]);
    assert_eq!(next(&mut *inlet).await.body, body);
}

#[tokio::test]
async fn unanswered_commands_are_bounded_for_each_requester() {
    let values = support::values().with("max_unanswered", Value::Integer(3));
    let (_bridge, mut inlet, address) = listening(&values).await;
    let frames: [&[&[u8]]; 10] = [&[b"many"]; 10];
    let mut greedy = ask(&address, "DEALER", &frames);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut *inlet).await);
    }
    let fourth = tokio::time::timeout(Duration::from_millis(500), inlet.next()).await;
    assert!(fourth.is_err(), "the fourth waits for an answer to one of three: {fourth:?}");
    let _modest = ask(&address, "DEALER", &[&[b"modest"]]);
    let modest = next(&mut *inlet).await;
    assert_eq!(&modest.body[..], b"modest", "others are not kept waiting");
    // An answer makes room, and so does giving up.
    held.pop().expect("a request").handle.reply(&message("pbx1", 0, 10)).await.expect("the reply goes out");
    assert_eq!(&next(&mut *inlet).await.body[..], b"many");
    drop(held.pop());
    assert_eq!(&next(&mut *inlet).await.body[..], b"many");
    assert_eq!(greedy.said().await["sent"], true);
    assert_eq!(reply_frames(&greedy.said().await).len(), 1);
}

/// libzmq cuts the connection where no PONG comes in time, and the replies to what it sent on it are lost.
#[tokio::test]
async fn a_full_window_keeps_no_heartbeat_waiting() {
    const COMMANDS: usize = 10;
    let values = support::values().with("max_unanswered", Value::Integer(1));
    let (_bridge, mut inlet, address) = listening(&values).await;
    let mut peer = Raw::shaken(&address, "DEALER").await;
    peer.send(&b"\0\x04many".repeat(COMMANDS)).await;
    let mut request = next(&mut *inlet).await;
    for _ in 0..3 {
        peer.send(b"\x04\x0c\x04PING\0\0beats").await;
        assert_eq!(peer.read(12).await, b"\x04\x0a\x04PONGbeats", "while nothing is answered");
    }
    for n in 0..COMMANDS {
        request.handle.reply(&message("pbx1", n, 10)).await.expect("the reply goes out");
        assert_eq!(peer.read(12).await, format!("\0\n{n:010}").into_bytes());
        if n + 1 < COMMANDS {
            request = next(&mut *inlet).await;
        }
    }
}

/// A REQ would wait for ever for a reply that never comes.
#[tokio::test]
async fn a_reply_over_the_limit_is_answered_in_short() {
    let values = support::values().with("max_message_bytes", Value::Size(2048));
    let (_bridge, mut inlet, address) = listening(&values).await;
    let mut peer = ask(&address, "REQ", &[&[b"{}"]]);
    let mut request = next(&mut *inlet).await;
    let mut long = message("pbx1", 0, 10);
    let events = vec![json!({"Event": "QueueMember"}); 200];
    let data =
        json!({"id": "7", "outcome": "executed", "response": {"Response": "Success"}, "events": events});
    long.body = json!({"specversion": "1.0", "id": "r1", "data": data}).to_string().into();
    request.handle.reply(&long).await.expect("an answer goes out");
    assert_eq!(peer.said().await["sent"], true);
    let frames = reply_frames(&peer.said().await);
    let reply: Json = serde_json::from_slice(&frames[0]).expect("JSON");
    assert_eq!((&reply["id"], &reply["data"]["id"]), (&json!("r1"), &json!("7")));
    assert_eq!(reply["data"]["outcome"], "executed", "what happened stands");
    assert_eq!((&reply["data"]["response"], &reply["data"]["events"]), (&Json::Null, &json!([])));
    assert_eq!(reply["data"]["error"]["code"], "list_too_long", "{reply}");
}

#[tokio::test]
async fn replies_go_to_who_asked_though_identities_are_the_same() {
    let (_bridge, mut inlet, address) = listening(&support::values()).await;
    let start = |body: &[u8]| {
        let options =
            json!({"address": address, "kind": "DEALER", "identity": "twin", "messages": [[base64(body)]]});
        Peer::start("ask", &options)
    };
    let mut one = start(b"1");
    let mut request_of_one = next(&mut *inlet).await;
    let mut two = start(b"2");
    let mut request_of_two = next(&mut *inlet).await;
    request_of_one.handle.reply(&message("pbx1", 1, 10)).await.expect("the reply goes out");
    request_of_two.handle.reply(&message("pbx1", 2, 10)).await.expect("the reply goes out");
    for (peer, body) in [(&mut one, b"0000000001"), (&mut two, b"0000000002")] {
        assert_eq!(peer.said().await["sent"], true);
        assert_eq!(reply_frames(&peer.said().await), [body.to_vec()]);
    }
}

#[tokio::test]
async fn a_requester_that_is_gone_is_a_fault_and_no_more() {
    let (bridge, mut inlet, address) = listening(&support::values()).await;
    let peer = ask(&address, "DEALER", &[&[b"{}"]]);
    let mut request = next(&mut *inlet).await;
    drop(peer);
    until(&bridge, "it is gone", |s| s.requesters == 0).await;
    let fault = request.handle.reply(&message("pbx1", 0, 10)).await.expect_err("nobody is there");
    assert_eq!(fault.decision, Decision::Skip);
    assert!(fault.message.contains("gone"), "{fault}");
    let _again = ask(&address, "DEALER", &[&[b"after"]]);
    assert_eq!(&next(&mut *inlet).await.body[..], b"after");
}

#[tokio::test]
async fn commands_come_over_a_local_socket_too() {
    let path = std::env::temp_dir().join(format!("amibus-test-{}.sock", std::process::id()));
    // What a killed process left behind is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    let values = support::values().with("commands", Value::Text(format!("ipc://{}", path.display())));
    let (bridge, mut inlet, address) = listening(&values).await;
    let mut peer = ask(&address, "REQ", &[&[b"{}"]]);
    let mut request = next(&mut *inlet).await;
    request.handle.reply(&message("pbx1", 1, 10)).await.expect("the reply goes out");
    assert_eq!(peer.said().await["sent"], true);
    assert_eq!(reply_frames(&peer.said().await), [b"0000000001".to_vec()]);
    let second = support::open(&values);
    let scope = Scope { prefix: "ami".into(), servers: vec![] };
    let fault = second.inlet(&scope).await.err().expect("somebody listens there");
    assert_eq!(fault.decision, Decision::Retry);
    assert!(second.status().is_err());
    bridge.close(Duration::from_secs(5)).await;
    assert!(!path.exists(), "the socket is gone with the bridge");
}

#[tokio::test]
async fn nothing_listens_for_commands_unless_configured() {
    let mut values = support::values();
    values.0.remove("commands");
    let bridge = support::open(&values);
    let scope = Scope { prefix: "ami".into(), servers: vec![] };
    assert!(bridge.inlet(&scope).await.expect("no fault").is_none());
}
