//! What dialplan and callers can put into values, on real Asterisks.

use std::sync::Mutex;

use amibus_ami::{Frame, OwnedFrame};

use super::*;
use crate::asterisk::{EventSink, Up};

/// A call whose variable holds what ends an event list.
const EVIL: &str = "[evil]\nexten => s,1,Answer()\n same => n,Set(EVIL=a${URIDECODE(%0D%0A)}EventList: \
    Complete${URIDECODE(%0D%0A)}ListItems: 0)\n same => n,Wait(60)\n";
const CALLS: usize = 3;

async fn ends_no_list(version: Version) {
    let options = AsteriskOptions { dialplan: EVIL.to_owned(), ..AsteriskOptions::default() };
    let asterisk = Asterisk::start(version, &options);
    let (actions, _shutdown) = acting(settings(&asterisk, "full"));
    is_ready(&actions).await;
    let call = [("Channel", "Local/s@evil"), ("Application", "Wait"), ("Data", "60"), ("Async", "true")];
    for _ in 0..CALLS {
        assert!(run(&actions, "Originate", &call).await.unwrap().response.frame().is_success());
    }
    let is_evil = |item: &&OwnedFrame| item.frame().first("EventList") == Some(b"Complete".as_slice());
    let whole = async {
        loop {
            let list = run(&actions, "Status", &[("Variables", "EVIL")]).await.unwrap();
            let last = list.complete.as_ref().expect("a list");
            assert!(last.frame().is_event("StatusComplete"), "{last:?} ended {:?}", list.items);
            let count = list.items.len().to_string();
            assert_eq!(last.frame().first("ListItems"), Some(count.as_bytes()));
            // Each call has two channels, and one of them has the variable.
            if list.items.len() == 2 * CALLS && list.items.iter().filter(is_evil).count() == CALLS {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, whole).await.expect("the calls with the variable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_does_not_end_a_list_of_22() {
    ends_no_list(Version::V22).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_does_not_end_a_list_of_16() {
    ends_no_list(Version::V16).await;
}

/// Keeps user events.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<OwnedFrame>>>);

impl EventSink for Kept {
    fn up(&mut self, _: Up) {
        self.0.lock().unwrap().clear();
    }
    fn event(&mut self, frame: Frame<'_>, _: std::time::SystemTime) {
        if frame.is_event("UserEvent") {
            self.0.lock().unwrap().push(frame.to_owned());
        }
    }
    fn other(&mut self, _: Frame<'_>, _: std::time::SystemTime) {}
    fn snapshot(&mut self, _: &str, _: Vec<OwnedFrame>) {}
    fn down(&mut self, _: &DownReason) {}
}

/// A line of the greatest length, and as many headers as Asterisk reads: all of it comes back as an event.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_action_is_read_whole() {
    let asterisk = asterisk(Version::V22);
    let (kept, shutdown) = (Kept::default(), CancellationToken::new());
    let watching =
        tokio::spawn(run_events(Arc::new(settings(&asterisk, "full")), kept.clone(), shutdown.clone()));
    let (actions, _shutdown) = acting(settings(&asterisk, "full"));
    is_ready(&actions).await;
    let value = "x".repeat(1022 - "Long: ".len());
    let mut largest = Action::new("UserEvent").unwrap().header("UserEvent", "Big").unwrap();
    largest = largest.header("Long", &value).unwrap();
    for number in 0..124 {
        largest = largest.header(&format!("Header{number}"), format!("value {number}")).unwrap();
    }
    assert!(largest.clone().header("OneMore", "1").is_err());
    // Again and again: the event session may not be there yet.
    let seen = async {
        loop {
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            let reply = actions.run(largest.clone(), deadline).await.unwrap();
            assert!(reply.response.frame().is_success(), "{reply:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
            if let Some(event) = kept.0.lock().unwrap().first() {
                return event.clone();
            }
        }
    };
    let event = timeout(PATIENCE, seen).await.expect("the event");
    assert_eq!(event.frame().first("Long"), Some(value.as_bytes()));
    for number in 0..124 {
        let expected = format!("value {number}");
        assert_eq!(event.frame().first(&format!("Header{number}")), Some(expected.as_bytes()));
    }
    shutdown.cancel();
    timeout(PATIENCE, watching).await.unwrap().unwrap();
}
