//! What gives power beyond its name, and why: the actions that a rule must write out, and the fields that it must bind.
//!
//! Tried on Asterisk 22.10.1 and 16.28.0, or read in the source that is named. The tests hold every row of
//! `dangerous-actions.tsv` against this table.

use crate::command::recover::is_read_only;

/// What a danger threatens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It can run a program on the server.
    Shell,
    /// It can read what is secret.
    Secrets,
    /// It affects other people's calls.
    Calls,
    /// It dials, or sends messages, on somebody's account.
    Toll,
    /// It changes what Asterisk keeps.
    State,
    /// It interrupts the service as a whole.
    Service,
    /// It makes other clients of AMI believe what is not so.
    Spoofing,
}

/// An action that is allowed only where a rule writes its name out: a glob does not stand for it.
#[derive(Clone, Copy, Debug)]
pub struct Danger {
    /// The action.
    pub action: &'static str,
    /// What it threatens.
    pub class: Class,
    /// What it does, for a sentence that begins with its name.
    pub why: &'static str,
    /// Fields that are allowed only where the rule binds them too.
    pub fields: &'static [Field],
}

/// A field that a rule must bind by name.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The header; a last `*` stands for any end (`Var-*` of `UpdateConfig`).
    pub name: &'static str,
    /// When it must be bound.
    pub when: When,
    /// What it does, for a sentence that begins with its name.
    pub why: &'static str,
}

/// When a field must be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Where the command gives it.
    Given,
    /// Also where the command leaves it out, for that means everything.
    Always,
    /// Where its value names a Local channel: that runs dialplan.
    Local,
    /// Where its value is a `/regular expression/`, which stands for many channels.
    Regex,
    /// Where its value holds something that Asterisk would evaluate: `${`, `$[` or a backtick.
    Evaluated,
}

impl Field {
    /// Whether this is the header's name.
    pub fn is(&self, header: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => header.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)),
            None => self.name.eq_ignore_ascii_case(header),
        }
    }

    /// Whether this value is what makes the field dangerous.
    pub fn concerns(&self, value: &str) -> bool {
        // Asterisk skips what is no more than a blank before a value (`main/manager.c`, `__astman_get_header`, through
        // `ast_skip_blanks`), control characters too.
        let value = value.trim_start_matches(|c| c <= ' ');
        match self.when {
            When::Given | When::Always => true,
            When::Local => value.get(..6).is_some_and(|begin| begin.eq_ignore_ascii_case("Local/")),
            When::Regex => value.starts_with('/'),
            When::Evaluated => ["${", "$[", "`"].iter().any(|sign| value.contains(sign)),
        }
    }
}

/// The danger of an action, where it is one.
pub fn of(action: &str) -> Option<&'static Danger> {
    DANGERS.iter().find(|danger| danger.action.eq_ignore_ascii_case(action))
}

/// Whether a glob in a rule stands for this action: only where it changes nothing, and gives nothing away that is secret. Any
/// other must be written out, that of a module nobody knows here as well.
pub fn is_meant_by_globs(action: &str) -> bool {
    is_read_only(action) && of(action).is_none()
}

/// Whether setting a channel variable of this name does more than to set it, in an Originate: a dialplan function, or one
/// that Asterisk itself acts upon.
pub fn is_special(variable: &str) -> bool {
    let begins =
        |start: &&str| variable.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start));
    variable.contains(['(', ')'])
        || SPECIAL_VARIABLES.iter().any(|special| special.eq_ignore_ascii_case(variable))
        || SPECIAL_BEGINNINGS.iter().any(begins)
}

/// Variables that Asterisk itself acts upon: the first names an AGI script (`apps/app_meetme.c`), the second what keys do
/// (`main/features_config.c`), the others the dialplan that a call goes on in.
pub const SPECIAL_VARIABLES: [&str; 6] = [
    "MEETME_AGI_BACKGROUND",
    "DYNAMIC_FEATURES",
    "TRANSFER_CONTEXT",
    "FORWARD_CONTEXT",
    "GOTO_ON_BLINDXFR",
    "EXITCONTEXT",
];

