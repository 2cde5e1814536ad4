//! `[[filter]]` and `[[command.allow]]`: rules made of globs, checked here and compiled where they are used.

use globset::Glob;

use crate::{
    command::policy::{self, Policy},
    filter::{self, Filter, FilterError, MAX_RULE_GLOBS, Verdict},
};

use super::{
    keys::{ALLOW, FILTER},
    server::tables,
    tree::{Entry, Table},
    walker::{Faults, Section, walk},
};

/// The most rules of a kind.
pub const MAX_RULES: usize = filter::MAX_RULES;
/// The longest glob, in bytes: a glob is compiled, and what becomes of it is bounded too.
pub const MAX_GLOB_BYTES: usize = 1024;

/// All `[[filter]]` tables, in the file's order.
pub(super) fn filters(root: &Table, servers: &[&str], faults: &mut Faults<'_>) -> Vec<filter::Rule> {
    let sections = sections(root.0.get("filter"), "filter", FILTER, faults);
    let rule = |section: Section| {
        let before = faults.count();
        let rule = filter::Rule {
            servers: server_globs(&section, servers, faults),
            events: globs(&section, "events", faults),
            fields: fields(&section, faults),
            verdict: if section.values.text("do") == Some("keep") { Verdict::Keep } else { Verdict::Drop },
        };
        if faults.count() == before
            && let Err(error) = Filter::new(std::slice::from_ref(&rule))
        {
            section.note(faults, "", unusable(error));
        }
        rule
    };
    sections.into_iter().map(rule).collect()
}

/// All `[[command.allow]]` tables.
pub(super) fn allows(entry: Option<&Entry>, servers: &[&str], faults: &mut Faults<'_>) -> Vec<policy::Rule> {
    let sections = sections(entry, "command.allow", ALLOW, faults);
    let rule = |section: Section| {
        let before = faults.count();
        let rule = policy::Rule {
            actions: globs(&section, "actions", faults),
            servers: server_globs(&section, servers, faults),
            fields: fields(&section, faults),
        };
        if faults.count() == before
            && let Err(error) = Policy::new(std::slice::from_ref(&rule))
        {
            section.note(faults, "", error.to_string());
        }
        rule
    };
    sections.into_iter().map(rule).collect()
}

/// Without the rule's number, which only counts among those that were given to the filter.
fn unusable(error: FilterError) -> String {
    match error {
        FilterError::TooManyGlobs(_) => format!("more than {MAX_RULE_GLOBS} globs in one rule"),
        FilterError::Glob { glob, reason, .. } => format!("{glob:?} is no glob: {reason}"),
        other => other.to_string(),
    }
}

fn sections(
    entry: Option<&Entry>,
    name: &str,
    keys: &'static [amibus_contract::Key],
    faults: &mut Faults<'_>,
) -> Vec<Section> {
    let Some(entry) = entry else { return Vec::new() };
    let tables = tables(entry, name, faults);
    if tables.len() > MAX_RULES {
        faults.note(&entry.key, name, format!("more than {MAX_RULES} rules"));
        return Vec::new();
    }
    let mut sections = Vec::new();
    for (index, (table, here)) in tables.into_iter().enumerate() {
        sections.push(walk(table, here, &format!("{name} #{}", index + 1), keys, &[], faults));
    }
    sections
}

pub(super) fn globs(section: &Section, key: &str, faults: &mut Faults<'_>) -> Vec<String> {
    let globs = section.values.list(key).unwrap_or_default();
    if globs.is_empty() && section.is_given(key) && section.values.list(key).is_some() {
        section.note(faults, key, "an empty list fits nothing; write [\"*\"] for all");
    }
    check(section, key, globs, faults);
    globs.to_vec()
}

/// A glob on servers that fits none of them is a mistake in spelling.
pub(super) fn server_globs(section: &Section, servers: &[&str], faults: &mut Faults<'_>) -> Vec<String> {
    let globs = globs(section, "servers", faults);
    for text in &globs {
        if text.len() > MAX_GLOB_BYTES {
            continue;
        }
        let Ok(glob) = Glob::new(text) else { continue };
        let glob = glob.compile_matcher();
        if section.is_given("servers") && !servers.iter().any(|server| glob.is_match(server)) {
            let hint = super::nearest::hint(text, servers.iter().copied());
            section.note(faults, "servers", format!("{text:?} fits no configured server{hint}"));
        }
    }
    globs
}

fn fields(section: &Section, faults: &mut Faults<'_>) -> Vec<(String, Vec<String>)> {
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    for (name, globs) in section.values.list_map("fields").into_iter().flatten() {
        check(section, "fields", globs, faults);
        if globs.is_empty() {
            section.note(
                faults,
                "fields",
                format!("{name}: an empty list fits nothing; write [\"*\"] for any value"),
            );
        }
        if let Some((same, _)) = fields.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)) {
            let message = format!("{same} and {name} are the same field; give it once, with all its globs");
            section.note(faults, "fields", message);
        }
        fields.push((name.clone(), globs.clone()));
    }
    fields
}

fn check(section: &Section, key: &str, globs: &[String], faults: &mut Faults<'_>) {
    for text in globs {
        if text.len() > MAX_GLOB_BYTES {
            section.note(faults, key, format!("a glob is over {MAX_GLOB_BYTES} bytes"));
        } else if let Err(error) = Glob::new(text) {
            section.note(faults, key, format!("{text:?} is no glob: {}", error.kind()));
        }
    }
}
