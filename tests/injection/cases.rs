//! Hostile commands, and the few odd ones that are right: what each must become on the wire.

use serde_json::{Value, json};

/// What must become of a command.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    /// Rejected with one of these codes, and nothing reaches Asterisk.
    Rejected(&'static [&'static str]),
    /// This action with exactly these headers reaches Asterisk, once.
    Runs(String, Vec<(String, String)>),
}

/// One command. `%BUS%` in its body stands for the bus, so that ids differ.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// What the topic says, where a bus has one.
    pub(super) topic: (&'static str, &'static str),
    /// Whether it makes sense only where topics name server and action.
    pub(super) needs_topic: bool,
    pub(super) body: Vec<u8>,
    pub(super) expect: Expect,
}

const INVALID: &[&str] = &["invalid_field"];
const MALFORMED: &[&str] = &["malformed"];
const FORBIDDEN: &[&str] = &["forbidden"];

/// Collects the cases; each has a name of its own.
#[derive(Default)]
pub(super) struct Cases(pub(super) Vec<Case>);

impl Cases {
    pub(super) fn raw(&mut self, name: &str, action: &'static str, body: impl Into<Vec<u8>>, expect: Expect) {
        let (name, topic) = (name.to_owned(), ("pbx1", action));
        assert!(self.0.iter().all(|case| case.name != name), "{name} is there twice");
        self.0.push(Case { name, topic, needs_topic: false, body: body.into(), expect });
    }

    /// A whole command around `fields`, JSON as it stands.
    pub(super) fn fields(&mut self, name: &str, action: &'static str, fields: &str, expect: Expect) {
        let body = format!(
            r#"{{"id":"{}-%BUS%","server":"pbx1","action":"{action}","fields":{fields}}}"#,
            name.replace(' ', "-")
        );
        self.raw(name, action, body, expect);
    }

    fn bad_ping(&mut self, name: &str, fields: &str, codes: &'static [&'static str]) {
        self.fields(name, "Ping", fields, Expect::Rejected(codes));
    }

    /// A Ping whose field `X` has this value (JSON) and arrives as `value`.
    fn good_value(&mut self, name: &str, json: &str, value: &str) {
        let mark = format!("{name}-%BUS%");
        let runs = runs("Ping", &[("X", value), ("Mark", &mark)]);
        self.fields(name, "Ping", &format!(r#"{{"X":{json},"Mark":"{mark}"}}"#), runs);
    }

    fn bad(&mut self, name: &str, body: impl Into<Vec<u8>>, codes: &'static [&'static str]) {
        self.raw(name, "Ping", body, Expect::Rejected(codes));
    }
}

fn runs(action: &str, headers: &[(&str, &str)]) -> Expect {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Expect::Runs(action.to_owned(), headers.iter().map(own).collect())
}

/// Every case but those of the dangerous actions.
pub(super) fn all() -> Vec<Case> {
    let mut cases = Cases::default();
    lines(&mut cases);
    names(&mut cases);
    sizes(&mut cases);
    reserved(&mut cases);
    shapes(&mut cases);
    text(&mut cases);
    heads(&mut cases);
    cloud_events(&mut cases);
    super::originates::add(&mut cases);
    contradictions(&mut cases);
    cases.0
}

