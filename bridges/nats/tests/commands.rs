//! Commands: the micro service, the stream, and both together.

use std::time::{Duration, Instant};

use amibus_contract::{
    Bridge, Bytes, FaultKind, Inlet, Kind, Rejection, Request, Scope, Value,
    conformance::{Rig, SEEN_WITHIN, message},
};
use async_nats::jetstream;

use crate::rig::{
    ACK_WAIT, COMMANDS, EVENTS, NatsRig, PREFIX, durable, length, offer, open, stream_holds, text, values,
};

fn scope(servers: &[&str]) -> Scope {
    Scope { prefix: PREFIX.to_owned(), servers: servers.iter().map(|s| (*s).to_owned()).collect() }
}

async fn inlet(bridge: &dyn Bridge, servers: &[&str]) -> Box<dyn Inlet> {
    bridge.inlet(&scope(servers)).await.expect("an inlet").expect("commands are on")
}

async fn next(inlet: &mut dyn Inlet) -> Request {
    let next = tokio::time::timeout(SEEN_WITHIN, inlet.next());
    next.await.expect("in time").expect("the inlet works").expect("the inlet is open")
}

async fn nothing_more(inlet: &mut dyn Inlet, wait: Duration) {
    if let Ok(more) = tokio::time::timeout(wait, inlet.next()).await {
        panic!("one more than expected: {more:?}");
    }
}

