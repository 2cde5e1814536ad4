//! A flight of two kinds of messages, which go through two clients of librdkafka.

use std::time::Duration;

use amibus_contract::{
    Decision, Fault, Kind, Value,
    conformance::{Rig, message},
};

use crate::{
    events::{KEYS, assert_order, of_two_kinds, outlet, see},
    flight::{OFFERED, slide},
    rig::KafkaRig,
};

const KINDS: [Kind; 2] = [Kind::Event, Kind::Link];

/// That every message came but those, in order within its key.
async fn assert_whole(rig: &KafkaRig, messages: usize, but: &[usize]) {
    for kind in KINDS {
        let of_kind = |n: &usize| n.is_multiple_of(3) == (kind == Kind::Link) && !but.contains(n);
        let seen = see(&mut rig.watch(&[&rig.topic(kind.as_str())]), (0..messages).filter(of_kind)).await;
        assert_order(&seen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_amid_a_flight_of_two_kinds_costs_no_message_and_no_order() {
    const MESSAGES: usize = 20_000;
    let mut rig = KafkaRig::own();
    rig.values = rig.values.with("publish_timeout", Value::Duration(Duration::from_secs(2)));
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = of_two_kinds(&rig, 0..MESSAGES, 300);
    let (progress, mut stored) = tokio::sync::watch::channel(0);
    let offered = tokio::spawn(async move {
        let note = |safe| {
            progress.send_replace(safe);
        };
        slide(&mut *outlet, &messages, note).await
    });
    stored.wait_for(|stored| *stored >= OFFERED).await.expect("some of it is stored");
    rig.with_server(|kafka| kafka.pause());
    let hung = *stored.borrow_and_update();
    tokio::time::sleep(Duration::from_secs(4)).await;
    rig.with_server(|kafka| kafka.resume());
    let met = offered.await.expect("published");
    assert!(hung < MESSAGES, "too late to disturb it");
    let is_fine = !met.faults.is_empty() && met.faults.iter().all(|fault| fault.decision == Decision::Retry);
    assert!(is_fine, "{:?}", met.faults);
    assert_whole(&rig, MESSAGES, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_of_two_kinds_costs_no_other_message_and_no_order() {
    const MESSAGES: usize = 8_000;
    let rig = KafkaRig::shared();
    for kind in KINDS {
        rig.make_topic(&rig.topic(kind.as_str()), 3, &[("max.message.bytes", "100000")]).await;
    }
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let mut messages = of_two_kinds(&rig, 0..MESSAGES, 10);
    let refused = [0, 2_900, 3_000, 5_000, 5_001];
    for n in refused {
        let kind = messages[n].topic.kind();
        messages[n] = message(rig.prefix(), kind, "pbx1", n, KEYS, 200_000);
    }
    let met = slide(&mut *outlet, &messages, |_| {}).await;
    let skipped: Vec<&Fault> = met.faults.iter().filter(|fault| fault.decision == Decision::Skip).collect();
    assert_eq!(skipped.len(), refused.len(), "{:?}", met.faults);
    assert_whole(&rig, MESSAGES, &refused).await;
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
}
