//! A server process that is gone when the tests are, however they end.
//!
//! A shell (`guard.sh`) stands between us and the server and holds the other end of a pipe. When the pipe
//! closes, because the [`Process`] was dropped or the test process was killed, the shell kills the server.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, thread};

use tempfile::TempDir;

use crate::ports::Ports;

/// How long [`Process::stop`] waits before it kills.
const STOP_SECONDS: u64 = 10;
/// How long a process may take to be gone once it was killed.
const KILL_SECONDS: u64 = 30;
const POLL_MILLIS: u64 = 20;
const LOG_TAIL_LINES: usize = 30;

/// What every server of this crate is made of: a process, its directory, its ports and its log.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    running: Option<Running>,
    directory: TempDir,
    ports: Ports,
}

#[derive(Debug)]
struct Running {
    guard: Child,
    /// Dropping it is what ends the guard.
    pipe: Option<ChildStdin>,
    pid: u32,
}

impl Process {
    /// Nothing runs yet: the directory is made and the ports are taken.
    pub(crate) fn prepare(name: &'static str) -> Self {
        let directory = tempfile::Builder::new().prefix(&format!("amibus-{name}-")).tempdir();
        Self {
            name,
            command: Vec::new(),
            environment: Vec::new(),
            running: None,
            directory: directory.expect("a temporary directory"),
            ports: Ports::take(),
        }
    }

    /// Starts `command` and waits until `ready` says yes.
    pub(crate) fn start(&mut self, command: Vec<String>, seconds: u64, ready: impl FnMut(&Self) -> bool) {
        self.command = command;
        self.spawn(None);
        self.wait_until(seconds, ready);
    }

    /// Starts `command` with its standard output in a pipe, and waits for nothing.
    pub(crate) fn start_piped(&mut self, command: Vec<String>) -> ChildStdout {
        self.command = command;
        self.spawn(Some(Stdio::piped()));
        let output = self.running.as_mut().and_then(|running| running.guard.stdout.take());
        output.expect("the output is a pipe")
    }

    /// Sets a variable of the server's environment, from the next start on.
    pub(crate) fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The server's own directory, which goes with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What the server wrote to its standard output and error, over all its runs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.directory().join("log")
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    /// The server's port at `index`.
    #[must_use]
    pub fn port(&self, index: u16) -> u16 {
        self.ports.port(index)
    }

    /// The process id of the server, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.pid)
    }

    /// SIGKILL, and waits until it is gone. What it wrote stays.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait_for_the_end(STOP_SECONDS);
    }

    /// SIGTERM, and waits until it is gone; kills it where it takes longer than ten seconds.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.wait_for_the_end(STOP_SECONDS);
    }

    /// SIGSTOP: its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// Starts the same command again, in the same directory and on the same ports; stops it first if it runs.
    pub(crate) fn restart(&mut self, seconds: u64, ready: impl FnMut(&Self) -> bool) {
        self.stop();
        self.spawn(None);
        self.wait_until(seconds, ready);
    }

    fn signal(&self, name: &str) {
        if let Some(pid) = self.pid() {
            signal(pid, name);
        }
    }

    /// Its standard output goes to `output`, or else to the log, as its standard error does.
    fn spawn(&mut self, output: Option<Stdio>) {
        let pid_file = self.directory().join("pid");
        let _ = fs::remove_file(&pid_file);
        let log = OpenOptions::new().create(true).append(true).open(self.log()).expect("the log of a server");
        let errors: File = log.try_clone().expect("the log of a server");
        let mut guard = Command::new("sh")
            .args(["-c", include_str!("guard.sh"), "guard"])
            .args(&self.command)
            .env("DIR", self.directory())
            .env("PID_FILE", &pid_file)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.directory())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output.unwrap_or_else(|| log.into()))
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: cannot start it: {error}", self.name));
        let pipe = guard.stdin.take();
        self.running = Some(Running { guard, pipe, pid: 0 });
        self.wait_until(STOP_SECONDS, |_| pid_file.exists());
        let pid = fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
        if let Some(running) = &mut self.running {
            running.pid = pid.unwrap_or_else(|| panic!("{}: no process id", self.name));
        }
    }

    /// Polls `ready`, and panics with the end of the log where the server ends or the time does.
    pub(crate) fn wait_until(&mut self, seconds: u64, mut ready: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            // Looked at first: what a server did before it ended counts.
            let ended =
                self.running.as_mut().is_none_or(|running| !matches!(running.guard.try_wait(), Ok(None)));
            if ready(self) {
                return;
            }
            assert!(!ended, "{} ended instead of answering:\n{}", self.name, self.log_tail());
            let late = Instant::now() > deadline;
            assert!(!late, "{} does not answer after {seconds} s:\n{}", self.name, self.log_tail());
            thread::sleep(Duration::from_millis(POLL_MILLIS));
        }
    }

    /// Kills it after `seconds`, and panics where that is of no use either.
    fn wait_for_the_end(&mut self, seconds: u64) {
        let Some(mut running) = self.running.take() else { return };
        if running.ends_within(seconds) {
            return;
        }
        signal(running.pid, "KILL");
        assert!(
            running.ends_within(KILL_SECONDS),
            "{} (process {}) is still there {KILL_SECONDS} s after SIGKILL:\n{}",
            self.name,
            running.pid,
            self.log_tail()
        );
    }
}

impl Running {
    fn ends_within(&mut self, seconds: u64) -> bool {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while matches!(self.guard.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(Duration::from_millis(POLL_MILLIS));
        }
        true
    }
}

/// With the shell's own `kill`: a small machine has no other.
fn signal(pid: u32, name: &str) {
    let command = format!("kill -s {name} {pid}");
    // It may be gone already: then there is nothing to signal.
    let _ = Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status();
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failing test shows what its servers said")]
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the end of the log of {}:\n{}\n---", self.name, self.log_tail());
        }
        if env::var_os("AMIBUS_TEST_KEEP").is_some() {
            self.directory.disable_cleanup(true);
        }
        if let Some(mut running) = self.running.take() {
            drop(running.pipe.take());
            let gone = running.ends_within(KILL_SECONDS);
            // A second panic would end the whole test process and hide the first.
            assert!(
                gone || thread::panicking(),
                "the guard of {} has not ended after {KILL_SECONDS} s",
                self.name
            );
        }
    }
}
