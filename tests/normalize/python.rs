//! The function that docs/events.md shows rebuilds what amibus wrote.

use std::{io::Write as _, process::Command};

use amibus_services::python;

use super::{corpus::every_message, data};

/// Compares what `restore` makes of each `data` with the message, both in one JSON a line.
const MAIN: &str = r#"
import json, sys
count = 0
for line in open(sys.argv[1], encoding="utf-8"):
    case = json.loads(line)
    sent, rebuilt = base64.b64decode(case["sent"]), restore(case["data"])
    if sent != rebuilt:
        sys.exit(f"sent {sent!r}\nrebuilt {rebuilt!r}\nfrom {case['data']}")
    count += 1
print(count)
"#;

/// One of every so many recorded messages is tried; strange ones always are.
const EVERY: usize = 7;

#[test]
fn the_function_of_the_documentation_rebuilds() {
    let documentation = include_str!("../../docs/events.md");
    let (_, after) = documentation.split_once("```python\n").expect("a block of Python");
    let (function, _) = after.split_once("```").expect("its end");
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("restore.py");
    std::fs::write(&script, format!("{function}{MAIN}")).expect("the script is written");
    let cases = directory.path().join("cases");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&cases).expect("a file"));
    let (mut seen, mut written) = (0_usize, 0_u64);
    let mut case = |raw: &[u8]| {
        let sent = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, raw);
        writeln!(file, r#"{{"sent":"{sent}","data":{}}}"#, data(raw)).expect("a line is written");
        written += 1;
    };
    every_message(|_, frame| {
        let strange = std::str::from_utf8(frame.raw()).is_err() || frame.raw().contains(&b'\\');
        if strange || seen.is_multiple_of(EVERY) {
            case(frame.raw());
        }
        seen += 1;
    });
    for raw in STRANGE {
        case(raw);
    }
    file.into_inner().expect("all is written");
    let output = Command::new(python()).arg(&script).arg(&cases).output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), written.to_string());
}

const STRANGE: &[&[u8]] = &[
    b"Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: x\r\nPrivilege: y\r\nEvent: Hangup\r\nNoSpace:x\r\nNo colon\r\n: z",
    b"Event: X\r\n$bytes: \xFF\r\n$order: 1\r\n$$: 2\r\nA: \xFE\r\nA: ok",
    b"Event: PresenceStateChange\r\nSubtype: what\\?\r\nMessage: \\\\ \\v\\a",
    b"Event: VarSet\r\nValue: \\'\\\"\\n\r\nVariable: a=b",
    b"Event: QueueEntry\r\nCallerIDName: it's\r\nPosition: 007\r\nWait: 7",
    b"Event: Newexten\r\nCallerIDName: it's\r\nChanVariable: A=\\'\r\nDestChanVariable: A=1\r\nDestChanVariable: A=2",
    b"Variable: x\r\nEvent: Hangup\r\nna\xFFme: y",
];
