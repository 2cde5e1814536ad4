//! The order of a key where `max_in_flight_per_key` is left out: as many at once as the stream found can bear.

use amibus_contract::{Decision, FaultKind, Outlet, Reach, conformance::Rig};
use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy},
};

use crate::rig::{EVENTS, NatsRig, PREFIX, durable, event, open, stream_holds};

const ROOM: i64 = 6000;

fn tight(discard: DiscardPolicy) -> Config {
    let subjects = ["event", "link", "call", "response", "dead"].map(|word| format!("{PREFIX}.{word}.>"));
    Config { name: EVENTS.into(), subjects: subjects.to_vec(), max_bytes: ROOM, discard, ..Config::default() }
}

/// The second of three does not fit.
async fn offer_too_much(outlet: &mut dyn Outlet, first: usize) {
    let batch = [event(first, "a", 50), event(first + 1, "a", 9000), event(first + 2, "a", 50)];
    let published = outlet.publish(&batch).await;
    let fault = published.fault.expect("no room");
    assert_eq!((published.safe, fault.kind, fault.decision), (1, FaultKind::Refused, Decision::Retry));
}

async fn held(rig: &NatsRig) -> Vec<String> {
    let held = stream_holds(&rig.plain().await, EVENTS, ">").await;
    let number = |id: &str| id.rsplit(':').next().unwrap_or_default().to_owned();
    held.iter().map(|(id, _)| number(id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_refuses_for_want_of_room_gets_one_of_a_key_at_a_time() {
    let rig = NatsRig::jetstream().await;
    let context = jetstream::new(rig.plain().await);
    context.delete_stream(EVENTS).await.expect("deleted");
    context.create_stream(tight(DiscardPolicy::New)).await.expect("made");
    let bridge = open(&durable(rig.url()));
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    offer_too_much(&mut *outlet, 0).await;
    assert_eq!(held(&rig).await, ["0"], "nothing overtakes what was refused");
    assert!(bridge.promise().contains("messages of a key keep their order;"), "{}", bridge.promise());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_refused_once_gets_one_of_a_key_at_a_time_until_a_batch_passes() {
    let rig = NatsRig::jetstream().await;
    let bridge = rig.bridge();
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let published = outlet.publish(&[event(0, "a", 50)]).await;
    assert_eq!((published.safe, published.reach, published.fault), (1, Reach::Stored, None));
    assert!(bridge.promise().contains("refuses one for a moment"), "{}", bridge.promise());
    // Somebody changes the stream while we are connected: nobody tells us.
    let context = jetstream::new(rig.plain().await);
    context.update_stream(tight(DiscardPolicy::New)).await.expect("changed");
    offer_too_much(&mut *outlet, 1).await;
    assert_eq!(held(&rig).await, ["0", "1", "3"], "the first time is what remains");
    offer_too_much(&mut *outlet, 4).await;
    assert_eq!(held(&rig).await, ["0", "1", "3", "4"], "it is careful now");
    let published = outlet.publish(&[event(7, "a", 50), event(8, "a", 50)]).await;
    assert_eq!((published.safe, published.fault), (2, None));
    offer_too_much(&mut *outlet, 9).await;
    assert_eq!(held(&rig).await, ["0", "1", "3", "4", "7", "8", "9", "11"], "and forgot it");
}
