//! The suite that every bridge passes against the real bus.
//!
//! A bridge's tests implement [`Rig`] over the real server, with an observer and a requester that do not use the
//! bridge (another client library, best in another language), and call each case from a test of its own. A case panics with what it saw when the bridge does not keep the contract.
//!
//! Bodies and keys carry a number, so that loss, repeats and reordering are all seen.

mod commands;
mod faults;
mod order;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use crate::{Attribute, Attributes, BoxFuture, Kind, Message, Reach, SharedBridge, Topic};

pub use commands::{
    client_side_sees_and_asks, command_reaches_us_and_reply_goes_back, late_acknowledge_is_kept,
    unacknowledged_command_comes_again, unreadable_command_is_set_aside,
};
pub use faults::{
    close_delivers_what_it_accepted, oversized_first, oversized_last, oversized_middle, oversized_twice,
    server_away_at_start, server_restart_loses_nothing,
};
pub use order::{
    headers_keys_and_ids_arrive, order_within_a_key, outlets_do_not_disturb_each_other,
    what_is_on_its_way_is_waited_for,
};

/// How long an observer may take to see what was published.
pub const SEEN_WITHIN: Duration = Duration::from_secs(20);
/// How long an observer waits to be sure that nothing more comes.
pub const QUIET_FOR: Duration = Duration::from_millis(600);
/// How long a bridge may take to notice that its server is gone, or back.
pub const HEALED_WITHIN: Duration = Duration::from_secs(60);

/// What the bus under test can do; cases that ask for more are left out by the bridge's own list of tests.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// How far published messages get.
    pub reach: Reach,
    /// The largest body that the bus takes, in bytes (rounded up is fine: cases exceed it twice).
    pub max_body_bytes: usize,
    /// Whether commands are kept by the bus until acknowledged.
    pub durable_commands: bool,
    /// After how long the bus delivers a command again that was neither acknowledged nor kept, where it does so on
    /// its own.
    pub redelivers_after: Option<Duration>,
    /// Whether a consumer can tell the attributes and the key from headers.
    pub headers: bool,
    /// Whether a repeat with the same id is dropped by the bus.
    pub drops_repeats: bool,
}

/// The real bus, and ways to it that do not use the bridge.
pub trait Rig: Sync {
    /// A fresh bridge to the same server, configured to take commands.
    fn bridge(&self) -> SharedBridge;
    /// A topic prefix that nobody else uses on this server.
    fn prefix(&self) -> &str;
    /// What the bus can do.
    fn abilities(&self) -> Abilities;
    /// An independent consumer of these kinds. When the future is ready it sees all that is published afterwards, and
    /// on a bus that stores, also what was published before.
    fn observe<'a>(&'a self, kinds: &'a [Kind]) -> BoxFuture<'a, Box<dyn Observer>>;
    /// Publishes a command independently of the bridge. With `reply`, the sender waits for one.
    fn command<'a>(
        &'a self,
        server: &'a str,
        action: &'a str,
        body: &'a [u8],
        reply: bool,
    ) -> BoxFuture<'a, Box<dyn Asked>>;
    /// Kills the server without warning. Only called for buses that have a server.
    fn kill_server(&self) -> BoxFuture<'_, ()>;
    /// Starts it again on the same address with the same data, and waits until it answers.
    fn start_server(&self) -> BoxFuture<'_, ()>;
    /// Waits.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// What an independent consumer saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The bus's own topic or subject.
    pub topic: String,
    /// The record key, where the bus has one.
    pub key: Option<String>,
    /// Headers, spelled as on the bus.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

/// An independent consumer.
pub trait Observer: Send {
    /// The next message, or `None` when none came in time.
    fn next(&mut self, within: Duration) -> BoxFuture<'_, Option<Seen>>;
}

/// An independent requester that has sent its command.
pub trait Asked: Send {
    /// The reply's body, or `None` when none came in time.
    fn reply(&mut self, within: Duration) -> BoxFuture<'_, Option<Vec<u8>>>;
}

