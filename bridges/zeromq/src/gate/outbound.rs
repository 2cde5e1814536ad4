//! What goes to a peer: the engine's stream through a bounded queue, and frames of ours between its messages.

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::Pace;
use crate::{
    stats::Gauge,
    wire::{COMMAND, Refusal, Scanner},
};

/// How much is read from the engine at once, in bytes: a queue may exceed its limit by this.
const READ_CHUNK_BYTES: usize = 32 << 10;
/// How many such reads may follow when it is counted what could not be delivered; the kernel keeps less.
const MAX_LEFT_OVER_READS: usize = 1024;

/// One peer's queue.
pub(crate) struct Outbound {
    queue: BytesMut,
    queue_bytes: usize,
    queued: Gauge,
    pace: Pace,
    /// Follows what comes from the engine.
    tail: Scanner,
    /// Follows what leaves for the peer.
    head: Scanner,
    /// A frame of ours that waits for the end of a message.
    held: Option<Bytes>,
    /// Messages of ours that were queued.
    ours: u64,
}

impl Outbound {
    /// An empty queue of `queue_bytes`, which adds its length to `queued`.
    pub(crate) fn new(queue_bytes: usize, pace: Pace, queued: Gauge) -> Self {
        Self {
            queue: BytesMut::new(),
            queue_bytes,
            queued,
            pace,
            tail: Scanner::new(),
            head: Scanner::new(),
            held: None,
            ours: 0,
        }
    }

    /// Carries everything over until the engine ends its stream and the queue is empty. `on_flushed` is told how many
    /// of the engine's messages have left so far, whenever nothing waits. When `abort` says so, the rest stays.
    ///
    /// # Errors
    /// When the peer is gone or too slow.
    pub(crate) async fn run<R, W>(
        &mut self,
        engine: &mut R,
        writer: &mut W,
        outbox: &mut mpsc::Receiver<Bytes>,
        abort: &CancellationToken,
        mut on_flushed: impl FnMut(u64),
    ) -> Result<(), Refusal>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut chunk = vec![0; READ_CHUNK_BYTES];
        let mut ended = false;
        loop {
            if self.queue.is_empty() {
                on_flushed(self.tail.messages());
                if ended {
                    return Ok(());
                }
            }
            let full = self.queue.len() >= self.queue_bytes;
            self.pace.queued(Instant::now(), self.queue.len(), self.queue_bytes);
            let look_again = self.pace.deadline();
            tokio::select! {
                biased;
                () = abort.cancelled() => {
                    self.count_left_over(engine, &mut chunk).await;
                    return Ok(());
                }
                left = writer.write(&self.queue), if !self.queue.is_empty() => self.left(left?)?,
                read = engine.read(&mut chunk), if !full && !ended => match read {
                    Ok(bytes) if bytes > 0 => self.queue_up(chunk.get(..bytes).unwrap_or_default()),
                    _ => ended = true,
                },
                Some(frames) = outbox.recv(), if !full && self.held.is_none() => self.queue_ours(frames),
                () = sleep_until(look_again.unwrap_or_else(Instant::now)), if look_again.is_some() => {
                    if self.pace.too_slow(Instant::now()) {
                        return Err(Refusal::Slow { queue_bytes: self.queue_bytes });
                    }
                }
            }
        }
    }

    /// How many messages the peer was not given.
    pub(crate) fn undelivered(&self) -> u64 {
        (self.tail.messages() + self.ours).saturating_sub(self.head.messages())
    }

    fn left(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
        }
        self.head.feed(self.queue.get(..bytes).unwrap_or_default());
        self.queue.advance(bytes);
        if self.queue.is_empty() && self.queue.capacity() > self.queue_bytes {
            // A single large message must not keep its room.
            self.queue = BytesMut::new();
        }
        self.queued.set(self.queue.len());
        self.pace.left(Instant::now(), bytes);
        Ok(())
    }

    fn queue_up(&mut self, bytes: &[u8]) {
        let between = self.tail.feed(bytes);
        match (between.and_then(|at| bytes.split_at_checked(at)), self.held.take()) {
            (Some((before, after)), Some(frames)) => {
                self.queue.extend_from_slice(before);
                self.append_ours(&frames);
                self.queue.extend_from_slice(after);
            }
            (_, held) => {
                self.held = held;
                self.queue.extend_from_slice(bytes);
            }
        }
        self.queued.set(self.queue.len());
    }

    fn queue_ours(&mut self, frames: Bytes) {
        if self.tail.between() {
            self.append_ours(&frames);
            self.queued.set(self.queue.len());
        } else {
            self.held = Some(frames);
        }
    }

    fn append_ours(&mut self, frames: &[u8]) {
        self.ours += u64::from(frames.first().is_some_and(|flags| flags & COMMAND == 0));
        self.queue.extend_from_slice(frames);
    }

    /// Counts what the engine wrote and nobody will read.
    async fn count_left_over<R>(&mut self, engine: &mut R, chunk: &mut [u8])
    where
        R: AsyncRead + Unpin,
    {
        for _ in 0..MAX_LEFT_OVER_READS {
            match engine.read(chunk).now_or_never() {
                Some(Ok(bytes)) if bytes > 0 => self.tail.feed(chunk.get(..bytes).unwrap_or_default()),
                _ => return,
            };
        }
    }
}
