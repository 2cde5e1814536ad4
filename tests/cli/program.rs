//! The built program, run with a deadline.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// How long any run of the program may take.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// What a run left.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) out: String,
    pub(super) err: String,
}

/// The program with these arguments, and nothing of amibus in its environment.
pub(super) fn amibus(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amibus"));
    command.args(arguments).env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AMIBUS_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub(super) fn run(arguments: &[&str]) -> Ended {
    Running::start(amibus(arguments)).end()
}

/// A run in progress. Killed when dropped.
pub(super) struct Running {
    pub(super) child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let out = lines(child.stdout.take().expect("piped"));
        let err = lines(child.stderr.take().expect("piped"));
        Self { child, out, err, seen: Vec::new() }
    }

    /// The next line of standard output that `wanted` accepts.
    pub(super) fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        find(&self.out, &mut self.seen, wanted)
    }

    /// The next line of standard error that `wanted` accepts.
    pub(super) fn log(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        find(&self.err, &mut self.seen, wanted)
    }

    pub(super) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end; what was taken by [`Running::line`] and [`Running::log`] is not in the result.
    pub(super) fn end(mut self) -> Ended {
        let status = wait(&mut self.child);
        let all = |lines: &Receiver<String>| lines.iter().map(|line| line + "\n").collect();
        Ended { code: status.code(), out: all(&self.out), err: all(&self.err) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail where it has ended, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (to, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn find(from: &Receiver<String>, seen: &mut Vec<String>, wanted: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        match from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if wanted(&line) => return line,
            Ok(line) => seen.push(line),
            Err(error) => panic!("the line did not come ({error}); seen:\n{}", seen.join("\n")),
        }
    }
}

pub(super) fn wait(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status;
        }
        assert!(Instant::now() < deadline, "the program did not end within {LIMIT:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A folder with one file in it, gone with the value.
pub(super) struct File {
    folder: tempfile::TempDir,
}

impl File {
    pub(super) fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Self { folder };
        file.write(text);
        file
    }

    /// `@/` stands for the file's own folder.
    pub(super) fn write(&self, text: &str) {
        let folder = format!("{}/", self.folder().display());
        std::fs::write(self.path(), text.replace("@/", &folder)).expect("written");
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder().join("amibus.toml")
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn name(&self) -> String {
        self.path().display().to_string()
    }
}
