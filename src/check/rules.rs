//! Rules in plain words, and what is dangerous about them.

use globset::{GlobBuilder, GlobMatcher};

use crate::{
    command::policy::{NEVER, Rule},
    filter::{self, Verdict},
};

/// Actions that give more power than their names tell, tried on Asterisk 22 and 16.
const DANGEROUS: [(&str, &str); 22] = [
    ("Command", "runs the whole CLI, \"core stop now\" and \"dialplan add\" included"),
    (
        "AGI",
        "runs AGI commands on a live call: EXEC System runs a shell command, whatever the AMI user may do",
    ),
    ("Originate", "dials wherever its Channel and its dialplan reach"),
    ("Redirect", "sends live calls to any extension of the dialplan"),
    ("BlindTransfer", "sends live calls to any extension of its context"),
    ("Atxfer", "sends live calls to any extension of its context"),
    ("MixMonitor", "writes files where it likes, and runs its Command as a shell command"),
    ("UpdateConfig", "rewrites Asterisk's configuration, manager.conf and extensions.conf included"),
    ("CreateConfig", "makes configuration files"),
    ("DialplanExtensionAdd", "writes dialplan, and so runs anything"),
    ("ModuleLoad", "loads and unloads modules"),
    ("Reload", "reloads modules"),
    ("GetConfig", "reads secrets: manager.conf, pjsip.conf"),
    ("GetConfigJSON", "reads secrets: manager.conf, pjsip.conf"),
    ("PJSIPShowAuths", "shows SIP passwords"),
    ("Getvar", "evaluates functions: AST_CONFIG() reads secrets"),
    ("Setvar", "evaluates functions: DB(), GLOBAL(), hangup handlers"),
    ("DBGet", "reads the database, where credentials may be"),
    ("DBPut", "changes the database"),
    ("BridgeDestroy", "ends other people's calls, and needs no AMI privilege"),
    ("BridgeKick", "ends other people's calls, and needs no AMI privilege"),
    ("UserEvent", "writes events that look like any other to every AMI client"),
];

/// An allow rule in plain words, e.g. `Originate on pbx1, if Context is sales`.
pub fn allowed(rule: &Rule) -> String {
    let mut text =
        format!("{} on {}", listed(&rule.actions, "nothing"), listed(&rule.servers, "every server"));
    text.push_str(&conditions(&rule.fields));
    text
}

/// A filter in plain words, e.g. `drops RTCP* of every server`.
pub fn filtered(rule: &filter::Rule) -> String {
    let verb = if rule.verdict == Verdict::Drop { "drops" } else { "keeps" };
    let events = listed(&rule.events, "every event");
    format!("{verb} {events} of {}{}", listed(&rule.servers, "every server"), conditions(&rule.fields))
}

/// What is dangerous about the allow rule with this number, a sentence each.
pub fn warnings(number: usize, rule: &Rule) -> Vec<String> {
    let globs: Vec<GlobMatcher> = rule.actions.iter().filter_map(|text| glob(text)).collect();
    let fits = |action: &str| globs.iter().any(|glob| glob.is_match(action));
    let bound = |field: &str| rule.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(field));
    if fits("AnyActionThatThereMayBeOneDay") {
        return vec![format!(
            "rule #{number} allows every action, among them Command, UpdateConfig and Originate to anywhere: name \
             the actions that are needed"
        )];
    }
    let named = |action: &&str| rule.actions.iter().any(|text| text.eq_ignore_ascii_case(action));
    let mut warnings: Vec<String> = NEVER
        .into_iter()
        .filter(named)
        .map(|action| format!("rule #{number} allows {action}, which is never allowed: it changes nothing"))
        .collect();
    for (action, why) in DANGEROUS {
        if !fits(action) || (action != "Originate" && !rule.fields.is_empty()) {
            continue;
        }
        if action == "Originate" {
            warnings.extend(originate(number, &bound));
        } else {
            warnings.push(format!("rule #{number} allows {action} with any fields: it {why}"));
        }
    }
    for field in ["Application", "Data"] {
        let free = |(name, globs): &&(String, Vec<String>)| {
            name.eq_ignore_ascii_case(field) && globs.iter().any(|glob| glob == "*")
        };
        if fits("Originate") && rule.fields.iter().any(|field| free(&field)) {
            warnings.push(format!(
                "rule #{number} allows Originate with any {field}: System() runs a shell command"
            ));
        }
    }
    warnings
}

fn originate(number: usize, bound: &dyn Fn(&str) -> bool) -> Option<String> {
    let mut open = Vec::new();
    if !bound("Channel") {
        open.push("any Channel may be dialled, Local/ into any context and toll numbers included");
    }
    if !bound("Context") && !bound("Application") {
        open.push("the call may run any Context of the dialplan");
    }
    if open.is_empty() {
        return None;
    }
    Some(format!(
        "rule #{number} allows Originate, and {}: bind fields.Channel and fields.Context",
        open.join(", and ")
    ))
}

fn conditions(fields: &[(String, Vec<String>)]) -> String {
    let all: Vec<String> =
        fields.iter().map(|(name, globs)| format!("{name} is {}", globs.join(" or "))).collect();
    if all.is_empty() { String::new() } else { format!(", if {}", all.join(" and ")) }
}

fn listed(globs: &[String], none: &str) -> String {
    if globs.is_empty() { none.to_owned() } else { globs.join(", ") }
}

fn glob(text: &str) -> Option<GlobMatcher> {
    GlobBuilder::new(text).case_insensitive(true).build().ok().map(|glob| glob.compile_matcher())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(actions: &[&str], fields: &[(&str, &[&str])]) -> Rule {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        Rule {
            actions: owned(actions),
            servers: Vec::new(),
            fields: fields.iter().map(|(name, globs)| ((*name).to_owned(), owned(globs))).collect(),
        }
    }

    #[test]
    fn rules_read_as_sentences() {
        let rule =
            rule(&["Originate"], &[("Channel", &["PJSIP/*", "Local/*@sales"]), ("Context", &["sales"])]);
        assert_eq!(
            allowed(&rule),
            "Originate on every server, if Channel is PJSIP/* or Local/*@sales and Context is sales"
        );
        assert_eq!(warnings(1, &rule), Vec::<String>::new());
    }

    #[test]
    fn dangerous_rules_are_told() {
        let all = |rule: &Rule| warnings(2, rule).join("\n");
        assert!(all(&rule(&["*"], &[])).contains("allows every action"));
        assert!(all(&rule(&["command"], &[])).contains("rule #2 allows Command with any fields"));
        assert!(all(&rule(&["Originate"], &[("Channel", &["PJSIP/*"])])).contains("any Context"));
        let application = rule(&["Originate"], &[("Channel", &["PJSIP/*"]), ("Application", &["*"])]);
        assert!(all(&application).contains("System()"));
        assert!(all(&rule(&["logoff"], &[])).contains("allows Logoff, which is never allowed"));
        assert_eq!(all(&rule(&["Ping", "QueueStatus"], &[])), "");
    }

    #[test]
    fn filters_read_as_sentences() {
        let rule = filter::Rule {
            verdict: Verdict::Drop,
            events: vec!["RTCP*".into()],
            servers: Vec::new(),
            fields: Vec::new(),
        };
        assert_eq!(filtered(&rule), "drops RTCP* of every server");
    }
}
