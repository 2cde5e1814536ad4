//! Rules in plain words, and what is dangerous about them.

use globset::{GlobBuilder, GlobMatcher};

use crate::{
    command::policy::{
        NEVER, Rule,
        dangers::{self, Danger, Field, When},
    },
    filter::{self, Verdict},
};

/// How many names one line lists before it only counts.
const LISTED_NAMES: usize = 6;

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

/// What an allow rule leaves out of what its globs and actions seem to give, a line each.
pub fn refused(rule: &Rule) -> Vec<String> {
    let mut lines = Vec::new();
    if rule.actions.iter().any(|text| text.contains(['*', '?', '[', '{'])) {
        lines.push("by its globs only what changes nothing, such as Ping or QueueStatus".to_owned());
    }
    let by_glob: Vec<&str> = dangers_that(rule, false).map(|danger| danger.action).collect();
    if !by_glob.is_empty() {
        lines.push(format!("not {}: to be allowed, these must be written out", few(&by_glob)));
    }
    for danger in dangers_that(rule, true) {
        let open: Vec<String> = danger
            .fields
            .iter()
            .filter(|field| !binds(rule, field.name))
            .map(|field| match field.when {
                When::Given => format!("without {}", field.name),
                When::Always => format!("not at all: {} is not bound", field.name),
                When::Local => format!("without {} beginning with Local/", field.name),
                When::Regex => format!("without a /regular expression/ as {}", field.name),
                When::Evaluated => format!("without ${{ or $[ in {}", field.name),
            })
            .collect();
        if !open.is_empty() {
            lines.push(format!("{} {}", danger.action, open.join(", ")));
        }
    }
    lines
}

/// What is dangerous about the allow rule with this number, a sentence each.
pub fn warnings(number: usize, rule: &Rule) -> Vec<String> {
    let mut warnings = Vec::new();
    if rule.actions.iter().any(|text| fits_all(text)) {
        warnings.push(format!(
            "rule #{number} allows every action that changes nothing: whoever may send commands sees all calls, queues and \
             endpoints; name the actions that are needed"
        ));
    }
    for action in NEVER {
        if writes_out(rule, action) {
            let text = format!("rule #{number} allows {action}, which is never allowed: it changes nothing");
            warnings.push(text);
        }
    }
    for danger in dangers_that(rule, true) {
        if danger.action == "Originate" {
            warnings.extend(originate(number, rule));
        } else if rule.fields.is_empty() {
            let (action, why) = (danger.action, danger.why);
            warnings.push(format!(
                "rule #{number} allows {action} with any fields that need not be bound: it {why}"
            ));
        }
        let any = |field: &&Field| field.name != "Channel" && binds_to_anything(rule, field.name);
        for field in danger.fields.iter().filter(any) {
            let (name, why) = (field.name, field.why);
            warnings.push(format!("rule #{number} allows {} with any {name}: it {why}", danger.action));
        }
    }
    let special = |name: &str| {
        let variable = name.split_once('.').filter(|(header, _)| header.eq_ignore_ascii_case("Variable"));
        variable.is_some_and(|(_, variable)| dangers::is_special(variable))
    };
    for (name, _) in rule.fields.iter().filter(|(name, _)| special(name) && binds_to_anything(rule, name)) {
        warnings.push(format!("rule #{number} allows any {name}, upon which Asterisk acts"));
    }
    warnings
}

fn originate(number: usize, rule: &Rule) -> Option<String> {
    let mut open = Vec::new();
    if !binds(rule, "Channel") {
        open.push("any Channel may be dialled, toll numbers included, though none that begins with Local/");
    } else if binds_to_anything(rule, "Channel") {
        open.push("any Channel may be dialled, Local/ into any context and toll numbers included");
    }
    if !binds(rule, "Context") && !binds(rule, "Application") {
        open.push("no call can be made without a Context or an Application, of which it binds none");
    }
    if binds_to_anything(rule, "Variable") {
        open.push("any variable may be set, dialplan functions such as SHELL() included");
    }
    if open.is_empty() {
        return None;
    }
    let text = open.join(", and ");
    Some(format!("rule #{number} allows Originate, and {text}: bind fields.Channel and fields.Context"))
}

/// The dangerous actions that a rule fits, and writes out or not.
fn dangers_that(rule: &Rule, written_out: bool) -> impl Iterator<Item = &'static Danger> {
    let globs: Vec<GlobMatcher> = rule.actions.iter().filter_map(|text| matcher(text, true)).collect();
    let fits = move |danger: &&Danger| globs.iter().any(|glob| glob.is_match(danger.action));
    dangers::DANGERS.iter().filter(fits).filter(move |danger| writes_out(rule, danger.action) == written_out)
}

fn writes_out(rule: &Rule, action: &str) -> bool {
    rule.actions.iter().any(|text| text.eq_ignore_ascii_case(action))
}

/// Whether a rule binds a field; one that stands for many (`Var-*`) where it binds any of them.
fn binds(rule: &Rule, field: &str) -> bool {
    let start = field.strip_suffix('*');
    rule.fields.iter().any(|(name, _)| match start {
        Some(start) => name.get(..start.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(start)),
        None => name.eq_ignore_ascii_case(field),
    })
}

