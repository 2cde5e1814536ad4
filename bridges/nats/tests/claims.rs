//! Claims in a key-value bucket of a real server, looked at with a plain client too.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amibus_contract::{
    Bytes, Claims, Context, Decision, FaultKind, Plug as _, Value, Values,
    claims::{Created, Entry, Updated},
    conformance::Rig,
};
use amibus_nats::Nats as Bus;
use amibus_services::{Nats, NatsOptions};
use async_nats::jetstream::{self, kv, stream::StorageType};

use crate::rig::{NatsRig, durable, open, text, values};

const BUCKET: &str = "AMI_CLAIMS";

fn claims(values: &Values) -> Arc<dyn Claims> {
    open(values).claims().expect("claims are on")
}

async fn bucket(url: &str) -> kv::Store {
    let client = async_nats::connect(url).await.expect("connected");
    jetstream::new(client).get_key_value(BUCKET).await.expect("a bucket")
}

fn made(created: Created) -> u64 {
    match created {
        Created::Made(revision) => revision,
        Created::Exists(entry) => panic!("there already: {entry:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_who_claim_at_once_one_wins() {
    let server = Nats::jetstream();
    let instances = [claims(&durable(&server.url())), claims(&durable(&server.url()))];
    for round in 0..4 {
        let key = format!("key-{round}");
        let (key, instances) = (&key, &instances);
        let all = (0..50).map(|n| async move {
            let value = Bytes::from(format!("value-{n}"));
            (n, instances[n % 2].create(key, value).await.expect("answered"))
        });
        let all = futures_util::future::join_all(all).await;
        let won: Vec<_> = all.iter().filter(|(_, created)| matches!(created, Created::Made(_))).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        let (winner, revision) = (won[0].0, made(won[0].1.clone()));
        let entry = Entry { value: format!("value-{winner}").into(), revision };
        for (n, created) in &all {
            assert!(*n == winner || *created == Created::Exists(entry.clone()), "{n}: {created:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_changes_only_for_who_knows_its_revision() {
    let server = Nats::jetstream();
    let (ours, theirs) = (claims(&durable(&server.url())), claims(&durable(&server.url())));
    assert_eq!(ours.read("a").await, Ok(None));
    let first = made(ours.create("a", "1".into()).await.expect("made"));
    let entry = Entry { value: "1".into(), revision: first };
    assert_eq!(theirs.read("a").await, Ok(Some(entry.clone())));
    let Ok(Updated::Made(second)) = theirs.update("a", "2".into(), first).await else {
        panic!("not changed")
    };
    let changed = Entry { value: "2".into(), revision: second };
    assert_eq!(ours.update("a", "3".into(), first).await, Ok(Updated::Changed(Some(changed.clone()))));
    assert_eq!(ours.delete("a", first).await, Ok(false));
    assert_eq!(ours.read("a").await, Ok(Some(changed)));
    assert_eq!(ours.delete("a", second).await, Ok(true));
    assert_eq!((ours.read("a").await, theirs.delete("a", second).await), (Ok(None), Ok(false)));
    assert_eq!(theirs.update("a", "4".into(), second).await, Ok(Updated::Changed(None)));
    // Over the mark that it leaves, and in another's bucket tool.
    let third = made(theirs.create("a", "5".into()).await.expect("made again"));
    assert!(third > second);
    let store = bucket(&server.url()).await;
    assert_eq!(store.get("a").await.expect("read"), Some("5".into()));
    store.purge("a").await.expect("purged by somebody");
    assert_eq!(ours.read("a").await, Ok(None));
    made(ours.create("a", "6".into()).await.expect("made over that too"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bucket_is_made_as_configured_and_told_by_a_check() {
    let server = Nats::jetstream();
    let hour = Value::Duration(Duration::from_secs(3600));
    let values =
        durable(&server.url()).with("claims_max_age", hour).with("claims_max_bytes", Value::Size(1 << 20));
    let lines = open(&values).probe().await.expect("probed").join("\n");
    assert!(lines.contains("claims: bucket AMI_CLAIMS does not exist yet"), "{lines}");
    made(claims(&values).create("a", "1".into()).await.expect("made"));
    let client = async_nats::connect(server.url()).await.expect("connected");
    let stream = jetstream::new(client).get_stream("KV_AMI_CLAIMS").await.expect("made");
    let config = stream.cached_info().config.clone();
    assert_eq!(
        (config.storage, config.num_replicas, config.max_messages_per_subject),
        (StorageType::File, 1, 1)
    );
    assert_eq!((config.max_age.as_secs(), config.max_bytes), (3600, 1 << 20));
    let lines = open(&values).probe().await.expect("probed").join("\n");
    assert!(
        lines.contains("claims: bucket AMI_CLAIMS (file storage, one replica); kept for 3600s"),
        "{lines}"
    );
    let off = values.clone().with("claims_bucket", text(""));
    assert!(open(&off).claims().is_none());
    let lines = open(&off).probe().await.expect("probed").join("\n");
    assert!(lines.contains("warning: claims are not shared"), "{lines}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_on_where_a_stream_keeps_commands_or_a_bucket_is_named() {
    let server = Nats::jetstream();
    let plain = values(&server.url()).with("commands", Value::Flag(true));
    assert!(open(&plain).claims().is_none());
    assert!(open(&plain.clone().with("claims_bucket", text("MINE"))).claims().is_some());
    assert!(open(&durable(&server.url())).claims().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_missing_or_forgets_is_refused() {
    let server = Nats::jetstream();
    let absent = durable(&server.url()).with("create", Value::Flag(false));
    let fault = claims(&absent).read("a").await.expect_err("no bucket");
    assert_eq!((fault.kind, fault.decision), (FaultKind::Missing, Decision::Stop), "{fault}");
    let client = async_nats::connect(server.url()).await.expect("connected");
    let forgets = jetstream::stream::Config {
        name: format!("KV_{BUCKET}"),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        max_messages_per_subject: 1,
        max_messages: 10,
        ..Default::default()
    };
    jetstream::new(client).create_stream(forgets).await.expect("made");
    let fault = claims(&durable(&server.url())).create("a", "1".into()).await.expect_err("it would forget");
    assert!(fault.kind == FaultKind::Missing && fault.message.contains("--discard=new"), "{fault}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_forgets_before_the_journal_does_is_refused() {
    let server = Nats::jetstream();
    let day = Duration::from_secs(24 * 3600);
    let open = |values: &Values, days: u32| {
        let context =
            Context { prefix: "ami".into(), instance: "amibus".into(), claims_least_age: day * days };
        Bus::open(values, &context)
    };
    let values = durable(&server.url());
    let short = values.clone().with("claims_max_age", Value::Duration(day));
    let problems = open(&short, 2).err().expect("refused");
    assert_eq!(problems.iter().map(|problem| problem.key).collect::<Vec<_>>(), ["claims_max_age"]);
    // Made by an amibus that kept less, and as long as the journal of another one needs.
    made(open(&short, 1).expect("right").claims().expect("on").create("a", "1".into()).await.expect("made"));
    let claims = open(&values, 30).expect("right").claims().expect("on");
    let fault = claims.read("a").await.expect_err("it forgets");
    let says = ["KV_AMI_CLAIMS --max-age=2592000s", "forgets claims after 86400s"];
    assert!(
        fault.kind == FaultKind::Missing && says.iter().all(|text| fault.message.contains(text)),
        "{fault}"
    );
    let client = async_nats::connect(server.url()).await.expect("connected");
    jetstream::new(client.clone()).delete_stream(format!("KV_{BUCKET}")).await.expect("removed");
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(fault) = claims.create("a", "1".into()).await {
        assert!(Instant::now() < deadline, "still {fault}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stream = jetstream::new(client).get_stream(format!("KV_{BUCKET}")).await.expect("made");
    assert_eq!(stream.cached_info().config.max_age, day * 30, "as long as it must");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_removed_under_a_connection_is_made_anew() {
    let server = Nats::jetstream();
    let claims = claims(&durable(&server.url()));
    let first = made(claims.create("a", "1".into()).await.expect("made"));
    let client = async_nats::connect(server.url()).await.expect("connected");
    jetstream::new(client).delete_stream(format!("KV_{BUCKET}")).await.expect("removed");
    let deadline = Instant::now() + Duration::from_secs(10);
    let found = loop {
        match claims.read("a").await {
            Ok(found) => break found,
            Err(fault) => assert!(Instant::now() < deadline, "still {fault}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(found, None, "what was claimed is forgotten");
    assert_eq!(made(claims.create("a", "2".into()).await.expect("made")), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_told_in_time_and_found_again() {
    let rig = NatsRig::jetstream().await;
    let claims = claims(&durable(rig.url()).with("ack_timeout", Value::Duration(Duration::from_secs(1))));
    let revision = made(claims.create("a", "1".into()).await.expect("made"));
    rig.kill_server().await;
    let begun = Instant::now();
    for _ in 0..20 {
        let fault = claims.create("b", "1".into()).await.expect_err("nobody there");
        assert_eq!(fault.decision, Decision::Retry, "{fault}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "took {:?}", begun.elapsed());
    rig.start_server().await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let found = loop {
        match claims.read("a").await {
            Ok(found) => break found,
            Err(fault) => assert!(Instant::now() < deadline, "still {fault}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(found, Some(Entry { value: "1".into(), revision }), "what was claimed is still claimed");
    assert_eq!(claims.read("b").await, Ok(None), "and what was never answered was not written later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_told_at_once() {
    let config = r#"authorization { users: [
        { user: "all", password: "p" }
        { user: "mute", password: "p", permissions: { publish: { deny: "$KV.>" } } }
        { user: "blind", password: "p", permissions: { publish: { deny: "$JS.API.STREAM.MSG.GET.>" } } }
    ] }"#;
    let server = Nats::start(&NatsOptions { jetstream: true, config: config.to_owned() });
    let login = |user: &str| {
        let values = durable(&server.url()).with("user", text(user));
        values.with("password", Value::Secret("p".to_owned().into()))
    };
    made(claims(&login("all")).create("a", "1".into()).await.expect("made"));
    for (user, read) in [("mute", false), ("blind", true)] {
        let (claims, begun) = (claims(&login(user)), Instant::now());
        let fault = match read {
            true => claims.read("a").await.expect_err("may not read"),
            false => claims.create("b", "1".into()).await.expect_err("may not write"),
        };
        assert_eq!((fault.kind, fault.decision), (FaultKind::Forbidden, Decision::Stop), "{user}: {fault}");
        assert!(begun.elapsed() < Duration::from_secs(3), "{user} took {:?}", begun.elapsed());
    }
    let fault = open(&login("mute")).probe().await.expect_err("may not claim");
    assert!(fault.kind == FaultKind::Forbidden && fault.message.contains("$KV.AMI_CLAIMS"), "{fault}");
}
