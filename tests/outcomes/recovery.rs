//! What becomes of commands that a killed process had begun.

use std::{sync::Arc, time::Duration};

use amibus::command::{Code, journal::Claim, response::channel_id};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, request},
    ended,
};

pub(super) const ORIGINATE: &str = r#"{"server":"pbx1","action":"Originate","id":"call-1","fields":
    {"Channel":"Local/1@s","Application":"Wait"}}"#;

impl Bench {
    /// Ends what a process before this one had claimed of requests and never sent, after such a time.
    pub(super) async fn end_left_behind(&self, within: Duration) {
        Arc::clone(&self.engine).end_left_behind(within, CancellationToken::new()).await;
    }

    /// Answers how many commands stay unknown at once, and looks for the calls.
    async fn recover(&self) -> (usize, usize) {
        let (unknown, calls) = self.engine.recover().await.expect("recovers");
        let count = calls.count();
        Arc::clone(&self.engine).look_up(calls, CancellationToken::new()).await;
        (unknown, count)
    }
}

#[tokio::test]
async fn what_a_dead_process_had_begun_to_send_is_unknown_for_ever() {
    let bench = Bench::connected().await;
    let body = r#"{"server":"pbx1","action":"NoSuchAction","id":"crashed"}"#;
    assert_eq!(bench.claim("crashed", body), Claim::Ours);
    bench.journal.sending("crashed").expect("recorded");
    assert_eq!(bench.recover().await, (1, 0));
    let answer = bench.ask(request(body)).await;
    ended(&answer.response, "unknown", Code::Interrupted);
    assert!(bench.sim.actions().iter().all(|a| !a.starts_with(b"Action: NoSuchAction")), "never sent again");
    assert_eq!(bench.recover().await, (0, 0));
    let seen: Vec<Value> = bench.published().await;
    assert!(seen.iter().any(|m| m["correlationid"] == "crashed"), "{seen:?}");
}

#[tokio::test]
async fn what_was_claimed_and_never_sent_is_run_by_the_next_process() {
    let bench = Bench::connected().await;
    let body = r#"{"server":"pbx1","action":"Ping","id":"claimed"}"#;
    assert_eq!(bench.claim("claimed", body), Claim::Ours);
    let read = r#"{"server":"pbx1","action":"QueueStatus","id":"read"}"#;
    assert_eq!(bench.claim("read", read), Claim::Ours);
    bench.journal.sending("read").expect("recorded");
    assert_eq!(bench.recover().await, (0, 0));
    // Another amibus may get it: nothing is kept here for ever.
    assert_eq!((bench.shown("claimed"), bench.shown("read")), (None, None));
    assert_eq!(bench.ask(request(body)).await.response["data"]["outcome"], "executed");
}

/// Else a process that is killed again and again while Asterisk is away never tells it.
#[tokio::test]
async fn what_the_journal_knows_is_told_while_others_wait_for_the_server() {
    let bench = Bench::connected().await;
    let other = ORIGINATE.replace("call-1", "call-2");
    for (id, body) in [("call-1", ORIGINATE), ("call-2", &other)] {
        assert_eq!(bench.claim(id, body), Claim::Ours);
        bench.journal.sending(id).expect("recorded");
    }
    let data = json!({
        "id": "call-1", "server": "pbx1", "action": "Originate", "outcome": "executed",
        "response": null, "events": [], "error": null,
    });
    bench.journal.ended("call-1", "executed", data.to_string().as_bytes()).expect("recorded");
    bench.sim.refuse().await.expect("refuses");
    bench.sim.drop_sessions();
    bench.until_ready(false).await;
    let (_, calls) = bench.engine.recover().await.expect("recovers");
    assert_eq!(calls.count(), 2);
    let stop = CancellationToken::new();
    let looking = Arc::clone(&bench.engine).look_up(calls, stop.clone());
    let told = async {
        // Less than the server is waited for.
        let told = tokio::time::timeout(Duration::from_secs(20), bench.ask(request(ORIGINATE))).await;
        stop.cancel();
        told.expect("in time").response
    };
    let ((), told) = tokio::join!(looking, told);
    assert_eq!(told["data"]["outcome"], "executed", "{told}");
    assert_eq!(bench.shown("call-2").expect("recorded").state, "sending", "left to the next start");
}