fn binds_to_anything(rule: &Rule, field: &str) -> bool {
    let anything = |globs: &[String]| globs.iter().any(|glob| fits_all(glob));
    rule.fields.iter().any(|(name, globs)| name.eq_ignore_ascii_case(field) && anything(globs))
}

/// Whether a glob fits what nobody had in mind when it was written.
fn fits_all(text: &str) -> bool {
    ["AnythingThatThereMayBeOneDay", "7 or something else"].iter().all(|value| is_fitting(text, value, true))
}

fn is_fitting(text: &str, value: &str, any_case: bool) -> bool {
    matcher(text, any_case).is_some_and(|glob| glob.is_match(value))
}

/// As the policy reads globs.
fn matcher(text: &str, any_case: bool) -> Option<GlobMatcher> {
    let pattern = if text == "*" { "**" } else { text };
    let glob = GlobBuilder::new(pattern).case_insensitive(any_case).literal_separator(true).build();
    Some(glob.ok()?.compile_matcher())
}

fn few(names: &[&str]) -> String {
    match names.get(..LISTED_NAMES) {
        Some(first) if names.len() > LISTED_NAMES + 1 => {
            format!("{} and {} more", first.join(", "), names.len() - LISTED_NAMES)
        }
        _ => names.join(", "),
    }
}

fn conditions(fields: &[(String, Vec<String>)]) -> String {
    let all: Vec<String> =
        fields.iter().map(|(name, globs)| format!("{name} is {}", globs.join(" or "))).collect();
    if all.is_empty() { String::new() } else { format!(", if {}", all.join(" and ")) }
}

fn listed(globs: &[String], none: &str) -> String {
    if globs.is_empty() { none.to_owned() } else { globs.join(", ") }
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
        assert!(all(&rule(&["*"], &[])).contains("rule #2 allows every action that changes nothing"));
        assert!(all(&rule(&["Originate"], &[("Channel", &["PJSIP/*"])])).contains("no call can be made"));
        let application = rule(&["Originate"], &[("Channel", &["PJSIP/*"]), ("Application", &["*"])]);
        assert!(all(&application).contains("with any Application: it runs any application: System()"));
        let variable =
            rule(&["originate"], &[("Channel", &["*"]), ("Context", &["a"]), ("Variable", &["*"])]);
        assert!(all(&variable).contains("Local/ into any context") && all(&variable).contains("SHELL()"));
        assert!(all(&rule(&["logoff"], &[])).contains("allows Logoff, which is never allowed"));
        assert!(
            all(&rule(&["Getvar"], &[("Variable.SHELL(id)", &["**"])])).contains("any Variable.SHELL(id)")
        );
        assert_eq!(all(&rule(&["Ping", "QueueStatus"], &[])), "");
    }

    #[test]
    fn each_danger_and_each_of_its_fields_has_its_words() {
        for danger in dangers::DANGERS {
            let action = danger.action;
            let plain = rule(&[action], &[]);
            let told = warnings(3, &plain).join("\n");
            assert!(told.contains(&format!("rule #3 allows {action}")), "{action}: {told}");
            assert!(action == "Originate" || told.contains(danger.why), "{action}: {told}");
            assert_eq!(refused(&plain).is_empty(), danger.fields.is_empty(), "{action}");
            for field in danger.fields {
                let left_out = refused(&plain).join("\n");
                assert!(left_out.contains(field.name), "{action}: {left_out}");
                let anything = rule(&[action], &[(field.name, &["*"])]);
                let told = warnings(3, &anything).join("\n");
                let words = if field.name == "Channel" { "any Channel" } else { field.why };
                assert!(action == "Hangup" || told.contains(words), "{action} {}: {told}", field.name);
                let bound = refused(&rule(&[action], &[(field.name, &["this"])])).join(", ");
                let words: Vec<&str> = bound.split(", ").collect();
                let open = words.iter().filter(|word| word.split(' ').any(|word| word == field.name)).count();
                assert_eq!(open, 0, "{action} {}: {bound}", field.name);
            }
            let by_glob = rule(&[&format!("{action}*")], &[]);
            let told = refused(&by_glob).join("\n");
            assert!(told.contains(&format!("not {action}")), "{action}: {told}");
            let fitted = dangers_that(&by_glob, true).count();
            assert_eq!((fitted, warnings(3, &by_glob).len()), (0, 0), "{action}");
        }
    }

    #[test]
    fn what_a_rule_leaves_out_is_told() {
        let lines = refused(&rule(&["Originate", "Queue*"], &[("Context", &["sales"])]));
        assert_eq!(
            lines,
            [
                "by its globs only what changes nothing, such as Ping or QueueStatus",
                "not QueueReset, QueueReload, QueueChangePriorityCaller, QueueWithdrawCaller, QueueAdd, QueueRemove and 4 \
                 more: to be allowed, these must be written out",
                "Originate without Application, without Data, without PreDialGoSub, without Channel beginning with Local/",
            ]
        );
        assert_eq!(refused(&rule(&["Ping", "QueueStatus"], &[])), Vec::<String>::new());
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
