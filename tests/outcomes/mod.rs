//! Every outcome and every error code of a command, against a simulated Asterisk that fails on demand, with the
//! real journal on disk.

mod begun;
mod bench;
mod least;
mod lossy;
mod pace;
mod real;
mod recovery;
mod shared;
mod told;
mod unseen;
mod unwritten;

use std::time::Duration;

use amibus::command::Code;
use bench::{ACTION_DEADLINE, Bench, STALL, request};
use serde_json::{Value, json};

/// Asserts the outcome and the code of a response.
fn ended(response: &Value, outcome: &str, code: Code) {
    let data = &response["data"];
    assert_eq!(data["outcome"], outcome, "{response}");
    assert_eq!(data["error"]["code"], code.as_str(), "{response}");
    assert_eq!(code.outcome().as_str(), outcome);
}

#[tokio::test]
async fn what_cannot_be_read_is_rejected_and_set_aside() {
    let bench = Bench::connected().await;
    let cases = [
        ("{", Code::Malformed, None),
        ("[]", Code::Malformed, None),
        (r#"{"server":"pbx1","action":"Ping","x":1}"#, Code::UnknownField, Some("x")),
        (r#"{"action":"Ping"}"#, Code::MissingField, Some("server")),
        (r#"{"server":"pbx1"}"#, Code::MissingField, Some("action")),
        (r#"{"server":"pbx1","action":"Ping","wait":"never"}"#, Code::InvalidField, Some("wait")),
        (r#"{"server":"pbx1","action":"Ping","fields":{"A":{"b":1}}}"#, Code::InvalidField, Some("fields.A")),
        (
            r#"{"specversion":"1.0","type":"ami.command.Ping","id":"a","data":{"server":"pbx1","id":"b"}}"#,
            Code::Contradiction,
            Some("data.id"),
        ),
    ];
    for (body, code, field) in cases {
        let ask = bench.ask(request(body)).await;
        ended(&ask.response, "rejected", code);
        assert_eq!(ask.response["data"]["error"]["field"], json!(field), "{body}");
        assert!(ask.dead_lettered && !ask.acknowledged, "{body}");
    }
    let long = format!(r#"{{"server":"pbx1","action":"Ping","id":"{}"}}"#, "x".repeat(5000));
    ended(&bench.ask(request(&long)).await.response, "rejected", Code::TooLarge);
    assert!(bench.sim.actions().iter().all(|a| !a.starts_with(b"Action: Ping")), "nothing was sent");
}

#[tokio::test]
async fn what_cannot_be_read_and_comes_again_is_rejected_once() {
    let bench = Bench::connected().await;
    let again = || {
        let mut request = request("not JSON");
        (request.identity, request.durable) = (Some("STREAM:7".into()), true);
        request
    };
    let first = bench.ask(again()).await;
    ended(&first.response, "rejected", Code::Malformed);
    assert_eq!(first.response["correlationid"], "STREAM:7");
    let second = bench.ask(again()).await;
    assert_eq!(second.response, first.response);
    assert!(second.dead_lettered);
    assert!(bench.published().await.len() <= 1, "published for everybody once");
}

#[tokio::test]
async fn what_cannot_be_read_and_comes_twice_at_once_is_rejected_once() {
    let bench = Bench::connected().await;
    let again = || {
        let mut request = request(r#"{"server":"pbx1","action":"Ping","x":1}"#);
        (request.identity, request.durable) = (Some("STREAM:8".into()), true);
        bench.ask(request)
    };
    let (first, second) = tokio::join!(again(), again());
    ended(&first.response, "rejected", Code::UnknownField);
    assert_eq!(second.response, first.response);
    assert_eq!(bench.published().await, [first.response], "published for everybody once");
}

#[tokio::test]
async fn what_is_read_but_not_allowed_or_known_is_rejected_and_acknowledged() {
    let bench = Bench::connected().await;
    let forbidden = bench.ask(request(r#"{"server":"pbx1","action":"Command"}"#)).await;
    ended(&forbidden.response, "rejected", Code::Forbidden);
    assert!(forbidden.acknowledged && !forbidden.dead_lettered);
    let nowhere = bench.ask(request(r#"{"server":"pbx9","action":"Ping"}"#)).await;
    ended(&nowhere.response, "rejected", Code::UnknownServer);
}

#[tokio::test]
async fn the_topic_and_the_command_must_agree() {
    let bench = Bench::connected().await;
    let mut one = request(r#"{"action":"Ping","id":"t1"}"#);
    one.server = Some("pbx1".into());
    assert_eq!(bench.ask(one).await.response["data"]["outcome"], "executed");
    let mut other = request(r#"{"server":"pbx1","action":"Ping"}"#);
    other.action = Some("Originate".into());
    ended(&bench.ask(other).await.response, "rejected", Code::Contradiction);
}

#[tokio::test]
async fn success_is_executed_and_error_is_refused_in_asterisks_words() {
    let bench = Bench::connected().await;
    let ping = bench.ask(request(r#"{"server":"pbx1","action":"Ping","id":"p"}"#)).await;
    assert_eq!(ping.response["data"]["outcome"], "executed");
    assert_eq!(ping.response["data"]["response"]["Ping"], "Pong");
    assert_eq!(ping.response["data"]["error"], Value::Null);
    let unknown = bench.ask(request(r#"{"server":"pbx1","action":"NoSuchAction"}"#)).await;
    ended(&unknown.response, "refused", Code::AsteriskError);
    let words = &unknown.response["data"]["error"]["message"];
    assert_eq!(
        *words,
        "Invalid/unknown command: NoSuchAction. Use Action: ListCommands to show available commands."
    );
}

#[tokio::test]
async fn one_id_is_one_call_whatever_is_delivered() {
    let bench = Bench::connected().await;
    let body = r#"{"server":"pbx1","action":"Originate","id":"order-1","fields":{"Channel":"Local/1@sales","Application":"Wait"}}"#;
    let asks = (0..10).map(|_| bench.ask(request(body)));
    let answers = futures_util::future::join_all(asks).await;
    for answer in &answers {
        assert_eq!(answer.response, answers[0].response);
        assert_eq!(answer.response["data"]["outcome"], "executed");
    }
    assert_eq!(bench.sim.originates().len(), 1);
    let other = body.replace("1@sales", "2@sales");
    ended(&bench.ask(request(&other)).await.response, "rejected", Code::IdReused);
    assert_eq!(bench.sim.originates().len(), 1);
}

#[tokio::test]
async fn an_originate_is_asynchronous_with_a_channel_id_of_ours() {
    let bench = Bench::connected().await;
    let fields = r#"{"Channel":"Local/1@sales","Application":"Wait","Async":true,"Variable":{"A":"x,y"}}"#;
    let body = format!(r#"{{"server":"pbx1","action":"Originate","id":"o","fields":{fields}}}"#);
    bench.ask(request(&body)).await;
    let calls = bench.sim.originates();
    assert!(
        calls[0].asynchronous && calls[0].channel_id.as_deref().is_some_and(|id| id.starts_with("amibus-"))
    );
    assert_eq!(calls[0].variables, [("A".to_owned(), "x,y".to_owned())]);
    let waits = body.replace("true", "false").replace("\"o\"", "\"o2\"");
    let ask = bench.ask(request(&waits)).await;
    ended(&ask.response, "rejected", Code::InvalidField);
    assert_eq!(ask.response["data"]["error"]["field"], "fields.Async");
}

#[tokio::test]
async fn while_a_server_is_away_who_waits_is_told_and_what_is_kept_waits_for_its_deadline() {
    let bench = Bench::connected().await;
    bench.sim.refuse().await.expect("refuses");
    bench.sim.drop_sessions();
    bench.until_ready(false).await;
    let body = r#"{"server":"pbx1","action":"Ping"}"#;
    ended(&bench.ask(request(body)).await.response, "rejected", Code::Unavailable);
    let mut kept = request(r#"{"server":"pbx1","action":"Ping","id":"kept"}"#);
    kept.durable = true;
    let late = bench.ask(kept);
    ended(&late.await.response, "expired", Code::DeadlinePassed);
    let mut waits =
        request(r#"{"server":"pbx1","action":"Ping","id":"waits","deadline":"2099-01-01T00:00:00Z"}"#);
    waits.durable = true;
    let back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.sim.accept().await.expect("accepts");
    };
    let (answer, ()) = tokio::join!(bench.ask(waits), back);
    assert_eq!(answer.response["data"]["outcome"], "executed", "{}", answer.response);
}

#[tokio::test]
async fn what_was_sent_and_not_answered_is_unknown() {
    let bench = Bench::connected().await;
    bench.sim.stall(Duration::from_secs(30));
    let silent = bench.ask(request(r#"{"server":"pbx1","action":"Ping","id":"silent"}"#)).await;
    ended(&silent.response, "unknown", Code::NoAnswer);

    let bench = Bench::connected().await;
    bench.sim.stall(Duration::from_secs(30));
    let drop = async {
        bench.until_state("lost", "sending").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.sim.drop_sessions();
    };
    let ask = bench.ask(request(r#"{"server":"pbx1","action":"Ping","id":"lost"}"#));
    let (lost, ()) = tokio::join!(ask, drop);
    ended(&lost.response, "unknown", Code::ConnectionLost);
}

#[tokio::test]
async fn a_call_that_was_sent_and_not_answered_is_looked_for_once_the_server_is_back() {
    let bench = Bench::connected().await;
    bench.sim.stall(STALL);
    let asked = std::time::Instant::now();
    let drop = async {
        bench.until_state("call-1", "sending").await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.sim.drop_sessions();
    };
    let ask = bench.ask(request(recovery::ORIGINATE));
    let (lost, ()) = tokio::join!(ask, drop);
    ended(&lost.response, "unknown", Code::ConnectionLost);
    assert!(asked.elapsed() > STALL, "not before it was looked for");
    assert!(bench.sim.originates().is_empty(), "never taken");
}

#[tokio::test]
async fn a_call_whose_end_is_not_seen_was_executed_and_one_that_is_seen_is_told() {
    let bench = Bench::connected().await;
    let body = |id: &str, channel: &str| {
        request(&format!(
            r#"{{"server":"pbx1","action":"Originate","id":"{id}","wait":"final",
                "fields":{{"Channel":"Local/{channel}@sales","Application":"Wait","Timeout":200}}}}"#
        ))
    };
    // No event session runs here.
    let unseen = bench.ask(body("unseen", "1")).await.response;
    ended(&unseen, "executed", Code::FinalNotSeen);
    assert_eq!(unseen["data"]["response"]["Response"], "Success", "{unseen}");
    assert_eq!((&unseen["data"]["events"], &unseen["data"]["call"]), (&json!([]), &Value::Null), "{unseen}");
    let bench = Bench::connected().await.with_events().await;
    for (channel, result) in
        [("1", "answered"), ("busy", "busy"), ("congestion", "congestion"), ("noanswer", "no_answer")]
    {
        let answer = bench.ask(body(channel, channel)).await.response;
        assert_eq!(answer["data"]["outcome"], "executed", "{answer}");
        assert_eq!(answer["data"]["call"]["result"], result, "{answer}");
    }
}

#[tokio::test]
async fn a_list_past_the_limits_is_left_out_and_said_so() {
    let bench = Bench::with_limits(|limits| limits.list_items = 1).await;
    let answer = bench.ask(request(r#"{"server":"pbx1","action":"QueueStatus"}"#)).await.response;
    ended(&answer, "executed", Code::ListTooLong);
    assert_eq!(answer["data"]["events"], json!([]));
    assert_eq!(answer["data"]["response"]["Response"], "Success");
}

#[tokio::test]
async fn a_journal_that_cannot_record_stops_commands() {
    let bench = Bench::connected().await;
    bench.break_journal();
    let answer = bench
        .ask(request(r#"{"server":"pbx1","action":"Originate","id":"x","fields":{"Channel":"Local/1@s"}}"#));
    ended(&answer.await.response, "rejected", Code::NotRecorded);
    assert!(bench.sim.originates().is_empty());
}

#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_is_told_to_nobody_until_it_is() {
    let bench = Bench::connected().await;
    bench.refuse_writes("NEW.state = 'done'");
    let mend = async {
        while !bench.sim.actions().iter().any(|action| action.starts_with(b"Action: Ping")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Long enough for its answer to be there and its outcome to be refused.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(bench.published().await.is_empty(), "and nobody knows its outcome");
        bench.mend_journal();
    };
    let body = r#"{"server":"pbx1","action":"Ping","id":"slow-disk"}"#;
    let (answer, ()) = tokio::join!(bench.ask(request(body)), mend);
    assert_eq!(answer.response["data"]["outcome"], "executed", "{}", answer.response);
    assert!(answer.acknowledged);
    assert_eq!(bench.ask(request(body)).await.response, answer.response);
}

#[tokio::test]
async fn a_command_that_cannot_be_marked_as_being_sent_is_not_sent() {
    let bench = Bench::connected().await;
    bench.refuse_writes("NEW.state = 'sending'");
    let body = r#"{"server":"pbx1","action":"Originate","id":"m","fields":{"Channel":"Local/1@s","Application":"Wait"}}"#;
    ended(&bench.ask(request(body)).await.response, "rejected", Code::NotRecorded);
    assert!(bench.sim.originates().is_empty());
    bench.mend_journal();
    assert_eq!(
        bench.ask(request(body)).await.response["data"]["outcome"],
        "executed",
        "the same id, once it can be"
    );
    assert_eq!(bench.sim.originates().len(), 1);
}

#[tokio::test]
async fn a_response_is_published_once_even_where_its_message_cannot_be_kept() {
    let bench = Bench::connected().await;
    bench.refuse_writes("NEW.body IS NOT NULL AND OLD.body IS NULL");
    let answer = bench.ask(request(r#"{"server":"pbx1","action":"Ping","id":"p"}"#)).await;
    assert_eq!(answer.response["data"]["outcome"], "executed");
    assert_eq!(bench.published().await.len(), 1);
}

#[tokio::test]
async fn what_was_done_stays_done_when_the_rules_change() {
    let bench = Bench::connected().await;
    let body = r#"{"server":"pbx1","action":"Ping","id":"before"}"#;
    let before = bench.ask(request(body)).await;
    assert_eq!(bench.ask_denied(request(body)).await.response, before.response);
    let other = bench.ask_denied(request(&body.replace("before", "after"))).await;
    ended(&other.response, "rejected", Code::Forbidden);
}

#[tokio::test]
async fn a_kept_command_that_waits_at_the_end_is_left_to_its_bus() {
    let bench = Bench::connected().await;
    bench.sim.refuse().await.expect("refuses");
    bench.sim.drop_sessions();
    bench.until_ready(false).await;
    let body = r#"{"server":"pbx1","action":"Ping","id":"later","deadline":"2099-01-01T00:00:00Z"}"#;
    let kept = || {
        let mut request = request(body);
        request.durable = true;
        request
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let leave = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.cancel();
    };
    let (left, ()) = tokio::join!(bench.ask_until(kept(), &stop), leave);
    assert!(left.response.is_null() && !left.acknowledged && !left.dead_lettered);
    bench.sim.accept().await.expect("accepts");
    bench.until_ready(true).await;
    assert_eq!(bench.ask(kept()).await.response["data"]["outcome"], "executed", "delivered again, it runs");
}

#[tokio::test]
async fn what_its_bus_takes_away_before_it_was_sent_is_not_sent_here() {
    let bench = Bench::connected().await;
    let kept = |id: &str| {
        let mut request = request(&format!(
            r#"{{"server":"pbx1","action":"Originate","id":"{id}","deadline":"2099-01-01T00:00:00Z",
                "fields":{{"Channel":"Local/1@s","Application":"Wait"}}}}"#
        ));
        request.durable = true;
        request
    };
    let withdrawn = tokio_util::sync::CancellationToken::new();
    withdrawn.cancel();
    let before = bench.ask_withdrawn(kept("before"), &withdrawn).await;
    bench.sim.refuse().await.expect("refuses");
    bench.sim.drop_sessions();
    bench.until_ready(false).await;
    let withdrawn = tokio_util::sync::CancellationToken::new();
    let take = async {
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while bench.shown("waits").is_none() {
            assert!(std::time::Instant::now() < deadline, "it was not claimed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        withdrawn.cancel();
    };
    let waits = tokio::time::timeout(Duration::from_secs(10), bench.ask_withdrawn(kept("waits"), &withdrawn));
    let (waits, ()) = tokio::join!(waits, take);
    for left in [before, waits.expect("given up at once")] {
        assert!(left.response.is_null() && !left.acknowledged && !left.dead_lettered);
    }
    assert!(bench.shown("waits").is_none() && bench.shown("before").is_none(), "forgotten");
    bench.sim.accept().await.expect("accepts");
    bench.until_ready(true).await;
    assert_eq!(bench.ask(kept("later")).await.response["data"]["outcome"], "executed");
    assert_eq!(bench.sim.originates().len(), 1, "only the one that stayed here");
}

#[tokio::test]
async fn who_waits_is_told_at_once_however_many_kept_commands_wait() {
    let bench = Bench::connected().await;
    bench.sim.refuse().await.expect("refuses");
    bench.sim.drop_sessions();
    bench.until_ready(false).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let kept = |n: usize| {
        let mut request = request(&format!(
            r#"{{"server":"pbx1","action":"Ping","id":"kept-{n}","deadline":"2099-01-01T00:00:00Z"}}"#
        ));
        request.durable = true;
        request
    };
    let many = futures_util::future::join_all((0..50).map(|n| bench.ask_until(kept(n), &stop)));
    let one = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let asked = bench.ask(request(r#"{"server":"pbx1","action":"Ping"}"#));
        let told = tokio::time::timeout(Duration::from_secs(2), asked).await.expect("at once");
        ended(&told.response, "rejected", Code::Unavailable);
        stop.cancel();
    };
    tokio::join!(many, one);
}

#[tokio::test]
async fn what_lies_in_a_queue_past_its_deadline_is_never_written() {
    // One action at a time, and an Asterisk that stands still: the second waits on its way to the socket.
    let bench = Bench::with_limits(|limits| limits.pending_actions = 1).await;
    bench.sim.stall(ACTION_DEADLINE * 2);
    let late = async {
        bench.until_state("first", "sending").await;
        let deadline = jiff::Timestamp::now() + ACTION_DEADLINE / 2;
        let body = format!(
            r#"{{"server":"pbx1","action":"Originate","id":"late","deadline":"{deadline}",
                "fields":{{"Channel":"Local/1@s","Application":"Wait"}}}}"#
        );
        let mut late = request(&body);
        late.durable = true;
        bench.ask(late).await
    };
    let first = bench.ask(request(r#"{"server":"pbx1","action":"NoSuchAction","id":"first"}"#));
    let (first, late) = tokio::join!(first, late);
    ended(&first.response, "unknown", Code::NoAnswer);
    ended(&late.response, "expired", Code::DeadlinePassed);
    let seen = async {
        while !bench.sim.actions().iter().any(|action| action.starts_with(b"Action: NoSuchAction")) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen).await.expect("Asterisk goes on");
    let again = bench.ask(request(r#"{"server":"pbx1","action":"Ping"}"#)).await;
    assert_eq!(again.response["data"]["outcome"], "executed", "{}", again.response);
    assert!(bench.sim.originates().is_empty(), "nor later");
}

#[tokio::test]
async fn the_default_deadline_counts_from_when_the_bus_took_it() {
    let bench = Bench::connected().await;
    let sent = |id: &str, age: Duration, ahead: Duration| {
        let mut sent = request(&format!(r#"{{"server":"pbx1","action":"Ping","id":"{id}"}}"#));
        sent.sent_at = Some(std::time::SystemTime::now() - age + ahead);
        sent
    };
    let (old, none) = (Duration::from_secs(3600), Duration::ZERO);
    ended(&bench.ask(sent("old", old, none)).await.response, "expired", Code::DeadlinePassed);
    let ahead = bench.ask(sent("ahead", none, old)).await.response;
    assert_eq!(ahead["data"]["outcome"], "executed", "a clock that is ahead: {ahead}");
    let own = r#"{"server":"pbx1","action":"Ping","id":"own","deadline":"2099-01-01T00:00:00Z"}"#;
    let mut own = request(own);
    own.sent_at = Some(std::time::SystemTime::now() - old);
    assert_eq!(bench.ask(own).await.response["data"]["outcome"], "executed", "its own deadline counts");
}

/// `list_incomplete` needs an Asterisk that answers and then falls silent within its list.
#[tokio::test]
async fn a_list_that_does_not_end_is_told() {
    let bench = Bench::connected().await;
    let cut = b"Response: Success\r\nActionID: %\r\nEventList: start\r\nMessage: x\r\n\r\n";
    let answer =
        bench.answering(cut, request(r#"{"server":"pbx1","action":"QueueStatus","id":"cut"}"#)).await;
    ended(&answer.response, "executed", Code::ListIncomplete);
}

#[test]
fn every_code_is_tested_here() {
    let source = concat!(
        include_str!("mod.rs"),
        include_str!("recovery.rs"),
        include_str!("shared.rs"),
        include_str!("unseen.rs")
    );
    let missing: Vec<_> = Code::ALL.iter().filter(|c| !source.contains(&format!("Code::{c:?}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
