//! Order, content and independence.

use super::{QUIET_FOR, Rig, SEEN_WITHIN, assert_order, collect, message, number, publish_all};
use crate::{Kind, Message};

const MESSAGES: usize = 5_000;
const KEYS: usize = 17;
const BATCH: usize = 512;

/// Thousands of messages of several keys, in batches: each is seen, in order within its key, and none twice.
pub async fn order_within_a_key(rig: &dyn Rig) {
    let mut observer = rig.observe(&[Kind::Event]).await;
    let bridge = rig.bridge();
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages: Vec<Message> =
        (0..MESSAGES).map(|n| message(rig.prefix(), Kind::Event, "pbx1", n, KEYS, 300)).collect();
    publish_all(rig, &mut *outlet, &messages, BATCH).await;
    let seen = collect(&mut *observer, MESSAGES).await;
    assert_order(&seen, KEYS);
    assert_eq!(seen.len(), MESSAGES, "without a fault nothing is repeated");
    for one in &seen {
        let n = number(&one.body);
        assert_eq!(one.body, messages[n].body, "the body of {n} changed on its way");
    }
    assert!(observer.next(QUIET_FOR).await.is_none(), "more was seen than was published");
}

/// What is on its way may be waited for, together with what follows it: nothing is lost and nothing overtaken.
pub async fn what_is_on_its_way_is_waited_for(rig: &dyn Rig) {
    let mut observer = rig.observe(&[Kind::Event]).await;
    let bridge = rig.bridge();
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages: Vec<Message> =
        (0..3 * BATCH).map(|n| message(rig.prefix(), Kind::Event, "pbx1", n, KEYS, 300)).collect();
    let begun = outlet.advance(&messages[..BATCH]).await;
    assert!(begun.fault.is_none() && begun.safe > 0, "{begun:?}");
    let rest = &messages[begun.safe..];
    let ended = outlet.publish(rest).await;
    assert_eq!((ended.safe, ended.fault), (rest.len(), None), "it answers for the whole");
    assert_order(&collect(&mut *observer, messages.len()).await, KEYS);
    assert_eq!(bridge.close(SEEN_WITHIN).await, 0);
}

/// Each kind goes to its own topic; key, attributes and id are what was given.
pub async fn headers_keys_and_ids_arrive(rig: &dyn Rig) {
    let kinds = [Kind::Event, Kind::Link, Kind::Response];
    let mut observer = rig.observe(&kinds).await;
    let bridge = rig.bridge();
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages: Vec<Message> =
        kinds.iter().enumerate().map(|(n, kind)| message(rig.prefix(), *kind, "pbx1", n, 3, 10)).collect();
    publish_all(rig, &mut *outlet, &messages, BATCH).await;
    for one in collect(&mut *observer, kinds.len()).await {
        let sent = &messages[number(&one.body)];
        let whole = one.topic == sent.topic.as_str();
        assert!(whole || one.topic == sent.topic.class(), "{} went to {}", sent.topic.as_str(), one.topic);
        if let Some(key) = &one.key {
            assert_eq!(*key, *sent.key());
        }
        if !rig.abilities().headers {
            continue;
        }
        for (name, value) in sent.attributes().iter() {
            let spelled = one
                .headers
                .iter()
                .find(|(header, _)| header.strip_prefix("ce-").or(header.strip_prefix("ce_")) == Some(name));
            assert_eq!(spelled.map(|(_, v)| v.as_str()), Some(value), "attribute {name} of {}", one.topic);
        }
        assert_eq!(one.headers.get("content-type").map(String::as_str), Some("application/cloudevents+json"));
    }
}

/// Two servers' outlets of one bridge publish side by side; each keeps its own order and loses nothing.
pub async fn outlets_do_not_disturb_each_other(rig: &dyn Rig) {
    const EACH: usize = 1_000;
    let mut observer = rig.observe(&[Kind::Event]).await;
    let bridge = rig.bridge();
    let mut one = bridge.outlet("pbx1").await.expect("an outlet");
    let mut two = bridge.outlet("pbx2").await.expect("an outlet");
    let of = |server: &str, first: usize| -> Vec<Message> {
        (first..first + EACH).map(|n| message(rig.prefix(), Kind::Event, server, n, 5, 50)).collect()
    };
    let (left, right) = (of("pbx1", 0), of("pbx2", EACH));
    let (mut at_left, mut at_right) = (0, 0);
    while at_left < EACH || at_right < EACH {
        let step = |at: usize| (at + 100).min(EACH);
        let a = one.publish(&left[at_left..step(at_left)]).await;
        let b = two.publish(&right[at_right..step(at_right)]).await;
        assert!(a.fault.is_none() && b.fault.is_none(), "{a:?} {b:?}");
        at_left += a.safe;
        at_right += b.safe;
    }
    let seen = collect(&mut *observer, 2 * EACH).await;
    for range in [0..EACH, EACH..2 * EACH] {
        let lane: Vec<_> = seen.iter().filter(|s| range.contains(&number(&s.body))).cloned().collect();
        assert_order(&lane, 5);
        assert_eq!(lane.len(), EACH);
    }
    assert!(observer.next(SEEN_WITHIN / 20).await.is_none());
}
