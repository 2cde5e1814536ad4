//! Answers of the store that are lost, and changes that come late: each on a real bucket.

use amibus_contract::claims::Entry;

use super::*;
use crate::outcomes::lossy::{Call, Fate, Gate};

impl Pair {
    async fn entry(&self, id: &str) -> Option<Entry> {
        claims(&self.nats).read(&key(id)).await.expect("reads")
    }

    /// Changes an entry as somebody else does, whoever has it.
    pub(super) async fn overwrite(&self, id: &str, value: &Value) {
        let (claims, key) = (claims(&self.nats), key(id));
        match claims.read(&key).await.expect("reads") {
            Some(entry) => {
                claims.update(&key, value.to_string().into(), entry.revision).await.expect("changed");
            }
            None => {
                claims.create(&key, value.to_string().into()).await.expect("made");
            }
        }
    }

    async fn remove(&self, id: &str) {
        let entry = self.entry(id).await.expect("there");
        assert!(claims(&self.nats).delete(&key(id), entry.revision).await.expect("removed"));
    }

    /// The entry of somebody who is neither of the two.
    pub(super) fn of_third(&self, id: &str, body: &str) -> Value {
        let hash = amibus::command::decode::decode(&request(body), 4096).expect("a command").payload_hash;
        json!({
            "id": id, "server": "pbx1", "action": "Originate", "payload_hash": hash, "nonce": "third",
            "instance": "three", "at": "2026-11-20T15:01:00Z", "state": "sending",
        })
    }

    /// The same as it ended it.
    fn ended_by_third(&self, id: &str, body: &str) -> Value {
        let mut entry = self.of_third(id, body);
        entry["state"] = "done".into();
        entry["outcome"] = "executed".into();
        entry["response"] = json!({
            "id": id, "server": "pbx1", "action": "Originate", "outcome": "executed",
            "response": {"Response": "Success"}, "events": [], "error": null,
        });
        entry
    }
}

/// Else another amibus would end it meanwhile, without what its owner finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_is_renewed_while_its_owner_looks_for_its_call() {
    let pair = Pair::with(Duration::from_secs(1)).await;
    claimed_and_killed(&pair, "sought").await;
    pair.one.journal.sending("sought").expect("recorded");
    pair.sim.refuse().await.expect("refuses");
    pair.sim.drop_sessions();
    pair.one.until_ready(false).await;
    let (_, calls) = pair.one.engine.recover().await.expect("recovers");
    let stop = CancellationToken::new();
    let looking = Arc::clone(&pair.one.engine).look_up(calls, stop.clone());
    let renewed = async {
        let (mut revisions, begun) = (std::collections::BTreeSet::new(), Instant::now());
        while revisions.len() < 4 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{revisions:?}");
            revisions.insert(pair.entry("sought").await.expect("ours").revision);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
    };
    tokio::join!(looking, renewed);
    let entry: Value =
        serde_json::from_slice(&pair.entry("sought").await.expect("ours").value).expect("JSON");
    assert_eq!((&entry["state"], &entry["instance"]), (&json!("sending"), &json!("one")));
}

