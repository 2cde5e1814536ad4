//! Against the simulator, whose numbers can be left out and written in any order.

use std::{io::Write as _, process::Command};

use amibus_services::python;
use amibus_sim::{Flood, Sim, SimOptions, User};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::rig::Bridge;

struct Stage {
    sim: Sim,
    runtime: Runtime,
}

impl Stage {
    fn new(change: impl FnOnce(&mut SimOptions)) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let mut options = SimOptions { sequence_numbers: true, ..SimOptions::default() };
        change(&mut options);
        let sim = runtime.block_on(Sim::start(options)).expect("a simulated Asterisk");
        Self { sim, runtime }
    }

    fn bridge(&self, more: &str) -> Bridge {
        let mut bridge = Bridge::new(self.sim.addr().port(), "amibus", "amibus", more);
        bridge.start();
        bridge.until_up(1);
        self.until_sessions();
        bridge
    }

    /// Waits until both sessions of amibus are logged in.
    fn until_sessions(&self) {
        let deadline = std::time::Instant::now() + super::rig::PATIENCE;
        while self.sim.sessions() != 2 {
            assert!(std::time::Instant::now() < deadline, "{} sessions", self.sim.sessions());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Publishes so many numbered events.
    fn flood(&self, tag: &str, total: u64) {
        let flood = Flood { tag: tag.to_owned(), total, ..Flood::default() };
        self.runtime.block_on(self.sim.flood_with(&flood));
    }

    /// One event with this number.
    fn emit(&self, number: u64) {
        let _entered = self.runtime.enter();
        self.sim.emit(format!(
            "Event: UserEvent\r\nPrivilege: user,all\r\nTimestamp: 1795262400.000001\r\nSequenceNumber: {number}\r\n\
             UserEvent: emitted\r\nTag: emitted\r\n\r\n"
        ));
    }
}

fn of(tag: &'static str) -> impl Fn(&Value) -> bool {
    move |message| message["data"]["Tag"] == tag
}

fn range(gap: &Value) -> Value {
    json!([gap["reason"], gap["missed"], gap["first"], gap["last"]])
}

#[test]
fn numbers_that_do_not_come_are_told_out_of_order_ones_are_not() {
    let stage = Stage::new(|_| {});
    let bridge = stage.bridge("");
    stage.flood("before", 10);
    let next = stage.sim.next_sequence();
    for number in [next + 2, next + 1, next] {
        stage.emit(number);
    }
    stage.sim.skip_sequence(3);
    stage.flood("between", 10);
    let first = stage.sim.next_sequence();
    stage.sim.skip_sequence(5);
    stage.flood("after", 1);
    bridge.until("the gap", 1, |message| message["type"] == "ami.link.gap");
    let gaps = bridge.links("gap");
    assert_eq!(gaps.iter().map(range).collect::<Vec<_>>(), [json!(["skipped", 5, first, first + 4])]);
    assert!(gaps[0]["from"].as_str() < gaps[0]["until"].as_str(), "{}", gaps[0]);
    assert_eq!(gaps[0]["bus"], Value::Null);
}

#[test]
fn who_sees_only_some_events_is_told_of_no_numbers() {
    let stage = Stage::new(|_| {});
    let bridge = stage.bridge("sequence_numbers = \"some\"");
    stage.flood("before", 3);
    stage.sim.skip_sequence(5);
    stage.flood("after", 1);
    bridge.until("the last event", 1, of("after"));
    std::thread::sleep(amibus::seen::holes::GRACE * 2);
    assert_eq!(bridge.links("gap"), [] as [Value; 0]);
}

#[test]
fn a_gap_that_was_open_when_amibus_was_killed_is_told_by_the_next_one() {
    // Logins are numbered events too, which this user does not see.
    let stage = Stage::new(|options| options.users = vec![User::new("amibus", "amibus").read("user,system")]);
    let mut bridge = stage.bridge("");
    stage.flood("seen", 5);
    bridge.until("the flood", 5, of("seen"));
    let first = stage.sim.next_sequence();
    bridge.kill();
    stage.flood("unseen", 7);
    bridge.start();
    bridge.until_up(2);
    assert_eq!(bridge.links("gap"), [] as [Value; 0], "the next number is to tell how much");
    bridge.kill();
    stage.flood("unseen", 3);
    bridge.start();
    bridge.until_up(3);
    stage.until_sessions();
    let next = stage.sim.next_sequence();
    assert!(next >= first + 10);
    stage.flood("last", 1);
    bridge.until("the gap", 1, |message| message["type"] == "ami.link.gap");
    let gaps = bridge.links("gap");
    let wanted = json!(["disconnected", next - first, first, next - 1]);
    assert_eq!(gaps.iter().map(range).collect::<Vec<_>>(), [wanted]);
    let ups = bridge.links("up");
    assert_eq!(ups.iter().map(|up| up["resumed"] == true).collect::<Vec<_>>(), [false, true, true]);
    let stamp = |message: &Value| message["time"].as_str().map(str::to_owned);
    let seen = bridge.said().iter().find(|message| of("seen")(message)).and_then(stamp);
    let last = bridge.said().iter().find(|message| of("last")(message)).and_then(stamp);
    assert!(gaps[0]["from"].as_str() <= seen.as_deref(), "{gaps:?}, {seen:?}");
    assert!(gaps[0]["until"].as_str() > seen.as_deref() && gaps[0]["until"].as_str() <= last.as_deref());
}

#[test]
fn a_hole_that_was_waited_for_when_amibus_was_killed_is_told_by_the_next_one() {
    let stage = Stage::new(|_| {});
    let mut bridge = stage.bridge("");
    stage.flood("before", 5);
    let first = stage.sim.next_sequence();
    stage.sim.skip_sequence(3);
    stage.flood("after", 1);
    bridge.until("the event behind it", 1, of("after"));
    bridge.kill();
    bridge.start();
    bridge.until_up(2);
    stage.flood("last", 1);
    bridge.until("both gaps", 2, |message| message["type"] == "ami.link.gap");
    let gaps = bridge.links("gap");
    assert_eq!(range(&gaps[0]), json!(["skipped", 3, first, first + 2]));
    assert_eq!(gaps[1]["reason"], "disconnected");
}

#[test]
fn what_a_filter_kept_out_of_the_spool_is_not_counted_as_missed() {
    let stage = Stage::new(|_| {});
    let mut bridge = stage.bridge("[[filter]]\ndo = \"drop\"\nfields.Tag = [\"noise\"]\n");
    stage.flood("seen", 5);
    let first = stage.sim.next_sequence();
    stage.flood("noise", 5);
    stage.flood("seen", 1);
    bridge.until("the flood", 6, of("seen"));
    bridge.kill();
    stage.flood("noise", 5);
    bridge.start();
    bridge.until_up(2);
    stage.flood("last", 1);
    bridge.until("the gap", 1, |message| message["type"] == "ami.link.gap");
    let gaps = bridge.links("gap");
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((&gaps[0]["reason"], &gaps[0]["missed"]), (&json!("disconnected"), &Value::Null));
    assert!(
        gaps[0]["first"].as_u64() <= Some(first) && gaps[0]["last"].as_u64() > Some(first + 6),
        "{gaps:?}"
    );
}

#[test]
fn a_call_that_ends_unseen_is_corrected_by_the_snapshot() {
    let stage = Stage::new(|options| options.talk = std::time::Duration::from_millis(800));
    let bridge = stage.bridge("");
    let mut caller = std::net::TcpStream::connect(stage.sim.addr()).expect("connects");
    let actions = "Action: Login\r\nUsername: amibus\r\nSecret: amibus\r\nEvents: off\r\n\r\nAction: Originate\r\n\
                   Channel: Local/answer@short\r\nContext: short\r\nExten: answer\r\nPriority: 1\r\nAsync: true\r\n\r\n";
    caller.write_all(actions.as_bytes()).expect("sent");
    bridge.until("the call", 1, |message| message["type"] == "ami.event.Newchannel");
    stage.runtime.block_on(stage.sim.refuse()).expect("refuses");
    stage.sim.drop_sessions();
    bridge.until("down", 1, |message| message["type"] == "ami.link.down");
    let deadline = std::time::Instant::now() + super::rig::PATIENCE;
    while !stage.sim.channels().is_empty() {
        assert!(std::time::Instant::now() < deadline, "the call never ended");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    stage.runtime.block_on(stage.sim.accept()).expect("accepts");
    bridge.until_up(2);
    let said = bridge.said();
    for snapshot in said.iter().filter(|message| message["type"] == "ami.link.snapshot") {
        assert_eq!(snapshot["data"]["at"], snapshot["sequence"]);
    }
    let count = |kind: &str| said.iter().filter(|message| message["type"] == kind).count();
    assert!(count("ami.event.Hangup") < count("ami.event.Newchannel"), "a call ended unseen");
    // In its order, and with all link messages first, as a bus with several topics may deliver them.
    let mut apart = said.clone();
    apart.sort_by_key(|message| !message["type"].as_str().is_some_and(|kind| kind.starts_with("ami.link.")));
    for messages in [said, apart] {
        assert_eq!(left_up(&messages), "[]");
    }
}

/// What the class of docs/links.md takes to be up after these messages.
fn left_up(messages: &[Value]) -> String {
    let (_, after) =
        include_str!("../../docs/links.md").split_once("```python\n").expect("a block of Python");
    let (class, _) = after.split_once("```").expect("its end");
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("calls.py");
    let main = "import json, sys\ncalls = Calls()\nfor line in open(sys.argv[1]):\n    calls.take(json.loads(line))\n\
                print(sorted(calls.up))\n";
    std::fs::write(&script, format!("{class}\n{main}")).expect("written");
    let lines: String = messages.iter().map(|message| format!("{message}\n")).collect();
    let file = folder.path().join("messages");
    std::fs::write(&file, lines).expect("written");
    let output = Command::new(python()).arg(&script).arg(&file).output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
