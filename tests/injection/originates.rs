//! Hostile Originates, UserEvents and variables, and what the dialplan must see of those that are right.

use serde_json::{Value, json};

use super::{
    cases::{Cases, Expect},
    dangerous,
};

/// Values of the variable JUDGE_VALUE, as sent, and the line that must reach Asterisk; the dialplan must see the former.
pub(super) const VALUES: [(&str, &str); 8] = [
    ("plain", "plain"),
    ("a=b,\"c\" \\d;e|f", "a=b\\,\\\"c\\\" \\\\d;e|f"),
    ("${SHELL(touch /srv/amibus/pwned-value)}", "${SHELL(touch /srv/amibus/pwned-value)}"),
    ("$[1 + 1] `touch /srv/amibus/pwned-tick`", "$[1 + 1] `touch /srv/amibus/pwned-tick`"),
    ("x,SHELL(touch /srv/amibus/pwned-comma)=y", "x\\,SHELL(touch /srv/amibus/pwned-comma)=y"),
    ("\\", "\\\\"),
    ("a\u{2028}b é 😀", "a\u{2028}b é 😀"),
    ("Action: Logoff", "Action: Logoff"),
];

/// The header whose value the judge does not foretell.
pub(super) const CHANNEL_ID: &str = "ChannelId";

/// What makes an Originate a right one, but its variables.
fn right() -> Value {
    json!({ "Channel": "Local/s@judge/n", "Context": "judge", "Exten": "far", "Priority": 1 })
}

