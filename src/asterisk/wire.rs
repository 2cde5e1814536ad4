//! Drives one [`Session`] over a connection: reads, writes and wakes it, one step at a time.
//!
//! A step waits for the socket and the session's own deadlines, and for nothing else: what the session
//! says goes to a closure that does not wait. Dropping a step loses nothing, so it can stand in a `select!`.
//!
//! What has arrived is read before anything is concluded from silence or from a write that failed: a process
//! that was stopped for a while, or a server that closed, costs no event that is there to be read.

use std::{
    io,
    time::{Instant, SystemTime},
};

use amibus_ami::{Action, Output, SendError, Session, SessionError, Tail};
use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    time,
};

use super::dial::Stream;
use crate::failpoint;

/// Bytes asked of the socket at a time: 150 events, and at 50,000 a second 3 ms of them.
const READ_BYTES: usize = 64 * 1024;

/// Why a session is over.
#[derive(Debug, Error)]
pub(super) enum WireError {
    /// The server closed the connection.
    #[error("Asterisk closed the connection")]
    Closed,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(#[source] io::Error),
    /// The session itself found that it cannot go on.
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// A session and its connection.
pub(super) struct Wire {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: WriteHalf<Box<dyn Stream>>,
    session: Session,
    unread: BytesMut,
    unwritten: Bytes,
    unflushed: bool,
    /// An action of somebody's was queued, and it was not seen yet that nothing is left to be written.
    sending: bool,
    /// A write failed: nothing more is written, and reading goes on to the end.
    mute: bool,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, session: Session) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (unread, unwritten) = (BytesMut::new(), Bytes::new());
        Self { reader, writer, session, unread, unwritten, unflushed: false, sending: false, mute: false }
    }

    /// Waits until one thing has happened, and does it. `hear` is told what the session says and when the
    /// bytes of it were read. Returns how many bytes were read.
    pub(super) async fn step(
        &mut self,
        mut hear: impl FnMut(Output<'_>, SystemTime),
    ) -> Result<usize, WireError> {
        if self.unwritten.is_empty()
            && !self.mute
            && let Some(bytes) = self.session.next_transmit(now())
        {
            self.unwritten = bytes.into();
        }
        let writing = !self.unwritten.is_empty();
        let deadline = self.session.next_deadline();
        self.unread.reserve(READ_BYTES);
        tokio::select! {
            biased;
            pushed = push(&mut self.writer, &self.unwritten), if !self.mute && (writing || self.unflushed) => {
                match pushed {
                    Ok(count) if count > 0 || !writing => {
                        self.unwritten.advance(count);
                        self.unflushed = writing;
                        if !writing && std::mem::take(&mut self.sending) {
                            failpoint::hit("written");
                        }
                    }
                    _ => self.mute = true,
                }
                Ok(0)
            }
            read = self.reader.read_buf(&mut self.unread) => {
                let count = read.map_err(broken)?;
                if count == 0 {
                    return Err(WireError::Closed);
                }
                let read_at = SystemTime::now();
                let consumed = self.session.input(&self.unread, now(), &mut |output| hear(output, read_at))?;
                self.unread.advance(consumed);
                // Where there is always something to read, deadlines would never have their turn.
                self.tick(&mut hear)?;
                Ok(count)
            }
            () = at(deadline) => self.tick(&mut hear).map(|()| 0),
        }
    }

    fn tick(&mut self, hear: &mut impl FnMut(Output<'_>, SystemTime)) -> Result<(), WireError> {
        let now = now();
        if self.session.next_deadline().is_some_and(|deadline| deadline <= now) {
            let ticked_at = SystemTime::now();
            self.session.tick(now, &mut |output| hear(output, ticked_at))?;
        }
        Ok(())
    }

    /// Queues an action, to be written before `write_by` and answered before `deadline`.
    pub(super) fn send(
        &mut self,
        action: &Action,
        token: u64,
        write_by: Instant,
        deadline: Instant,
    ) -> Result<(), SendError> {
        self.session.send_within(action, token, write_by, deadline)?;
        self.sending = true;
        Ok(())
    }

    pub(super) fn can_send(&self) -> bool {
        self.session.check_send().is_ok()
    }

    /// Whether a ping is overdue: Asterisk may be at an action that takes long, or gone.
    pub(super) fn is_silent(&self) -> bool {
        self.session.check_send() == Err(SendError::Silent)
    }

    /// Says goodbye, if that can be done at once, so that Asterisk's log shows a logoff.
    pub(super) async fn leave(
        &mut self,
        within: time::Duration,
        mut hear: impl FnMut(Output<'_>, SystemTime),
    ) {
        self.session.logoff(now());
        let goodbye = async { while self.step(&mut hear).await.is_ok() {} };
        let _ = time::timeout(within, goodbye).await;
    }

    /// Accounts for every action that has no reply; returns how many bytes of a cut-off message are left.
    pub(super) fn close(&mut self, mut hear: impl FnMut(Output<'_>)) -> usize {
        match self.session.close(&self.unread, &mut |output| hear(output)) {
            Tail::Clean => 0,
            Tail::Cut(tail) => tail.len(),
        }
    }
}

/// Writes some of `bytes`, and says how many; without any, flushes what was written before.
async fn push(writer: &mut WriteHalf<Box<dyn Stream>>, bytes: &[u8]) -> io::Result<usize> {
    match bytes.is_empty() {
        true => writer.flush().await.map(|()| 0),
        false => writer.write(bytes).await,
    }
}

/// The time of the runtime, which tests may stop.
pub(super) fn now() -> Instant {
    time::Instant::now().into_std()
}

/// Returns at `deadline`; without one, never.
pub(super) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Asterisk ends a TLS connection without TLS's own goodbye.
fn broken(error: io::Error) -> WireError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => WireError::Closed,
        _ => WireError::Io(error),
    }
}
