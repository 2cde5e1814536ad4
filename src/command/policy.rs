//! What may be done: deny by default, and some things never.
//!
//! A rule allows actions by glob, for servers by glob, and may bind fields: a bound field must be there, and every
//! value of it must match. `Variable.NAME` binds one channel variable of an Originate, inherited (`__NAME`) or not.
//! A `*` does not cross a `/`, so that `Local/*@sales` does not fit `Local/1@other/@sales`, which Asterisk dials in
//! the context `other`; `**` after a `/` does (`PJSIP/**`), and a lone `*` fits everything.
//! What a rule does not bind is free, except what gives power beyond the action itself ([`MUST_BE_BOUND`], and
//! variables that are dialplan functions): that is only free where a rule names it.

use globset::{Glob, GlobMatcher};

use super::{
    decode::Command,
    error::{Code, CommandError},
    fields::{is_variable, sets_variables, variable_of},
};

/// Actions that would end, blind or block amibus's own session. No rule allows them.
pub const NEVER: [&str; 6] = ["Login", "Logoff", "Challenge", "Events", "Filter", "WaitEvent"];

/// Fields that a sender may use only where the rule binds them by name: they run an application or a shell
/// command, or evaluate dialplan functions (`dangerous-actions.tsv`).
pub const MUST_BE_BOUND: [(&str, &str); 9] = [
    ("Originate", "Application"),
    ("Originate", "Data"),
    ("Originate", "PreDialGoSub"),
    ("MixMonitor", "Command"),
    ("Command", "Command"),
    ("AGI", "Command"),
    ("Getvar", "Variable"),
    ("Setvar", "Variable"),
    ("Status", "Variables"),
];

/// One allow rule, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Globs on the action's name, in any case.
    pub actions: Vec<String>,
    /// Globs on the server's name; empty: every server.
    pub servers: Vec<String>,
    /// Globs on the values of fields.
    pub fields: Vec<(String, Vec<String>)>,
}

/// A glob in a rule that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{glob:?} is not a glob: {message}")]
pub struct GlobError {
    /// The text.
    pub glob: String,
    /// What is wrong with it.
    pub message: String,
}

/// The rules, ready to be asked.
#[derive(Debug, Default)]
pub struct Policy {
    rules: Vec<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    actions: Vec<GlobMatcher>,
    servers: Vec<GlobMatcher>,
    fields: Vec<(String, Vec<GlobMatcher>)>,
}

impl Policy {
    /// Compiles the rules.
    ///
    /// # Errors
    /// The first glob that is none.
    pub fn new(rules: &[Rule]) -> Result<Self, GlobError> {
        let compile = |rule: &Rule| -> Result<Compiled, GlobError> {
            let field = |(name, values): &(String, Vec<String>)| Ok((name.clone(), globs(values, false)?));
            Ok(Compiled {
                actions: globs(&rule.actions, true)?,
                servers: globs(&rule.servers, false)?,
                fields: rule.fields.iter().map(field).collect::<Result<_, _>>()?,
            })
        };
        Ok(Self { rules: rules.iter().map(compile).collect::<Result<_, _>>()? })
    }

    /// Whether the command may be carried out.
    ///
    /// # Errors
    /// [`Code::Forbidden`] with the field that the nearest rule objects to, where a rule is near.
    pub fn check(&self, command: &Command) -> Result<(), CommandError> {
        if let Some(name) = NEVER.iter().find(|name| name.eq_ignore_ascii_case(&command.action)) {
            let text = format!("{name} would harm amibus's own session; no rule allows it");
            return Err(CommandError::at(Code::Forbidden, "action", text));
        }
        let mut nearest: Option<(usize, CommandError)> = None;
        for rule in &self.rules {
            match rule.objection(command) {
                None => return Ok(()),
                Some(Objection::Field(fitting, error)) => {
                    if nearest.as_ref().is_none_or(|(most, _)| fitting > *most) {
                        nearest = Some((fitting, error));
                    }
                }
                Some(Objection::NotAbout) => {}
            }
        }
        Err(nearest.map(|(_, error)| error).unwrap_or_else(|| {
            let text = format!(
                "no [[command.allow]] rule allows {} on {}; what is not allowed is denied",
                command.action, command.server
            );
            CommandError::at(Code::Forbidden, "action", text)
        }))
    }
}

enum Objection {
    /// The rule is about other actions or servers.
    NotAbout,
    /// The rule is about this action; so many fields fit, and then this one does not.
    Field(usize, CommandError),
}

