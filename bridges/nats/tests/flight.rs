//! Messages that follow those that are on their way, as a lane offers them.

use std::time::Duration;

use amibus_contract::{
    Decision, Fault, FaultKind, Kind, Message, Outlet, Published, Value, Values, conformance,
    conformance::Rig,
};
use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy},
};

use crate::{
    faults::{assert_exactly_once_in_order, events},
    rig::{EVENTS, NatsRig, PREFIX, durable, event, offer, open, stream_holds, values},
};

/// Messages on offer at a time.
const OFFERED: usize = 1_000;

/// Messages that may await their confirmation. An outlet answers once half of what is on offer is stored, so that with
/// these on their way a part of it always is not, however many confirmations come at once.
const IN_FLIGHT: usize = OFFERED / 4;

/// What a sliding offer met.
#[derive(Default)]
struct Met {
    /// How often only a part was safe, without a fault.
    parts: usize,
    faults: Vec<Fault>,
}

/// Offers [`OFFERED`] messages, more as the first are safe, and what a fault left as a whole, as a lane does; sets aside
/// what is refused for good. `on_fault` is told of each fault.
async fn slide(outlet: &mut dyn Outlet, messages: &[Message], mut on_fault: impl FnMut(&Fault)) -> Met {
    let (mut at, mut drains_until, mut met) = (0, 0, Met::default());
    while at < messages.len() {
        let drains = at < drains_until;
        let end = if drains { drains_until } else { messages.len().min(at + OFFERED) };
        let offered = &messages[at..end];
        let published = if drains { outlet.publish(offered).await } else { outlet.advance(offered).await };
        at += published.safe;
        let Some(fault) = published.fault else {
            assert!(published.safe > 0, "neither a fault nor anything safe");
            met.parts += usize::from(at < end);
            continue;
        };
        drains_until = end;
        on_fault(&fault);
        match fault.decision {
            Decision::Skip => {
                assert_eq!(outlet.dead_letter(&messages[at], &fault).await, Ok(true));
                at += 1;
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        met.faults.push(fault);
        assert!(met.faults.len() < 600, "still {:?}", met.faults.last());
    }
    met
}

/// Of a stream, with at most [`IN_FLIGHT`] messages on their way.
fn full(url: &str) -> Values {
    durable(url).with("max_in_flight", Value::Integer(IN_FLIGHT as i64))
}

async fn held(rig: &NatsRig) -> Vec<(String, String)> {
    stream_holds(&rig.plain().await, EVENTS, &format!("{PREFIX}.event.>")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_flight_whose_server_is_killed_costs_nothing_and_mixes_nothing_up() {
    let rig = NatsRig::jetstream().await;
    let messages = events(24_000, 300);
    for per_key in [Some(1), None] {
        let values = full(rig.url());
        let bridge = open(&match per_key {
            Some(count) => values.with("max_in_flight_per_key", Value::Integer(count)),
            None => values,
        });
        let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
        let killing = async {
            for pause in [30, 110, 70, 45] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                rig.kill_server().await;
                rig.start_server().await;
            }
        };
        let (met, ()) = tokio::join!(slide(&mut *outlet, &messages, |_| {}), killing);
        assert!(met.parts > 0 && !met.faults.is_empty(), "{} parts, {:?}", met.parts, met.faults);
        let held = held(&rig).await;
        assert_exactly_once_in_order(&held, &messages);
        if per_key.is_none() {
            let sent = messages.iter().map(|message| message.attributes().id());
            assert!(held.iter().map(|(id, _)| id.as_str()).eq(sent), "the whole order");
        }
        bridge.close(Duration::from_secs(1)).await;
        jetstream::new(rig.plain().await).delete_stream(EVENTS).await.expect("deleted");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_refused_for_good_amid_a_flight_are_set_aside_and_the_others_keep_their_order() {
    let rig = NatsRig::jetstream().await;
    let context = jetstream::new(rig.plain().await);
    let mut config = context.get_stream(EVENTS).await.expect("the stream").cached_info().config.clone();
    config.max_message_size = 2_000;
    context.update_stream(config).await.expect("limited");
    for (round, per_key) in [1, IN_FLIGHT as i64].into_iter().enumerate() {
        let values = full(rig.url()).with("max_in_flight_per_key", Value::Integer(per_key));
        let bridge = open(&values);
        let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
        let first = round * 6_000;
        let mut messages = events(first + 6_000, 10).split_off(first);
        // The first, one that follows a flight, and two close together.
        let refused = [0, 1_700, 3_100, 3_103];
        for n in refused {
            messages[n] = event(first + n, &messages[n].shared_key(), 4_000);
        }
        let met = slide(&mut *outlet, &messages, |_| {}).await;
        assert!(met.parts > 0);
        assert!(met.faults.iter().all(|fault| fault.kind == FaultKind::TooLarge), "{:?}", met.faults);
        assert_eq!(met.faults.len(), refused.len());
        let mut rest = messages.clone();
        for n in refused.into_iter().rev() {
            rest.remove(n);
        }
        assert_exactly_once_in_order(&held(&rig).await, &rest);
        let stream = context.get_stream(EVENTS).await.expect("the stream");
        stream.purge().await.expect("emptied");
        bridge.close(Duration::from_secs(1)).await;
    }
}

/// What is refused for a moment amid a flight is overtaken by nothing of its call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_refused_for_a_moment_amid_a_flight_is_not_overtaken() {
    let rig = NatsRig::jetstream().await;
    let context = jetstream::new(rig.plain().await);
    context.delete_stream(EVENTS).await.expect("deleted");
    let subjects = ["event", "link", "call", "response", "dead"].map(|word| format!("{PREFIX}.{word}.>"));
    let mut config = Config {
        name: EVENTS.into(),
        subjects: subjects.to_vec(),
        max_bytes: 2_000_000,
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    context.create_stream(config.clone()).await.expect("made");
    let bridge = open(&durable(rig.url()));
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let mut messages = events(4_000, 10);
    // With this one the stream would be too full; what follows it would fit.
    messages[1_500] = event(1_500, "call-5", 900_000);
    messages[600] = event(600, "call-2", 900_000);
    let (refused, mut is_refused) = tokio::sync::watch::channel(0);
    let room = async {
        // Twice, so that what follows was offered again.
        is_refused.wait_for(|times| *times >= 2).await.expect("still offered");
        let behind = held(&rig).await;
        config.max_bytes = 100_000_000;
        context.update_stream(config).await.expect("more room");
        behind
    };
    let sliding = slide(&mut *outlet, &messages, |fault| {
        assert_eq!(fault.kind, FaultKind::Refused, "{fault}");
        refused.send_modify(|times| *times += 1);
    });
    let ((), behind) = tokio::join!(async { drop(sliding.await) }, room);
    let call = |id: &str| id.rsplit(':').next().and_then(|n| n.parse::<usize>().ok()).map(|n| n % 13);
    let overtook = behind.iter().filter(|(id, _)| {
        let number: usize = id.rsplit(':').next().and_then(|n| n.parse().ok()).expect("a number");
        number > 1_500 && call(id) == Some(1_500 % 13)
    });
    assert_eq!(overtook.count(), 0, "of the same call");
    assert_exactly_once_in_order(&held(&rig).await, &messages);
}

/// A lane that was stopped amid a flight, or asked for something else, offers all of it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_may_be_offered_again_as_something_else() {
    let rig = NatsRig::jetstream().await;
    let bridge = open(&durable(rig.url()));
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages = events(5_000, 100);
    let published = outlet.advance(&messages[..OFFERED]).await;
    assert!(published.fault.is_none() && published.safe >= OFFERED / 2, "{published:?}");
    for micros in [0, 500, 3_000, 20_000] {
        let dropped = outlet.advance(&messages[..2 * OFFERED]);
        let _ = tokio::time::timeout(Duration::from_micros(micros), dropped).await;
    }
    offer(&mut *outlet, &messages[OFFERED / 2..], 300).await;
    assert_exactly_once_in_order(&held(&rig).await, &messages);
}

/// A bus that confirms nothing by itself has nothing on its way either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn core_nats_answers_for_the_whole() {
    let rig = NatsRig::core().await;
    let bridge = open(&values(rig.url()));
    let mut observer = rig.observe(&[Kind::Event]).await;
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages: Vec<Message> =
        (0..OFFERED).map(|n| conformance::message(PREFIX, Kind::Event, "pbx1", n, 3, 10)).collect();
    let published = outlet.advance(&messages).await;
    assert_eq!(published, Published::all(OFFERED, amibus_contract::Reach::Sent));
    for message in &messages {
        let seen = observer.next(Duration::from_secs(5)).await.expect("seen");
        assert_eq!(seen.body, message.body);
    }
}
