//! `run`, `tail`, `send` and `check --connect` over each real bus.

use amibus_services::{Kafka, Nats};
use amibus_sim::{Sim, SimOptions};
use serde_json::Value;

use super::program::{File, Running, amibus, run};

fn over(bus: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sim = runtime.block_on(Sim::start(SimOptions::demo())).expect("a simulated Asterisk");
    let file = File::new("");
    file.write(&format!(
        r#"
[[server]]
name = "pbx1"
url = "ami://{}"
username = "amibus"
secret = "amibus"

{bus}

[spool]
dir = {:?}

[[command.allow]]
actions = ["Ping"]
"#,
        sim.addr(),
        file.folder().display().to_string()
    ));
    let name = file.name();
    let checked = run(&["check", "--connect", "-c", &name]);
    assert_eq!(checked.code, Some(0), "{checked:?}");

    let mut running = Running::start(amibus(&["run", "-c", &name]));
    running.log(|line| line.contains("taking commands"));
    let tail = run(&["tail", "-c", &name, "--event", "Newexten", "--count", "2"]);
    assert_eq!(tail.code, Some(0), "{tail:?}");
    for line in tail.out.lines() {
        let event: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(
            (&event["type"], &event["data"]["Event"]),
            (&"ami.event.Newexten".into(), &"Newexten".into())
        );
    }

    let sent = run(&["send", "Ping", "--server", "pbx1", "-c", &name, "--timeout", "30s"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let response: Value = serde_json::from_str(&sent.out).expect("one JSON");
    assert_eq!(response["data"]["response"]["Ping"], "Pong");

    let nobody = run(&["send", "Ping", "--server", "pbx2", "-c", &name, "--timeout", "30s"]);
    assert_eq!(nobody.code, Some(1), "{nobody:?}");

    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn over_nats() {
    let nats = Nats::jetstream();
    over(&format!("[bus.nats]\nurl = {:?}\ncommands = true\n", nats.url()));
}

#[test]
fn over_jetstream() {
    let nats = Nats::jetstream();
    let stream = "stream = \"AMI\"\ncommands_stream = \"AMI_COMMANDS\"";
    over(&format!("[bus.nats]\nurl = {:?}\ncommands = true\n{stream}\n", nats.url()));
}

#[test]
fn over_kafka() {
    let kafka = Kafka::plain();
    over(&format!("[bus.kafka]\nbrokers = {:?}\ncommands = true\n", kafka.brokers()));
}
