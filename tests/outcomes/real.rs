//! amibus as a program, killed and ended, with its audit: over a simulated Asterisk, and over a real one.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use amibus::command::{
    look::{Entry, Look},
    response::channel_id,
};
use amibus_services::{Asterisk, AsteriskOptions, Program, Version};
use amibus_sim::{Sim, SimOptions};
use serde_json::Value;

/// How long anything that must happen may take.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const START_SECONDS: u64 = 60;

/// An amibus that takes commands by ZeroMQ.
struct Rig {
    amibus: Program,
    file: PathBuf,
}

/// A command on its way, ended when dropped.
struct Sending(Child);

impl Drop for Sending {
    fn drop(&mut self) {
        // Both fail where it has ended, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Rig {
    fn start(port: u16, user: &str, secret: &str) -> Self {
        let mut amibus = Program::prepare("amibus");
        let file = amibus.directory().join("amibus.toml");
        let text = format!(
            r#"
[[server]]
name = "pbx1"
url = "ami://127.0.0.1:{port}"
username = "{user}"
secret = "{secret}"
reconnect_max = "1s"

[spool]
dir = "{}/spool"

[log]
format = "json"

[shutdown]
drain = "1s"

[bus.zeromq]
publish = "tcp://127.0.0.1:{}"
commands = "tcp://127.0.0.1:{}"

[[command.allow]]
actions = ["Ping"]

[[command.allow]]
actions = ["Originate"]
fields.Channel = ["Local/2008@phones"]
fields.Context = ["flows"]

[http]
listen = "127.0.0.1:{}"
"#,
            amibus.directory().display(),
            amibus.port(1),
            amibus.port(2),
            amibus.port(0),
        );
        std::fs::write(&file, text).expect("written");
        let words = [env!("CARGO_BIN_EXE_amibus"), "run", "-c", &file.display().to_string()];
        amibus.start(words.map(str::to_owned).to_vec(), START_SECONDS, ready);
        Self { amibus, file }
    }

    fn restart(&mut self) {
        self.amibus.restart(START_SECONDS, ready);
    }

    fn send(&self, words: &[&str]) -> Sending {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amibus"));
        command.arg("send").args(words).args(["-c", &self.file.display().to_string(), "--bus", "zeromq"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Sending(command.spawn().expect("the program starts"))
    }

    /// Sends a command and waits for its response.
    fn ask(&self, words: &[&str]) -> Value {
        let mut sending = self.send(words);
        let mut text = String::new();
        let mut output = sending.0.stdout.take().expect("piped");
        std::io::Read::read_to_string(&mut output, &mut text).expect("text");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// A call that rings for long, its end awaited.
    fn call(&self, id: &str) -> Sending {
        let fields = ["Channel=Local/2008@phones", "Context=flows", "Exten=1000", "Priority=1"];
        let words = ["Originate", "--server", "pbx1", "--wait", "final", "--id", id];
        self.send(&[&words[..], &fields[..]].concat())
    }

    /// Waits until the journal has it as `fits` wants.
    fn journal(&self, id: &str, what: &str, fits: impl Fn(&Entry) -> bool) -> Entry {
        let path = self.amibus.directory().join("spool/commands.sqlite");
        wait(what, || Look::open(&path).ok()?.show(id).ok()?.filter(&fits))
    }

    /// The lines of audit about a command, over all runs.
    fn audit(&self, id: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.amibus.log()).expect("the log");
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["verdict"].is_string() && line["id"] == id).collect()
    }

    /// Waits until a command has so many lines of audit; their verdicts and outcomes.
    fn audited(&self, id: &str, lines: usize) -> Vec<(String, Option<String>)> {
        let found = wait("its lines of audit", || Some(self.audit(id)).filter(|found| found.len() >= lines));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        found
            .iter()
            .map(|line| (text(&line["verdict"]).expect("a verdict"), text(&line["outcome"])))
            .collect()
    }
}

fn ready(process: &amibus_services::Process) -> bool {
    crate::e2e::get(process.port(0), "/ready").is_some_and(|(status, _)| status == 200)
}

fn wait<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(POLL);
    }
}

fn pair(verdict: &str, outcome: Option<&str>) -> (String, Option<String>) {
    (verdict.to_owned(), outcome.map(str::to_owned))
}

/// A simulated Asterisk whose calls ring for long.
fn simulated() -> (tokio::runtime::Runtime, Sim) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let options = SimOptions { ring: PATIENCE * 10, ..SimOptions::default() };
    let sim = runtime.block_on(Sim::start(options)).expect("a simulated Asterisk");
    (runtime, sim)
}

