//! Every row of `dangerous-actions.tsv`, tried without a rule, under `actions = ["*"]`, and under a rule that names what it
//! takes.

use std::{collections::BTreeSet, fs, path::Path};

use amibus::command::{
    Code,
    decode::{Command, Wait},
    policy::{NEVER, Policy, Rule},
};

type Fields = &'static [(&'static str, &'static str)];

/// A way to do what a row of the list warns of.
pub(super) struct Danger {
    /// The row, from 1.
    pub(super) row: usize,
    pub(super) action: &'static str,
    pub(super) fields: Fields,
    /// The fields, as globs, that a rule must bind beside naming the action.
    pub(super) bind: Fields,
}

const fn danger(row: usize, action: &'static str, fields: Fields, bind: Fields) -> Danger {
    Danger { row, action, fields, bind }
}

const LOCAL: (&str, &str) = ("Channel", "Local/1902@flows");
const LIVE: (&str, &str) = ("Channel", "Local/1000@flows-00000001;1");

/// In the order of the list. What a field does is told in `src/command/policy/dangers.rs`; here it is only tried.
pub(super) const DANGERS: &[Danger] = &[
    danger(
        1,
        "Originate",
        &[("Channel", "PJSIP/1"), ("Application", "System"), ("Data", "touch /srv/amibus/pwned-1")],
        &[("Application", "System"), ("Data", "*")],
    ),
    danger(
        1,
        "Originate",
        &[LOCAL, ("aPPLICATION", "Queue"), ("Data", "a,,,,,x.agi")],
        &[("Application", "*"), ("Data", "*"), ("Channel", "Local/*@flows")],
    ),
    danger(
        1,
        "Originate",
        &[("Channel", "PJSIP/1"), ("Application", "MixMonitor")],
        &[("Application", "MixMonitor")],
    ),
    danger(
        2,
        "Originate",
        &[("Channel", "PJSIP/1"), ("Context", "flows"), ("Exten", "1902"), ("Priority", "1")],
        &[("Context", "flows")],
    ),
    danger(
        2,
        "Originate",
        &[LOCAL, ("Context", "judge")],
        &[("Channel", "Local/1902@flows"), ("Context", "judge")],
    ),
    danger(2, "Originate", &[("Channel", "local/1902@flows")], &[("Channel", "local/*@flows")]),
    danger(
        2,
        "Originate",
        &[("Channel", "PJSIP/1"), ("PreDialGoSub", "flows,1902,1")],
        &[("PreDialGoSub", "flows,*")],
    ),
    danger(
        2,
        "Originate",
        &[("Channel", "PJSIP/1"), ("Variable", "SHELL(touch /srv/amibus/pwned-2)=1")],
        &[("Variable.SHELL(touch /srv/amibus/pwned-2)", "*")],
    ),
    danger(3, "AGI", &[LIVE, ("Command", "EXEC System touch")], &[("Command", "EXEC System touch")]),
    danger(4, "MixMonitor", &[LIVE, ("Command", "touch /srv/amibus/pwned-4")], &[("Command", "*")]),
    danger(4, "MixMonitor", &[LIVE, ("File", "x.wav,,touch pwned-4")], &[("File", "x.wav*")]),
    danger(4, "MixMonitor", &[LIVE, ("Options", "a,touch pwned-4")], &[("Options", "a*")]),
    danger(5, "Command", &[("Command", "core stop now")], &[("Command", "core stop now")]),
    danger(
        5,
        "Command",
        &[("command", "dialplan add extension 1,1,System,id into flows")],
        &[("Command", "**")],
    ),
    danger(
        6,
        "DialplanExtensionAdd",
        &[("Context", "judge"), ("Extension", "x"), ("Priority", "1"), ("Application", "System")],
        &[("Context", "judge"), ("Application", "*")],
    ),
    danger(
        6,
        "DialplanExtensionRemove",
        &[("Context", "judge"), ("Extension", "s")],
        &[("Context", "judge")],
    ),
    danger(
        7,
        "UpdateConfig",
        &[("SrcFilename", "manager.conf"), ("DstFilename", "manager.conf"), ("Var-000000", "#exec x")],
        &[("SrcFilename", "manager.conf"), ("DstFilename", "*"), ("Var-000000", "*")],
    ),
    danger(7, "CreateConfig", &[("Filename", "../../tmp/x.conf")], &[("Filename", "../../tmp/*")]),
    danger(8, "ModuleLoad", &[("LoadType", "load"), ("Module", "/tmp/x.so")], &[("Module", "/tmp/*")]),
    danger(9, "GetConfig", &[("Filename", "manager.conf")], &[("Filename", "manager.conf")]),
    danger(9, "GetConfigJSON", &[("Filename", "pjsip.conf")], &[("Filename", "pjsip.conf")]),
    danger(9, "ListCategories", &[("Filename", "manager.conf")], &[("Filename", "*.conf")]),
    danger(
        10,
        "Getvar",
        &[("Variable", "AST_CONFIG(manager.conf,full,secret)")],
        &[("Variable", "AST_CONFIG(*")],
    ),
    danger(10, "Status", &[("Variables", "ENV(PATH)")], &[("Variables", "ENV(PATH)")]),
    danger(10, "Status", &[("AllVariables", "true")], &[("AllVariables", "true")]),
    danger(11, "PJSIPShowAuths", &[], &[]),
    danger(11, "PJSIPShowEndpoint", &[("Endpoint", "phone1")], &[]),
    danger(12, "DBGet", &[("Family", "lab"), ("Key", "k1")], &[("Family", "lab")]),
    danger(12, "DBGetTree", &[("Family", "lab")], &[("Family", "lab")]),
    danger(13, "BridgeDestroy", &[("BridgeUniqueid", "x")], &[]),
    danger(13, "BridgeKick", &[LIVE], &[]),
    danger(13, "BridgeTechnologySuspend", &[("BridgeTechnology", "simple_bridge")], &[]),
    danger(13, "BridgeTechnologyUnsuspend", &[("BridgeTechnology", "simple_bridge")], &[]),
    danger(14, "QueueReset", &[], &[]),
    danger(14, "QueueReload", &[], &[]),
    danger(14, "QueueChangePriorityCaller", &[("Queue", "support"), ("Caller", "x"), ("Priority", "1")], &[]),
    danger(14, "QueueWithdrawCaller", &[("Queue", "support"), ("Caller", "x")], &[]),
    danger(15, "Hangup", &[LIVE], &[]),
    danger(15, "Hangup", &[("Channel", "/.*/")], &[("Channel", "/.*/")]),
    danger(
        15,
        "Redirect",
        &[LIVE, ("Context", "flows"), ("Exten", "1902"), ("Priority", "1")],
        &[("Context", "flows")],
    ),
    danger(15, "BlindTransfer", &[LIVE, ("Context", "flows"), ("Exten", "1902")], &[("Context", "flows")]),
    danger(15, "Atxfer", &[LIVE, ("Context", "flows"), ("Exten", "1902")], &[("Context", "flows")]),
    danger(15, "Bridge", &[("Channel1", "a"), ("Channel2", "b")], &[]),
    danger(15, "Park", &[LIVE, ("TimeoutChannel", "Local/1902@flows")], &[("TimeoutChannel", "**")]),
    danger(15, "AbsoluteTimeout", &[LIVE, ("Timeout", "1")], &[]),
    danger(15, "LocalOptimizeAway", &[LIVE], &[]),
    danger(15, "PJSIPHangup", &[LIVE, ("Cause", "486")], &[]),
    danger(15, "MuteAudio", &[LIVE, ("Direction", "all"), ("State", "on")], &[]),
    danger(15, "ConfbridgeKick", &[("Conference", "labconf"), ("Channel", "all")], &[]),
    danger(15, "AgentLogoff", &[("Agent", "1001")], &[]),
    danger(16, "Setvar", &[("Variable", "DB(lab/k1)"), ("Value", "x")], &[("Variable", "DB(lab/**)")]),
    danger(
        16,
        "Setvar",
        &[("Variable", "GLOBAL(LABGLOBAL)"), ("Value", "${ENV(PATH)}")],
        &[("Variable", "GLOBAL(*"), ("Value", "**")],
    ),
    danger(17, "DBPut", &[("Family", "lab"), ("Key", "k"), ("Val", "x")], &[("Family", "lab")]),
    danger(17, "DBDel", &[("Family", "lab"), ("Key", "k")], &[("Family", "lab")]),
    danger(17, "DBDelTree", &[("Family", "lab")], &[("Family", "lab")]),
    danger(17, "MWIUpdate", &[("Mailbox", "1@default"), ("NewMessages", "1")], &[]),
    danger(17, "MWIDelete", &[("Mailbox", "/.*/")], &[]),
    danger(
        17,
        "QueueAdd",
        &[("Queue", "support"), ("Interface", "Local/1902@flows")],
        &[("Interface", "Local/*@flows")],
    ),
    danger(17, "QueueRemove", &[("Queue", "support"), ("Interface", "x")], &[]),
    danger(17, "QueuePause", &[("Interface", "x"), ("Paused", "true")], &[]),
    danger(17, "QueuePenalty", &[("Interface", "x"), ("Penalty", "1")], &[]),
    danger(17, "QueueLog", &[("Queue", "support"), ("Event", "X")], &[]),
    danger(17, "VoicemailRemove", &[("Mailbox", "1"), ("Context", "default")], &[]),
    danger(17, "VoicemailMove", &[("Mailbox", "1"), ("Context", "default")], &[]),
    danger(17, "VoicemailForward", &[("Mailbox", "1"), ("Context", "default")], &[]),
    danger(17, "PresenceState", &[("Provider", "CustomPresence:x")], &[]),
    danger(
        17,
        "PJSIPNotify",
        &[("Endpoint", "phone1"), ("Variable", "Event=check-sync")],
        &[("Variable.Event", "*")],
    ),
    danger(17, "PJSIPNotify", &[("URI", "sip:x@127.0.0.1")], &[("URI", "sip:*")]),
    danger(17, "PJSIPQualify", &[("Endpoint", "phone1")], &[]),
    danger(17, "PJSIPRegister", &[("Registration", "x")], &[]),
    danger(17, "SorceryMemoryCacheExpire", &[("Cache", "x")], &[]),
    danger(18, "Reload", &[], &[]),
    danger(18, "LoggerRotate", &[], &[]),
    danger(
        18,
        "ModuleLoad",
        &[("LoadType", "unload"), ("Module", "res_pjsip.so")],
        &[("Module", "res_pjsip.so")],
    ),
    danger(18, "Command", &[("Command", "core restart now")], &[("Command", "core restart now")]),
    danger(
        19,
        "Originate",
        &[("Channel", "PJSIP/0900123@trunk"), ("Context", "flows")],
        &[("Context", "flows")],
    ),
    danger(
        19,
        "MessageSend",
        &[("Destination", "pjsip:sip:x@y"), ("Body", "x")],
        &[("Destination", "pjsip:*")],
    ),
    danger(
        19,
        "Redirect",
        &[LIVE, ("ExtraContext", "flows"), ("ExtraExten", "1902")],
        &[("ExtraContext", "flows")],
    ),
    danger(20, "Logoff", &[], &[]),
    danger(21, "Login", &[("Username", "x"), ("Secret", "x")], &[]),
    danger(21, "Challenge", &[("AuthType", "MD5")], &[]),
    danger(22, "Events", &[("EventMask", "off")], &[("EventMask", "off")]),
    danger(22, "Filter", &[("Operation", "Add"), ("Filter", "Event: X")], &[]),
    danger(23, "WaitEvent", &[("Timeout", "-1")], &[]),
    danger(
        24,
        "Originate",
        &[("Channel", "Local/s@judge"), ("Context", "flows"), ("Async", "false")],
        &[("Channel", "Local/s@judge"), ("Context", "flows")],
    ),
    danger(25, "UserEvent", &[("UserEvent", "x"), ("Event", "Hangup")], &[("Event", "Hangup")]),
    danger(25, "UserEvent", &[("UserEvent", "x"), ("Response", "Success")], &[("Response", "*")]),
];

