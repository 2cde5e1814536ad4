//! Columns as channel variables.

use crate::command::policy::dangers::is_special;

/// What dial sets itself begins with this.
const OURS: &str = "AMIBUS_";

/// A column that becomes a channel variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) column: usize,
}

/// The variables of all columns but the `ignored` ones. Those on which Asterisk acts have to be among the `allowed`.
///
/// # Errors
/// What is wrong with a column's name, with the remedy.
pub(super) fn of(
    columns: &[String],
    ignored: &[String],
    allowed: &[String],
) -> Result<Vec<Variable>, String> {
    for (option, names) in [("--ignore", ignored), ("--allow-variable", allowed)] {
        if let Some(unknown) = names.iter().find(|name| !columns.contains(name)) {
            let columns = columns.join(", ");
            return Err(format!("{option} {unknown}: the file has no such column; it has {columns}"));
        }
    }
    let wanted = columns.iter().enumerate().filter(|(_, name)| !ignored.contains(name));
    wanted.map(|(column, name)| Ok(Variable { name: checked(name, allowed)?, column })).collect()
}

fn checked(name: &str, allowed: &[String]) -> Result<String, String> {
    let remedy = format!("rename it in the first line, or leave it out with --ignore {name:?}");
    if name.contains(['(', ')']) {
        return Err(format!(
            "column {name:?} would be a dialplan function, not a channel variable; {remedy}"
        ));
    }
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !begins || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let text =
            "cannot be a channel variable, whose name is of letters, digits and _ and begins with no digit";
        return Err(format!("column {name:?} {text}; {remedy}"));
    }
    if name.trim_start_matches('_').to_ascii_uppercase().starts_with(OURS) {
        return Err(format!("column {name:?}: variables that begin with {OURS} are set by dial; {remedy}"));
    }
    // Leading underlines tell Asterisk who inherits a variable, and are no part of its name.
    if is_special(name.trim_start_matches('_')) && !allowed.iter().any(|allowed| allowed == name) {
        return Err(format!(
            "column {name:?} would set a variable that Asterisk itself acts upon, so the file would choose where calls go \
             on or what is run; {remedy}; or, if that is meant, give --allow-variable {name} (a rule of amibus must bind \
             it, too)"
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn every_column_is_a_variable_but_the_ignored() {
        let found = of(&names(&["number", "first name", "__ORDER", "n2"]), &names(&["first name"]), &[]);
        let found: Vec<_> = found.expect("right").into_iter().map(|v| (v.name, v.column)).collect();
        assert_eq!(found, [("number".into(), 0), ("__ORDER".into(), 2), ("n2".into(), 3)]);
    }

    #[test]
    fn what_cannot_be_one_is_named() {
        for (bad, told) in [
            ("SHELL(rm)", "would be a dialplan function"),
            ("first name", "cannot be a channel variable"),
            ("2nd", "cannot be a channel variable"),
            ("größe", "cannot be a channel variable"),
            ("amibus_id", "are set by dial"),
            ("__AMIBUS_ID", "are set by dial"),
            ("__TRANSFER_CONTEXT", "Asterisk itself acts upon"),
            ("GOTO_ON_BLINDXFR", "Asterisk itself acts upon"),
            ("_monitor_exec", "--allow-variable _monitor_exec"),
        ] {
            let why = of(&names(&["number", bad]), &[], &[]).expect_err(bad);
            assert!(why.contains(told) && why.contains(&format!("column {bad:?}")), "{why}");
        }
        assert!(of(&names(&["a"]), &names(&["b"]), &[]).expect_err("unknown").contains("no such column"));
    }

    #[test]
    fn what_asterisk_acts_upon_is_taken_where_it_is_meant() {
        let columns = names(&["number", "TRANSFER_CONTEXT"]);
        assert_eq!(of(&columns, &[], &columns[1..]).expect("allowed").len(), 2);
        assert_eq!(of(&columns, &columns[1..], &[]).expect("left out").len(), 1);
        let unknown = of(&columns, &[], &names(&["x"])).expect_err("unknown");
        assert!(unknown.contains("--allow-variable x: the file has no such column"), "{unknown}");
    }
}
