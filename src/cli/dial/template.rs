//! Options with `{column}` in them, and what a column may put there.
//!
//! A file from somewhere must not dial something else than the option says. In a channel, `&` adds a phone, `/` another
//! technology or trunk, `@` another context or host, and `,` or `|` another argument; so what a column may put into what
//! is dialled is a list of characters that mean nothing to Asterisk, and more only where the caller allows it.

use super::table::{Row, Table};

/// What a column may put into what is dialled, besides letters and digits of ASCII.
pub(super) const PLAIN: &str = "+*#._-";
/// What ends or opens a part of a caller id, `"Name" <number>`.
const CALLER_MARKS: &str = "<>\"\\";

/// What a column may put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    /// Letters and digits of ASCII, [`PLAIN`], and what is allowed besides; not nothing.
    Dialled,
    /// Anything but what ends a part of a caller id.
    CallerId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(usize),
}

/// An option's value, with columns in it.
#[derive(Clone, Debug)]
pub(super) struct Template {
    option: &'static str,
    care: Care,
    parts: Vec<Part>,
}

impl Template {
    /// Reads `text`; `{{` and `}}` are braces.
    ///
    /// # Errors
    /// In words, with the option's name.
    pub(super) fn parse(
        option: &'static str,
        care: Care,
        text: &str,
        columns: &[String],
    ) -> Result<Self, String> {
        let wrong = |why: String| format!("{option}: {why}");
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain += before;
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                plain += &from[..1];
                rest = after;
                continue;
            }
            let Some((name, after)) = from.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
                return Err(wrong(format!(
                    "a brace without its other half in {text:?}; a brace itself is {{{{ or }}}}"
                )));
            };
            let Some(column) = columns.iter().position(|column| column == name) else {
                let known = columns.join(", ");
                return Err(wrong(format!("{{{name}}}: the file has no such column; it has {known}")));
            };
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(Part::Column(column));
            rest = after;
        }
        plain += rest;
        parts.push(Part::Text(plain));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        if parts.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        Ok(Self { option, care, parts })
    }

    /// The columns in it, in order.
    pub(super) fn columns(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().filter_map(|part| match part {
            Part::Column(column) => Some(*column),
            Part::Text(_) => None,
        })
    }

    /// The value for a row, or what is wrong with the row's values.
    pub(super) fn fill(&self, table: &Table, row: &Row, allowed: &str) -> Result<String, (usize, String)> {
        let mut filled = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => filled += text,
                Part::Column(column) => {
                    let value = row.value(*column);
                    self.check(value, allowed).map_err(|why| {
                        let name = table.columns.get(*column).map_or("", String::as_str);
                        (*column, format!("{} puts {{{name}}} in, and {why}", self.option))
                    })?;
                    filled += value;
                }
            }
        }
        Ok(filled)
    }

    fn check(&self, value: &str, allowed: &str) -> Result<(), String> {
        let is_wrong = |c: char| match self.care {
            Care::Dialled => !c.is_ascii_alphanumeric() && !PLAIN.contains(c) && !allowed.contains(c),
            Care::CallerId => CALLER_MARKS.contains(c) || c.is_control(),
        };
        if value.is_empty() && self.care == Care::Dialled {
            return Err("it is empty; fill it in or take the row out".to_owned());
        }
        let Some(c) = value.chars().find(|c| is_wrong(*c)) else { return Ok(()) };
        Err(match self.care {
            _ if c.is_control() => format!("{value:?} has a control character; take it out"),
            Care::Dialled => format!(
                "{value:?} has {c:?}, with which it could dial something else; take it out, or allow it with \
                 --allow-characters"
            ),
            Care::CallerId => {
                format!("{value:?} has {c:?}, which would end a part of the caller id; take it out")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use encoding_rs::UTF_8;

    use super::{
        super::table::{Faults, Form},
        *,
    };

    fn table(text: &str) -> Table {
        let form = Form { delimiter: b',', encoding: UTF_8 };
        Table::parse(text.as_bytes().to_vec(), form, &mut Faults::default()).expect("right")
    }

    fn filled(care: Care, template: &str, value: &str, allowed: &str) -> Result<String, String> {
        let table = table(&format!("number,name\n\"{}\",x\n", value.replace('"', "\"\"")));
        let template = Template::parse("--channel", care, template, &table.columns)?;
        template.fill(&table, &table.rows[0], allowed).map_err(|(_, why)| why)
    }

    #[test]
    fn columns_stand_in_braces() {
        assert_eq!(
            filled(Care::Dialled, "PJSIP/{number}@trunk-{name}{{}}", "+49-30.1*#_", ""),
            Ok("PJSIP/+49-30.1*#_@trunk-x{}".to_owned())
        );
        let columns = ["a".to_owned(), "b".to_owned()];
        let template = Template::parse("--channel", Care::Dialled, "{b}/{a}", &columns).expect("right");
        assert_eq!(template.columns().collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn a_number_dials_nothing_else() {
        for bad in [
            "1&PJSIP/2",
            "1@other",
            "1/2",
            "1,2",
            "1|2",
            "1;2",
            "1 2",
            "${X}",
            "1\n2",
            "1\r",
            "1\0",
            "1ü",
            "",
            "1%",
        ] {
            let why = filled(Care::Dialled, "PJSIP/{number}@trunk", bad, "").expect_err(bad);
            assert!(why.starts_with("--channel puts {number} in, and "), "{why}");
        }
        assert_eq!(filled(Care::Dialled, "{number}", "sip:1@x", ":@").as_deref(), Ok("sip:1@x"));
    }

    #[test]
    fn a_caller_id_stays_in_its_part() {
        assert_eq!(
            filled(Care::CallerId, "{number} <1>", "Zoë & Söhne", "").as_deref(),
            Ok("Zoë & Söhne <1>")
        );
        for bad in ["a <2>", "a\" <2", "a\\", "a\nb"] {
            assert!(filled(Care::CallerId, "{number} <1>", bad, "<>").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wrong_template_is_told_with_its_option() {
        for (template, told) in [
            ("PJSIP/{nummer}", "--channel: {nummer}: the file has no such column; it has number, name"),
            ("PJSIP/{number", "--channel: a brace without its other half"),
            ("PJSIP/number}", "--channel: a brace without its other half"),
            ("", "--channel: it is empty"),
        ] {
            let why = filled(Care::Dialled, template, "1", "").expect_err(template);
            assert!(why.starts_with(told), "{why}");
        }
    }
}