/// Adds the cases.
pub(super) fn add(cases: &mut Cases) {
    hostile(cases);
    for (number, (value, line)) in VALUES.iter().enumerate() {
        let name = format!("value {number}");
        let id = format!("value-{number}-%BUS%");
        let mut fields = right();
        fields["Variable"] = json!({ "__JUDGE_ID": id, "__JUDGE_VALUE": value });
        fields["ASYNC"] = json!(true);
        let headers = [
            ("Channel", "Local/s@judge/n".to_owned()),
            ("Context", "judge".to_owned()),
            ("Exten", "far".to_owned()),
            ("Priority", "1".to_owned()),
            ("Variable", format!("__JUDGE_ID={id}")),
            ("Variable", format!("__JUDGE_VALUE={line}")),
            ("Async", "true".to_owned()),
            (CHANNEL_ID, String::new()),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
        cases.fields(&name, "Originate", &fields.to_string(), Expect::Runs("Originate".to_owned(), headers));
    }
    for danger in dangerous::DANGERS {
        // Each rule of this amibus names other values; what is never allowed is tried elsewhere.
        let name = format!("row {} {} {:?}", danger.row, danger.action, danger.fields);
        let mut fields = serde_json::Map::new();
        for (field, value) in danger.fields {
            fields.insert((*field).to_owned(), json!(value));
        }
        let body = json!({ "id": format!("row-{}-%BUS%", danger.row), "server": "pbx1", "action": danger.action,
                           "fields": fields });
        cases.raw(&name, danger.action, body.to_string(), Expect::Rejected(&["forbidden"]));
    }
}

fn hostile(cases: &mut Cases) {
    let mut bad = |name: &str, key: &str, value: Value, codes: &'static [&'static str]| {
        let mut fields = right();
        fields[key] = value;
        cases.fields(name, "Originate", &fields.to_string(), Expect::Rejected(codes));
    };
    let invalid: &[&str] = &["invalid_field"];
    let forbidden: &[&str] = &["forbidden"];
    bad("a forged Async", "Async", json!("false"), invalid);
    bad("a forged async in another case", "aSYNC", json!("0"), invalid);
    bad("a forged ChannelId of a call", "ChannelId", json!("amibus-x"), invalid);
    bad("two channels", "Channel", json!(["Local/s@judge/n", "Local/1902@flows"]), forbidden);
    bad("another context in a channel", "Channel", json!("Local/1902@flows"), forbidden);
    bad("a context behind a context", "Channel", json!("Local/1902@flows/@judge/n"), forbidden);
    bad("another case of a channel", "Channel", json!("LOCAL/s@judge/n"), forbidden);
    bad("a blank before a channel", "Channel", json!(" Local/s@judge/n"), forbidden);
    bad("more behind a channel", "Channel", json!("Local/s@judge/n&Local/1902@flows"), forbidden);
    bad("another case of a context", "Context", json!("Judge"), forbidden);
    bad("two contexts", "Context", json!(["judge", "flows"]), forbidden);
    bad("no context at all", "Context", json!([]), forbidden);
    bad("an application beside", "Application", json!("System"), forbidden);
    bad("an application in another case", "aPPlication", json!("System"), forbidden);
    bad("a subroutine before", "PreDialGoSub", json!("flows,1902,1"), forbidden);
    for (name, variable) in [
        ("a function as a variable", json!({ "SHELL(touch /srv/amibus/pwned-f)": "x" })),
        ("an inherited function", json!({ "__SHELL(touch /srv/amibus/pwned-i)": "x" })),
        ("a function in text", json!("CHANNEL(hangup_handler_push)=flows,1902,1")),
        ("a function in an array", json!(["A=1", "_GLOBAL(X)=1"])),
        ("a half of a function", json!({ "SHELL)": "x" })),
        ("a variable for the shell", json!({ "MONITOR_EXEC": "touch" })),
        ("a variable for transfers", json!({ "__TRANSFER_CONTEXT": "flows" })),
        ("a variable for recordings", json!({ "_TOUCH_MIXMONITOR": "x.wav,,touch /srv/amibus/pwned-t;" })),
        ("a variable for an agi script", json!({ "meetme_agi_background": "x" })),
    ] {
        bad(name, "Variable", variable, forbidden);
    }
    for (name, variable) in [
        ("crlf in a variable's name", json!({ "A\r\nAction: Logoff\r\nB": "x" })),
        ("crlf in a variable's value", json!({ "A": "x\r\nAction: Logoff" })),
        ("nul in a variable's value", json!({ "A": "x\0" })),
        ("a control before a variable's name", json!({ "\u{1}MONITOR_EXEC": "touch" })),
        ("a tab before a variable's name", json!({ "\tTRANSFER_CONTEXT": "flows" })),
        ("an escape in a variable's name", json!({ "_\u{1b}MONITOR_EXEC": "touch" })),
        ("a control before a variable in text", json!("\u{2}__MONITOR_EXEC=touch")),
        ("a comma in a variable's name", json!({ "A=1,SHELL(id)": "x" })),
        ("a quote in a variable's name", json!({ "A\"": "x" })),
        ("a backslash in a variable's name", json!({ "A\\": "x" })),
        ("no name of a variable", json!({ "": "x" })),
        ("no value of a variable", json!(["A=1", "B"])),
        ("an object in a variable", json!({ "A": { "B": "x" } })),
        ("null as a variable", json!({ "A": null })),
        ("a variable of 1023 bytes", json!({ "A": ",".repeat(505) + "x" })),
        ("121 variables", Value::Object((0..121).map(|n| (format!("V{n}"), json!("x"))).collect())),
    ] {
        bad(name, "Variable", variable, invalid);
    }
    let forged = json!({ "UserEvent": "Judge", "Event": "Hangup", "Uniqueid": "x" }).to_string();
    cases.fields("a UserEvent with an Event", "UserEvent", &forged, Expect::Rejected(forbidden));
    let forged = json!({ "UserEvent": "Judge", "X": "a\r\n\r\nEvent: Hangup\r\n\r\n" }).to_string();
    cases.fields("a UserEvent with an event inside", "UserEvent", &forged, Expect::Rejected(invalid));
    let set =
        json!({ "Variable": "JUDGE_GLOBAL", "Value": "${SHELL(touch /srv/amibus/pwned-set)}" }).to_string();
    cases.fields("an expression to set", "Setvar", &set, Expect::Rejected(forbidden));
    let set = json!({ "Variable": ["JUDGE_GLOBAL", "GLOBAL(X)"], "Value": "x" }).to_string();
    cases.fields("a second variable to set", "Setvar", &set, Expect::Rejected(forbidden));
}