#[test]
fn every_way_that_a_command_goes_has_one_line_of_audit() {
    let (_runtime, sim) = simulated();
    let mut rig = Rig::start(sim.addr().port(), "amibus", "amibus");
    let ping = |id: &str, server: &str, field: &str| {
        rig.ask(&["Ping", field, "--server", server, "--id", id])["data"]["error"]["code"].clone()
    };
    assert_eq!(ping("ping", "pbx1", "A=1"), Value::Null);
    assert_eq!(ping("ping", "pbx1", "A=1"), Value::Null);
    assert_eq!(ping("ping", "pbx1", "A=2"), "id_reused");
    assert_eq!(ping("nowhere", "pbx9", "A=1"), "unknown_server");
    assert_eq!(
        rig.ask(&["Hangup", "--server", "pbx1", "--id", "denied"])["data"]["error"]["code"],
        "forbidden"
    );
    let expected = [("allowed", "executed"), ("repeated", "executed"), ("unjudged", "rejected")];
    assert_eq!(rig.audited("ping", 3), expected.map(|(verdict, outcome)| pair(verdict, Some(outcome))));
    assert_eq!(rig.audited("nowhere", 1), [pair("unjudged", Some("rejected"))]);
    assert_eq!(rig.audited("denied", 1), [pair("forbidden", Some("rejected"))]);
    let line = &rig.audit("denied")[0];
    let who = (line["bus"].as_str(), line["action"].as_str(), line["field"].as_str());
    assert_eq!(who, (Some("zeromq"), Some("Hangup"), Some("action")), "{line}");
    assert!(line["sender"].as_str().is_some_and(|sender| sender.starts_with("127.0.0.1")), "{line}");

    // Two wait for the same call, and amibus leaves before it ended.
    let _first = rig.call("long");
    rig.journal("long", "Asterisk took it", |entry| entry.response.is_some());
    let _second = rig.call("long");
    wait("the second is taken", || (requests(&rig) == 7).then_some(()));
    rig.amibus.stop();
    assert_eq!(rig.audited("long", 2), [pair("left", None), pair("left", None)]);
    rig.restart();
    rig.journal("long", "its end", |entry| entry.state == "done");
    assert_eq!(rig.audited("long", 3)[2], pair("recovered", Some("executed")));
    let again = rig.call("long");
    let _ended = again;
    assert_eq!(rig.audited("long", 4)[3], pair("repeated", Some("executed")));
    assert_eq!(rig.audit("long").len(), 4);
    assert_eq!(sim.originates().len(), 1, "dialled once");
}

/// Requests that amibus took.
fn requests(rig: &Rig) -> u64 {
    let (_, text) = crate::e2e::get(rig.amibus.port(0), "/metrics").expect("metrics");
    let line = text.lines().find(|line| line.starts_with("amibus_commands_received_total{"));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or_default()
}

#[test]
fn a_call_that_real_asterisk_took_is_found_after_kill_9() {
    let asterisk = Asterisk::start(Version::V22, &AsteriskOptions::default());
    let mut rig = Rig::start(asterisk.ami_port(), "full", "full-pass");
    let sending = rig.call("killed");
    rig.journal("killed", "Asterisk took it", |entry| entry.state == "sending" && entry.response.is_some());
    rig.amibus.kill();
    drop(sending);
    assert!(rig.audit("killed").is_empty(), "nobody could tell");
    rig.restart();
    let entry = rig.journal("killed", "its outcome", |entry| entry.state == "done");
    assert_eq!(entry.outcome.as_deref(), Some("executed"));
    let response: Value = serde_json::from_slice(&entry.response.expect("recorded")).expect("JSON");
    assert_eq!(response["response"]["Message"], "Originate successfully queued", "{response}");
    assert_eq!(rig.audited("killed", 1), [pair("recovered", Some("executed"))]);
    let again = rig.ask(&[
        "Originate",
        "--server",
        "pbx1",
        "--wait",
        "final",
        "--id",
        "killed",
        "Channel=Local/2008@phones",
        "Context=flows",
        "Exten=1000",
        "Priority=1",
    ]);
    assert_eq!(again["data"]["outcome"], "executed", "{again}");
    let channels = asterisk.cli("core show channels concise");
    let ours = channel_id("pbx1", "killed");
    let ends: Vec<&str> = channels.lines().filter(|line| line.contains(&ours)).collect();
    assert_eq!(ends.len(), 2, "both ends of one Local channel, dialled once:\n{channels}");
}
