//! What the rules allow, and every row of the lists of actions held against the table of dangers.

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
    assert_eq!(
        denied(std::slice::from_ref(&named), &originate).as_deref(),
        Some("fields.Channel"),
        "Local/ runs dialplan"
    );
    let mut both = named;
    both.fields.push(("channel".into(), vec!["Local/*@a".into()]));
    assert_eq!(denied(&[both], &originate), None);
    let stop = command("Command", &[("Command", "core stop now")]);
    assert_eq!(denied(&[rule(&["*"], &[])], &stop).as_deref(), Some("action"));
    assert_eq!(denied(&[rule(&["command"], &[])], &stop).as_deref(), Some("fields.Command"));
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
        assert_eq!(denied(&rules, &command("originate", &[("Channel", value)])).is_none(), fits, "{glob}");
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

#[test]
fn a_dangerous_action_must_be_written_out_and_a_glob_stands_for_the_others() {
    let hangup = command("Hangup", &[("Channel", "PJSIP/1-00000001")]);
    for glob in ["*", "Hang*", "?angup", "[Hh]angup"] {
        assert_eq!(denied(&[rule(&[glob], &[])], &hangup).as_deref(), Some("action"), "{glob}");
        assert_eq!(denied(&[rule(&[glob], &[]), rule(&["hangup"], &[])], &hangup), None, "{glob}");
    }
    assert_eq!(denied(&[rule(&["Queue*"], &[])], &command("QueueStatus", &[])), None);
}

#[test]
fn a_field_is_free_where_its_value_is_harmless() {
    let hangup = |channel: &str| command("Hangup", &[("Channel", channel)]);
    let open = [rule(&["Hangup"], &[])];
    assert_eq!(denied(&open, &hangup("PJSIP/1-00000001")), None);
    for every in ["/.*/", " /^Local/", "\u{1}/x/"] {
        assert_eq!(denied(&open, &hangup(every)).as_deref(), Some("fields.Channel"), "{every:?}");
    }
    let originate = |channel: &str| command("Originate", &[("Channel", channel)]);
    let open = [rule(&["Originate"], &[])];
    assert_eq!(denied(&open, &originate("PJSIP/1")), None);
    for local in ["Local/1@a", "lOCAL/1@a", "\t Local/1@a", "\u{7f}Local/1@a"] {
        let expected = (!local.starts_with('\u{7f}')).then_some("fields.Channel");
        assert_eq!(denied(&open, &originate(local)).as_deref(), expected, "{local:?}");
    }
    let set = |value: &str| command("Setvar", &[("Variable", "A"), ("Value", value)]);
    let open = [rule(&["Setvar"], &[("Variable", &["A"])])];
    assert_eq!(denied(&open, &set("Sales (1) $5 |")), None);
    for evaluated in ["${SHELL(id)}", "$[1+1]", "`id`"] {
        assert_eq!(denied(&open, &set(evaluated)).as_deref(), Some("fields.Value"), "{evaluated}");
    }
}

#[test]
fn what_is_left_out_can_be_dangerous_too_and_one_name_can_stand_for_many() {
    let tree = [rule(&["DBGetTree"], &[])];
    assert_eq!(denied(&tree, &command("DBGetTree", &[])).as_deref(), Some("fields.Family"));
    let bound = [rule(&["DBGetTree"], &[("Family", &["queue"])])];
    assert_eq!(denied(&bound, &command("DBGetTree", &[])).as_deref(), Some("fields.Family"));
    assert_eq!(denied(&bound, &command("DBGetTree", &[("family", "queue")])), None);
    let update = |name: &str| command("UpdateConfig", &[("SrcFilename", "queues.conf"), (name, "x")]);
    let rules = [rule(&["UpdateConfig"], &[("SrcFilename", &["queues.conf"]), ("Var-000000", &["*"])])];
    assert_eq!(denied(&rules, &update("var-000000")), None);
    let two = command(
        "UpdateConfig",
        &[("SrcFilename", "queues.conf"), ("Var-000000", "x"), ("Var-000001", "#exec /bin/sh")],
    );
    assert_eq!(denied(&rules, &two).as_deref(), Some("fields.Var-000001"));
}

#[test]
fn variables_that_asterisk_acts_upon_must_be_bound() {
    let open = [rule(&["Originate"], &[])];
    for name in ["MONITOR_EXEC", "__transfer_context", "_GOTO_ON_BLINDXFR", "CHANNEL(hangup_handler_push)"] {
        let with = command("Originate", &[("Variable", &format!("{name}=x"))]);
        assert!(denied(&open, &with).is_some_and(|field| field.starts_with("fields.Variable.")), "{name}");
    }
    let value = command("Originate", &[("Variable", "NOTE=${SHELL(id)}")]);
    assert_eq!(denied(&open, &value), None, "Asterisk sets it as it stands");
}

#[test]
fn each_action_stands_once_in_the_table() {
    for (index, danger) in dangers::DANGERS.iter().enumerate() {
        let found =
            dangers::DANGERS.iter().position(|other| other.action.eq_ignore_ascii_case(danger.action));
        assert_eq!(found, Some(index), "{}", danger.action);
        assert!(!NEVER.iter().any(|never| never.eq_ignore_ascii_case(danger.action)), "{}", danger.action);
    }
}

#[test]
fn a_glob_stands_only_for_what_changes_nothing() {
    let all = [rule(&["*"], &[])];
    let (mut allowed, mut refused) = (0, 0);
    for file in ["actions-16.tsv", "actions-22.tsv"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file);
        let text = std::fs::read_to_string(path).expect("a list of the corpus");
        for action in
            text.lines().filter_map(|line| line.split('\t').next()).filter(|name| !name.contains(' '))
        {
            let is_allowed = denied(&all, &command(action, &[])).is_none();
            let harmless = crate::command::recover::is_read_only(action) && dangers::of(action).is_none();
            assert_eq!(is_allowed, harmless, "{action}");
            *(if is_allowed { &mut allowed } else { &mut refused }) += 1;
        }
    }
    assert!(allowed > 80 && refused > 160, "{allowed} and {refused}");
    for unknown in ["PlayDTMF", "ActionOfAModuleOfOnesOwn"] {
        assert_eq!(denied(&all, &command(unknown, &[])).as_deref(), Some("action"));
        assert_eq!(denied(&[rule(&[unknown], &[])], &command(unknown, &[])), None);
    }
}

#[test]
fn variables_that_asterisk_acts_upon_need_a_rule() {
    for name in ["MONITOR_OPTIONS", "__touch_mixmonitor_format", "MEETME_AGI_BACKGROUND", "_DYNAMIC_FEATURES"]
    {
        let line = format!("{name}=x");
        let originate =
            command("Originate", &[("Context", "a"), ("Channel", "PJSIP/1"), ("Variable", &line)]);
        let without = rule(&["Originate"], &[("Context", &["a"])]);
        let field = denied(&[without], &originate);
        assert!(
            field.as_ref().is_some_and(|field| field.starts_with("fields.Variable.")),
            "{name}: {field:?}"
        );
    }
}
