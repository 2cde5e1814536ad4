//! Two amibus on one Asterisk, each with its journal, that share their claims in a bucket of a real NATS server.

mod lost;

use std::{sync::Arc, time::Duration};

use amibus::{
    command::{Code, shared::Shared},
    config::{Config, Sources},
};
use amibus_contract::{Claims, Request, claims::Created};
use amibus_services::Nats;
use amibus_sim::{Sim, SimOptions};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, request},
    ended,
    lossy::Lossy,
};

pub(super) const PREFIX: &str = "ami";
/// Longer than any of these tests.
pub(super) const NEVER: Duration = Duration::from_secs(600);

/// Two benches, and what they share.
struct Pair {
    nats: Nats,
    sim: Arc<Sim>,
    one: Bench,
    two: Bench,
    /// The way of each to the claims.
    ways: [Arc<Lossy>; 2],
}

impl Pair {
    async fn with(takeover: Duration) -> Self {
        let nats = tokio::task::spawn_blocking(Nats::jetstream).await.expect("a server");
        let options = SimOptions {
            ring: Duration::from_millis(10),
            talk: Duration::from_secs(60),
            ..SimOptions::default()
        };
        let sim = Arc::new(Sim::start(options).await.expect("a simulated Asterisk"));
        let ways = [Lossy::over(claims(&nats)), Lossy::over(claims(&nats))];
        let bench = async |name: &str, way: &Arc<Lossy>| {
            let shared = Shared::new(Arc::clone(way) as Arc<dyn Claims>, PREFIX, name, takeover);
            Bench::at(Arc::clone(&sim), |_| {}, Some(shared)).await
        };
        let (one, two) = (bench("one", &ways[0]).await, bench("two", &ways[1]).await);
        Self { nats, sim, one, two, ways }
    }

    fn calls(&self) -> usize {
        self.sim.originates().len()
    }
}

/// The claims as a configuration of amibus opens them.
pub(super) fn claims(nats: &Nats) -> Arc<dyn Claims> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("amibus.toml");
    let text = format!(
        "[[server]]\nname = \"pbx1\"\nurl = \"ami://127.0.0.1\"\nusername = \"u\"\nsecret = \"s\"\n
         [bus.nats]\nurl = \"{}\"\ncommands = true\ncommands_stream = \"AMI_COMMANDS\"\nack_timeout = \"1s\"\n",
        nats.url()
    );
    std::fs::write(&file, text).expect("written");
    let config = Config::load(&file).expect("right");
    config.buses[0].bridge.claims().expect("on by default where a stream keeps commands")
}

#[test]
fn a_bucket_may_not_forget_before_the_journal_does() {
    let text = "[[server]]\nname = \"pbx1\"\nurl = \"ami://127.0.0.1\"\nusername = \"u\"\nsecret = \"s\"\n
        [command]\njournal_max_age = \"30d\"\n
        [bus.nats]\nurl = \"nats://127.0.0.1\"\ncommands = true\ncommands_stream = \"C\"\n";
    let parse = |text: &str| Config::parse(text, "a.toml", &Sources::process());
    parse(text).expect("kept as long as it must");
    let error = parse(&format!("{text}claims_max_age = \"7d\"\n")).expect_err("refused").to_string();
    assert!(error.contains("claims_max_age: is shorter than"), "{error}");
    parse(&format!("{text}claims_max_age = \"31d\"\n")).expect("longer");
}

fn originate(id: &str) -> String {
    format!(
        r#"{{"server":"pbx1","action":"Originate","id":"{id}","deadline":"2099-01-01T00:00:00Z",
            "fields":{{"Channel":"Local/1@s","Application":"Wait","Variable":{{"ID":"{id}"}}}}}}"#
    )
}

/// Of which the end is waited for, and never seen: no bench here reads events.
fn awaited(id: &str) -> String {
    originate(id).replace("\"fields\":{", "\"wait\":\"final\",\"fields\":{\"Timeout\":1500,")
}

fn kept(body: &str) -> Request {
    let mut request = request(body);
    request.durable = true;
    request
}

