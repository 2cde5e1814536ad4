//! From `fields` to the headers of an AMI action.
//!
//! A value is a string, a number, a boolean, an array of these (a repeated header) or, for `Variable`, an object: one
//! `Variable` header each. Asterisk splits the `Variable` of an Originate at commas and takes quotes and backslashes
//! away (`main/manager.c`, `astman_get_variables`, through `AST_STANDARD_APP_ARGS`), so these are protected here,
//! however the variable was given: one header is one variable, and its value arrives as it was written.

use super::{
    error::{Code, CommandError},
    json::Json,
};

/// The most headers that `fields` may become; Asterisk takes 128 with Action and ActionID.
const MAX_FIELDS: usize = 120;

/// Headers that amibus sets itself.
const OURS: [&str; 4] = ["Action", "ActionID", "ChannelId", "OtherChannelId"];

/// The headers that `fields` stands for, in order.
///
/// # Errors
/// A field that cannot be a header, by its path.
pub(super) fn headers(
    action: &str,
    fields: Option<Json>,
    path: &str,
) -> Result<Vec<(String, String)>, CommandError> {
    let entries = match fields {
        None => return Ok(Vec::new()),
        Some(Json::Object(entries)) => entries,
        Some(other) => {
            let text = format!("an object of headers, not {}", other.what());
            return Err(CommandError::at(Code::InvalidField, path, text));
        }
    };
    let mut headers = Vec::with_capacity(entries.len());
    let sets = sets_variables(action);
    for (name, value) in entries {
        let at = format!("{path}.{name}");
        if let Some(ours) = OURS.iter().find(|ours| ours.eq_ignore_ascii_case(&name)) {
            let text = format!("{ours} is set by amibus: leave it out");
            return Err(CommandError::at(Code::InvalidField, at, text));
        }
        if headers.iter().any(|(given, _): &(String, String)| given.eq_ignore_ascii_case(&name)) {
            let text = "given before in another case; a repeated header is an array";
            return Err(CommandError::at(Code::InvalidField, at, text));
        }
        let variables = sets && is_variable(&name);
        add(&mut headers, &name, value, variables, &at)?;
        if headers.len() > MAX_FIELDS {
            let text = format!("more than {MAX_FIELDS} headers");
            return Err(CommandError::at(Code::InvalidField, path, text));
        }
    }
    Ok(headers)
}

fn add(
    headers: &mut Vec<(String, String)>,
    name: &str,
    value: Json,
    variables: bool,
    at: &str,
) -> Result<(), CommandError> {
    let mut one = |item: Json, at: &str| -> Result<(), CommandError> {
        let mut text = scalar(item, at)?;
        if variables {
            let Some((variable, value)) = text.split_once('=') else {
                return Err(CommandError::at(Code::InvalidField, at, "NAME=value, or an object"));
            };
            text = assignment(variable, value, at)?;
        }
        headers.push((name.to_owned(), text));
        Ok(())
    };
    match value {
        Json::Array(items) => {
            for (index, item) in items.into_iter().enumerate() {
                one(item, &format!("{at}[{index}]"))?;
            }
        }
        Json::Object(entries) if variables => {
            for (variable, value) in entries {
                let at = format!("{at}.{variable}");
                let value = scalar(value, &at)?;
                headers.push((name.to_owned(), assignment(&variable, &value, &at)?));
            }
        }
        scalar_value => one(scalar_value, at)?,
    }
    Ok(())
}

fn scalar(value: Json, at: &str) -> Result<String, CommandError> {
    match value {
        Json::Text(text) | Json::Number(text) => Ok(text),
        Json::Flag(flag) => Ok(flag.to_string()),
        Json::Object(_) => {
            let text = "only Variable, where an action sets variables, may be an object";
            Err(CommandError::at(Code::InvalidField, at, text))
        }
        other => {
            let text = format!("a string, a number or a boolean, not {}", other.what());
            Err(CommandError::at(Code::InvalidField, at, text))
        }
    }
}

/// Whether an action reads its `Variable` headers as assignments that it splits at commas
/// (`astman_get_variables` in `main/manager.c`, and its callers).
pub(super) fn sets_variables(action: &str) -> bool {
    ["Originate", "MessageSend", "PJSIPNotify", "SIPnotify"].iter().any(|a| a.eq_ignore_ascii_case(action))
}

