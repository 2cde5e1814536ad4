//! `check` on files, right and wrong.

use super::program::{File, Running, amibus, run};

const RIGHT: &str = r#"
[[server]]
name = "pbx1"
url = "ami://127.0.0.1"
username = "amibus"
secret = "s3cret"

[[filter]]
events = ["RTCP*"]
do = "drop"

[bus.zeromq]
publish = "tcp://127.0.0.1:15556"
commands = "tcp://127.0.0.1:15557"

[[command.allow]]
actions = ["Originate"]
fields.Context = ["sales"]
"#;

#[test]
fn a_right_file_is_told_in_plain_words() {
    let file = File::new(RIGHT);
    let ended = run(&["check", "-c", &file.name()]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{ended:?}");
    for expected in [
        "server     pbx1 at ami://127.0.0.1:5038 as amibus; snapshot of CoreShowChannels",
        "filter #1 drops RTCP* of every server",
        "bus        zeromq: best effort on tcp://127.0.0.1:15556",
        "  #1 Originate on every server, if Context is sales",
        "warning: rule #1 allows Originate, and any Channel may be dialled",
    ] {
        assert!(ended.out.contains(expected), "{expected} is not in\n{}", ended.out);
    }
    assert!(!ended.out.contains("s3cret"), "{}", ended.out);
}

#[test]
fn a_wrong_file_is_78_with_all_errors() {
    let file = File::new(&RIGHT.replace("username", "usrname").replace("publish", "pubish"));
    for command in ["check", "run"] {
        let ended = run(&[command, "-c", &file.name()]);
        assert_eq!(ended.code, Some(78), "{ended:?}");
        let name = file.name();
        let expected = format!(
            "{name}:2:1: server.pbx1.username: missing; give a string\n\
             {name}:5:1: server.pbx1.usrname: unknown key; did you mean \"username\"?\n\
             {name}:12:1: bus.zeromq.publish: missing; give a string\n\
             {name}:13:1: bus.zeromq.pubish: unknown key; did you mean \"publish\"?\n"
        );
        assert_eq!((ended.out.as_str(), ended.err.as_str()), ("", expected.as_str()));
    }
}

#[test]
fn a_missing_file_is_78() {
    let ended = run(&["run", "-c", "/no/such/amibus.toml"]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert_eq!(
        ended.err,
        "/no/such/amibus.toml:1:1: cannot read the file: No such file or directory (os error 2)\n"
    );
}

#[test]
fn variables_go_before_the_file() {
    let file = File::new(RIGHT);
    let name = file.name();
    let mut command = amibus(&["check", "-c", &name]);
    command.env("AMIBUS_SERVER__PBX1__URL", "ami://192.0.2.1").env("AMIBUS_SPOOL__MAX_BYTES", "1GiB");
    let ended = Running::start(command).end();
    assert!(
        ended.out.contains("pbx1 at ami://192.0.2.1:5038") && ended.out.contains("up to 1GiB"),
        "{ended:?}"
    );
    let mut command = amibus(&["check", "-c", &name]);
    command.env("AMIBUS_SPOOL__MAX_BYTE", "1GiB");
    let ended = Running::start(command).end();
    assert_eq!(ended.code, Some(78));
    assert_eq!(
        ended.err,
        "environment variable AMIBUS_SPOOL__MAX_BYTE: sets nothing that is known; did you mean \
         \"AMIBUS_SPOOL__MAX_BYTES\"?\n"
    );
}

#[test]
fn tail_and_send_need_no_server_and_no_secret() {
    let file = File::new("[bus.zeromq]\npublish = \"tcp://127.0.0.1:1\"\ncommands = \"tcp://127.0.0.1:2\"\n");
    let ended = run(&["send", "Ping", "--server", "pbx1", "-c", &file.name(), "--timeout", "500ms"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.out.is_empty() && ended.err.starts_with("error: "), "{ended:?}");
    let mut command = amibus(&["send", "Ping", "--server", "pbx1", "-c", &file.name(), "--timeout", "500ms"]);
    command.env("AMIBUS_SERVER__PBX1__SECRET", "x").env("AMIBUS_HTTP__LISTEN", "y");
    let ended = Running::start(command).end();
    assert_eq!(ended.code, Some(1), "what is not for clients is left alone: {ended:?}");
    let file = File::new("[bus.zeromq]\npublish = 1\n");
    let ended = run(&["tail", "-c", &file.name()]);
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert_eq!(
        ended.err,
        format!("{}:2:11: bus.zeromq.publish: must be a string, not a whole number\n", file.name())
    );
}