/// Where the entry of an id is, made here once more from its description.
pub(super) fn key(id: &str) -> String {
    let mut hash = Sha256::new();
    for part in [PREFIX, id] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Begins a command, and drops it once Asterisk has taken it and its end is awaited: as kill -9 does.
async fn begun_and_killed(bench: &Bench, id: &str) {
    let body = awaited(id);
    let asked = bench.ask(kept(&body));
    tokio::pin!(asked);
    let taken = async {
        while bench.shown(id).is_none_or(|entry| entry.response.is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = &mut asked => panic!("it was answered before it was seen to be taken"),
        () = taken => {}
    }
}

async fn recover(bench: &Bench) {
    let (_, calls) = bench.engine.recover().await.expect("recovers");
    Arc::clone(&bench.engine).look_up(calls, CancellationToken::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_delivered_to_both_at_once_is_one_call_with_one_outcome() {
    let pair = Pair::with(NEVER).await;
    let ids: Vec<String> = (0..20).map(|n| format!("both-{n}")).collect();
    let asks = ids.iter().flat_map(|id| [(&pair.one, id), (&pair.two, id), (&pair.two, id), (&pair.one, id)]);
    let asks = asks.map(async |(bench, id)| (id, bench.ask(kept(&originate(id))).await));
    let answers = futures_util::future::join_all(asks).await;
    for (id, answer) in &answers {
        assert_eq!(answer.response["data"]["outcome"], "executed", "{id}: {}", answer.response);
        assert!(answer.acknowledged, "{id}");
        let first = answers.iter().find(|(other, _)| other == id).expect("itself");
        assert_eq!(answer.response["data"], first.1.response["data"], "{id}");
    }
    assert_eq!(pair.calls(), ids.len());
    let mut variables: Vec<String> =
        pair.sim.originates().into_iter().flat_map(|call| call.variables).map(|(_, id)| id).collect();
    variables.sort();
    let mut wanted = ids.clone();
    wanted.sort();
    assert_eq!(variables, wanted, "each once");
    let published = [pair.one.published().await, pair.two.published().await].concat();
    for id in &ids {
        let outcomes = published.iter().filter(|message| message["correlationid"] == id.as_str()).count();
        assert_eq!(outcomes, 1, "{id} is published once");
    }
    // Asked once more, each answers from its own journal, byte for byte.
    for bench in [&pair.one, &pair.two] {
        let again = bench.ask(request(&originate("both-0"))).await.response;
        assert!(answers.iter().any(|(_, answer)| answer.response == again), "{again}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_payload_under_an_id_of_the_other_one_is_rejected() {
    let pair = Pair::with(NEVER).await;
    assert_eq!(pair.one.ask(kept(&originate("order"))).await.response["data"]["outcome"], "executed");
    let other = originate("order").replace("Local/1@s", "Local/2@s");
    ended(&pair.two.ask(kept(&other)).await.response, "rejected", Code::IdReused);
    let again = pair.two.ask(kept(&originate("order"))).await.response;
    assert_eq!(again["data"]["outcome"], "executed", "the rejected one left no trace: {again}");
    assert_eq!(pair.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_owner_died_is_found_by_the_other_and_the_owner_takes_that_over() {
    let pair = Pair::with(Duration::from_millis(600)).await;
    begun_and_killed(&pair.one, "died").await;
    let begun = Instant::now();
    let found = pair.two.ask(kept(&awaited("died"))).await.response;
    assert!(begun.elapsed() >= Duration::from_millis(600), "before the owner counts as gone");
    assert_eq!(found["data"]["outcome"], "executed", "{found}");
    assert_eq!(found["data"]["events"][0]["Event"], "CoreShowChannel", "by its living channel");
    recover(&pair.one).await;
    let owner = pair.one.ask(kept(&awaited("died"))).await.response;
    assert_eq!(owner["data"], found["data"], "one outcome");
    assert_eq!(pair.calls(), 1);
    let published = [pair.one.published().await, pair.two.published().await].concat();
    assert_eq!(published.iter().filter(|m| m["correlationid"] == "died").count(), 1, "{published:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_back_first_says_what_became_of_it() {
    let pair = Pair::with(NEVER).await;
    begun_and_killed(&pair.one, "back").await;
    let waits = pair.two.ask(kept(&awaited("back")));
    tokio::pin!(waits);
    assert!(timeout(Duration::from_millis(300), &mut waits).await.is_err(), "it waits for the owner");
    recover(&pair.one).await;
    let told = timeout(Duration::from_secs(5), waits).await.expect("in time").response;
    let owner = pair.one.ask(kept(&awaited("back"))).await.response;
    assert_eq!((&owner["data"]["outcome"], &owner["data"]), (&json!("executed"), &told["data"]));
    assert_eq!(pair.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_leaves_no_evidence_is_unknown_to_both() {
    let pair = Pair::with(Duration::from_millis(600)).await;
    let body = r#"{"server":"pbx1","action":"NoSuchAction","id":"gone","deadline":"2099-01-01T00:00:00Z"}"#;
    pair.sim.stall(Duration::from_secs(2));
    {
        let asked = pair.one.ask(kept(body));
        tokio::pin!(asked);
        tokio::select! {
            _ = &mut asked => panic!("it was answered while Asterisk stood still"),
            () = pair.one.until_state("gone", "sending") => {}
        }
    }
    let told = pair.two.ask(kept(body)).await.response;
    ended(&told, "unknown", Code::Interrupted);
    recover(&pair.one).await;
    assert_eq!(pair.one.ask(kept(body)).await.response["data"], told["data"], "one outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_takes_long_is_waited_for() {
    const TAKEOVER: Duration = Duration::from_secs(2);
    let pair = Pair::with(TAKEOVER).await;
    // Longer than the takeover time: it is renewed meanwhile.
    let (body, begun) = (awaited("long").replace("1500", "6000"), Instant::now());
    let (one, two) = tokio::join!(pair.one.ask(kept(&body)), async {
        while pair.calls() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        pair.two.ask(kept(&body)).await
    });
    assert!(begun.elapsed() > 3 * TAKEOVER, "it took {:?}", begun.elapsed());
    ended(&one.response, "executed", Code::FinalNotSeen);
    assert_eq!(two.response["data"], one.response["data"]);
    assert_eq!(pair.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_bucket_is_away_nothing_is_sent_but_what_only_reads() {
    let mut pair = Pair::with(NEVER).await;
    assert_eq!(pair.one.ask(kept(&originate("before"))).await.response["data"]["outcome"], "executed");
    tokio::task::block_in_place(|| pair.nats.kill());
    ended(&pair.one.ask(request(&originate("asked"))).await.response, "rejected", Code::NotRecorded);
    let ping = pair.one.ask(request(r#"{"server":"pbx1","action":"Ping","id":"ping"}"#)).await;
    assert_eq!(ping.response["data"]["outcome"], "executed", "{}", ping.response);
    let (one, two) = (originate("waits"), originate("waits"));
    let waiting = futures_util::future::join(pair.one.ask(kept(&one)), pair.two.ask(kept(&two)));
    tokio::pin!(waiting);
    assert!(timeout(Duration::from_secs(1), &mut waiting).await.is_err(), "it waits for the bucket");
    assert_eq!(pair.calls(), 1, "nothing was sent");
    tokio::task::block_in_place(|| pair.nats.restart());
    let (one, two) = timeout(Duration::from_secs(20), waiting).await.expect("once it is back");
    assert_eq!(one.response["data"]["outcome"], "executed", "{}", one.response);
    assert_eq!(one.response["data"], two.response["data"]);
    let again = pair.two.ask(request(&originate("asked"))).await.response;
    assert_eq!(again["data"]["outcome"], "executed", "the same id, once it can be shared: {again}");
    assert_eq!(pair.calls(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_is_told_to_nobody_before_it_is_shared() {
    let mut pair = Pair::with(NEVER).await;
    let body = awaited("cut-off");
    let one = pair.one.ask(kept(&body));
    tokio::pin!(one);
    let taken = async {
        while pair.one.shown("cut-off").is_none_or(|entry| entry.response.is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = &mut one => panic!("too early"),
        () = taken => {}
    }
    tokio::task::block_in_place(|| pair.nats.kill());
    assert!(timeout(Duration::from_secs(3), &mut one).await.is_err(), "its end is known, and not shared");
    assert_eq!(pair.one.shown("cut-off").expect("recorded").state, "sending");
    tokio::task::block_in_place(|| pair.nats.restart());
    let one = timeout(Duration::from_secs(20), one).await.expect("once it is back").response;
    ended(&one, "executed", Code::FinalNotSeen);
    assert_eq!(pair.two.ask(kept(&body)).await.response["data"], one["data"]);
}

/// The entry as an amibus leaves it that dies between its claim and the journal's `sending`.
async fn claimed_and_killed(pair: &Pair, id: &str) {
    let body = originate(id);
    assert_eq!(pair.one.claim(id, &body), amibus::command::journal::Claim::Ours);
    shared_and_killed(pair, id).await;
}

/// The same of one that the journal has as claimed.
async fn shared_and_killed(pair: &Pair, id: &str) {
    let owned = pair.one.journal.owned(id).expect("reads").expect("claimed");
    let entry = json!({
        "id": id, "server": "pbx1", "action": "Originate", "payload_hash": owned.payload_hash,
        "nonce": owned.nonce, "instance": "one", "at": "2026-11-20T15:01:00Z", "state": "sending",
    });
    let created = claims(&pair.nats).create(&key(id), entry.to_string().into()).await.expect("made");
    assert!(matches!(created, Created::Made(_)), "{created:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_our_own_is_recognised_and_one_that_was_never_sent_is_given_back() {
    let pair = Pair::with(NEVER).await;
    for id in ["comes-again", "goes-elsewhere"] {
        claimed_and_killed(&pair, id).await;
    }
    // Its own bus delivers it again, to the same one.
    let again = pair.one.ask(kept(&originate("comes-again"))).await.response;
    assert_eq!(again["data"]["outcome"], "executed", "{again}");
    // It is delivered to the other one, while the owner is away.
    let body = originate("goes-elsewhere");
    let elsewhere = pair.two.ask(kept(&body));
    tokio::pin!(elsewhere);
    assert!(timeout(Duration::from_millis(300), &mut elsewhere).await.is_err(), "it may have been sent");
    assert_eq!(pair.calls(), 1);
    Arc::clone(&pair.one.engine).release_unsent(CancellationToken::new()).await;
    let told = timeout(Duration::from_secs(5), elsewhere).await.expect("given back").response;
    assert_eq!(told["data"]["outcome"], "executed", "{told}");
    assert_eq!(pair.one.ask(kept(&body)).await.response["data"], told["data"]);
    assert_eq!(pair.calls(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_never_sent_is_given_back_and_ends_as_rejected_for_all() {
    let pair = Pair::with(NEVER).await;
    let body = originate("asked");
    assert_eq!(pair.one.claim_of_request("asked", &body), amibus::command::journal::Claim::Ours);
    shared_and_killed(&pair, "asked").await;
    recover(&pair.one).await;
    assert!(pair.one.shown("asked").is_some(), "its nonce is needed until its claim is given back");
    Arc::clone(&pair.one.engine).release_unsent(CancellationToken::new()).await;
    assert!(claims(&pair.nats).read(&key("asked")).await.expect("reads").is_none(), "free for everybody");
    let of_it = |seen: &[Value]| seen.iter().filter(|m| m["correlationid"] == "asked").count();
    assert_eq!(of_it(&pair.one.published().await), 0, "its requester may ask again");
    pair.one.end_left_behind(Duration::ZERO).await;
    let seen = pair.one.published().await;
    let told = seen.iter().find(|m| m["correlationid"] == "asked").expect("told");
    ended(told, "rejected", Code::Unavailable);
    assert_eq!(pair.two.ask(request(&body)).await.response["data"], told["data"], "one outcome for all");
    assert_eq!(pair.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_was_never_sent_and_is_asked_again_elsewhere_has_the_outcome_from_there() {
    let pair = Pair::with(NEVER).await;
    for id in ["before", "meanwhile"] {
        assert_eq!(pair.one.claim_of_request(id, &originate(id)), amibus::command::journal::Claim::Ours);
        shared_and_killed(&pair, id).await;
    }
    recover(&pair.one).await;
    Arc::clone(&pair.one.engine).release_unsent(CancellationToken::new()).await;
    let told = pair.two.ask(request(&originate("before"))).await.response;
    assert_eq!(told["data"]["outcome"], "executed", "{told}");
    pair.overwrite("meanwhile", &pair.of_third("meanwhile", &originate("meanwhile"))).await;
    pair.one.end_left_behind(Duration::ZERO).await;
    assert_eq!(pair.one.shown("before").expect("taken over").outcome.as_deref(), Some("executed"));
    assert_eq!(pair.one.shown("meanwhile"), None, "whoever sends it tells it");
    let seen = pair.one.published().await;
    let ids: Vec<&Value> = seen.iter().map(|message| &message["correlationid"]).collect();
    assert!(!ids.contains(&&json!("before")) && !ids.contains(&&json!("meanwhile")), "{seen:?}");
    assert_eq!(pair.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expired_at_one_is_not_run_by_the_other() {
    let pair = Pair::with(NEVER).await;
    let late = originate("late").replace("2099", "2001");
    ended(&pair.one.ask(kept(&late)).await.response, "expired", Code::DeadlinePassed);
    let two = pair.two.ask(kept(&originate("late"))).await.response;
    ended(&two, "expired", Code::DeadlinePassed);
    assert_eq!(pair.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_sent_is_given_back_at_once() {
    let pair = Pair::with(NEVER).await;
    pair.one.refuse_writes("NEW.state = 'sending'");
    ended(&pair.one.ask(kept(&originate("disk"))).await.response, "rejected", Code::NotRecorded);
    let two = timeout(Duration::from_secs(5), pair.two.ask(kept(&originate("disk")))).await.expect("at once");
    assert_eq!(two.response["data"]["outcome"], "executed", "{}", two.response);
    let entry: Value = {
        let entry = claims(&pair.nats).read(&key("disk")).await.expect("reads").expect("there");
        serde_json::from_slice(&entry.value).expect("JSON")
    };
    assert_eq!((&entry["state"], &entry["outcome"]), (&json!("done"), &json!("executed")));
    assert_eq!((&entry["id"], &entry["instance"]), (&json!("disk"), &json!("two")));
}