impl Compiled {
    fn objection(&self, command: &Command) -> Option<Objection> {
        let any = |globs: &[GlobMatcher], text: &str| globs.iter().any(|g| g.is_match(text));
        let server = self.servers.is_empty() || any(&self.servers, &command.server);
        if !server || !any(&self.actions, &command.action) {
            return Some(Objection::NotAbout);
        }
        let mut fitting = 0;
        let refuse = |fitting: usize, field: &str, text: String| {
            Some(Objection::Field(
                fitting,
                CommandError::at(Code::Forbidden, format!("fields.{field}"), text),
            ))
        };
        for (name, globs) in &self.fields {
            let values = values_of(command, name);
            if values.is_empty() {
                return refuse(fitting, name, format!("the rule for {} wants this field", command.action));
            }
            if let Some(value) = values.iter().find(|value| !any(globs, value)) {
                let text = format!("{value:?} is not among what the rule for {} allows", command.action);
                return refuse(fitting, name, text);
            }
            fitting += 1;
        }
        let bound = |field: &str| self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(field));
        let given = |field: &str| command.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(field));
        for (action, field) in MUST_BE_BOUND {
            if action.eq_ignore_ascii_case(&command.action) && given(field) && !bound(field) {
                let text = format!("{field} gives power beyond {action}: a rule must allow it by name");
                return refuse(fitting, field, text);
            }
        }
        for (function, _) in variables(command).filter(|(name, _)| name.contains('(')) {
            let name = format!("Variable.{function}");
            if !bound("Variable") && !bound(&name) {
                let text = "a variable that is a dialplan function needs a rule that binds it by name";
                return refuse(fitting, &name, text.to_owned());
            }
        }
        None
    }
}

/// The values that a bound field has in a command.
fn values_of(command: &Command, field: &str) -> Vec<String> {
    let of_header = |header: &str| -> Vec<String> {
        let named = command.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(header));
        named.map(|(_, value)| value.clone()).collect()
    };
    match field.split_once('.') {
        Some((header, variable)) if is_variable(header) => variables(command)
            .filter(|(name, _)| name.eq_ignore_ascii_case(variable))
            .map(|(_, v)| v)
            .collect(),
        _ => of_header(field),
    }
}

/// The variables that an action sets.
fn variables(command: &Command) -> impl Iterator<Item = (&str, String)> {
    let sets = sets_variables(&command.action);
    let headers = command.headers.iter().filter(move |(name, _)| sets && is_variable(name));
    headers.filter_map(|(_, line)| variable_of(line))
}

