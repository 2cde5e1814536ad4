//! Processes of the benchmark's own, spoken to by lines, and what a process has used so far.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write as _},
    process::{self, Child, ChildStdin, Command, Stdio},
    sync::{
        LazyLock, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// Ticks a second in `/proc/PID/stat`, as every Linux has it (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;
/// Orders that may wait for a role, and lines that may wait for who started it.
const LINES_MAX: usize = 1 << 16;

/// What this role is told, line by line.
static ORDERS: LazyLock<Mutex<Receiver<String>>> = LazyLock::new(|| {
    let (sender, orders) = mpsc::sync_channel(LINES_MAX);
    thread::spawn(move || {
        let lines = io::stdin().lines().map_while(Result::ok);
        // It ends by itself where nobody waits for orders any longer.
        let _ = lines.map(|line| sender.send(line)).take_while(Result::is_ok).count();
        process::exit(1);
    });
    Mutex::new(orders)
});

/// Another role of this program, killed when dropped.
pub(crate) struct Role {
    name: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Role {
    /// Starts this program with other words.
    pub(crate) fn start(words: &[&str]) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err(io::Error::other("no pipes")) };
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Ok(Self { name: words.join(" "), child, input, lines })
    }

    /// Its next line.
    pub(crate) fn line(&self, within: Duration) -> io::Result<String> {
        self.lines.recv_timeout(within).map_err(|error| match error {
            RecvTimeoutError::Timeout => {
                io::Error::new(io::ErrorKind::TimedOut, format!("{}: no line within {within:?}", self.name))
            }
            RecvTimeoutError::Disconnected => io::Error::other(format!("{} ended", self.name)),
        })
    }

    /// Waits for a line that begins so, and answers what follows.
    pub(crate) fn expect(&self, begins: &str, within: Duration) -> io::Result<String> {
        let line = self.line(within)?;
        let rest = line.strip_prefix(begins).map(|rest| rest.trim().to_owned());
        rest.ok_or_else(|| io::Error::other(format!("{} said {line:?} instead of {begins:?}", self.name)))
    }

    /// The same, for numbers.
    pub(crate) fn numbers(&self, begins: &str, within: Duration) -> io::Result<Vec<u64>> {
        let rest = self.expect(begins, within)?;
        rest.split_whitespace().map(|word| word.parse().map_err(io::Error::other)).collect()
    }

    /// Says something to it.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.input, "{line}")?;
        self.input.flush()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line to whoever started this role.
pub(crate) fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// From now on this role ends with whoever started it, whatever it is at.
pub(crate) fn listen() {
    LazyLock::force(&ORDERS);
}

/// Waits until this role is told something.
pub(crate) fn told() -> io::Result<String> {
    let orders = ORDERS.lock().unwrap_or_else(PoisonError::into_inner);
    orders.recv().map(|line| line.trim().to_owned()).map_err(io::Error::other)
}

/// Seconds of processors that a process has used (`utime` and `stime` of proc(5)).
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / TICKS_A_SECOND
}

/// Seconds for which the machine's processors had nothing to do, all together (`idle` and `iowait` of proc(5)).
pub(crate) fn idle_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.split_whitespace().skip(4).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / TICKS_A_SECOND
}

/// The most memory that a process has had at a time, in megabytes (`VmHWM` of proc(5)).
pub(crate) fn peak_megabytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0) * 1024.0 / 1e6
}
