//! Originates whose end is waited for, and was not seen: what the log tells of them.

use std::{sync::Arc, time::Duration};

use amibus::command::{Code, response::channel_id};
use amibus_sim::{Sim, SimOptions};
use serde_json::Value;

use super::{
    bench::{Bench, request},
    ended,
};

const AWAITED: &str = r#"{"server":"pbx1","action":"Originate","id":"call-1","wait":"final","fields":
    {"Channel":"Local/1@s","Application":"Wait","Timeout":200}}"#;

/// Every call rings for longer than anybody waits here.
async fn ringing() -> Bench {
    let options = SimOptions { ring: Duration::from_secs(60), ..SimOptions::default() };
    let sim = Arc::new(Sim::start(options).await.expect("a simulated Asterisk"));
    Bench::at(sim, |_| {}, None).await.with_events().await
}

#[tokio::test]
async fn a_call_whose_end_was_missed_was_executed_with_what_the_log_shows_of_it() {
    let bench = ringing().await;
    let channel = channel_id("pbx1", "call-1");
    let cut = async {
        bench.until_on_disk(&format!("\"Uniqueid\":\"{channel}\"")).await;
        bench.sim.refuse().await.expect("refuses");
        bench.sim.drop_sessions();
    };
    let (asked, ()) = tokio::join!(bench.ask(request(AWAITED)), cut);
    ended(&asked.response, "executed", Code::FinalNotSeen);
    let data = &asked.response["data"];
    assert_eq!(data["response"]["Response"], "Success", "{data}");
    assert_eq!(data["events"][0]["Uniqueid"], channel, "{data}");
    assert_eq!(data["call"], Value::Null, "{data}");
    // The same as the next process would tell of it.
    bench.as_if_killed("call-1");
    bench.journal.accepted("call-1", data["response"].to_string().as_bytes()).expect("recorded");
    let (_, calls) = bench.engine.recover().await.expect("recovers");
    Arc::clone(&bench.engine).look_up(calls, tokio_util::sync::CancellationToken::new()).await;
    assert_eq!(bench.ask(request(AWAITED)).await.response["data"], *data);
    assert_eq!(bench.sim.originates().len(), 1, "not dialled twice");
}

#[tokio::test]
async fn an_end_that_only_the_log_has_is_told() {
    let bench = ringing().await;
    let channel = channel_id("pbx1", "call-1");
    // Past who waits for it, into the log alone.
    let end = format!(
        "Event: OriginateResponse\r\nPrivilege: call,all\r\nResponse: Failure\r\nChannel: Local/1@s\r\n\
         Reason: 5\r\nUniqueid: {channel}\r\n\r\n"
    );
    let cut = async {
        bench.until_on_disk(&format!("\"Uniqueid\":\"{channel}\",\"Linkedid\"")).await;
        bench.log(&end);
        bench.until_on_disk("\"Event\":\"OriginateResponse\"").await;
        bench.sim.refuse().await.expect("refuses");
        bench.sim.drop_sessions();
    };
    let (mut asked, ()) = tokio::join!(bench.ask(request(AWAITED)), cut);
    let data = asked.response["data"].take();
    assert_eq!((&data["outcome"], &data["error"]), (&Value::from("executed"), &Value::Null), "{data}");
    assert_eq!((&data["call"]["result"], &data["call"]["reason"]), (&"busy".into(), &5.into()), "{data}");
}