/// Waits until so many commands wait: how many is asked of the server, and they may be on their way to us meanwhile.
async fn waiting(bridge: &dyn Bridge, wanted: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let told = bridge.commands_waiting().await.expect("answered").expect("a stream");
        if told == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{told} wait, and not {wanted}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn answer(mut request: Request) -> Bytes {
    let response = message(PREFIX, Kind::Response, "pbx1", 7, 1, 10);
    request.handle.reply(&response).await.expect("replied");
    request.handle.acknowledge().await.expect("acknowledged");
    response.body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_micro_service_is_discoverable() {
    let rig = NatsRig::core().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1", "pbx2"]).await;
    let client = rig.plain().await;
    let ask = async |subject: &str| {
        let reply = client.request(subject.to_owned(), "".into()).await.expect("an answer");
        serde_json::from_slice::<serde_json::Value>(&reply.payload).expect("JSON")
    };
    let info = ask("$SRV.INFO.amibus").await;
    assert_eq!(info["name"], "amibus");
    let endpoints = info["endpoints"].as_array().expect("endpoints");
    let mut subjects: Vec<&str> = endpoints.iter().filter_map(|e| e["subject"].as_str()).collect();
    subjects.sort_unstable();
    assert_eq!(
        subjects,
        [
            "test.ami.command.pbx1.*",
            "test.ami.command.pbx2.*",
            "test.ami.request.pbx1.*",
            "test.ami.request.pbx2.*",
        ]
    );
    assert!(endpoints.iter().all(|e| e["queue_group"] == "amibus"), "{endpoints:?}");
    assert_eq!(ask("$SRV.PING").await["name"], "amibus");
    let other = client.request(format!("{PREFIX}.request.pbx9.Ping"), "{}".into()).await;
    assert!(other.is_err(), "nobody serves another server");
    let asking = client.request(format!("{PREFIX}.request.pbx2.Ping"), "{}".into());
    let (reply, body) = tokio::join!(asking, async { answer(next(&mut *inlet).await).await });
    let reply = reply.expect("a reply");
    assert_eq!(reply.payload, body);
    let headers = reply.headers.expect("headers");
    assert_eq!(headers.get("ce-correlationid").map(|v| v.as_str()), Some("order-1"));
    let stats = ask("$SRV.STATS.amibus").await;
    let requests: u64 = stats["endpoints"]
        .as_array()
        .expect("endpoints")
        .iter()
        .filter_map(|e| e["num_requests"].as_u64())
        .sum();
    assert_eq!(requests, 1);
    drop(inlet);
    bridge.close(Duration::from_secs(1)).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.request("$SRV.PING", "".into()).await.is_ok() {
        assert!(Instant::now() < deadline, "the service is still there after the inlet is gone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_in_the_stream_is_told_with_the_time_at_which_it_came() {
    const MANY: u64 = 20;
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    assert_eq!(bridge.commands_waiting().await, Ok(None), "no inlet is open");
    let mut inlet = inlet(&*bridge, &["pbx1", "pbx2"]).await;
    let context = jetstream::new(rig.plain().await);
    let before = std::time::SystemTime::now();
    for n in 0..MANY {
        let server = if n % 2 == 0 { "pbx1" } else { "pbx2" };
        let ack =
            context.publish(format!("{PREFIX}.command.{server}.Ping"), "{}".into()).await.expect("sent");
        ack.await.expect("stored");
    }
    waiting(&*bridge, MANY).await;
    // What was fetched ahead waits as much as what is in the stream.
    for left in (0..MANY).rev() {
        let request = next(&mut *inlet).await;
        let sent_at = request.sent_at.expect("the stream's time");
        assert!(sent_at >= before - Duration::from_secs(1) && sent_at <= std::time::SystemTime::now());
        waiting(&*bridge, left).await;
        request.handle.acknowledge().await.expect("acknowledged");
        waiting(&*bridge, left).await;
    }
    rig.kill_server().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while bridge.commands_waiting().await.is_ok() {
        assert!(Instant::now() < deadline, "still answered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A stream that keeps `test.ami.command.>` answers a request there with its own acknowledgement.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requester_gets_the_response_and_not_the_stream_s_acknowledgement() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    let mut client = open(&durable(rig.url())).client().await.expect("a client");
    let asking = client.request(PREFIX, "pbx1", "Ping", "order-1", "{}".into(), SEEN_WITHIN);
    let (got, body) = tokio::join!(asking, async { answer(next(&mut *inlet).await).await });
    assert_eq!(got.expect("a response"), body);
    // The trap itself, so that the test shows what it guards against.
    let plain = rig.plain().await;
    let trapped = plain.request(format!("{PREFIX}.command.pbx1.Ping"), "{}".into()).await.expect("an answer");
    assert!(trapped.payload.starts_with(b"{\"stream\":\"COMMANDS\""), "{trapped:?}");
    let request = next(&mut *inlet).await;
    assert!(request.durable && !request.reply_wanted, "{request:?}");
    assert_eq!((request.server.as_deref(), request.action.as_deref()), (Some("pbx1"), Some("Ping")));
    assert_eq!(request.identity.as_deref(), Some("COMMANDS:1"));
    request.handle.acknowledge().await.expect("acknowledged");
}

/// A stream that keeps everything captures the requests too; the bridge's client is not taken in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_passes_over_the_acknowledgement_of_a_greedy_stream() {
    let rig = NatsRig::jetstream().await;
    let context = jetstream::new(rig.plain().await);
    context.delete_stream(EVENTS).await.expect("deleted");
    let subjects = vec![format!("{PREFIX}.request.>")];
    let greedy = jetstream::stream::Config { name: "GREEDY".into(), subjects, ..Default::default() };
    context.create_stream(greedy).await.expect("made");
    let bridge = open(&values(rig.url()).with("commands", Value::Flag(true)));
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    let mut client = bridge.client().await.expect("a client");
    let asking = client.request(PREFIX, "pbx1", "Ping", "order-1", "{}".into(), SEEN_WITHIN);
    let (got, body) = tokio::join!(asking, async { answer(next(&mut *inlet).await).await });
    assert_eq!(got.expect("a response"), body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_delivers_the_command_again() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    let mut asked = rig.command("pbx1", "Ping", b"{}", true).await;
    let first = next(&mut *inlet).await;
    let identity = first.identity.clone();
    rig.kill_server().await;
    drop(first);
    rig.start_server().await;
    let again = next(&mut *inlet).await;
    assert_eq!(again.identity, identity);
    assert!(again.reply_wanted);
    let body = answer(again).await;
    assert_eq!(asked.reply(SEEN_WITHIN).await.expect("a reply"), body);
    nothing_more(&mut *inlet, ACK_WAIT * 3).await;
    assert_eq!(length(&rig.plain().await, COMMANDS).await, 0, "what is done leaves the work queue");
}

/// No server: the acknowledgement says so in time. It may still be sent later, which is well: the outcome stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_no_server_took_is_none() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    rig.command("pbx1", "Ping", b"{}", true).await;
    let mut request = next(&mut *inlet).await;
    rig.kill_server().await;
    let begun = Instant::now();
    let response = message(PREFIX, Kind::Response, "pbx1", 7, 1, 10);
    let fault = request.handle.reply(&response).await.expect_err("no server");
    assert_eq!(fault.decision, amibus_contract::Decision::Retry, "{fault}");
    assert!(request.handle.keep().await.is_err());
    assert!(request.handle.acknowledge().await.is_err());
    assert!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
}

/// Nobody asks for the second command for longer than `ack_wait`: it is kept, not delivered twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_that_wait_for_us_are_not_delivered_twice() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    for _ in 0..4 {
        rig.command("pbx1", "Ping", b"{}", false).await;
    }
    tokio::time::sleep(ACK_WAIT * 3).await;
    let mut identities = Vec::new();
    while identities.len() < 4 {
        let request = next(&mut *inlet).await;
        identities.push(request.identity.clone().expect("durable"));
        request.handle.acknowledge().await.expect("acknowledged");
    }
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 4, "{identities:?}");
    nothing_more(&mut *inlet, ACK_WAIT * 2).await;
}

/// The engine is full for several times `ack_wait`, and then has room for one command at a time, seldom: those that were
/// fetched ahead are kept from the moment they were fetched, so that the stream delivers none again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_fetched_ahead_is_never_delivered_again() {
    const MANY: usize = 20;
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    for _ in 0..MANY {
        rig.command("pbx1", "Ping", b"{}", false).await;
    }
    let context = jetstream::new(rig.plain().await);
    let stream = context.get_stream(COMMANDS).await.expect("the stream");
    let names: Vec<String> =
        futures_util::TryStreamExt::try_collect(stream.consumer_names()).await.expect("its consumers");
    let [name] = &names[..] else { panic!("one consumer, not {names:?}") };
    let none_again = async || {
        let info = stream.consumer_info(name).await.expect("the consumer");
        assert_eq!(info.num_redelivered, 0, "{info:?}");
    };
    let until = Instant::now() + ACK_WAIT * 4;
    while Instant::now() < until {
        none_again().await;
        tokio::time::sleep(ACK_WAIT / 10).await;
    }
    let mut identities = Vec::new();
    for _ in 0..MANY {
        // Just less than the pause between two signs that they are kept.
        tokio::time::sleep(ACK_WAIT * 3 / 10).await;
        none_again().await;
        let request = next(&mut *inlet).await;
        identities.push(request.identity.clone().expect("durable"));
        request.handle.acknowledge().await.expect("acknowledged");
    }
    let taken = identities.clone();
    identities.dedup();
    assert_eq!((identities.len(), taken), (MANY, identities), "each once");
    none_again().await;
}

/// While no amibus runs, `amibus send` leaves its command on the stream and waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_waits_on_the_stream_for_amibus_to_come() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    drop(inlet(&*bridge, &["pbx1"]).await);
    bridge.close(Duration::from_secs(1)).await;
    let client_side = rig.bridge();
    let mut client = client_side.client().await.expect("a client");
    let asking = client.request(PREFIX, "pbx1", "Ping", "order-9", "{}".into(), SEEN_WITHIN);
    let later = rig.bridge();
    let serving = async {
        let plain = rig.plain().await;
        let deadline = Instant::now() + SEEN_WITHIN;
        while length(&plain, COMMANDS).await == 0 {
            assert!(Instant::now() < deadline, "the command never came to the stream");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let mut inlet = inlet(&*later, &["pbx1"]).await;
        answer(next(&mut *inlet).await).await
    };
    let (got, body) = tokio::join!(asking, serving);
    assert_eq!(got.expect("a response"), body);
    let none = open(&values(rig.url())).client().await.expect("a client");
    let mut none = none;
    let fault =
        none.request("other", "pbx1", "Ping", "x", "{}".into(), SEEN_WITHIN).await.expect_err("nobody");
    assert_eq!(fault.kind, FaultKind::Unreachable, "{fault}");
}

/// Two processes of one name share the work; one of another name is refused, for it would dial everything twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_never_get_the_same_command() {
    let rig = NatsRig::jetstream().await;
    let (one, two) = (rig.bridge(), rig.bridge());
    let (mut left, mut right) = (inlet(&*one, &["pbx1"]).await, inlet(&*two, &["pbx1", "pbx2"]).await);
    for _ in 0..20 {
        rig.command("pbx1", "Ping", b"{}", false).await;
    }
    let mut identities = Vec::new();
    while identities.len() < 20 {
        let request = tokio::select! {
            request = next(&mut *left) => request,
            request = next(&mut *right) => request,
        };
        identities.push(request.identity.clone().expect("durable"));
        request.handle.acknowledge().await.expect("acknowledged");
    }
    identities.sort();
    identities.dedup();
    assert_eq!(identities.len(), 20);
    let context = amibus_contract::Context {
        prefix: PREFIX.into(),
        instance: "other".into(),
        ..amibus_contract::Context::default()
    };
    let third =
        <amibus_nats::Nats as amibus_contract::Plug>::open(&durable(rig.url()), &context).expect("valid");
    let fault = third.inlet(&scope(&["pbx1"])).await.map(|_| ()).expect_err("refused");
    assert_eq!(fault.kind, FaultKind::Missing, "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreadable_command_is_set_aside_with_its_cause() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    rig.command("pbx1", "Ping", b"\xff{", false).await;
    let request = next(&mut *inlet).await;
    let field = Some("fields".to_owned());
    let cause = Rejection { code: "malformed".into(), message: "not JSON".into(), field };
    request.handle.dead_letter(cause).await.expect("set aside");
    let plain = rig.plain().await;
    let dead = stream_holds(&plain, EVENTS, &format!("{PREFIX}.dead.command.pbx1.Ping")).await;
    let (id, body) = dead.first().expect("one");
    assert_eq!(id, "dead:COMMANDS:1");
    assert!(body.contains(r#""code":"malformed""#) && body.contains(r#""field":"fields""#), "{body}");
    nothing_more(&mut *inlet, ACK_WAIT * 2).await;
    assert_eq!(length(&plain, COMMANDS).await, 0);
}

/// A sender must not make us write where only the server or we may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_never_goes_to_the_server_s_own_subjects() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    offer(&mut *bridge.outlet("pbx1").await.expect("an outlet"), &[crate::rig::event(0, "a", 1)], 1).await;
    let plain = rig.plain().await;
    let purge = format!("$JS.API.STREAM.PURGE.{EVENTS}");
    let context = jetstream::new(plain.clone());
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("reply-to", purge.as_str());
    let subject = format!("{PREFIX}.command.pbx1.Ping");
    context.publish_with_headers(subject, headers, "{}".into()).await.expect("sent").await.expect("stored");
    let request = next(&mut *inlet).await;
    assert!(!request.reply_wanted, "{request:?}");
    answer(request).await;
    plain.publish_with_reply(format!("{PREFIX}.request.pbx1.Ping"), purge, "{}".into()).await.expect("sent");
    let request = next(&mut *inlet).await;
    assert!(!request.reply_wanted, "{request:?}");
    answer(request).await;
    assert_eq!(
        stream_holds(&plain, EVENTS, &format!("{PREFIX}.event.>")).await.len(),
        1,
        "nothing was purged"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_the_inlet_and_commands_off_means_none() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut open_inlet = inlet(&*bridge, &["pbx1"]).await;
    let (ended, _) = tokio::join!(open_inlet.next(), bridge.close(Duration::from_secs(1)));
    assert!(matches!(ended, Ok(None)), "{ended:?}");
    let closed = bridge.outlet("pbx1").await.map(|_| ()).expect_err("closed");
    assert_eq!(closed.kind, FaultKind::Closed);
    let off = open(&values(rig.url()));
    assert!(off.inlet(&scope(&["pbx1"])).await.expect("no fault").is_none());
    let absent =
        open(&durable(rig.url()).with("commands_stream", text("ABSENT")).with("create", Value::Flag(false)));
    let fault = absent.inlet(&scope(&["pbx1"])).await.map(|_| ()).expect_err("no stream");
    assert_eq!(fault.kind, FaultKind::Missing, "{fault}");
    rig.kill_server().await;
    let fault = rig.bridge().inlet(&scope(&["pbx1"])).await.map(|_| ()).expect_err("no server");
    assert_eq!(fault.decision, amibus_contract::Decision::Retry, "{fault}");
}

/// The micro service is there again after the server was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_survives_the_server() {
    let rig = NatsRig::core().await;
    let bridge = rig.bridge();
    let mut inlet = inlet(&*bridge, &["pbx1"]).await;
    rig.kill_server().await;
    rig.start_server().await;
    let client = rig.plain().await;
    let asking = async {
        let deadline = Instant::now() + SEEN_WITHIN;
        loop {
            match client.request(format!("{PREFIX}.request.pbx1.Ping"), "{}".into()).await {
                Ok(reply) => return reply,
                Err(error) => assert!(Instant::now() < deadline, "never answered again: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (reply, body) = tokio::join!(asking, async { answer(next(&mut *inlet).await).await });
    assert_eq!(reply.payload, body);
}

/// A feed goes on after the server came back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_survives_the_server() {
    let rig = NatsRig::core().await;
    let bridge = rig.bridge();
    let mut client = bridge.client().await.expect("a client");
    let mut feed = client.subscribe(PREFIX, &[Kind::Event, Kind::Link], None).await.expect("a feed");
    rig.kill_server().await;
    rig.start_server().await;
    let plain = rig.plain().await;
    let seen = async {
        loop {
            let delivery = feed.next().await.expect("works").expect("open");
            if delivery.topic == "test.ami.link.pbx1.up" {
                return delivery;
            }
        }
    };
    let sending = async {
        loop {
            plain.publish(format!("{PREFIX}.link.pbx1.up"), "{}".into()).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        delivery = tokio::time::timeout(SEEN_WITHIN, seen) => assert_eq!(delivery.expect("in time").body, "{}"),
        () = sending => unreachable!(),
    }
}