fn command(danger: &Danger) -> Command {
    Command {
        id: None,
        server: "pbx1".into(),
        action: danger.action.into(),
        deadline: None,
        wait: Wait::Response,
        headers: danger.fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        payload_hash: String::new(),
    }
}

/// The field that is objected to; none where it is allowed.
fn refused(rules: &[Rule], danger: &Danger) -> Option<String> {
    let error = Policy::new(rules).expect("globs").check(&command(danger)).err()?;
    assert_eq!(error.code, Code::Forbidden);
    Some(error.field.expect("what is refused is named"))
}

fn rule(actions: &[&str], fields: &[(&str, &str)]) -> Rule {
    Rule {
        actions: actions.iter().map(|action| (*action).to_owned()).collect(),
        servers: Vec::new(),
        fields: fields.iter().map(|(name, glob)| ((*name).to_owned(), vec![(*glob).to_owned()])).collect(),
    }
}

#[test]
fn no_row_is_allowed_without_a_rule_that_names_it() {
    for danger in DANGERS {
        let what = format!("row {}: {} {:?}", danger.row, danger.action, danger.fields);
        assert!(refused(&[], danger).is_some(), "{what}");
        assert!(refused(&[rule(&["*"], &[])], danger).is_some(), "{what}");
        let globs = rule(&["*", "?*", "**", "[A-Z]*"], danger.bind);
        assert!(refused(&[globs], danger).is_some(), "{what}: a glob names nothing");
        let named = refused(&[rule(&[danger.action], danger.bind)], danger);
        if NEVER.contains(&danger.action) {
            assert!(named.is_some(), "{what}: never");
            continue;
        }
        assert_eq!(named, None, "{what}");
        for left_out in 0..danger.bind.len() {
            let mut bind = danger.bind.to_vec();
            let (name, _) = bind.remove(left_out);
            let refused = refused(&[rule(&[danger.action], &bind)], danger).expect(&what);
            let expected = if name.starts_with("Variable.") { refused.split('.').nth(1) } else { Some(name) };
            let named = refused.strip_prefix("fields.").is_some_and(|field| {
                expected.is_some_and(|name| field.to_lowercase().starts_with(&name.to_lowercase()))
            });
            assert!(named, "{what}: {refused}");
        }
    }
}

