//! The README's examples, run as they stand but for the addresses and the dialplan of the test servers.

use std::{process::Command, time::Duration};

use amibus_services::{Program, Python};

use super::stack::{Stack, stack};

/// The contents of the README's blocks in a language.
fn blocks(language: &str) -> Vec<String> {
    let text = include_str!("../../README.md");
    let open = format!("```{language}\n");
    text.split(&open)
        .skip(1)
        .filter_map(|rest| rest.split_once("\n```"))
        .map(|(code, _)| code.to_owned())
        .collect()
}

fn here(stack: &Stack, code: &str) -> String {
    let port = |index| format!("127.0.0.1:{}", stack.amibus.port(index));
    code.replace("nats://127.0.0.1:4222", &stack.nats.url())
        .replace("127.0.0.1:9092", &stack.kafka.brokers())
        .replace("127.0.0.1:5556", &port(1))
        .replace("127.0.0.1:5557", &port(2))
        .replace("Local/100@sales", "Local/2001@phones")
        .replace("\"sales\"", "\"flows\"")
        .replace("\"200\"", "\"1000\"")
        .replace("pbx1", "pbx22")
}

#[test]
fn the_examples_in_python_work() {
    let stack = &*stack();
    let examples = blocks("python");
    assert_eq!(examples.len(), 3, "one for each bus");
    for (number, example) in examples.iter().enumerate() {
        let file = stack.amibus.directory().join(format!("readme-{number}.py"));
        std::fs::write(&file, here(stack, example)).expect("written");
        let mut python = Python::spawn(&file, &[]);
        let mut lines = Vec::new();
        while let Some(line) = python.line(Duration::from_secs(60)) {
            lines.push(line);
        }
        python.process().stop();
        assert!(lines.iter().any(|line| line == "executed"), "{lines:?}:\n{example}");
        assert!(lines.iter().any(|line| line.starts_with("ami.")), "{lines:?}:\n{example}");
    }
}

#[test]
fn the_configuration_is_right() {
    let program = Program::prepare("check");
    let secret = program.directory().join("secret");
    std::fs::write(&secret, "x\n").expect("written");
    let [text] = &blocks("toml")[..] else { panic!("one configuration in the README") };
    let spool = program.directory().join("spool");
    let text = text
        .replace("/run/secrets/ami", &secret.display().to_string())
        .replace("/var/lib/amibus", &spool.display().to_string());
    let file = program.directory().join("amibus.toml");
    std::fs::write(&file, text).expect("written");
    let checked = Command::new(env!("CARGO_BIN_EXE_amibus")).args(["check", "-c"]).arg(&file).output();
    let checked = checked.expect("amibus runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    let said = String::from_utf8_lossy(&checked.stdout);
    for bus in ["nats", "kafka", "zeromq", "pbx1", "Originate"] {
        assert!(said.contains(bus), "check does not tell of {bus}:\n{said}");
    }
}
