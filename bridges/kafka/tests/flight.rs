//! Messages that follow those that are on their way, as a lane offers them.

use std::time::{Duration, Instant};

use amibus_contract::{
    Decision, Fault, FaultKind, Kind, Message, Outlet, Value,
    conformance::{Rig, message},
};

use crate::{
    events::{KEYS, assert_order, events, number, of_kinds, outlet, publish_all, see},
    rig::KafkaRig,
};

/// Messages on offer at a time.
const OFFERED: usize = 2_000;

/// Kinds that go through two clients of librdkafka, those of one of them more often.
const TWO_CLIENTS: [Kind; 3] = [Kind::Link, Kind::Event, Kind::Event];

/// Messages after which a full flight is told of what is stored, at the latest.
const TOLD_AFTER: usize = 1_024;

/// How long a broker may take to be there again after a kill.
const RESTARTED_WITHIN: Duration = Duration::from_secs(300);

/// What a sliding offer met.
#[derive(Default)]
struct Met {
    /// How often only a part was safe, without a fault.
    parts: usize,
    faults: Vec<Fault>,
}

/// Offers [`OFFERED`] messages, more as the first are safe, and what a fault left as a whole, as a lane does; sets aside
/// what is refused for good. `progress` is told how many are safe.
async fn slide(outlet: &mut dyn Outlet, messages: &[Message], mut progress: impl FnMut(usize)) -> Met {
    let (mut at, mut drains_until, mut met) = (0, 0, Met::default());
    while at < messages.len() {
        let drains = at < drains_until;
        let end = if drains { drains_until } else { messages.len().min(at + OFFERED) };
        let offered = &messages[at..end];
        let published = if drains { outlet.publish(offered).await } else { outlet.advance(offered).await };
        at += published.safe;
        progress(at);
        let Some(fault) = published.fault else {
            assert!(published.safe > 0, "neither a fault nor anything safe");
            met.parts += usize::from(at < end);
            continue;
        };
        drains_until = end;
        match fault.decision {
            Decision::Skip => {
                assert_eq!(outlet.dead_letter(&messages[at], &fault).await, Ok(true));
                at += 1;
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        met.faults.push(fault);
        assert!(met.faults.len() < 100, "{:?}", met.faults);
    }
    met
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_flight_whose_broker_is_killed_costs_no_fault_and_no_repeat() {
    const MESSAGES: usize = 60_000;
    let mut rig = KafkaRig::own();
    // Also on a machine on which a broker takes its time to start.
    rig.values = rig.values.with("publish_timeout", Value::Duration(RESTARTED_WITHIN));
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = events(&rig, 0..MESSAGES, 500);
    let (progress, mut stored) = tokio::sync::watch::channel(0);
    let offered = tokio::spawn(async move {
        slide(&mut *outlet, &messages, |safe| {
            progress.send_replace(safe);
        })
        .await
    });
    stored.wait_for(|stored| *stored >= 5_000).await.expect("some of it is stored");
    rig.kill_server().await;
    assert!(*stored.borrow() < MESSAGES, "too late to disturb it");
    rig.start_server().await;
    let met = offered.await.expect("published");
    assert!(met.faults.is_empty(), "within the publish timeout the client itself retries: {:?}", met.faults);
    // How often depends on the machine: all of an offer may be stored before it is looked at.
    assert!(met.parts > 0, "each offer was waited for as a whole");
    let seen = see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await;
    assert_order(&seen);
    assert_eq!(seen.len(), MESSAGES, "the idempotent producer repeats nothing");
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
}

/// That every message of these kinds came but those, in order within its key, and none of those.
async fn assert_whole(rig: &KafkaRig, kinds: &[Kind], messages: usize, but: &[usize]) {
    for kind in [Kind::Event, Kind::Link].into_iter().filter(|kind| kinds.contains(kind)) {
        let others = (0..messages).filter(|n| kinds[n % kinds.len()] == kind && !but.contains(n));
        let seen = see(&mut rig.watch(&[&rig.topic(kind.as_str())]), others).await;
        assert_order(&seen);
        assert!(seen.iter().all(|got| !but.contains(&number(&got.body))), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_flight_whose_broker_hangs_is_taken_back_in_time_and_nothing_is_lost_or_reordered() {
    hangs_amid_a_flight(&[Kind::Event]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_flight_through_two_clients_whose_broker_hangs_is_taken_back_likewise() {
    hangs_amid_a_flight(&TWO_CLIENTS).await;
}

async fn hangs_amid_a_flight(kinds: &[Kind]) {
    const MESSAGES: usize = 20_000;
    let mut rig = KafkaRig::own();
    rig.values = rig.values.with("publish_timeout", Value::Duration(Duration::from_secs(2)));
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = of_kinds(&rig, kinds, 0..MESSAGES, 300);
    let (progress, mut stored) = tokio::sync::watch::channel(0);
    let offered = tokio::spawn(async move {
        slide(&mut *outlet, &messages, |safe| {
            progress.send_replace(safe);
        })
        .await
    });
    stored.wait_for(|stored| *stored >= OFFERED).await.expect("some of it is stored");
    rig.with_server(|kafka| kafka.pause());
    let hung = *stored.borrow_and_update();
    tokio::time::sleep(Duration::from_secs(4)).await;
    rig.with_server(|kafka| kafka.resume());
    let met = offered.await.expect("published");
    assert!(hung < MESSAGES, "too late to disturb it");
    let found: Vec<FaultKind> = met.faults.iter().map(|fault| fault.kind).collect();
    assert!(
        !found.is_empty() && met.faults.iter().all(|fault| fault.decision == Decision::Retry),
        "{found:?}"
    );
    assert_whole(&rig, kinds, MESSAGES, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_the_broker_refuses_amid_a_flight_are_set_aside_and_the_others_keep_their_order() {
    refuses_amid_a_flight(&[Kind::Event]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_the_broker_refuses_amid_a_flight_through_two_clients_are_set_aside_likewise() {
    refuses_amid_a_flight(&TWO_CLIENTS).await;
}

/// The brokers' limit of the topics is lower than ours, so that the refusal comes from there.
async fn refuses_amid_a_flight(kinds: &[Kind]) {
    const MESSAGES: usize = 8_000;
    let rig = KafkaRig::shared();
    for kind in [Kind::Event, Kind::Link] {
        rig.make_topic(&rig.topic(kind.as_str()), 3, &[("max.message.bytes", "100000")]).await;
    }
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let mut messages = of_kinds(&rig, kinds, 0..MESSAGES, 10);
    let refused = [0, 2_900, 3_000, 5_000, 5_001];
    for n in refused {
        messages[n] = message(rig.prefix(), messages[n].topic.kind(), "pbx1", n, KEYS, 200_000);
    }
    let met = slide(&mut *outlet, &messages, |_| {}).await;
    let skipped: Vec<&Fault> = met.faults.iter().filter(|fault| fault.decision == Decision::Skip).collect();
    assert_eq!(skipped.len(), refused.len(), "{:?}", met.faults);
    assert!(skipped.iter().all(|fault| fault.kind == FaultKind::TooLarge), "{skipped:?}");
    assert_whole(&rig, kinds, MESSAGES, &refused).await;
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
}

/// Both lanes' messages are in one client of librdkafka, which ends with the other lane's refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flight_that_another_lane_s_refusal_ends_loses_no_message_and_no_order() {
    const MESSAGES: usize = 12_000;
    let rig = KafkaRig::shared();
    let other = format!("{}-other", rig.prefix);
    rig.make_topic(&format!("{other}.event"), 1, &[("max.message.bytes", "5000")]).await;
    let bridge = rig.bridge();
    let (mut good, mut bad) = (outlet(&bridge).await, outlet(&bridge).await);
    let messages = events(&rig, 0..MESSAGES, 200);
    let offered = tokio::spawn(async move { slide(&mut *good, &messages, |_| {}).await });
    let poison = [message(&other, Kind::Event, "pbx2", 0, 1, 20_000)];
    let mut refused = 0;
    while !offered.is_finished() && refused < 10 {
        let published = bad.publish(&poison).await;
        refused += u32::from(published.fault.is_some_and(|fault| fault.decision == Decision::Skip));
    }
    assert!(refused > 0, "nothing was refused meanwhile");
    let met = offered.await.expect("the good lane");
    assert!(met.faults.iter().all(|fault| fault.decision == Decision::Retry), "{:?}", met.faults);
    assert_order(&see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_come_while_others_are_on_their_way_follow_at_once_each_once_and_in_order() {
    const MESSAGES: usize = 2_000;
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = events(&rig, 0..MESSAGES, 300);
    let (mut at, mut waited) = (0, 0);
    for end in 1..=MESSAGES {
        let published = outlet.advance_until(&messages[at..end], Box::pin(tokio::task::yield_now())).await;
        assert_eq!(published.fault, None);
        at += published.safe;
        waited += usize::from(published.safe == 0);
    }
    assert!(waited > MESSAGES / 4, "{waited} times nothing was stored yet");
    publish_rest(&mut *outlet, &messages[at..]).await;
    let seen = see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await;
    assert_order(&seen);
    assert_eq!(seen.len(), MESSAGES, "nothing was sent again");
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
}

/// Offers what is on its way until all of it is stored.
async fn publish_rest(outlet: &mut dyn Outlet, messages: &[Message]) {
    let mut at = 0;
    while at < messages.len() {
        let published = outlet.advance(&messages[at..]).await;
        assert_eq!(published.fault, None);
        at += published.safe;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_hangs_is_found_out_in_time_though_more_and_more_follows() {
    const MESSAGES: usize = 200;
    let mut rig = KafkaRig::own();
    rig.values = rig.values.with("publish_timeout", Value::Duration(Duration::from_secs(2)));
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = events(&rig, 0..MESSAGES, 300);
    publish_all(&mut *outlet, &messages[..10], 10).await;
    rig.with_server(|kafka| kafka.pause());
    let (mut end, begun) = (11, Instant::now());
    let found = loop {
        let more = Box::pin(tokio::time::sleep(Duration::from_millis(100)));
        let published = outlet.advance_until(&messages[10..end], more).await;
        if let Some(fault) = published.fault {
            break fault;
        }
        assert_eq!(published.safe, 0, "it hangs");
        assert!(begun.elapsed() < Duration::from_secs(15), "not found out");
        end += 1;
    };
    assert_eq!(found.decision, Decision::Retry, "{found:?}");
    rig.with_server(|kafka| kafka.resume());
    publish_all(&mut *outlet, &messages[10..], 100).await;
    assert_order(&see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await);
}

/// A lane that was stopped amid a flight, or asked for something else, offers all of it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_may_be_offered_again_as_something_else() {
    const MESSAGES: usize = 5_000;
    let rig = KafkaRig::shared();
    let bridge = rig.bridge();
    let mut outlet = outlet(&bridge).await;
    let messages = events(&rig, 0..MESSAGES, 300);
    publish_all(&mut *outlet, &messages[..10], 10).await;
    let published = outlet.advance(&messages[10..]).await;
    assert!(published.fault.is_none() && published.safe >= TOLD_AFTER, "{published:?}");
    for micros in [0, 500, 3_000, 20_000] {
        let dropped = outlet.advance(&messages);
        let _ = tokio::time::timeout(Duration::from_micros(micros), dropped).await;
    }
    publish_all(&mut *outlet, &messages, 1_000).await;
    assert_order(&see(&mut rig.watch(&[&rig.topic("event")]), 0..MESSAGES).await);
    assert_eq!(bridge.close(Duration::from_secs(5)).await, 0);
}
