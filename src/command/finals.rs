//! Waiting for what became of an Originate.
//!
//! The event session sees the `OriginateResponse`; whoever sent the Originate waits for it here, under the ChannelId
//! that it chose, which Asterisk gives back as `Uniqueid` also for a call that failed
//! (`main/manager.c`, `fast_originate`). It is believed only where its ActionID is one of ours too.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use amibus_ami::{Frame, OwnedFrame};
use tokio::sync::oneshot;

/// The Originates of one server whose end is awaited. Bounded by the commands in work.
#[derive(Debug, Default)]
pub struct Finals {
    waiting: Mutex<HashMap<String, oneshot::Sender<OwnedFrame>>>,
}

impl Finals {
    /// From now on, the `OriginateResponse` of this ChannelId is caught. Dropping the receiver ends that.
    pub fn expect(&self, channel_id: &str) -> oneshot::Receiver<OwnedFrame> {
        let (send, receive) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, sender| !sender.is_closed());
        waiting.insert(channel_id.to_owned(), send);
        receive
    }

    /// Looks at an event; cheap for all but `OriginateResponse`.
    pub fn seen(&self, frame: &Frame<'_>, is_ours: impl Fn(&[u8]) -> bool) {
        if !frame.is_event("OriginateResponse") || !frame.first("ActionID").is_some_and(is_ours) {
            return;
        }
        let Some(Ok(unique)) = frame.first("Uniqueid").map(std::str::from_utf8) else { return };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.remove(unique) {
            // Nobody waits any more: its deadline passed a moment ago.
            let _ = sender.send(frame.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &[u8] =
        b"Event: OriginateResponse\r\nActionID: ours-1\r\nResponse: Failure\r\nReason: 5\r\nUniqueid: ch-1\r\n";

    #[test]
    fn only_our_own_originate_response_is_caught() {
        let finals = Finals::default();
        let mut receiver = finals.expect("ch-1");
        let ours = |id: &[u8]| id.starts_with(b"ours-");
        let forged = RESPONSE.iter().copied().map(|b| if b == b'1' { b'2' } else { b });
        finals.seen(&Frame::parse(&forged.collect::<Vec<u8>>()), ours);
        finals.seen(&Frame::parse(RESPONSE), |_| false);
        let user = [b"Event: UserEvent\r\n", RESPONSE].concat();
        finals.seen(&Frame::parse(&user), ours);
        assert!(receiver.try_recv().is_err());
        finals.seen(&Frame::parse(RESPONSE), ours);
        let frame = receiver.try_recv().expect("caught");
        assert_eq!(frame.frame().first("Reason"), Some(&b"5"[..]));
    }

    #[test]
    fn who_no_longer_waits_is_forgotten() {
        let finals = Finals::default();
        for n in 0..1000 {
            drop(finals.expect(&n.to_string()));
        }
        assert!(finals.waiting.lock().expect("unpoisoned").len() <= 1);
    }
}