#[tokio::test]
async fn what_only_reads_is_run_again() {
    let bench = Bench::connected().await;
    let body = r#"{"server":"pbx1","action":"QueueStatus","id":"list"}"#;
    assert_eq!(bench.claim("list", body), Claim::Ours);
    bench.journal.sending("list").expect("recorded");
    assert_eq!(bench.recover().await, (0, 0));
    assert_eq!(bench.ask(request(body)).await.response["data"]["outcome"], "executed");
}

#[tokio::test]
async fn a_call_that_the_log_shows_was_executed() {
    let bench = Bench::connected().await.with_events().await;
    let answer = bench.ask(request(ORIGINATE)).await.response;
    assert_eq!(answer["data"]["outcome"], "executed");
    bench.until_on_disk("\"Event\":\"OriginateResponse\"").await;
    bench.until_on_disk("\"Event\":\"Hangup\"").await;
    bench.as_if_killed("call-1");
    assert_eq!(bench.recover().await, (0, 1));
    let again = bench.ask(request(ORIGINATE)).await.response;
    assert_eq!(again["data"]["outcome"], "executed", "{again}");
    assert_eq!(again["data"]["events"][0]["Event"], "OriginateResponse");
    assert_eq!(again["data"]["call"]["result"], "answered");
    assert_eq!(bench.sim.originates().len(), 1, "not dialled twice");
}

#[tokio::test]
async fn a_call_that_lives_was_executed() {
    // No event session, so nothing of it is in the log.
    let bench = Bench::with_talk(Duration::from_secs(60)).await;
    bench.ask(request(ORIGINATE)).await;
    bench.as_if_killed("call-1");
    assert_eq!(bench.recover().await, (0, 1));
    let again = bench.ask(request(ORIGINATE)).await.response;
    assert_eq!(again["data"]["outcome"], "executed", "{again}");
    assert_eq!(again["data"]["events"][0]["Event"], "CoreShowChannel");
    assert_eq!(again["data"]["error"], json!(null));
    assert_eq!(bench.sim.originates().len(), 1, "not dialled twice");
}

#[tokio::test]
async fn a_call_that_asterisk_took_was_executed_though_nothing_else_is_known() {
    let bench = Bench::connected().await;
    let body = ORIGINATE.replace("\"id\"", "\"wait\":\"final\",\"id\"");
    {
        // Nobody reads events, so its end is waited for in vain; amibus is killed amid that.
        let asked = bench.ask(request(&body));
        tokio::pin!(asked);
        let taken = async {
            while bench.shown("call-1").is_none_or(|entry| entry.response.is_none()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = &mut asked => panic!("it was answered before it was seen to be taken"),
            () = taken => {}
        }
    }
    assert_eq!(bench.shown("call-1").expect("recorded").state, "sending");
    assert_eq!(bench.recover().await, (0, 1));
    let again = bench.ask(request(&body)).await.response;
    ended(&again, "executed", Code::FinalNotSeen);
    assert_eq!(again["data"]["response"]["Response"], "Success");
    assert_eq!(bench.sim.originates().len(), 1, "not dialled twice");
}

#[tokio::test]
async fn a_call_without_evidence_is_unknown_and_whoever_asks_waits_for_that() {
    let bench = Bench::connected().await;
    assert_eq!(bench.claim("call-1", ORIGINATE), Claim::Ours);
    bench.journal.sending("call-1").expect("recorded");
    let (unknown, calls) = bench.engine.recover().await.expect("recovers");
    assert_eq!((unknown, calls.count()), (0, 1));
    let early = bench.ask(request(ORIGINATE));
    tokio::pin!(early);
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut early).await;
    assert!(waited.is_err(), "answered before it was looked for");
    let looking = Arc::clone(&bench.engine).look_up(calls, CancellationToken::new());
    let (answer, ()) = tokio::join!(early, looking);
    ended(&answer.response, "unknown", Code::Interrupted);
    assert!(bench.sim.originates().is_empty(), "never sent");
    let seen = bench.published().await;
    assert_eq!(seen.iter().filter(|m| m["correlationid"] == "call-1").count(), 1, "one outcome: {seen:?}");
}