/// Ends of lines in values.
fn lines(cases: &mut Cases) {
    for (name, json) in [
        ("cr in a value", r#""x\rAction: Logoff""#),
        ("lf in a value", r#""x\nAction: Logoff""#),
        ("a whole action in a value", r#""x\r\n\r\nAction: Command\r\nCommand: core stop now\r\n\r\n""#),
        ("nul in a value", r#""x\u0000y""#),
        ("a value that ends in cr", r#""x\r""#),
        ("an empty line in a value", r#""\r\n""#),
        ("crlf in a later value of an array", r#"["x","y\r\nAction: Logoff"]"#),
    ] {
        cases.bad_ping(name, &format!(r#"{{"X":{json}}}"#), INVALID);
    }
    for (name, json, value) in [
        (
            "controls that end no line",
            r#""\u0001\u000b\u000c\u001b[31m\u007f""#,
            "\u{1}\u{b}\u{c}\u{1b}[31m\u{7f}",
        ),
        ("next line and its kin", r#""a\u0085b\u2028c\u2029d""#, "a\u{85}b\u{2028}c\u{2029}d"),
        ("an action in words", r#""Action: Logoff""#, "Action: Logoff"),
        ("escapes that stay escapes", r#""\\r\\nAction: Logoff %0d%0a""#, r"\r\nAction: Logoff %0d%0a"),
        ("blanks around a value", r#""  x  ""#, "  x  "),
        ("an empty value", r#""""#, ""),
    ] {
        cases.good_value(name, json, value);
    }
}

/// Names of headers and of actions.
fn names(cases: &mut Cases) {
    for (name, json) in [
        ("crlf in a name", r#""X\r\nAction: Logoff\r\nY""#),
        ("lf in a name", r#""X\nAction""#),
        ("nul in a name", r#""X\u0000""#),
        ("a colon in a name", r#""Action: Logoff""#),
        ("a name with a blank before", r#"" Action""#),
        ("a name with a blank behind", r#""Action ""#),
        ("a name with a no-break space behind", "\"Action\u{a0}\""),
        ("a tab in a name", r#""X\tY""#),
        ("next line in a name", r#""X\u0085Y""#),
        ("no name", r#""""#),
        ("a blank as a name", r#"" ""#),
    ] {
        cases.bad_ping(name, &format!(r#"{{{json}:"x"}}"#), INVALID);
    }
    for (name, action) in [
        ("crlf in the action", r"Ping\r\nAction: Logoff"),
        ("nul in the action", r"Ping\u0000"),
        ("a blank behind the action", "Ping "),
        ("a dot in the action", "Ping.x"),
        ("an action beyond ascii", "Píng"),
        ("a full-width action", "Ｐｉｎｇ"),
        ("no action", ""),
    ] {
        let body = format!(r#"{{"id":"x-%BUS%","server":"pbx1","action":"{action}"}}"#);
        // Where the topic says Ping, it contradicts.
        cases.bad(name, body, &["invalid_field", "contradiction"]);
    }
    for (name, field) in
        [("a separator in a name", "X\u{2028}Y"), ("a full-width colon in a name", "Action：x")]
    {
        let mark = format!("{name}-%BUS%");
        let expect = runs("Ping", &[(field, "x"), ("Mark", &mark)]);
        cases.fields(name, "Ping", &format!(r#"{{"{field}":"x","Mark":"{mark}"}}"#), expect);
    }
}

/// Lines of 1022 and 1023 bytes, 120 headers and more, and what is too large altogether.
fn sizes(cases: &mut Cases) {
    for (name, bytes) in [("a line of 1021 bytes", 1021), ("a line of 1022 bytes", 1022)] {
        let value = "x".repeat(bytes - "X: ".len());
        cases.good_value(name, &json!(value).to_string(), &value);
    }
    let wide = "é".repeat(509) + "x";
    cases.good_value("a line of 1022 bytes and fewer characters", &json!(wide).to_string(), &wide);
    for (name, value) in [
        ("a line of 1023 bytes", "x".repeat(1020)),
        ("a line of 1024 bytes", "x".repeat(1021)),
        ("a line of 1023 bytes and fewer characters", "é".repeat(510)),
        ("a line of 1023 bytes and an action behind", "x".repeat(1020) + "Action: Logoff"),
        ("a line of 20000 bytes", "x".repeat(20_000)),
    ] {
        cases.bad_ping(name, &json!({ "X": value }).to_string(), INVALID);
    }
    cases.bad_ping("a name of 1023 bytes", &json!({ "X".repeat(1021): "" }).to_string(), INVALID);
    let count = |count: usize| (0..count).map(|n| format!("v{n}")).collect::<Vec<_>>();
    for (name, headers) in
        [("121 headers", 121), ("126 headers", 126), ("127 headers", 127), ("5000 headers", 5000)]
    {
        cases.bad_ping(name, &json!({ "X": count(headers) }).to_string(), INVALID);
        let fields: Vec<String> = (0..headers).map(|n| format!(r#""X{n}":"v""#)).collect();
        cases.bad_ping(
            &format!("{name} of many names"),
            &format!("{{{}}}", fields.join(",")),
            &["invalid_field", "too_large"],
        );
    }
    let mark = "120 headers-%BUS%".to_owned();
    let mut headers: Vec<(String, String)> =
        count(119).into_iter().map(|value| ("X".to_owned(), value)).collect();
    headers.push(("Mark".to_owned(), mark.clone()));
    let fields = format!(r#"{{"X":{},"Mark":"{mark}"}}"#, json!(count(119)));
    cases.fields("120 headers", "Ping", &fields, Expect::Runs("Ping".to_owned(), headers));
    cases.bad_ping(
        "more than max_command_bytes",
        &json!({ "X": "x".repeat(70_000) }).to_string(),
        &["too_large"],
    );
    let padded = format!(r#"{{"server":"pbx1","action":"Ping"{}}}"#, " ".repeat(70_000));
    cases.bad("blanks beyond max_command_bytes", padded, &["too_large"]);
    cases.bad("900 kB", json!({ "id": "x".repeat(900_000) }).to_string(), &["too_large"]);
}

/// Headers that are amibus's own, in any case and any disguise.
fn reserved(cases: &mut Cases) {
    for field in [
        "Action",
        "action",
        "aCTION",
        "ActionID",
        "actionid",
        "ACTIONID",
        "ChannelId",
        "channelID",
        "OtherChannelId",
    ] {
        let name = format!("a forged {field}");
        cases.bad_ping(&name, &json!({ field: "Logoff" }).to_string(), INVALID);
    }
    cases.bad_ping("a forged Action by an escape", r#"{"\u0041ction":"Logoff"}"#, INVALID);
    cases.bad_ping("a forged Action in an array", r#"{"X":"1","Action":["Logoff"]}"#, INVALID);
    cases.bad_ping("the same header in two cases", r#"{"X":"1","x":"2"}"#, INVALID);
    let lookalike = "Actiоn";
    let mark = "a letter that looks alike-%BUS%";
    cases.fields(
        "a letter that looks alike",
        "Ping",
        &format!(r#"{{"{lookalike}":"Logoff","Mark":"{mark}"}}"#),
        runs("Ping", &[(lookalike, "Logoff"), ("Mark", mark)]),
    );
    for name in ["Login", "Logoff", "Challenge", "Events", "Filter", "WaitEvent", "lOGOFF"] {
        let body = format!(r#"{{"id":"x-{name}-%BUS%","server":"pbx1","action":"{name}"}}"#);
        let case = format!("the action {name}");
        // Kafka and ZeroMQ have no topic; elsewhere the topic says the same.
        cases.raw(&case, Box::leak(name.to_owned().into_boxed_str()), body, Expect::Rejected(FORBIDDEN));
    }
}

/// JSON of the wrong shape, or of none.
fn shapes(cases: &mut Cases) {
    for (name, body) in [
        ("nothing", ""),
        ("an array", "[]"),
        ("a string", r#""Ping""#),
        ("a number", "1"),
        ("null", "null"),
        ("two documents", r#"{"server":"pbx1","action":"Ping"}{"server":"pbx1","action":"Logoff"}"#),
        ("text behind", "{\"server\":\"pbx1\",\"action\":\"Ping\"}\r\nAction: Logoff\r\n\r\n"),
        ("an action in plain ami", "Action: Logoff\r\n\r\n"),
        ("the same key twice", r#"{"server":"pbx1","action":"Ping","action":"Ping"}"#),
        ("the same key twice by an escape", r#"{"server":"pbx1","action":"Ping","\u0061ction":"Logoff"}"#),
        ("fields twice", r#"{"server":"pbx1","action":"Ping","fields":{},"fields":{"X":"1"}}"#),
        ("a field twice", r#"{"server":"pbx1","action":"Ping","fields":{"X":"1","X":"2"}}"#),
        ("a number beyond all", r#"{"server":"pbx1","action":"Ping","fields":{"X":1e400}}"#),
        ("not a number", r#"{"server":"pbx1","action":"Ping","fields":{"X":NaN}}"#),
        ("infinity", r#"{"server":"pbx1","action":"Ping","fields":{"X":-Infinity}}"#),
        (
            "a number that would change",
            r#"{"server":"pbx1","action":"Ping","fields":{"X":123456789012345678901}}"#,
        ),
        ("a comment", r#"{"server":"pbx1",/* */"action":"Ping"}"#),
        ("a comma behind", r#"{"server":"pbx1","action":"Ping",}"#),
        ("cut off", r#"{"server":"pbx1","action":"Pi"#),
        (
            "a raw line end in a string",
            "{\"server\":\"pbx1\",\"action\":\"Ping\",\"fields\":{\"X\":\"a\r\nb\"}}",
        ),
    ] {
        cases.bad(name, body, MALFORMED);
    }
    for depth in [6, 200, 20_000] {
        let deep = format!(
            r#"{{"server":"pbx1","action":"Ping","fields":{{"X":{}{}}}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        );
        cases.bad(&format!("{depth} arrays deep"), deep, MALFORMED);
    }
    let deep = r#"{"a":"#.repeat(5000) + "1" + &"}".repeat(5000);
    cases.bad("5000 objects deep", deep, MALFORMED);
    for (name, fields) in [
        ("null as a value", r#"{"X":null}"#),
        ("an object as a value", r#"{"X":{"a":"b"}}"#),
        ("an array in an array", r#"{"X":["a",["b"]]}"#),
        ("a prototype", r#"{"__proto__":{"action":"Logoff"}}"#),
        ("fields as an array", r#"["X"]"#),
        ("fields as a string", r#""Action: Logoff""#),
    ] {
        cases.bad_ping(name, fields, INVALID);
    }
    for (name, key) in
        [("an unknown key", "Fields"), ("a prototype beside", "__proto__"), ("a header beside", "Variable")]
    {
        let body = json!({ "id": format!("{key}-%BUS%"), "server": "pbx1", "action": "Ping", key: {} });
        cases.bad(name, body.to_string(), &["unknown_field"]);
    }
    cases.good_value("a number with an exponent", "1e5", "100000");
    cases.good_value("a negative zero", "-0", "-0");
    cases.good_value("a flag", "true", "true");
    let mark = "a prototype as text-%BUS%";
    cases.fields(
        "a prototype as text",
        "Ping",
        &format!(r#"{{"__proto__":"x","E":[],"Mark":"{mark}"}}"#),
        runs("Ping", &[("__proto__", "x"), ("Mark", mark)]),
    );
}

/// Text that is none, or that looks like something else.
fn text(cases: &mut Cases) {
    let around = |inside: &[u8]| {
        [&br#"{"server":"pbx1","action":"Ping","fields":{"X":""#[..], inside, br#""}}"#].concat()
    };
    for (name, inside) in [
        ("bytes that are no utf-8", &b"\xff\xfe"[..]),
        ("an overlong lf", b"\xc0\x8aAction: Logoff"),
        ("an overlong nul", b"\xc0\x80"),
        ("a surrogate in utf-8", b"\xed\xa0\x80"),
        ("beyond unicode", b"\xf4\x90\x80\x80"),
        ("half a character", b"\xc3"),
        ("half a pair", br"\ud800"),
        ("a pair the wrong way round", br"\udc00\ud800"),
    ] {
        cases.bad(name, around(inside), MALFORMED);
    }
    let plain = br#"{"server":"pbx1","action":"Ping"}"#;
    cases.bad("a byte order mark", [&b"\xef\xbb\xbf"[..], plain].concat(), MALFORMED);
    let wide: Vec<u8> = plain.iter().flat_map(|byte| [*byte, 0]).collect();
    cases.bad("utf-16", wide, MALFORMED);
    cases.good_value("a pair of surrogates", r#""\ud83d\ude00""#, "😀");
    cases.good_value("text the other way round", r#""\u202eabc\u2066\ufeff""#, "\u{202e}abc\u{2066}\u{feff}");
    cases.good_value("noncharacters", r#""\uffff\ufffe""#, "\u{ffff}\u{fffe}");
}

/// Ids, servers, deadlines and waits.
fn heads(cases: &mut Cases) {
    for (name, id) in [
        ("crlf in the id", json!("x\r\nAction: Logoff")),
        ("nul in the id", json!("x\0")),
        ("an id of 201 bytes", json!("x".repeat(201))),
        ("an empty id", json!("")),
        ("a number as the id", json!(7)),
        ("an array as the id", json!(["x"])),
    ] {
        let body = json!({ "id": id, "server": "pbx1", "action": "Ping" });
        cases.bad(name, body.to_string(), INVALID);
    }
    for (name, server) in [
        ("crlf in the server", json!("pbx1\r\nAction: Logoff")),
        ("nul in the server", json!("pbx1\0")),
        ("another case of the server", json!("PBX1")),
        ("a blank behind the server", json!("pbx1 ")),
        ("a path as the server", json!("../pbx1")),
        ("every server", json!("*")),
        ("no server", json!("")),
        ("a long server", json!("p".repeat(200))),
        ("a number as the server", json!(1)),
        ("null as the server", Value::Null),
    ] {
        let body = json!({ "id": format!("{name}-%BUS%"), "server": server, "action": "Ping" });
        cases.bad(name, body.to_string(), &["invalid_field", "contradiction", "unknown_server"]);
    }
    for (name, key, value) in [
        ("a deadline without a zone", "deadline", json!("2030-01-01T00:00:00")),
        ("a number as the deadline", "deadline", json!(99_999_999_999_i64)),
        ("crlf in the deadline", "deadline", json!("2030-01-01T00:00:00Z\r\nAction: Logoff")),
        ("a year beyond", "deadline", json!("+99999-01-01T00:00:00Z")),
        ("another case of wait", "wait", json!("FINAL")),
        ("a flag as wait", "wait", json!(true)),
    ] {
        let body = json!({ "id": format!("{name}-%BUS%"), "server": "pbx1", "action": "Ping", key: value });
        cases.bad(name, body.to_string(), INVALID);
    }
}

/// The same in envelopes.
fn cloud_events(cases: &mut Cases) {
    let event = |kind: &str, data: Value| json!({ "specversion": "1.0", "type": kind, "source": "/x", "id": "ce-%BUS%", "data": data });
    let data = || json!({ "server": "pbx1" });
    let ping = "ami.command.Ping";
    let both: &[&str] = &["invalid_field", "contradiction"];
    for (name, body, codes) in [
        ("an envelope with crlf in its type", event("ami.command.Ping\r\nAction: Logoff", data()), both),
        ("an envelope of an event", event("ami.event.Ping", data()), INVALID),
        ("an envelope without an action", event("ami.command.", data()), both),
        ("an envelope around text", event(ping, json!("Action: Logoff")), INVALID),
        (
            "an envelope around nothing",
            json!({ "specversion": "1.0", "type": ping, "id": "x" }),
            &["missing_field"],
        ),
        (
            "an envelope of another version",
            json!({ "specversion": "0.3", "type": ping, "data": {} }),
            INVALID,
        ),
        ("a number as the version", json!({ "specversion": 1.0, "type": ping, "data": {} }), INVALID),
        (
            "an envelope in base64",
            json!({ "specversion": "1.0", "type": ping, "data_base64": "e30=" }),
            &["missing_field"],
        ),
        ("another id inside", event(ping, json!({ "server": "pbx1", "id": "other" })), &["contradiction"]),
        (
            "another action inside",
            event(ping, json!({ "server": "pbx1", "action": "Logoff" })),
            &["contradiction"],
        ),
        (
            "an envelope in an envelope",
            event(ping, event(ping, data())),
            &["contradiction", "unknown_field", "invalid_field"],
        ),
        (
            "crlf in an envelope's field",
            event(ping, json!({ "server": "pbx1", "fields": { "X": "a\r\nb" } })),
            INVALID,
        ),
        (
            "a forged header in an envelope",
            event(ping, json!({ "server": "pbx1", "fields": { "ACTION": "x" } })),
            INVALID,
        ),
    ] {
        cases.bad(name, body.to_string(), codes);
    }
    let mark = "a right envelope-%BUS%";
    let mut right = event(ping, json!({ "server": "pbx1", "fields": { "Mark": mark } }));
    // What stands beside `data` is the envelope's, and never a header.
    right["action"] = json!("Logoff");
    right["fields"] = json!({ "X": "a\r\nb" });
    right["id"] = json!(mark);
    cases.raw("a right envelope", "Ping", right.to_string(), runs("Ping", &[("Mark", mark)]));
    let twice = r#"{"specversion":"1.0","type":"ami.command.Ping","data":{"server":"pbx1"},"data":{"server":"pbx1"}}"#;
    cases.bad("data twice", twice, MALFORMED);
}

/// Topics and commands that do not say the same.
fn contradictions(cases: &mut Cases) {
    let mut add =
        |name: &str, topic: (&'static str, &'static str), body: Value, codes: &'static [&'static str]| {
            let (name, body, expect) = (name.to_owned(), body.to_string().into(), Expect::Rejected(codes));
            cases.0.push(Case { name, topic, needs_topic: true, body, expect });
        };
    let contradiction: &[&str] = &["contradiction"];
    add("another action than the topic", ("pbx1", "Ping"), json!({ "action": "Originate" }), contradiction);
    add("another case than the topic", ("pbx1", "Ping"), json!({ "action": "PING" }), contradiction);
    add("another server than the topic", ("pbx1", "Ping"), json!({ "server": "pbx2" }), contradiction);
    add("a forbidden action by the topic alone", ("pbx1", "Logoff"), json!({}), FORBIDDEN);
    add(
        "a dangerous action by the topic alone",
        ("pbx1", "Command"),
        json!({ "fields": { "Command": "x" } }),
        FORBIDDEN,
    );
    add("a topic that is no action", ("pbx1", "Pi-ng"), json!({}), INVALID);
    add("crlf behind a topic", ("pbx1", "Ping"), json!({ "fields": { "X": "\r\n" } }), INVALID);
}