/// What the names of further ones begin with. They come to a shell: `MONITOR_EXEC` and `MONITOR_EXEC_ARGS` in
/// `res/res_monitor.c`, `MONITOR_OPTIONS` and `MONITOR_FILENAME` in `apps/app_queue.c`, `TOUCH_MIXMONITOR` and its format in
/// `bridges/bridge_builtin_features.c`, where a comma begins the options and the command of MixMonitor.
pub const SPECIAL_BEGINNINGS: [&str; 2] = ["MONITOR_", "TOUCH_"];

use Class::{Calls, Secrets, Service, Shell, Spoofing, State, Toll};
use When::{Always, Evaluated, Given, Local, Regex};

const fn danger(action: &'static str, class: Class, why: &'static str, fields: &'static [Field]) -> Danger {
    Danger { action, class, why, fields }
}

const fn field(name: &'static str, when: When, why: &'static str) -> Field {
    Field { name, when, why }
}

const ANY_DIALPLAN: &str = "runs any dialplan that it names";
const ANY_FILE: &str = "writes to any file, and a comma in it begins MixMonitor's shell command";
const ANY_CONFIG: &str = "names the file: manager.conf and pjsip.conf hold passwords";
const ANY_FAMILY: &str = "chooses what of the database is reached";
const REWRITES: &str = "is written into the file as it stands";
const SHELL_NAME: &str = "names files, and stands in a shell command";
const PRINTS_PASSWORDS: &str = "prints passwords of SIP";
const ENDS_CALLS: &str = "ends or disturbs other people's calls, and needs no privilege in AMI";
const QUEUES: &str = "changes queues, and needs no privilege in AMI";
const MEMBERS: &str = "changes who answers a queue";

