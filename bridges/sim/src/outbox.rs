//! What one session still has to write, in order. One queue, one writer, as Asterisk has one thread a session.
//!
//! Limit: [`OUTBOX_BYTES_MAX`]. A session that exceeds it is dropped, like one whose write timed out.
//! While a synchronous Originate blocks the session, everything that happens waits behind its response.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;

/// Bytes queued for one session.
pub(crate) const OUTBOX_BYTES_MAX: usize = 64 << 20;
/// Small messages are written together up to this size.
const COALESCE_BYTES: usize = 64 << 10;

/// The queue between everybody who has something to say and the session's writer.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Bytes>,
    behind: VecDeque<Bytes>,
    bytes: usize,
    held: bool,
    finished: bool,
}

impl Outbox {
    /// Queues one chunk; false when there is no room for it, and then nothing was queued.
    #[must_use]
    pub(crate) fn push(&self, chunk: Bytes) -> bool {
        let mut inner = self.lock();
        if inner.finished {
            return true;
        }
        if inner.bytes.saturating_add(chunk.len()) > OUTBOX_BYTES_MAX {
            return false;
        }
        inner.bytes += chunk.len();
        if inner.held {
            inner.behind.push_back(chunk);
        } else {
            inner.queue.push_back(chunk);
            self.wake.notify_one();
        }
        true
    }

    /// From now on everything waits behind the response that [`Outbox::release`] brings.
    pub(crate) fn hold(&self) {
        self.lock().held = true;
    }

    /// Writes `response`, then what has waited behind it.
    pub(crate) fn release(&self, response: Bytes) {
        let mut inner = self.lock();
        inner.held = false;
        inner.bytes += response.len();
        inner.queue.push_back(response);
        let mut behind = std::mem::take(&mut inner.behind);
        inner.queue.append(&mut behind);
        self.wake.notify_one();
    }

    /// Nothing more is accepted; the writer ends after what is queued.
    pub(crate) fn finish(&self) {
        let mut inner = self.lock();
        inner.finished = true;
        inner.held = false;
        let mut behind = std::mem::take(&mut inner.behind);
        inner.queue.append(&mut behind);
        self.wake.notify_one();
    }

    /// Bytes not yet handed to the writer.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The next bytes to write; `None` once finished and empty.
    pub(crate) async fn next(&self) -> Option<Bytes> {
        loop {
            let woken = self.wake.notified();
            {
                let mut inner = self.lock();
                if let Some(chunk) = take(&mut inner) {
                    return Some(chunk);
                }
                if inner.finished {
                    return None;
                }
            }
            woken.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take(inner: &mut Inner) -> Option<Bytes> {
    let first = inner.queue.pop_front()?;
    let more = |inner: &Inner, so_far: usize| {
        inner.queue.front().is_some_and(|c| so_far + c.len() <= COALESCE_BYTES)
    };
    if !more(inner, first.len()) {
        inner.bytes -= first.len();
        return Some(first);
    }
    let mut joined = BytesMut::with_capacity(COALESCE_BYTES);
    joined.extend_from_slice(&first);
    while more(inner, joined.len()) {
        match inner.queue.pop_front() {
            Some(chunk) => joined.extend_from_slice(&chunk),
            None => break,
        }
    }
    inner.bytes -= joined.len();
    Some(joined.freeze())
}
