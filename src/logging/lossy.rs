//! Log lines through a thread of their own: whoever does not read standard error stops no work.
//!
//! Lines wait in a bounded queue. Where it is full a line is lost and counted, and [`Keeper::tell_lost`] says so as
//! soon as there is room again.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait to be written.
pub const MAX_WAITING_LINES: usize = 4096;
/// How long the last lines may take at the end.
pub const END_LIMIT: Duration = Duration::from_secs(1);
/// The wait between two looks for room at the end.
const END_PAUSE: Duration = Duration::from_millis(5);

enum Message {
    Line(Vec<u8>),
    /// Everything before it was written.
    End(SyncSender<()>),
}

/// Takes lines and never waits.
#[derive(Clone)]
pub(super) struct Lossy {
    to: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

/// Held as long as lines are to be written. Dropped, it waits at most [`END_LIMIT`] for the last of them.
#[derive(Debug)]
pub struct Keeper {
    to: SyncSender<Message>,
    lost: Arc<AtomicU64>,
    told: u64,
}

/// Writes to standard error from now on.
///
/// # Errors
/// When there is no standard error, or no thread.
pub(super) fn to_stderr() -> io::Result<(Lossy, Keeper)> {
    // A copy of its own, so that nobody who writes there otherwise waits for our lock.
    start(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

fn start(out: impl Write + Send + 'static) -> io::Result<(Lossy, Keeper)> {
    let (to, lines) = sync_channel(MAX_WAITING_LINES);
    let lost = Arc::new(AtomicU64::new(0));
    thread::Builder::new().name("log".to_owned()).spawn(move || write(&lines, out))?;
    Ok((Lossy { to: to.clone(), lost: Arc::clone(&lost) }, Keeper { to, lost, told: 0 }))
}

fn write(lines: &Receiver<Message>, mut out: impl Write) {
    for message in lines {
        match message {
            // Where standard error is closed, nobody wants to know.
            Message::Line(line) => drop(out.write_all(&line)),
            Message::End(written) => {
                let _ = out.flush();
                let _ = written.try_send(());
            }
        }
    }
}

impl Write for Lossy {
    /// Takes a line whole.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.to.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lossy {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Keeper {
    /// Logs how many lines were lost, where some were since it was last told.
    pub fn tell_lost(&mut self) {
        let lost = self.lost.load(Ordering::Relaxed);
        if lost == self.told {
            return;
        }
        tracing::warn!(lines = lost - self.told, "log lines were lost: standard error was not read in time");
        // The line may have been lost too, and is then told again.
        if self.lost.load(Ordering::Relaxed) == lost {
            self.told = lost;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.tell_lost();
        let deadline = Instant::now() + END_LIMIT;
        let (written, done) = sync_channel(1);
        let mut message = Message::End(written);
        while let Err(TrySendError::Full(back)) = self.to.try_send(message) {
            if Instant::now() >= deadline {
                return;
            }
            message = back;
            thread::sleep(END_PAUSE);
        }
        let _ = done.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_last_lines_are_written_at_the_end() {
        let shared = Shared::default();
        let (mut lossy, keeper) = start(shared.clone()).expect("a thread");
        for number in 0..1000 {
            lossy.write_all(format!("{number}\n").as_bytes()).expect("taken");
        }
        drop(keeper);
        let text = String::from_utf8(shared.0.lock().expect("whole").clone()).expect("text");
        assert_eq!(text.lines().last(), Some("999"));
    }

    #[test]
    fn who_does_not_read_stops_nobody() {
        let (reader, stuck) = io::pipe().expect("a pipe");
        let (mut lossy, keeper) = start(stuck).expect("a thread");
        let line = [b'x'; 1024];
        let before = Instant::now();
        for _ in 0..2 * MAX_WAITING_LINES {
            lossy.write_all(&line).expect("taken");
        }
        assert!(keeper.lost.load(Ordering::Relaxed) > 0);
        drop(keeper);
        assert!(before.elapsed() < 10 * END_LIMIT, "{:?}", before.elapsed());
        drop(reader);
    }
}