/// Names in the list's second column: `Queue{Add,Remove}` are two.
fn names(column: &str) -> BTreeSet<String> {
    let mut plain = String::new();
    let mut depth = 0;
    for c in column.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        plain.push(if depth > 0 || c == ')' { ' ' } else { c });
    }
    if plain.starts_with("Originate ") {
        plain = "Originate".to_owned();
    }
    let mut names = BTreeSet::new();
    while let Some((before, rest)) = plain.split_once('{') {
        let (inside, after) = rest.split_once('}').expect("a brace is closed");
        let start = before.rsplit([',', ' ', '/']).next().unwrap_or_default();
        names.extend(inside.split(',').map(|end| format!("{start}{end}")));
        plain = format!("{} {after}", before.strip_suffix(start).unwrap_or_default());
    }
    names.extend(plain.split([',', ' ', '/']).map(str::to_owned));
    names
}

fn corpus(file: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file);
    let text = fs::read_to_string(&path).expect("a list of the corpus");
    let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
    lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

#[test]
fn each_action_of_each_row_is_tried() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for file in ["actions-22.tsv", "actions-16.tsv"] {
        known.extend(corpus(file).into_iter().map(|row| row[0].clone()));
    }
    let rows = corpus("dangerous-actions.tsv");
    let mut tried = 0;
    for (index, row) in rows.iter().enumerate() {
        let actions: BTreeSet<&str> =
            DANGERS.iter().filter(|danger| danger.row == index + 1).map(|danger| danger.action).collect();
        assert!(!actions.is_empty(), "row {} is not tried: {row:?}", index + 1);
        for name in names(&row[1]).iter().filter(|name| known.contains(*name)) {
            tried += 1;
            assert!(actions.contains(name.as_str()), "row {}: {name} is not tried", index + 1);
        }
    }
    assert_eq!(DANGERS.iter().map(|danger| danger.row).max(), Some(rows.len()));
    assert!(tried > 60, "only {tried} names were found in the list");
}