/// Waits until Asterisk has taken a call whose end is awaited.
async fn taken(bench: &Bench, id: &str) {
    let taken = async {
        while bench.shown(id).is_none_or(|entry| entry.response.is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), taken).await.expect("taken");
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), work).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_comes_late_does_not_take_away_a_claim_that_was_taken_up_again() {
    let pair = Pair::with(NEVER).await;
    let body = awaited("late");
    pair.ways[0].next(Call::Delete, Fate::Late);
    pair.one.refuse_writes("NEW.state = 'sending'");
    ended(&pair.one.ask(kept(&body)).await.response, "rejected", Code::NotRecorded);
    assert!(pair.entry("late").await.is_some(), "its removal is on its way");
    pair.one.mend_journal();
    let again = async {
        let again = pair.one.ask(kept(&body));
        tokio::pin!(again);
        tokio::select! {
            _ = &mut again => panic!("too early"),
            () = taken(&pair.one, "late") => {}
        }
        assert_eq!(pair.ways[0].deliver().await, [false], "it finds another revision");
        tokio::join!(again, pair.two.ask(kept(&body)))
    };
    let (one, two) = soon(again).await;
    assert_eq!(two.response["data"], one.response["data"], "{} {}", one.response, two.response);
    assert_eq!(pair.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requester_is_not_told_that_it_was_not_sent_when_another_one_sends_it() {
    let pair = Pair::with(NEVER).await;
    let body = originate("elsewhere");
    let (gate, mut keeper) = Gate::new();
    pair.ways[0].next(Call::Create, Fate::Late);
    pair.ways[0].next(Call::Create, Fate::Held(gate));
    let asked = async {
        let (asked, ()) = tokio::join!(pair.one.ask(request(&body)), async {
            // It could not be claimed, and is about to be given back.
            keeper.came().await;
            pair.overwrite("elsewhere", &pair.of_third("elsewhere", &body)).await;
            keeper.open();
            tokio::time::sleep(Duration::from_millis(300)).await;
            pair.overwrite("elsewhere", &pair.ended_by_third("elsewhere", &body)).await;
        });
        asked.response
    };
    let told = soon(asked).await;
    assert_eq!(told["data"]["outcome"], "executed", "{told}");
    assert_eq!(pair.calls(), 0, "it was the third that sent it");
    assert_eq!(pair.ways[0].deliver().await, [false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_given_back_while_it_is_taken_over_is_sent() {
    let pair = Pair::with(Duration::from_millis(600)).await;
    claimed_and_killed(&pair, "back").await;
    let (gate, mut keeper) = Gate::new();
    pair.ways[1].next(Call::Update, Fate::Held(gate));
    let body = originate("back");
    let two = async {
        let (told, ()) = tokio::join!(pair.two.ask(kept(&body)), async {
            keeper.came().await;
            Arc::clone(&pair.one.engine).release_unsent(CancellationToken::new()).await;
            keeper.open();
        });
        told.response
    };
    let told = soon(two).await;
    assert_eq!(told["data"]["outcome"], "executed", "nobody had sent it: {told}");
    assert_eq!(told["data"]["response"]["Response"], "Success", "{told}");
    assert_eq!(pair.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_never_told_as_not_sent_even_if_the_store_forgets_it() {
    for third_ends_it in [false, true] {
        let pair = Pair::with(NEVER).await;
        let body = awaited("forgotten");
        let third = pair.of_third("forgotten", &body);
        let one = soon(async {
            let one = pair.one.ask(kept(&body));
            tokio::pin!(one);
            tokio::select! {
                _ = &mut one => panic!("too early"),
                () = taken(&pair.one, "forgotten") => {}
            }
            pair.remove("forgotten").await;
            pair.overwrite("forgotten", &third).await;
            let waits = timeout(Duration::from_secs(4), &mut one).await;
            assert!(waits.is_err(), "another one has the claim: {}", waits.expect("told").response);
            match third_ends_it {
                true => pair.overwrite("forgotten", &pair.ended_by_third("forgotten", &body)).await,
                false => pair.remove("forgotten").await,
            }
            one.await.response
        });
        let one = one.await;
        assert_ne!(one["data"]["outcome"], "rejected", "{one}");
        let by_third = one["data"]["response"]["Response"] == "Success" && one["data"]["error"].is_null();
        assert_eq!(by_third, third_ends_it, "{one}");
        let two = pair.two.ask(kept(&body)).await.response;
        assert_eq!(two["data"], one["data"], "one outcome");
        assert_eq!(pair.calls(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_made_after_its_command_was_rejected_is_not_left_behind() {
    let pair = Pair::with(NEVER).await;
    let body = originate("orphan");
    pair.ways[0].next(Call::Create, Fate::Late);
    ended(&pair.one.ask(request(&body)).await.response, "rejected", Code::NotRecorded);
    assert_eq!(pair.one.shown("orphan"), None, "its nonce is not needed any more");
    assert_eq!(pair.ways[0].deliver().await, [false], "nothing is made");
    let two = soon(pair.two.ask(request(&body))).await.response;
    assert_eq!((&two["data"]["outcome"], pair.calls()), (&json!("executed"), 1), "{two}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_could_not_be_given_back_is_once_the_store_answers() {
    let pair = Pair::with(NEVER).await;
    let stop = CancellationToken::new();
    let left = tokio::spawn(Arc::clone(&pair.one.engine).release_left(stop.clone()));
    pair.ways[0].next(Call::Create, Fate::AnswerLost);
    pair.ways[0].lose(&[Call::Create, Call::Update, Call::Delete]);
    let body = originate("left");
    ended(&pair.one.ask(request(&body)).await.response, "rejected", Code::NotRecorded);
    assert!(pair.entry("left").await.is_some(), "its answer was lost");
    let two = pair.two.ask(kept(&body));
    tokio::pin!(two);
    assert!(timeout(Duration::from_millis(500), &mut two).await.is_err(), "it may have been sent");
    pair.ways[0].lose(&[]);
    let two = soon(two).await.response;
    assert_eq!((&two["data"]["outcome"], pair.calls()), (&json!("executed"), 1), "{two}");
    assert_eq!(pair.one.shown("left"), None);
    assert!(pair.one.published().await.iter().filter(|m| m["correlationid"] == "left").count() <= 1);
    stop.cancel();
    left.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_and_could_not_be_given_back_is_told_once_whatever_dies() {
    let pair = Pair::with(NEVER).await;
    let body = originate("answered");
    pair.ways[0].next(Call::Create, Fate::AnswerLost);
    pair.ways[0].lose(&[Call::Create, Call::Update, Call::Delete]);
    let told = pair.one.ask(request(&body)).await.response;
    ended(&told, "rejected", Code::NotRecorded);
    assert!(pair.one.shown("answered").is_some(), "its nonce is kept");
    // It dies before it can give it back.
    pair.ways[0].lose(&[]);
    recover(&pair.one).await;
    let times = |seen: &[Value]| seen.iter().filter(|m| m["correlationid"] == "answered").count();
    pair.one.end_left_behind(Duration::ZERO).await;
    Arc::clone(&pair.one.engine).release_unsent(CancellationToken::new()).await;
    pair.one.end_left_behind(Duration::ZERO).await;
    assert_eq!((times(&pair.one.published().await), pair.one.shown("answered")), (1, None));
    assert!(pair.entry("answered").await.is_none(), "given back");
    let again = pair.two.ask(request(&body)).await.response;
    assert_eq!((&again["data"]["outcome"], pair.calls()), (&json!("executed"), 1), "{again}");
}

/// Whoever asks once more and is not answered is told of it, as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_and_is_asked_again_is_told_of_when_amibus_dies() {
    let pair = Pair::with(NEVER).await;
    let body = originate("twice");
    pair.ways[0].next(Call::Create, Fate::AnswerLost);
    pair.ways[0].lose(&[Call::Create, Call::Update, Call::Delete]);
    ended(&pair.one.ask(request(&body)).await.response, "rejected", Code::NotRecorded);
    pair.ways[0].lose(&[]);
    assert_eq!(pair.one.claim_of_request("twice", &body), amibus::command::journal::Claim::Ours);
    recover(&pair.one).await;
    Arc::clone(&pair.one.engine).release_unsent(CancellationToken::new()).await;
    pair.one.end_left_behind(Duration::ZERO).await;
    let shown = pair.one.shown("twice").expect("recorded");
    assert_eq!((&*shown.state, shown.outcome.as_deref()), ("done", Some("rejected")));
    assert_eq!(
        pair.two.ask(request(&body)).await.response["data"]["outcome"],
        "rejected",
        "one outcome for all"
    );
    assert_eq!(pair.calls(), 0);
}

/// Else whoever gets it next waits for a claim that nobody renews.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_on_what_its_bus_took_away_is_given_back_once_the_store_answers() {
    let pair = Pair::with(NEVER).await;
    let (stop, withdrawn) = (CancellationToken::new(), CancellationToken::new());
    let left = tokio::spawn(Arc::clone(&pair.one.engine).release_left(stop.clone()));
    pair.ways[0].next(Call::Create, Fate::AnswerLost);
    pair.ways[0].lose(&[Call::Create, Call::Update, Call::Delete]);
    let body = originate("moved");
    let one = async {
        let moved = async {
            while pair.entry("moved").await.is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            withdrawn.cancel();
        };
        tokio::join!(pair.one.ask_withdrawn(kept(&body), &withdrawn), moved).0
    };
    let one = soon(one).await;
    assert!(one.response.is_null() && !one.acknowledged, "{}", one.response);
    let two = pair.two.ask(kept(&body));
    tokio::pin!(two);
    assert!(timeout(Duration::from_millis(500), &mut two).await.is_err(), "it may have been sent");
    pair.ways[0].lose(&[]);
    let two = soon(two).await.response;
    assert_eq!((&two["data"]["outcome"], pair.calls()), (&json!("executed"), 1), "{two}");
    let forgotten = async {
        while pair.one.shown("moved").is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(forgotten).await;
    stop.cancel();
    left.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_was_shared_just_before_a_kill_is_published_by_the_next_start() {
    let pair = Pair::with(NEVER).await;
    let body = originate("said");
    assert_eq!(pair.two.claim("said", &body), amibus::command::journal::Claim::Ours);
    let nonce = pair.two.journal.owned("said").expect("reads").expect("claimed").nonce;
    let mut entry = pair.ended_by_third("said", &body);
    entry["nonce"] = nonce.into();
    pair.overwrite("said", &entry).await;
    // The same of another one: that has published it.
    assert_eq!(pair.two.claim("told", &originate("told")), amibus::command::journal::Claim::Ours);
    pair.overwrite("told", &pair.ended_by_third("told", &originate("told"))).await;
    // And one that another one sends.
    assert_eq!(pair.two.claim("sent", &originate("sent")), amibus::command::journal::Claim::Ours);
    pair.overwrite("sent", &pair.of_third("sent", &originate("sent"))).await;
    Arc::clone(&pair.two.engine).release_unsent(CancellationToken::new()).await;
    for id in ["said", "told"] {
        let shown = pair.two.shown(id).expect("recorded");
        assert_eq!((&*shown.state, shown.outcome.as_deref()), ("done", Some("executed")), "{id}");
    }
    assert_eq!(pair.two.shown("sent"), None, "claimed anew when it comes again");
    let published = pair.two.published().await;
    let ids: Vec<&Value> = published.iter().map(|message| &message["correlationid"]).collect();
    assert_eq!(ids, ["said"]);
    assert_eq!(pair.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_was_slow_looks_at_its_claim_before_it_sends() {
    let pair = Pair::with(Duration::from_secs(1)).await;
    let body = originate("slow");
    let (gate, mut keeper) = Gate::new();
    pair.ways[0].next(Call::Create, Fate::AnswerHeld(gate));
    let one = soon(async {
        let (one, ()) = tokio::join!(pair.one.ask(kept(&body)), async {
            keeper.came().await;
            // Somebody took it over meanwhile.
            pair.overwrite("slow", &pair.ended_by_third("slow", &body)).await;
            tokio::time::sleep(Duration::from_millis(600)).await;
            keeper.open();
        });
        one.response
    });
    let one = one.await;
    assert_eq!(one["data"], pair.ended_by_third("slow", &body)["response"], "{one}");
    assert_eq!(pair.calls(), 0, "it was not sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_shared_is_kept_for_the_next_start() {
    let pair = Pair::with(NEVER).await;
    // Nothing but its answer tells that it was carried out.
    let body = r#"{"server":"pbx1","action":"UserEvent","id":"known","deadline":"2099-01-01T00:00:00Z",
        "fields":{"UserEvent":"x"}}"#;
    pair.ways[0].lose(&[Call::Update]);
    {
        let asked = pair.one.ask(kept(body));
        tokio::pin!(asked);
        let known = async {
            while pair.one.shown("known").is_none_or(|entry| entry.outcome.is_none()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = &mut asked => panic!("it was told before it was shared"),
            () = soon(known) => {}
        }
    }
    assert_eq!(pair.one.shown("known").expect("kept").state, "sending", "it does not count yet");
    pair.ways[0].lose(&[]);
    recover(&pair.one).await;
    let one = pair.one.ask(kept(body)).await.response;
    assert_eq!(one["data"]["outcome"], "executed", "{one}");
    assert_eq!(pair.two.ask(kept(body)).await.response["data"], one["data"], "one outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_found_again() {
    let pair = Pair::with(NEVER).await;
    for (n, lost) in
        [&[Call::Create][..], &[Call::Update], &[Call::Create, Call::Update]].into_iter().enumerate()
    {
        let body = originate(&format!("lost-{n}"));
        for call in lost {
            pair.ways[0].next(*call, Fate::AnswerLost);
        }
        let one = soon(pair.one.ask(kept(&body))).await.response;
        assert_eq!(one["data"]["outcome"], "executed", "{lost:?}: {one}");
        let two = soon(pair.two.ask(kept(&body))).await.response;
        assert_eq!(two["data"], one["data"], "{lost:?}");
        let published = pair.one.published().await;
        let told = published.iter().filter(|m| m["correlationid"] == *format!("lost-{n}"));
        assert_eq!(told.count(), 1, "{lost:?}");
        assert_eq!(pair.calls(), n + 1, "{lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requester_is_not_told_that_another_one_did_not_send_it() {
    let mut pair = Pair::with(NEVER).await;
    let body = originate("theirs");
    let third = pair.of_third("theirs", &body);
    pair.overwrite("theirs", &third).await;
    // Not when amibus leaves, nor when the bucket goes away.
    let stop = CancellationToken::new();
    let leaves = soon(async {
        tokio::join!(pair.one.ask_until(request(&body), &stop), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stop.cancel();
        })
    });
    assert_eq!(leaves.await.0.response, Value::Null);
    let asked = pair.two.ask(request(&body));
    tokio::pin!(asked);
    assert!(timeout(Duration::from_millis(300), &mut asked).await.is_err(), "it waits for the other one");
    tokio::task::block_in_place(|| pair.nats.kill());
    assert_eq!(soon(asked).await.response, Value::Null);
    assert_eq!(pair.calls(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_requester_waits_for_a_look_up_no_longer_than_its_deadline() {
    let mut pair = Pair::with(NEVER).await;
    // So `DEFAULT_DEADLINE` counts.
    let body = awaited("sought").replace("\"deadline\":\"2099-01-01T00:00:00Z\",", "");
    {
        let asked = pair.one.ask(kept(&body));
        tokio::pin!(asked);
        tokio::select! {
            _ = &mut asked => panic!("too early"),
            () = taken(&pair.one, "sought") => {}
        }
    }
    let (_, calls) = pair.one.engine.recover().await.expect("recovers");
    tokio::task::block_in_place(|| pair.nats.kill());
    let look_up = Arc::clone(&pair.one.engine).look_up(calls, CancellationToken::new());
    tokio::pin!(look_up);
    let told = tokio::select! {
        () = &mut look_up => panic!("its outcome cannot be shared"),
        asked = soon(pair.one.ask(request(&body))) => asked.response,
    };
    assert_eq!(told, Value::Null, "nobody knows yet");
    tokio::task::block_in_place(|| pair.nats.restart());
    soon(look_up).await;
    let told = pair.one.ask(request(&body)).await.response;
    assert_eq!((&told["data"]["outcome"], pair.calls()), (&json!("executed"), 1), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_goes_on_after_it_was_taken_over_answers_what_was_said() {
    let pair = Pair::with(Duration::from_millis(600)).await;
    let body = awaited("resumed").replace("1500", "6000");
    let (gate, mut keeper) = Gate::new();
    // Its renewals stand still.
    pair.ways[0].next(Call::Update, Fate::Held(gate));
    let both = soon(async {
        tokio::join!(pair.one.ask(kept(&body)), async {
            keeper.came().await;
            let two = pair.two.ask(kept(&body)).await.response;
            keeper.open();
            two
        })
    });
    let (one, two) = both.await;
    assert_eq!(two["data"]["outcome"], "executed", "{two}");
    assert_eq!(two["data"]["events"][0]["Event"], "CoreShowChannel", "by its living channel: {two}");
    assert_eq!(one.response["data"], two["data"], "one outcome: {}", one.response);
    let published = [pair.one.published().await, pair.two.published().await].concat();
    assert_eq!(published.iter().filter(|m| m["correlationid"] == "resumed").count(), 1, "{published:?}");
    assert_eq!(pair.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_whose_answer_was_lost_is_told_once() {
    let pair = Pair::with(Duration::from_millis(600)).await;
    claimed_and_killed(&pair, "over").await;
    pair.ways[1].next(Call::Update, Fate::AnswerLost);
    let told = soon(pair.two.ask(kept(&originate("over")))).await.response;
    ended(&told, "unknown", Code::Interrupted);
    let published = pair.two.published().await;
    assert_eq!(published.iter().filter(|m| m["correlationid"] == "over").count(), 1, "{published:?}");
    Arc::clone(&pair.one.engine).release_unsent(CancellationToken::new()).await;
    assert_eq!(pair.one.ask(kept(&originate("over"))).await.response["data"], told["data"]);
    assert_eq!(pair.calls(), 0);
}