/// Every danger, by class.
pub const DANGERS: &[Danger] = &[
    danger(
        "Originate",
        Toll,
        "dials wherever its Channel and its dialplan reach",
        &[
            field("Application", Given, "runs any application: System() is a shell command"),
            field("Data", Given, "is what the application runs with"),
            field("PreDialGoSub", Given, ANY_DIALPLAN),
            field("Context", Given, ANY_DIALPLAN),
            field("Channel", Local, "runs any dialplan, where it begins with Local/"),
        ],
    ),
    danger(
        "AGI",
        Shell,
        "runs AGI commands on a live call, whatever the AMI user may do",
        &[field("Command", Given, "runs a shell command by EXEC System or ${SHELL()}")],
    ),
    danger(
        "MixMonitor",
        Shell,
        "records calls into files",
        &[
            field("File", Given, ANY_FILE),
            field("Options", Given, ANY_FILE),
            field("Command", Given, "is a shell command"),
        ],
    ),
    danger(
        "ConfbridgeStartRecord",
        Shell,
        "records conferences into files",
        &[field("RecordFile", Given, ANY_FILE)],
    ),
    danger(
        "Monitor",
        Shell,
        "records calls into files",
        &[
            field("File", Given, SHELL_NAME),
            field("Format", Given, SHELL_NAME),
            field("Mix", Given, "has a shell command join the files"),
        ],
    ),
    danger("ChangeMonitor", Shell, "records calls into other files", &[field("File", Given, SHELL_NAME)]),
    danger(
        "Command",
        Shell,
        "runs the whole CLI, \"core stop now\" and \"dialplan add\" included",
        &[field("Command", Given, "is the command")],
    ),
    danger(
        "DialplanExtensionAdd",
        Shell,
        "writes dialplan, and so runs anything",
        &[
            field("Context", Given, "names the dialplan that is changed"),
            field("Application", Given, "runs any application: System() is a shell command"),
            field("ApplicationData", Given, "is what the application runs with, functions evaluated"),
        ],
    ),
    danger(
        "DialplanExtensionRemove",
        Shell,
        "removes dialplan",
        &[field("Context", Given, "names the dialplan that is changed")],
    ),
    danger(
        "UpdateConfig",
        Shell,
        "rewrites Asterisk's configuration, manager.conf and extensions.conf included",
        &[
            field("SrcFilename", Given, "names the file that is read"),
            field("DstFilename", Given, "names the file that is written"),
            field("Action-*", Given, "says what becomes of a line"),
            field("Cat-*", Given, REWRITES),
            field("Var-*", Given, REWRITES),
            field("Value-*", Given, REWRITES),
            field("Match-*", Given, "chooses the line"),
            field("Line-*", Given, "chooses the line"),
            field("Options-*", Given, REWRITES),
        ],
    ),
    danger(
        "CreateConfig",
        Shell,
        "makes configuration files",
        &[field("Filename", Given, "names the file: 16 takes any path")],
    ),
    danger(
        "ModuleLoad",
        Shell,
        "loads, unloads and reloads modules",
        &[field("Module", Given, "names what is loaded: 16 takes any path")],
    ),
    danger(
        "PRIDebugFileSet",
        Shell,
        "writes what the spans say into a file",
        &[field("File", Given, "names the file: any path")],
    ),
    danger("GetConfig", Secrets, "reads configuration files", &[field("Filename", Given, ANY_CONFIG)]),
    danger("GetConfigJSON", Secrets, "reads configuration files", &[field("Filename", Given, ANY_CONFIG)]),
    danger("ListCategories", Secrets, "reads configuration files", &[field("Filename", Given, ANY_CONFIG)]),
    danger(
        "Getvar",
        Secrets,
        "evaluates functions",
        &[field("Variable", Given, "may be a function: AST_CONFIG() and ENV() read secrets")],
    ),
    danger(
        "Status",
        Secrets,
        "tells of live channels, and evaluates functions",
        &[
            field("Variables", Given, "may be functions: AST_CONFIG() and ENV() read secrets"),
            field("AllVariables", Given, "shows every variable of the channels"),
        ],
    ),
    danger("PJSIPShowAuths", Secrets, PRINTS_PASSWORDS, &[]),
    danger("PJSIPShowEndpoint", Secrets, PRINTS_PASSWORDS, &[]),
    danger("PJSIPShowRegistrationsOutbound", Secrets, PRINTS_PASSWORDS, &[]),
    danger("PJSIPShowRegistrationsInbound", Secrets, PRINTS_PASSWORDS, &[]),
    danger(
        "DBGet",
        Secrets,
        "reads the database, where credentials may be",
        &[field("Family", Given, ANY_FAMILY)],
    ),
    danger(
        "DBGetTree",
        Secrets,
        "reads the database, where credentials may be",
        &[field("Family", Always, "chooses what of the database is reached; without it, all")],
    ),
    danger("BridgeDestroy", Calls, ENDS_CALLS, &[]),
    danger("BridgeKick", Calls, ENDS_CALLS, &[]),
    danger("BridgeTechnologySuspend", Calls, ENDS_CALLS, &[]),
    danger("BridgeTechnologyUnsuspend", Calls, ENDS_CALLS, &[]),
    danger("QueueReset", State, QUEUES, &[]),
    danger("QueueReload", State, QUEUES, &[]),
    danger("QueueChangePriorityCaller", State, QUEUES, &[]),
    danger("QueueWithdrawCaller", State, QUEUES, &[]),
    danger(
        "Hangup",
        Calls,
        "ends calls",
        &[field("Channel", Regex, "is a /regular expression/ then: one message can end every call")],
    ),
    danger(
        "Redirect",
        Toll,
        "sends live calls elsewhere",
        &[field("Context", Given, ANY_DIALPLAN), field("ExtraContext", Given, ANY_DIALPLAN)],
    ),
    danger("BlindTransfer", Toll, "sends live calls elsewhere", &[field("Context", Given, ANY_DIALPLAN)]),
    danger("Atxfer", Toll, "sends live calls elsewhere", &[field("Context", Given, ANY_DIALPLAN)]),
    danger("Bridge", Calls, "joins live calls", &[]),
    danger(
        "Park",
        Calls,
        "parks live calls",
        &[field("TimeoutChannel", Given, "is dialled when nobody fetches the call")],
    ),
    danger("AbsoluteTimeout", Calls, "ends calls after a time", &[]),
    danger("LocalOptimizeAway", Calls, "changes live calls", &[]),
    danger("PJSIPHangup", Calls, "ends calls", &[]),
    danger("MuteAudio", Calls, "mutes live calls", &[]),
    danger("ConfbridgeKick", Calls, "throws callers out of a conference", &[]),
    danger("AgentLogoff", Calls, "logs agents off", &[]),
    danger("DAHDIHangup", Calls, "ends calls", &[]),
    danger("DAHDITransfer", Calls, "changes live calls", &[]),
    danger("DAHDIDialOffhook", Toll, "dials", &[]),
    danger(
        "Setvar",
        State,
        "sets variables, and through functions a lot more",
        &[
            field("Variable", Given, "may be a function: DB(), GLOBAL(), hangup handlers"),
            field("Value", Evaluated, "holds what Asterisk may evaluate then"),
        ],
    ),
    danger("DBPut", State, "changes the database", &[field("Family", Given, ANY_FAMILY)]),
    danger("DBDel", State, "changes the database", &[field("Family", Given, ANY_FAMILY)]),
    danger("DBDelTree", State, "changes the database", &[field("Family", Given, ANY_FAMILY)]),
    danger("MWIUpdate", State, "changes message counts", &[]),
    danger("MWIDelete", State, "deletes message counts", &[]),
    danger(
        "QueueAdd",
        State,
        MEMBERS,
        &[field("Interface", Local, "runs any dialplan, where it begins with Local/")],
    ),
    danger("QueueRemove", State, MEMBERS, &[]),
    danger("QueuePause", State, MEMBERS, &[]),
    danger("QueuePenalty", State, MEMBERS, &[]),
    danger("QueueMemberRingInUse", State, MEMBERS, &[]),
    danger("QueueLog", State, "writes into the queues' log", &[]),
    danger("VoicemailRemove", State, "deletes messages", &[]),
    danger("VoicemailMove", State, "moves messages", &[]),
    danger("VoicemailForward", State, "forwards messages to other mailboxes", &[]),
    danger("PresenceState", State, "asks whatever provider it names", &[]),
    danger(
        "PJSIPNotify",
        State,
        "has phones do things, a reboot among them",
        &[
            field("Variable", Given, "is any header and body of the NOTIFY"),
            field("URI", Given, "is any address"),
        ],
    ),
    danger(
        "SIPnotify",
        State,
        "has phones do things, a reboot among them",
        &[field("Variable", Given, "is any header and body of the NOTIFY")],
    ),
    danger("PJSIPQualify", State, "has Asterisk ask an endpoint", &[]),
    danger("SIPqualifypeer", State, "has Asterisk ask a peer", &[]),
    danger("PJSIPRegister", State, "changes registrations", &[]),
    danger("PJSIPUnregister", State, "changes registrations", &[]),
    danger("PJSIPSetMaintenance", State, "takes endpoints out of service", &[]),
    danger("SorceryMemoryCacheExpire", State, "empties caches", &[]),
    danger("SorceryMemoryCacheExpireObject", State, "empties caches", &[]),
    danger("SorceryMemoryCachePopulate", State, "fills caches anew", &[]),
    danger("SorceryMemoryCacheStale", State, "empties caches", &[]),
    danger("SorceryMemoryCacheStaleObject", State, "empties caches", &[]),
    danger("Reload", Service, "reloads modules", &[]),
    danger("LoggerRotate", Service, "rotates the logs", &[]),
    danger("DAHDIRestart", Service, "ends all calls of DAHDI", &[]),
    danger(
        "MessageSend",
        Toll,
        "sends messages",
        &[
            field("Destination", Given, "is wherever a channel driver reaches"),
            field("To", Given, "is wherever a channel driver reaches"),
        ],
    ),
    danger("JabberSend", Toll, "sends messages to anybody", &[]),
    danger(
        "UserEvent",
        Spoofing,
        "writes events that go to every client of AMI",
        &[
            field("Event", Given, "makes it look like another event"),
            field("Response", Given, "makes it look like a response"),
            field("Privilege", Given, "makes it look like another event"),
        ],
    ),
];
