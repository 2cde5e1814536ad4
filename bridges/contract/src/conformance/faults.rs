//! Messages that the bus refuses, and servers that go away.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use super::{
    HEALED_WITHIN, QUIET_FOR, Rig, assert_order, collect, message, number, publish_all, publish_counting,
};
use crate::{Decision, FaultKind, Kind, Message};

const BATCH: usize = 9;

/// A message that is too large, as the first of a batch.
pub async fn oversized_first(rig: &dyn Rig) {
    oversized(rig, &[0]).await;
}

/// A message that is too large, in the middle of a batch.
pub async fn oversized_middle(rig: &dyn Rig) {
    oversized(rig, &[BATCH / 2]).await;
}

/// A message that is too large, as the last of a batch.
pub async fn oversized_last(rig: &dyn Rig) {
    oversized(rig, &[BATCH - 1]).await;
}

/// Two messages that are too large in one batch, with others before, between and behind them.
pub async fn oversized_twice(rig: &dyn Rig) {
    oversized(rig, &[2, 6]).await;
}

/// The batch is safe up to a refused message; without it the rest goes, in order; it can be set aside.
async fn oversized(rig: &dyn Rig, positions: &[usize]) {
    let mut observer = rig.observe(&[Kind::Event]).await;
    let bridge = rig.bridge();
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let pad = |n| if positions.contains(&n) { rig.abilities().max_body_bytes * 2 } else { 10 };
    let batch: Vec<Message> =
        (0..BATCH).map(|n| message(rig.prefix(), Kind::Event, "pbx1", n, 1, pad(n))).collect();
    let mut from = 0;
    for position in positions.iter().copied() {
        let published = outlet.publish(&batch[from..]).await;
        let fault = published.fault.expect("an oversized message is a fault");
        assert_eq!(published.safe, position - from, "safe up to the oversized message: {fault}");
        assert_eq!((fault.decision, fault.kind), (Decision::Skip, FaultKind::TooLarge), "{fault}");
        outlet.dead_letter(&batch[position], &fault).await.expect("setting it aside works");
        from = position + 1;
    }
    publish_all(rig, &mut *outlet, &batch[from..], BATCH).await;
    let fitting = BATCH - positions.len();
    let mut seen = Vec::new();
    while seen.len() < fitting {
        let next = observer.next(super::SEEN_WITHIN).await;
        seen.push(next.unwrap_or_else(|| panic!("saw {} of {fitting}", seen.len())));
    }
    assert_order(&seen, 1);
    let numbers: Vec<usize> = seen.iter().map(|s| number(&s.body)).collect();
    let expected: Vec<usize> = (0..BATCH).filter(|n| !positions.contains(n)).collect();
    if rig.abilities().drops_repeats {
        assert_eq!(numbers, expected);
    } else {
        for n in expected {
            assert!(numbers.contains(&n), "{n} was not seen, only {numbers:?}");
        }
    }
}

/// The server is killed amid batches and comes back: a batch fails in a way that can be tried again; with a storing
/// bus nothing is lost, order is kept within each key, and where the bus drops repeats nothing is seen twice.
pub async fn server_restart_loses_nothing(rig: &dyn Rig) {
    const LEAST: usize = 3_000;
    const MOST: usize = 300_000;
    const BATCH: usize = 250;
    const KEYS: usize = 7;
    let bridge = rig.bridge();
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let faults = AtomicUsize::new(0);
    let failed = || faults.load(Ordering::Relaxed) > 0;
    let offered = async {
        let mut count = 0;
        while count < LEAST || !failed() {
            assert!(count < MOST, "{count} messages were published, and no fault was told");
            let batch: Vec<Message> = (count..count + BATCH)
                .map(|n| message(rig.prefix(), Kind::Event, "pbx1", n, KEYS, 200))
                .collect();
            publish_counting(rig, &mut *outlet, &batch, BATCH, &faults).await;
            count += BATCH;
            // Where nothing is waited for, the other future has its turn here.
            rig.sleep(Duration::from_millis(1)).await;
        }
        count
    };
    let fault = async {
        rig.sleep(Duration::from_millis(5)).await;
        rig.kill_server().await;
        // It comes back when it was missed.
        let mut waited = Duration::ZERO;
        while !failed() {
            assert!(waited < HEALED_WITHIN, "the server has been gone for {waited:?}, and no fault was told");
            waited += Duration::from_millis(20);
            rig.sleep(Duration::from_millis(20)).await;
        }
        rig.start_server().await;
    };
    let (messages, ()) = join(offered, fault).await;
    assert!(bridge.status().is_ok(), "healed, but says {:?}", bridge.status());
    let mut observer = rig.observe(&[Kind::Event]).await;
    let seen = collect(&mut *observer, messages).await;
    assert_order(&seen, KEYS);
    if rig.abilities().drops_repeats {
        assert_eq!(seen.len(), messages, "a repeat was stored");
    }
}

/// A bridge opened while its server is away answers "retry" within bounds, and works once the server is there.
pub async fn server_away_at_start(rig: &dyn Rig) {
    rig.kill_server().await;
    let bridge = rig.bridge();
    let one = [message(rig.prefix(), Kind::Event, "pbx1", 0, 1, 10)];
    match bridge.outlet("pbx1").await {
        Err(fault) => assert_eq!(fault.decision, Decision::Retry, "{fault}"),
        Ok(mut outlet) => {
            let published = outlet.publish(&one).await;
            let fault = published.fault.expect("no server, and yet published");
            assert_eq!((published.safe, fault.decision), (0, Decision::Retry), "{fault}");
        }
    }
    assert!(bridge.status().is_err(), "no server, and yet the status is good");
    rig.start_server().await;
    let mut waited = Duration::ZERO;
    let mut outlet = loop {
        match bridge.outlet("pbx1").await {
            Ok(outlet) => break outlet,
            Err(fault) => assert!(waited < HEALED_WITHIN, "still {fault} after {waited:?}"),
        }
        waited += Duration::from_millis(200);
        rig.sleep(Duration::from_millis(200)).await;
    };
    let mut observer = rig.observe(&[Kind::Event]).await;
    publish_all(rig, &mut *outlet, &one, 1).await;
    collect(&mut *observer, 1).await;
}

/// Closing delivers everything that was accepted, and says so.
pub async fn close_delivers_what_it_accepted(rig: &dyn Rig) {
    const MESSAGES: usize = 2_000;
    let mut observer = rig.observe(&[Kind::Event]).await;
    let bridge = rig.bridge();
    let mut outlet = bridge.outlet("pbx1").await.expect("an outlet");
    let messages: Vec<Message> =
        (0..MESSAGES).map(|n| message(rig.prefix(), Kind::Event, "pbx1", n, 3, 500)).collect();
    publish_all(rig, &mut *outlet, &messages, 500).await;
    drop(outlet);
    assert_eq!(bridge.close(Duration::from_secs(10)).await, 0, "everything could be delivered");
    collect(&mut *observer, MESSAGES).await;
    assert!(observer.next(QUIET_FOR).await.is_none());
}

/// Runs two futures at once on this task, without a runtime's help.
pub(crate) async fn join<A, B>(one: impl Future<Output = A>, two: impl Future<Output = B>) -> (A, B) {
    use std::task::Poll;
    let (mut one, mut two) = (Box::pin(one), Box::pin(two));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(value) = one.as_mut().poll(context)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = two.as_mut().poll(context)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}