pub(super) fn globs(texts: &[String], any_case: bool) -> Result<Vec<GlobMatcher>, GlobError> {
    let compile = |text: &String| {
        let pattern = if text == "*" { "**" } else { text };
        let glob = globset::GlobBuilder::new(pattern)
            .case_insensitive(any_case)
            .literal_separator(true)
            .backslash_escape(true)
            .build();
        glob.map(|g: Glob| g.compile_matcher())
            .map_err(|e| GlobError { glob: text.clone(), message: e.kind().to_string() })
    };
    texts.iter().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::decode::Wait;

    fn command(action: &str, headers: &[(&str, &str)]) -> Command {
        Command {
            id: None,
            server: "pbx1".into(),
            action: action.into(),
            deadline: None,
            wait: Wait::Response,
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            payload_hash: String::new(),
        }
    }

    fn rule(actions: &[&str], fields: &[(&str, &[&str])]) -> Rule {
        let own = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        Rule {
            actions: own(actions),
            servers: Vec::new(),
            fields: fields.iter().map(|(name, globs)| ((*name).to_owned(), own(globs))).collect(),
        }
    }

    fn denied(rules: &[Rule], command: &Command) -> Option<String> {
        let error = Policy::new(rules).expect("globs").check(command).err()?;
        assert_eq!(error.code, Code::Forbidden);
        error.field
    }

    #[test]
    fn nothing_is_allowed_without_a_rule() {
        assert_eq!(denied(&[], &command("Ping", &[])).as_deref(), Some("action"));
        assert_eq!(denied(&[rule(&["ping"], &[])], &command("Ping", &[])), None);
    }

    #[test]
    fn what_harms_the_own_session_is_never_allowed() {
        for name in NEVER {
            assert_eq!(denied(&[rule(&["*"], &[])], &command(name, &[])).as_deref(), Some("action"));
        }
        assert!(denied(&[rule(&["*"], &[])], &command("lOgOff", &[])).is_some());
    }

    #[test]
    fn every_value_of_a_bound_field_must_match() {
        let rules =
            [rule(&["Originate"], &[("Context", &["sales"]), ("Channel", &["PJSIP/*", "Local/*@sales"])])];
        let fine = command("Originate", &[("Context", "sales"), ("channel", "PJSIP/100"), ("Exten", "1")]);
        assert_eq!(denied(&rules, &fine), None);
        for (headers, field) in [
            (&[("Context", "sales")][..], "fields.Channel"),
            (&[("Context", "sales2"), ("Channel", "PJSIP/1")], "fields.Context"),
            (&[("Context", "sales"), ("Channel", "PJSIP/1"), ("Channel", "DAHDI/1")], "fields.Channel"),
            (&[("Context", "sales"), ("Channel", "Local/1@other")], "fields.Channel"),
            (&[("Context", "sales"), ("Channel", "Local/1@other/@sales")], "fields.Channel"),
            (&[("Context", "sales"), ("Channel", "Local/1@other/n@sales")], "fields.Channel"),
            (&[("Context", "sales"), ("Channel", "PJSIP/1/sip:x@y")], "fields.Channel"),
        ] {
            assert_eq!(denied(&rules, &command("Originate", headers)).as_deref(), Some(field));
        }
    }

    #[test]
    fn power_beyond_the_action_needs_a_rule_that_names_it() {
        let originate = command("Originate", &[("Channel", "Local/1@a"), ("application", "System")]);
        let open = rule(&["Originate"], &[]);
        assert_eq!(denied(&[open], &originate).as_deref(), Some("fields.Application"));
        let named = rule(&["Originate"], &[("Application", &["Playback", "System"])]);
        assert_eq!(denied(&[named], &originate), None);
        assert!(denied(&[rule(&["*"], &[])], &command("Command", &[("Command", "core stop now")])).is_some());
    }

    #[test]
    fn one_variable_can_be_bound_and_a_function_must_be() {
        let rules = [rule(&["Originate"], &[("Variable.ORDER", &["1*"])])];
        let with = |line: &str| command("Originate", &[("Variable", line), ("Variable", "OTHER=x")]);
        assert_eq!(denied(&rules, &with("ORDER=12")), None);
        for bad in ["ORDER=2", "__ORDER=2", "order=2", r"ORDER=\,1"] {
            assert_eq!(denied(&rules, &with(bad)).as_deref(), Some("fields.Variable.ORDER"), "{bad}");
        }
        assert_eq!(denied(&rules, &command("Originate", &[])).as_deref(), Some("fields.Variable.ORDER"));
        let open = [rule(&["Originate"], &[])];
        let function = with("SHELL(id)=x");
        assert_eq!(denied(&open, &function).as_deref(), Some("fields.Variable.SHELL(id)"));
        let named = [rule(&["Originate"], &[("Variable.CALLERID(num)", &["*"])])];
        assert_eq!(denied(&named, &with("CALLERID(num)=1")), None);
    }

    #[test]
    fn the_nearest_rule_names_the_field() {
        let near = rule(&["Originate"], &[("Channel", &["PJSIP/*"]), ("Context", &["sales"])]);
        let far = rule(&["Originate"], &[("Account", &["x"])]);
        let command = command("Originate", &[("Channel", "PJSIP/1"), ("Context", "other")]);
        for rules in [[near.clone(), far.clone()], [far, near]] {
            assert_eq!(denied(&rules, &command).as_deref(), Some("fields.Context"));
        }
    }

    #[test]
    fn a_lone_star_fits_everything_and_two_after_a_slash_cross_others() {
        for (glob, value, fits) in [("*", "a/b", true), ("a/*", "a/b/c", false), ("a/**", "a/b/c", true)] {
            let rules = [rule(&["Originate"], &[("Channel", &[glob])])];
            assert_eq!(
                denied(&rules, &command("Originate", &[("Channel", value)])).is_none(),
                fits,
                "{glob}"
            );
        }
    }

    #[test]
    fn a_rule_for_one_server_is_not_for_another() {
        let mut one = rule(&["Ping"], &[]);
        one.servers = vec!["pbx2".into()];
        assert!(denied(&[one.clone()], &command("Ping", &[])).is_some());
        one.servers = vec!["pbx*".into()];
        assert_eq!(denied(&[one], &command("Ping", &[])), None);
    }
}