/// Message number `n` of a kind, of one of `keys` keys, for `server`, with a body of at least `pad` bytes.
pub fn message(prefix: &str, kind: Kind, server: &str, n: usize, keys: usize, pad: usize) -> Message {
    let key = format!("call-{}", n % keys.max(1));
    let topic = Topic::new(prefix, kind, server, "Test").expect("a valid topic");
    let id = format!("{server}:conformance:{n}");
    let text = "x".repeat(pad);
    let body = format!(r#"{{"id":"{id}","n":{n},"key":"{key}","pad":"{text}"}}"#);
    let correlation = if kind == Kind::Response { "order-1" } else { "" };
    Message {
        attributes: Attributes::of([
            (Attribute::Id, &*id),
            (Attribute::Type, &format!("ami.{}.Test", kind.as_str())),
            (Attribute::Source, &format!("/asterisk/{server}")),
            (Attribute::Subject, &key),
            (Attribute::Time, "2026-11-20T15:00:00.123456Z"),
            (Attribute::Sequence, &format!("{n:020}")),
            (Attribute::Correlation, correlation),
        ]),
        topic,
        key: key.into(),
        body: body.into(),
    }
}

/// The number in a body made by [`message`].
pub(crate) fn number(body: &[u8]) -> usize {
    let text = std::str::from_utf8(body).expect("a body of ours is UTF-8");
    let digits = text.split("\"n\":").nth(1).expect("a body of ours has a number");
    digits.split(',').next().and_then(|d| d.parse().ok()).expect("a number")
}

/// Everything that the observer sees until `count` distinct numbers were seen; panics when that takes too long.
pub(crate) async fn collect(observer: &mut dyn Observer, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut numbers = std::collections::BTreeSet::new();
    while numbers.len() < count {
        let Some(next) = observer.next(SEEN_WITHIN).await else {
            let missing: Vec<usize> = (0..count).filter(|n| !numbers.contains(n)).take(10).collect();
            panic!("saw {} of {count} messages, then silence; missing first {missing:?}", numbers.len());
        };
        numbers.insert(number(&next.body));
        seen.push(next);
    }
    seen
}

/// Asserts that the first sight of each number is in order within each of `keys` keys.
pub(crate) fn assert_order(seen: &[Seen], keys: usize) {
    let mut known = std::collections::BTreeSet::new();
    let mut last: BTreeMap<usize, usize> = BTreeMap::new();
    for n in seen.iter().map(|s| number(&s.body)) {
        if !known.insert(n) {
            continue;
        }
        if let Some(before) = last.insert(n % keys, n) {
            assert!(before < n, "within a key, {n} was seen after {before}");
        }
    }
}

/// Publishes all of `messages` as a lane does: `batch` of them on their way, more as the first are safe, and after a
/// retryable fault nothing new until all that was offered is safe; panics on any other fault.
pub(crate) async fn publish_all(
    rig: &dyn Rig,
    outlet: &mut dyn crate::Outlet,
    messages: &[Message],
    batch: usize,
) {
    publish_counting(rig, outlet, messages, batch, &AtomicUsize::new(0)).await;
}

/// The same; each fault is added to `seen` when it happens.
pub(crate) async fn publish_counting(
    rig: &dyn Rig,
    outlet: &mut dyn crate::Outlet,
    messages: &[Message],
    batch: usize,
    seen: &AtomicUsize,
) {
    let (mut at, mut drains_until) = (0, 0);
    let mut faults = 0;
    while at < messages.len() {
        let drains = at < drains_until;
        let end = if drains { drains_until } else { messages.len().min(at + batch) };
        let published = match drains {
            true => outlet.publish(&messages[at..end]).await,
            false => outlet.advance(&messages[at..end]).await,
        };
        assert_eq!(published.reach, rig.abilities().reach, "the reach is not the promised one");
        assert!(published.safe <= end - at, "more is safe than was offered");
        at += published.safe;
        let Some(fault) = published.fault else {
            assert!(at == end || !drains, "no fault, and yet not the whole batch is safe");
            assert!(published.safe > 0, "no fault, and yet nothing is safe");
            continue;
        };
        assert_eq!(fault.decision, crate::Decision::Retry, "unexpected fault: {fault}");
        faults += 1;
        drains_until = end;
        seen.fetch_add(1, Ordering::Relaxed);
        assert!(faults < 600, "still failing after {faults} tries: {fault}");
        rig.sleep(Duration::from_millis(100)).await;
    }
}
