//! Waiting for the pace, against a simulated Asterisk: what ends it, and what gives a place back.

use std::time::Duration;

use amibus::command::{Code, pace::Limit};
use amibus_contract::Request;
use tokio_util::sync::CancellationToken;

use super::super::{
    bench::{ACTION_DEADLINE, Bench, request},
    ended,
};

const LONG: Duration = Duration::from_secs(60);

fn one_at_once() -> [Limit; 1] {
    [Limit {
        name: "sales".into(),
        servers: Vec::new(),
        channels: vec!["Local/*@sales".into()],
        calls_per_second: None,
        burst: 1,
        concurrent_calls: Some(1),
        longest_call: Duration::from_secs(3600),
    }]
}

async fn bench(talk: Duration) -> Bench {
    Bench::with_talk(talk).await.with_pace(&one_at_once()).with_events().await
}

fn originate(id: &str, channel: &str) -> Request {
    originate_by(id, channel, "2099-01-01T00:00:00Z")
}

fn originate_by(id: &str, channel: &str, deadline: &str) -> Request {
    request(&format!(
        r#"{{"server":"pbx1","action":"Originate","id":"{id}","deadline":"{deadline}",
            "fields":{{"Channel":"{channel}","Application":"Wait","Timeout":200}}}}"#
    ))
}

fn kept(mut request: Request) -> Request {
    request.durable = true;
    request
}

#[tokio::test]
async fn who_waits_leaves_at_the_deadline_or_the_end_and_other_actions_go_on() {
    let bench = bench(LONG).await;
    let first = bench.ask(originate("first", "Local/1@sales")).await;
    assert_eq!(first.response["data"]["outcome"], "executed", "{}", first.response);

    let soon = jiff::Timestamp::now() + Duration::from_millis(500);
    let late = bench.ask(originate_by("late", "Local/2@sales", &soon.to_string()));
    let stop = CancellationToken::new();
    let left = bench.ask_until(kept(originate("left", "Local/3@sales")), &stop);
    let meanwhile = async {
        let ping = bench.ask(request(r#"{"server":"pbx1","action":"Ping"}"#)).await;
        assert_eq!(ping.response["data"]["outcome"], "executed", "{}", ping.response);
        let other = bench.ask(originate("other", "Local/4@support")).await;
        assert_eq!(other.response["data"]["outcome"], "executed", "another group: {}", other.response);
        stop.cancel();
    };
    let (late, left, ()) = tokio::join!(late, left, meanwhile);
    ended(&late.response, "expired", Code::DeadlinePassed);
    assert!(left.response.is_null() && !left.acknowledged, "its bus keeps it");
    assert_eq!(bench.sim.originates().len(), 2);
}

#[tokio::test]
async fn who_may_not_wait_for_the_server_is_told_when_it_goes_away() {
    let bench = bench(LONG).await;
    bench.ask(originate("first", "Local/1@sales")).await;
    let away = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.sim.refuse().await.expect("refuses");
        bench.sim.drop_sessions();
    };
    let asked =
        tokio::time::timeout(Duration::from_secs(10), bench.ask(originate("second", "Local/2@sales")));
    let (told, ()) = tokio::join!(asked, away);
    ended(&told.expect("at once").response, "rejected", Code::Unavailable);
}

#[tokio::test]
async fn calls_that_end_fail_or_are_refused_let_the_next_one_go_on() {
    let bench = bench(Duration::from_millis(100)).await;
    for (n, channel) in ["1", "busy", "2", "congestion", "noanswer", "3"].into_iter().enumerate() {
        let asked = bench.ask(originate(&n.to_string(), &format!("Local/{channel}@sales")));
        let answer = tokio::time::timeout(Duration::from_secs(30), asked).await.expect("in time").response;
        assert_eq!(answer["data"]["outcome"], "executed", "{answer}");
    }
    // Else it would wait for the end of that call, and be sent when Asterisk answers again.
    bench.until_no_call("sales").await;
    bench.sim.stall(ACTION_DEADLINE * 2);
    let silent = bench.ask(originate("silent", "Local/4@sales")).await;
    let found = &silent.response["data"];
    assert!(found["outcome"] == "executed" && found["response"].is_null(), "found in the log: {found}");
    let after = tokio::time::timeout(Duration::from_secs(30), bench.ask(originate("after", "Local/5@sales")));
    let answer = after.await.expect("once that call is over").response;
    assert_eq!(answer["data"]["outcome"], "executed", "{answer}");
}