/// Whether a header sets variables, in an action that does.
pub(super) fn is_variable(name: &str) -> bool {
    name.eq_ignore_ascii_case("Variable")
}

/// The name, without what makes it inherited, and the value of a header that [`assignment`] made.
pub(super) fn variable_of(line: &str) -> Option<(&str, String)> {
    let (name, protected) = line.split_once('=')?;
    let mut value = String::with_capacity(protected.len());
    let mut chars = protected.chars();
    while let Some(c) = chars.next() {
        value.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    Some((name.trim_start_matches('_'), value))
}

/// `name=value` as Asterisk reads it back: what would split or vanish is protected by a backslash.
fn assignment(name: &str, value: &str, at: &str) -> Result<String, CommandError> {
    // Asterisk skips whatever is no more than a blank before a name (`ast_skip_blanks`), control characters too: what is
    // judged here would be another variable there.
    let odd = |c: char| c.is_control() || matches!(c, '=' | ',' | '"' | '\\' | '\'');
    if name.is_empty() || name.contains(odd) || name.trim() != name {
        let text = "the name of a channel variable: not empty, no '=', comma, quote, backslash, control character or outer \
                    blank";
        return Err(CommandError::at(Code::InvalidField, at, text));
    }
    let mut line = String::with_capacity(name.len() + value.len() + 1);
    line.push_str(name);
    line.push('=');
    for c in value.chars() {
        if matches!(c, ',' | '"' | '\\') {
            line.push('\\');
        }
        line.push(c);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<(String, String)>, CommandError> {
        headers("Originate", Some(Json::parse(text.as_bytes()).expect("JSON")), "fields")
    }

    #[test]
    fn every_kind_of_value_becomes_headers_in_order() {
        let got = of(r#"{"Channel":"PJSIP/100","Priority":1,"EarlyMedia":true,"Codecs":["ulaw","alaw"],
            "Variable":{"ORDER":"8812","NOTE":"a=b,\"c\"\\d","EMPTY":""}}"#)
        .expect("valid");
        let expected = [
            ("Channel", "PJSIP/100"),
            ("Priority", "1"),
            ("EarlyMedia", "true"),
            ("Codecs", "ulaw"),
            ("Codecs", "alaw"),
            ("Variable", "ORDER=8812"),
            ("Variable", r#"NOTE=a=b\,\"c\"\\d"#),
            ("Variable", "EMPTY="),
        ];
        assert_eq!(got, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn a_variable_is_one_variable_however_it_is_given() {
        let got = of(r#"{"Variable":["A=1,B=2","C="]}"#).expect("valid");
        let expected = [("Variable", r"A=1\,B=2"), ("Variable", "C=")];
        assert_eq!(got, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(variable_of(r#"__A=1\,\"\\x"#), Some(("A", r#"1,"\x"#.to_owned())));
        let other = headers("Getvar", Some(Json::parse(br#"{"Variable":"A"}"#).expect("JSON")), "fields");
        assert_eq!(other.expect("valid"), [("Variable".to_owned(), "A".to_owned())]);
    }

    #[test]
    fn what_cannot_be_a_header_is_named() {
        for (bad, field) in [
            (r#"{"A":null}"#, "fields.A"),
            (r#"{"A":{"b":1}}"#, "fields.A"),
            (r#"{"A":[1,[2]]}"#, "fields.A[1]"),
            (r#"{"actionid":"x"}"#, "fields.actionid"),
            (r#"{"ChannelId":"x"}"#, "fields.ChannelId"),
            (r#"{"A":1,"a":2}"#, "fields.a"),
            (r#"{"Variable":{"a=b":1}}"#, "fields.Variable.a=b"),
            (r#"{"Variable":{"a":{}}}"#, "fields.Variable.a"),
            (r#"{"Variable":"novalue"}"#, "fields.Variable"),
            (r#"{"Variable":["a=1","b"]}"#, "fields.Variable[1]"),
            ("[]", "fields"),
        ] {
            let error = of(bad).expect_err(bad);
            assert_eq!((error.code, error.field.as_deref()), (Code::InvalidField, Some(field)), "{bad}");
        }
    }
}
