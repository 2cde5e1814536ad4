//! `check --connect` against real Asterisks.

use std::process::Stdio;

use amibus_services::{Asterisk, AsteriskOptions, Version};

use super::program::{Ended, File, amibus, run, wait};

fn check(asterisk: &Asterisk, user: &str, secret: &str) -> Ended {
    let file = File::new(&format!(
        r#"
[[server]]
name = "pbx1"
url = "ami://127.0.0.1:{}"
username = "{user}"
secret = "{secret}"

[bus.zeromq]
publish = "tcp://127.0.0.1:*"

[[command.allow]]
actions = ["Command"]
fields.Command = ["core show uptime"]
"#,
        asterisk.ami_port()
    ));
    run(&["check", "--connect", "-c", &file.name()])
}

/// What is told of a server, a line each.
fn told(ended: &Ended, expected: &[&str]) {
    let lines: Vec<&str> = ended.out.lines().filter_map(|line| line.strip_prefix("server pbx1: ")).collect();
    for start in expected {
        assert!(
            lines.iter().any(|line| line.starts_with(start)),
            "{start:?} is not in\n{}",
            lines.join("\n")
        );
    }
    assert_eq!(lines.len(), expected.len(), "{}", lines.join("\n"));
}

fn both_settings(version: Version, major: &str) {
    let plain = AsteriskOptions { timestamp: false, debug_seq: false, ..AsteriskOptions::default() };
    let asterisk = Asterisk::start(version, &plain);
    let ended = check(&asterisk, "full", "full-pass");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let logged_in = format!("logged in, Asterisk {major}.");
    told(
        &ended,
        &[
            &logged_in,
            "may run 1",
            "sees the events of every class",
            "warning: events carry no Timestamp",
            "warning: events carry no SequenceNumber",
        ],
    );

    let ended = check(&asterisk, "orig", "orig-pass");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    told(
        &ended,
        &[
            "logged in, Asterisk AMI ",
            "may run 22 actions (write = originate)",
            "warning: may not run CoreShowChannels: no snapshot",
            "warning: command.allow #1 allows Command, and the AMI user may not run it",
            "warning: sees neither FullyBooted (read has no system)",
            "warning: no event came within 2 s",
        ],
    );

    let ended = check(&asterisk, "full", "wrong");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    told(&ended, &["FAILED: wrong username or secret"]);
    assert!(!ended.out.contains("full-pass") && !ended.err.contains("full-pass"));
}

fn all_settings(version: Version) {
    let marked = AsteriskOptions { timestamp: true, debug_seq: true, ..AsteriskOptions::default() };
    let asterisk = Asterisk::start(version, &marked);
    // The class `command` is missing, so this is told by the events themselves.
    let ended = check(&asterisk, "bridge", "bridge-pass");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    told(
        &ended,
        &[
            "logged in, Asterisk ",
            "may run ",
            "warning: command.allow #1 allows Command, and the AMI user may not run it",
            "sees FullyBooted (read has system); which other events",
            "events carry Timestamp",
            "events carry SequenceNumber",
        ],
    );
}

#[test]
fn asterisk_22_tells_what_its_users_cannot_do() {
    both_settings(Version::V22, "22");
    all_settings(Version::V22);
}

#[test]
fn asterisk_16_tells_what_its_users_cannot_do() {
    both_settings(Version::V16, "16");
    all_settings(Version::V16);
}

#[test]
fn a_server_that_is_not_there_is_told() {
    let file = File::new(
        r#"
[[server]]
name = "pbx1"
url = "ami://127.0.0.1:1"
username = "amibus"
secret = "s3cret"

[bus.zeromq]
publish = "tcp://127.0.0.1:*"
"#,
    );
    let ended = run(&["check", "--connect", "-c", &file.name()]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.contains("server pbx1: FAILED: "), "{ended:?}");
    assert!(ended.err.contains("error: 1 thing does not work"), "{ended:?}");

    let mut command = amibus(&["check", "--connect", "-c", &file.name()]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
    drop(child.stdout.take());
    assert_eq!(wait(&mut child).code(), Some(1), "whether or not somebody reads on");
}
