//! Consumers and requesters in another language: Python with pyzmq, nats-py and confluent-kafka.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::ChildStdout;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::cache;
use crate::process::Process;

/// Lines that a script may be ahead of the test; then it waits in its `print`.
const LINES_AHEAD: usize = 10_000;

/// The interpreter that has the clients of all three buses.
///
/// # Panics
/// Where it is not installed.
#[must_use]
pub fn python() -> PathBuf {
    cache::installed("python/bin/python", "python")
}

/// A running script, killed when dropped.
#[derive(Debug)]
pub struct Python {
    process: Process,
    lines: Receiver<String>,
}

impl Python {
    /// Starts the script at the path `script`, with unbuffered output.
    ///
    /// # Panics
    /// Where Python is not installed.
    #[must_use]
    pub fn spawn(script: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        let mut process = Process::prepare("python");
        let script: PathBuf = script.into();
        assert!(script.exists(), "there is no script {}", script.display());
        let script = script.canonicalize().expect("the path of the script");
        let mut command = vec![python().display().to_string(), "-u".to_owned(), script.display().to_string()];
        command.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let output = process.start_piped(command);
        let (sender, lines) = sync_channel(LINES_AHEAD);
        thread::spawn(move || forward(output, &sender));
        Self { process, lines }
    }

    /// The next line that the script prints, without its end; none when its output ended.
    ///
    /// # Panics
    /// Where nothing comes for `wait`.
    pub fn line(&self, wait: Duration) -> Option<String> {
        match self.lines.recv_timeout(wait) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("the script printed nothing for {wait:?}:\n{}", self.process.log_tail())
            }
        }
    }

    /// The lines up to the first one that `last` accepts, that one included.
    ///
    /// # Panics
    /// Where it does not come within `wait`, or the output ends before.
    pub fn lines_until(&self, wait: Duration, mut last: impl FnMut(&str) -> bool) -> Vec<String> {
        let deadline = Instant::now() + wait;
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.line(deadline.saturating_duration_since(Instant::now())) else {
                panic!("the script ended after {lines:?}:\n{}", self.process.log_tail());
            };
            let found = last(&line);
            lines.push(line);
            if found {
                return lines;
            }
        }
    }

    /// The process: `kill`, `pause`, `log` (its standard error).
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn forward(output: ChildStdout, sender: &SyncSender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if sender.send(line).is_err() {
            return;
        }
    }
}
