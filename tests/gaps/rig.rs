//! The built program against one Asterisk, real or simulated, and a bus that is away: what it says lies in its spool.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use amibus::spool::newest::newest;
use serde_json::Value;

/// How long anything that must happen may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// An amibus that can be killed and started again.
pub(super) struct Bridge {
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl Bridge {
    /// For a server at that port of loopback. `more` are further keys of it.
    pub(super) fn new(port: u16, username: &str, secret: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Nobody listens there once it is dropped, so nothing that was said is removed from the spool.
        let away = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let text = format!(
            "[[server]]\nname = \"pbx1\"\nurl = \"ami://127.0.0.1:{port}\"\nusername = \"{username}\"\nsecret = \"{secret}\"\n\
             reconnect_max = \"500ms\"\n{more}\n[spool]\ndir = \"{}\"\n[bus.nats]\nurl = \"nats://127.0.0.1:{away}\"\n\
             stream = \"AMI\"\n",
            folder.path().display()
        );
        std::fs::write(folder.path().join("amibus.toml"), text).expect("written");
        Self { folder, child: None }
    }

    pub(super) fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file());
        let mut command = Command::new(env!("CARGO_BIN_EXE_amibus"));
        command.arg("run").arg("-c").arg(self.folder.path().join("amibus.toml"));
        command.env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.expect("a log"));
        self.child = Some(command.spawn().expect("the program starts"));
    }

    /// Kill -9.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("waited for");
        }
    }

    /// What was said so far, in its order.
    pub(super) fn said(&self) -> Vec<Value> {
        let mut said = Vec::new();
        // Not yet there, or a record that is just being written: the next look sees it.
        let _ = newest(&self.folder.path().join("spool/pbx1"), u64::MAX, |record| {
            said.extend(record.body.map(|body| serde_json::from_slice::<Value>(&body).expect("JSON")));
        });
        said
    }

    /// The `data` of the link messages of one state.
    pub(super) fn links(&self, state: &str) -> Vec<Value> {
        let of_state = |message: &Value| message["type"] == format!("ami.link.{state}").as_str();
        self.said().into_iter().filter(of_state).map(|mut message| message["data"].take()).collect()
    }

    /// Waits until so many messages fit.
    pub(super) fn until(&self, what: &str, count: usize, fits: impl Fn(&Value) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.said().iter().filter(|message| fits(message)).count() < count {
            assert!(Instant::now() < deadline, "{what} was not said:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the link went up for the so-manieth time, and the snapshots came.
    pub(super) fn until_up(&self, times: usize) {
        self.until("up", times, |message| message["type"] == "ami.link.up");
        self.until("the snapshot", times, |message| message["data"]["list"] == "QueueStatus");
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.kill();
    }
}
