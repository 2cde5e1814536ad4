//! What may be done: deny by default, and some things never.
//!
//! A rule allows actions by glob, for servers by glob, and may bind fields: a bound field must be there, and every
//! value of it must match. `Variable.NAME` binds one channel variable of an Originate, inherited (`__NAME`) or not.
//! A `*` does not cross a `/`, so that `Local/*@sales` does not fit `Local/1@other/@sales`, which Asterisk dials in
//! the context `other`; `**` after a `/` does (`PJSIP/**`), and a lone `*` fits everything.
//! What a rule does not bind is free, except what gives power beyond its name ([`dangers`]): such an action is allowed
//! only where a rule writes its name out, and such a field, or a variable that is a dialplan function, only where the
//! rule binds it.

pub mod dangers;
#[cfg(test)]
mod tests;

use globset::{Glob, GlobMatcher};

use self::dangers::When;
use super::{
    decode::Command,
    error::{Code, CommandError},
    fields::{is_variable, sets_variables, variable_of},
};

/// Actions that would end, blind or block amibus's own session. No rule allows them.
pub const NEVER: [&str; 6] = ["Login", "Logoff", "Challenge", "Events", "Filter", "WaitEvent"];

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
    /// The actions as configured, for those that must be written out.
    names: Vec<String>,
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
                names: rule.actions.clone(),
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

/// Why an action must be written out, in an answer to its sender.
fn must_be_written_out(action: &str) -> String {
    match dangers::of(action) {
        Some(danger) => {
            format!("{} {}: a rule must write its name out, a glob is not enough", danger.action, danger.why)
        }
        None => {
            format!("{action} may change something: a rule must write its name out, a glob is not enough")
        }
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
        if !self.writes_out(&command.action) {
            let text = must_be_written_out(&command.action);
            return Some(Objection::Field(0, CommandError::at(Code::Forbidden, "action", text)));
        }
        // Nearer than a rule that fits by a glob alone.
        let mut fitting = 1;
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
        if let Some((field, text)) = self.danger(command) {
            return refuse(fitting, &field, text);
        }
        None
    }

    /// The field that gives power beyond the action and that the rule does not bind, and why it must.
    fn danger(&self, command: &Command) -> Option<(String, String)> {
        let bound = |field: &str| self.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(field));
        let fields = dangers::of(&command.action).map(|danger| danger.fields).unwrap_or_default();
        for field in fields {
            let one_variable = |name: &str, line: &str| {
                let variable =
                    variable_of(line).filter(|_| sets_variables(&command.action) && is_variable(name));
                variable.is_some_and(|(variable, _)| bound(&format!("Variable.{variable}")))
            };
            let mut given = command.headers.iter().filter(|(name, _)| field.is(name));
            let open = given
                .find(|(name, value)| !bound(name) && !one_variable(name, value) && field.concerns(value));
            let missing = field.when == When::Always && !bound(field.name);
            let name = match open {
                Some((given, _)) if field.name.ends_with('*') => Some(given.as_str()),
                open => (open.is_some() || missing).then_some(field.name),
            };
            if let Some(name) = name {
                let text = format!("{name} {}: a rule must bind it by name", field.why);
                return Some((name.to_owned(), text));
            }
        }
        for (variable, _) in variables(command).filter(|(name, _)| dangers::is_special(name)) {
            let name = format!("Variable.{variable}");
            if !bound("Variable") && !bound(&name) {
                let text = "a variable that is a dialplan function, or that Asterisk acts upon, needs a rule that binds \
                            it by name";
                return Some((name, text.to_owned()));
            }
        }
        None
    }

    /// Whether the rule writes out an action that must be.
    fn writes_out(&self, action: &str) -> bool {
        dangers::is_meant_by_globs(action) || self.names.iter().any(|name| name.eq_ignore_ascii_case(action))
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