/// Else each start of a process that is killed again and again reads the same again, and a little more.
#[tokio::test]
async fn a_start_that_is_cut_short_is_followed_by_one_that_reads_on_in_the_log() {
    let bench = Bench::connected().await.with_events().await;
    let other = ORIGINATE.replace("call-1", "call-2");
    bench.ask(request(&other)).await;
    bench.until_on_disk("\"Event\":\"Hangup\"").await;
    assert_eq!(bench.claim("call-1", ORIGINATE), Claim::Ours);
    bench
        .journal
        .sending_call("call-1", Some(&channel_id("pbx1", "call-1")), &[], Some(1))
        .expect("recorded");
    let log_from = || {
        let open = bench.journal.interrupted("", 10).expect("reads");
        open.first().expect("it is open").log_from.expect("known")
    };
    let (_, calls) = bench.engine.recover().await.expect("recovers");
    let stop = CancellationToken::new();
    let looking = Arc::clone(&bench.engine).look_up(calls, stop.clone());
    let cut = async {
        while log_from() == 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    tokio::join!(looking, cut);
    let read_to = log_from();
    assert!(read_to > 5, "all that call-2 left was read: {read_to}");
    assert_eq!(bench.recover().await, (0, 1));
    assert_eq!(bench.shown("call-1").expect("recorded").outcome.as_deref(), Some("unknown"));
}

/// To record and tell the outcomes of hundreds takes longer than a process lives that is killed again and again.
#[tokio::test]
async fn what_was_found_is_kept_before_the_first_outcome_is_told() {
    let bench = Bench::with_talk(Duration::from_secs(60)).await;
    let ids = ["call-1", "call-2", "call-3"];
    for id in ids {
        bench.ask(request(&ORIGINATE.replace("call-1", id))).await;
        bench.as_if_killed(id);
    }
    bench.refuse_writes("NEW.state = 'done'");
    let (_, calls) = bench.engine.recover().await.expect("recovers");
    let stop = CancellationToken::new();
    let looking = Arc::clone(&bench.engine).look_up(calls, stop.clone());
    let cut = async {
        while ids.iter().any(|id| bench.journal.kept(id).expect("reads").is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(looking, cut) })
        .await
        .expect("in time");
    bench.mend_journal();
    // One may have been on its way to the journal when the rest was cut off, and got there after it was mended.
    let (unknown, found) = bench.recover().await;
    assert!(unknown == 0 && (2..=3).contains(&found), "{unknown} unknown, {found} left");
    for id in ids {
        assert_eq!(bench.shown(id).expect("recorded").outcome.as_deref(), Some("executed"), "{id}");
    }
    assert_eq!(bench.sim.originates().len(), 3, "not dialled twice");
}

#[tokio::test]
async fn a_look_up_that_is_broken_off_is_taken_up_by_the_next_start() {
    let bench = Bench::connected().await;
    assert_eq!(bench.claim("call-1", ORIGINATE), Claim::Ours);
    bench.journal.sending("call-1").expect("recorded");
    let (_, calls) = bench.engine.recover().await.expect("recovers");
    let stop = CancellationToken::new();
    stop.cancel();
    Arc::clone(&bench.engine).look_up(calls, stop).await;
    assert_eq!(bench.shown("call-1").expect("recorded").state, "sending");
    assert_eq!(bench.recover().await, (0, 1));
    assert_eq!(bench.shown("call-1").expect("recorded").outcome.as_deref(), Some("unknown"));
}

#[tokio::test]
async fn an_outcome_that_is_in_the_spool_is_not_published_again() {
    let bench = Bench::connected().await;
    let body = r#"{"server":"pbx1","action":"Ping","id":"told"}"#;
    let first = bench.ask(request(body)).await.response;
    // Rejected under the same id, and so told under it too.
    bench.ask(request(&body.replace("Ping", "QueueStatus"))).await;
    bench.as_if_not_published("told");
    assert_eq!(bench.recover().await, (0, 0));
    let told = |seen: &[Value]| seen.iter().filter(|m| m["correlationid"] == "told").count();
    assert_eq!(told(&bench.published().await), 2, "the outcome and the rejection");
    assert_eq!(bench.ask(request(body)).await.response, first, "the same message");
}

#[tokio::test]
async fn an_outcome_that_is_not_in_the_spool_is_published() {
    let bench = Bench::connected().await;
    let body = r#"{"server":"pbx1","action":"Ping","id":"recorded"}"#;
    assert_eq!(bench.claim("recorded", body), Claim::Ours);
    bench.journal.sending("recorded").expect("recorded");
    bench
        .journal
        .done("recorded", "executed", br#"{"id":"recorded","outcome":"executed"}"#)
        .expect("recorded");
    assert_eq!(bench.recover().await, (0, 0));
    let seen = bench.published().await;
    assert_eq!(seen.iter().filter(|m| m["correlationid"] == "recorded").count(), 1, "{seen:?}");
    assert_eq!(bench.ask(request(body)).await.response, seen[0]);
}

#[tokio::test]
async fn what_nobody_delivers_again_ends_with_the_process() {
    let bench = Bench::connected().await;
    let list = r#"{"server":"pbx1","action":"QueueStatus","id":"list"}"#;
    let ping = |id: &str| format!(r#"{{"server":"pbx1","action":"Ping","id":"{id}"}}"#);
    assert_eq!(bench.claim_of_request("list", list), Claim::Ours);
    bench.journal.sending("list").expect("recorded");
    for id in ["asked-again", "given-up", "kept"] {
        assert_eq!(bench.claim_of_request(id, &ping(id)), Claim::Ours);
    }
    assert_eq!(bench.recover().await, (1, 0));
    assert_eq!(bench.shown("list").expect("recorded").outcome.as_deref(), Some("unknown"));
    // Its requester had no answer, and asks again; so does a sender, on a bus that keeps it.
    let again = bench.ask(request(&ping("asked-again"))).await.response;
    assert_eq!(again["data"]["outcome"], "executed", "{again}");
    assert_eq!(bench.claim("kept", &ping("kept")), Claim::Ours);
    assert_eq!(bench.claim_of_request("of-this-process", &ping("of-this-process")), Claim::Ours);
    let soon = tokio::time::timeout(Duration::from_secs(10), bench.end_left_behind(Duration::ZERO));
    soon.await.expect("ends when none is left");
    for (id, state) in [("asked-again", "done"), ("kept", "claimed"), ("of-this-process", "claimed")] {
        assert_eq!(bench.shown(id).expect("is there").state, state, "{id}");
    }
    let seen = bench.published().await;
    let of = |id| seen.iter().filter(|m| m["correlationid"] == id).collect::<Vec<_>>();
    assert_eq!(of("asked-again"), [&again], "one outcome");
    let [told] = of("given-up")[..] else { panic!("told once: {seen:?}") };
    ended(told, "rejected", Code::Unavailable);
    assert!(of("kept").is_empty() && of("of-this-process").is_empty(), "{seen:?}");
    assert_eq!(&bench.ask(request(&ping("given-up"))).await.response, told, "that is its outcome");
    assert!(bench.journal.release("of-this-process").expect("recorded"));
    assert_eq!(bench.recover().await, (0, 0), "once");
    bench.end_left_behind(Duration::ZERO).await;
    let more = bench.published().await;
    assert!(more.iter().all(|m| m["correlationid"] != "given-up"), "{more:?}");
}

#[tokio::test]
async fn what_may_still_be_asked_again_is_left_to_the_next_start() {
    let bench = Bench::connected().await;
    let ping = r#"{"server":"pbx1","action":"Ping","id":"left"}"#;
    assert_eq!(bench.claim_of_request("left", ping), Claim::Ours);
    bench.recover().await;
    let stop = CancellationToken::new();
    let left = Arc::clone(&bench.engine).end_left_behind(Duration::from_secs(3600), stop.clone());
    stop.cancel();
    left.await;
    assert_eq!(bench.shown("left").expect("is left to the next start").state, "claimed");
    assert!(bench.published().await.iter().all(|m| m["correlationid"] != "left"));
}

#[tokio::test]
async fn what_cannot_be_told_at_first_is_once_the_journal_takes_it() {
    let bench = Bench::connected().await;
    let ping = r#"{"server":"pbx1","action":"Ping","id":"left"}"#;
    assert_eq!(bench.claim_of_request("left", ping), Claim::Ours);
    bench.recover().await;
    bench.refuse_writes("NEW.state = 'done'");
    let left = bench.end_left_behind(Duration::ZERO);
    tokio::pin!(left);
    let refused = tokio::time::timeout(Duration::from_millis(500), &mut left).await;
    assert!(refused.is_err(), "it goes on trying");
    assert!(bench.published().await.iter().all(|m| m["correlationid"] != "left"));
    bench.mend_journal();
    left.await;
    let seen = bench.published().await;
    assert_eq!(seen.iter().filter(|m| m["correlationid"] == "left").count(), 1, "{seen:?}");
}

#[tokio::test]
async fn a_user_event_with_the_channel_of_a_call_proves_nothing() {
    let bench = Bench::connected().await.with_events().await;
    assert_eq!(bench.claim("call-1", ORIGINATE), Claim::Ours);
    bench.journal.sending("call-1").expect("recorded");
    let channel = channel_id("pbx1", "call-1");
    let forged = format!(
        r#"{{"server":"pbx1","action":"UserEvent","id":"forged","fields":
            {{"UserEvent":"x","Uniqueid":"{channel}","Channel":"Local/1@s"}}}}"#
    );
    assert_eq!(bench.ask(request(&forged)).await.response["data"]["outcome"], "executed");
    bench.until_on_disk(&format!("\"Uniqueid\":\"{channel}\"")).await;
    assert_eq!(bench.recover().await, (0, 1));
    assert_eq!(bench.shown("call-1").expect("recorded").outcome.as_deref(), Some("unknown"));
}

#[tokio::test]
async fn each_server_is_looked_at_for_its_own_calls() {
    let bench = Bench::connected().await.with_events().await;
    bench.ask(request(ORIGINATE)).await;
    bench.until_on_disk("\"Event\":\"OriginateResponse\"").await;
    bench.until_on_disk("\"Event\":\"Hangup\"").await;
    bench.as_if_killed("call-1");
    let other = ORIGINATE.replace("pbx1", "pbx2").replace("call-1", "call-2");
    assert_eq!(bench.claim("call-2", &other), Claim::Ours);
    bench.journal.sending("call-2").expect("recorded");
    let engine = bench.with_second();
    let (unknown, calls) = engine.recover().await.expect("recovers");
    assert_eq!((unknown, calls.count()), (0, 2));
    engine.look_up(calls, CancellationToken::new()).await;
    let outcome = |id: &str| bench.shown(id).expect("recorded").outcome;
    assert_eq!(outcome("call-1").as_deref(), Some("executed"));
    assert_eq!(outcome("call-2").as_deref(), Some("unknown"), "the other server's log proves nothing");
}
