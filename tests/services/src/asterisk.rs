//! A real Asterisk in a root filesystem of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Process;
use crate::tls::Certificates;
use crate::{asterisk_config, cache};

const READY_SECONDS: u64 = 180;

/// Which of the two Asterisks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian sid's: 22 at the time of writing.
    V22,
    /// Debian bullseye's: 16.28.
    V16,
}

impl Version {
    /// `22` or `16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V22 => "22",
            Self::V16 => "16",
        }
    }
}

/// What differs between the Asterisks of the tests. Its users and call flows are those of `asterisk/etc`.
#[derive(Debug, Clone)]
pub struct AsteriskOptions {
    /// `timestampevents`: every event carries `Timestamp`.
    pub timestamp: bool,
    /// `debug`: every event carries `SequenceNumber`, `File`, `Line` and `Func`.
    pub debug_seq: bool,
    /// `systemname`, none if empty.
    pub system_name: String,
    /// More of `manager.conf`: users. They are read after those of `asterisk/etc`.
    pub manager: String,
    /// More of `extensions.conf`.
    pub dialplan: String,
}

impl Default for AsteriskOptions {
    fn default() -> Self {
        Self {
            timestamp: true,
            debug_seq: false,
            system_name: String::new(),
            manager: String::new(),
            dialplan: String::new(),
        }
    }
}

/// One Asterisk, killed when dropped. Its other operations are those of [`Process`].
#[derive(Debug)]
pub struct Asterisk {
    version: Version,
    process: Process,
    certificates: Certificates,
}

impl Asterisk {
    /// Starts one and waits until it is fully booted.
    ///
    /// # Panics
    /// Where it is not installed or does not start.
    #[must_use]
    pub fn start(version: Version, options: &AsteriskOptions) -> Self {
        let root = root(version);
        let mut process = Process::prepare("asterisk");
        let certificates = Certificates::make(&process.directory().join("tls"));
        asterisk_config::write(&process, version, options, &root);
        let script = "set -- -f -C /srv/amibus/etc/asterisk.conf; asterisk -V; \
                      if chown -R asterisk:asterisk /srv/amibus 2>/dev/null; then set -- -U asterisk -G asterisk \"$@\"; fi; \
                      exec asterisk \"$@\"";
        let mut command = enter();
        command.extend(["sh", "-c", script].map(str::to_owned));
        process.set_env("ROOT", &root.display().to_string());
        process.start(command, READY_SECONDS, is_fully_booted);
        Self { version, process, certificates }
    }

    /// Which one it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The port of AMI in the clear.
    #[must_use]
    pub fn ami_port(&self) -> u16 {
        self.process.port(asterisk_config::AMI)
    }

    /// The port of AMI over TLS.
    #[must_use]
    pub fn amis_port(&self) -> u16 {
        self.process.port(asterisk_config::AMIS)
    }

    /// The port of HTTP: `/rawman`, `/mxml`, `/manager`.
    #[must_use]
    pub fn http_port(&self) -> u16 {
        self.process.port(asterisk_config::HTTP)
    }

    /// The port of HTTPS.
    #[must_use]
    pub fn https_port(&self) -> u16 {
        self.process.port(asterisk_config::HTTPS)
    }

    /// The port on which the flow 1901 expects a FastAGI server of the test.
    #[must_use]
    pub fn fastagi_port(&self) -> u16 {
        self.process.port(asterisk_config::FASTAGI)
    }

    /// The authority that signed the server's certificate (for `localhost` and `127.0.0.1`).
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.certificates.ca_file()
    }

    /// Asterisk's own log: notices, warnings, errors and what the dialplan runs. [`Process::log`] is its output.
    #[must_use]
    pub fn full_log(&self) -> PathBuf {
        self.process.directory().join("log.d/full")
    }

    /// The server's configuration directory, for a test that changes a file and reloads.
    #[must_use]
    pub fn etc(&self) -> PathBuf {
        self.process.directory().join("etc")
    }

    /// Runs a command of Asterisk's command line, such as `core show channels`, and returns what it printed.
    ///
    /// # Panics
    /// Where Asterisk does not run.
    pub fn cli(&self, command: &str) -> String {
        let words = enter();
        let output = Command::new(&words[0])
            .args(&words[1..])
            .args(["asterisk", "-C", "/srv/amibus/etc/asterisk.conf", "-rx", command])
            .env("ROOT", root(self.version))
            .env("DIR", self.process.directory())
            .output()
            .expect("the command line of asterisk");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "asterisk -rx '{command}': {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts it again on the same ports and data, and waits until it is fully booted.
    pub fn restart(&mut self) {
        self.process.restart(READY_SECONDS, is_fully_booted);
    }
}

fn root(version: Version) -> PathBuf {
    let root = cache::installed(&format!("asterisk/{}", version.name()), "asterisk");
    assert!(root.join("srv/amibus").is_dir(), "{} is not what tests/services/install makes", root.display());
    root
}

/// The words that run what follows them in the root filesystem; as root of a user namespace for who is not root.
fn enter() -> Vec<String> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let mut words = vec!["unshare"];
    if !root {
        words.push("-r");
    }
    words.extend(["-m", "--propagation", "private", "sh", "-c", include_str!("asterisk-run.sh"), "asterisk"]);
    words.into_iter().map(str::to_owned).collect()
}

/// A session that logs in gets `FullyBooted` at once, or when it becomes true.
fn is_fully_booted(process: &Process) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", process.port(asterisk_config::AMI))) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    if stream.write_all(b"Action: Login\r\nUsername: full\r\nSecret: full-pass\r\n\r\n").is_err() {
        return false;
    }
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        if seen.windows(18).any(|window| window == b"Event: FullyBooted") {
            return true;
        }
    }
    false
}

impl Deref for Asterisk {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Asterisk {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Where the modules of the Asterisk in `root` are: the two have them in different places.
pub(crate) fn modules(root: &Path) -> &'static str {
    let places =
        ["/usr/lib/x86_64-linux-gnu/asterisk/modules", "/usr/lib/aarch64-linux-gnu/asterisk/modules"];
    let found = places.into_iter().find(|place| root.join(&place[1..]).is_dir());
    found.unwrap_or("/usr/lib/asterisk/modules")
}
