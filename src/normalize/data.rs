//! One message as a JSON object, its `data`. See the rules in [the module above](super).

use std::borrow::Cow;

use amibus_ami::Separator;
use encoding_rs::Encoding;

use super::{
    fields::Form,
    json,
    lines::{Field, Lines, Show},
    value,
};

/// Keys that begin with this are ours; a header's name that does gets one more.
pub(crate) const RESERVED: u8 = b'$';
/// Exact bytes in base64, by header, where what is shown would not be rebuilt into them.
pub(crate) const BYTES_KEY: &str = "$bytes";
/// Lines that are no headers, in order.
pub(crate) const LINES_KEY: &str = "$lines";
/// The key of each line in order, with a colon behind where the line has no blank after its own.
pub(crate) const ORDER_KEY: &str = "$order";

/// Appends the object.
pub(crate) fn write(lines: &Lines<'_>, charset: &'static Encoding, out: &mut Vec<u8>) {
    let mut writer = Writer { lines, charset, inexact: Vec::new() };
    let mut comma = b'{';
    for (at, field) in lines.fields.iter().enumerate().filter(|(_, field)| field.first) {
        out.extend_from_slice(&[comma, b'"']);
        comma = b',';
        write_name(out, field);
        match field.show {
            Show::Plain if field.is_single() && !is_variables(field) => {
                out.extend_from_slice(b"\":\"");
                out.extend_from_slice(field.header.value);
                out.push(b'"');
            }
            Show::Number if field.is_single() => {
                out.extend_from_slice(b"\":");
                out.extend_from_slice(field.header.value);
            }
            _ => {
                out.extend_from_slice(b"\":");
                if !writer.group(out, field) {
                    writer.inexact.push(at);
                }
            }
        }
    }
    if !writer.inexact.is_empty() {
        out.push(comma);
        comma = b',';
        writer.bytes(out);
    }
    if lines.irregular {
        out.push(comma);
        comma = b',';
        order(out, lines);
    }
    if comma == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

struct Writer<'a, 'b> {
    lines: &'a Lines<'b>,
    charset: &'static Encoding,
    /// Positions of the groups that need their bytes beside them.
    inexact: Vec<usize>,
}

impl Writer<'_, '_> {
    /// Appends all values of one name; says whether they can be rebuilt from that.
    fn group(&self, out: &mut Vec<u8>, first: &Field<'_>) -> bool {
        let variables = is_variables(first);
        if variables && let Some(exact) = self.variables(out, first) {
            return exact;
        }
        let one = |out: &mut Vec<u8>, field: &Field<'_>| match variables {
            true => self.text(out, Form::Text, Form::Text, field.header.value),
            false => self.scalar(out, field),
        };
        let mut group = self.lines.group(first);
        if !first.is_line() && group.clone().nth(1).is_none() {
            return one(out, first);
        }
        out.push(b'[');
        let mut exact = group.next().is_none_or(|field| one(out, field));
        for field in group {
            out.push(b',');
            exact &= one(out, field);
        }
        out.push(b']');
        exact
    }

    /// Appends one value.
    fn scalar(&self, out: &mut Vec<u8>, field: &Field<'_>) -> bool {
        let raw = field.header.value;
        let rebuilds_as = self.lines.rules.form(field.header.name, field.rule.form);
        match field.form {
            Form::Number if value::is_canonical_integer(raw) => {
                out.extend_from_slice(raw);
                true
            }
            Form::Words => self.words(out, raw),
            form => self.text(out, form, rebuilds_as, raw),
        }
    }

    /// Appends a string.
    fn text(&self, out: &mut Vec<u8>, form: Form, rebuilds_as: Form, raw: &[u8]) -> bool {
        let shown = value::shown(form, raw).unwrap_or(Cow::Borrowed(raw));
        if self.is_utf8(form, &shown) {
            json::string(out, &shown);
            return *value::rebuilt(rebuilds_as, &shown) == *raw;
        }
        json::string(out, self.decoded(&shown).as_bytes());
        false
    }

    fn words(&self, out: &mut Vec<u8>, raw: &[u8]) -> bool {
        let utf8 = self.is_utf8(Form::Words, raw);
        let text = if utf8 { Cow::Borrowed(raw) } else { self.decoded(raw).into_owned().into_bytes().into() };
        let mut comma = b'[';
        for word in text.split(|&byte| byte == b',') {
            out.push(comma);
            comma = b',';
            json::string(out, word);
        }
        out.push(b']');
        utf8
    }

    /// Appends `name=value` lines as one object, or nothing where that would lose something.
    fn variables(&self, out: &mut Vec<u8>, first: &Field<'_>) -> Option<bool> {
        let group = || self.lines.group(first);
        // Readers may sort an object; what each line looks like must not depend on its place.
        if !group().all(|field| field.header.separator == first.header.separator) {
            return None;
        }
        let names = group().map(|field| Some(variable(field.header.value)?.0));
        if !distinct(names, |name| self.is_utf8(first.form, name)) {
            return None;
        }
        let rebuilds_as = self.lines.rules.form(first.header.name, first.rule.form);
        let mut exact = true;
        let mut comma = b'{';
        for field in group() {
            let (name, value) = variable(field.header.value)?;
            out.push(comma);
            comma = b',';
            match field.show {
                Show::Plain => {
                    for part in [&b"\""[..], name, b"\":\"", value, b"\""] {
                        out.extend_from_slice(part);
                    }
                }
                _ => {
                    json::string(out, name);
                    out.push(b':');
                    exact &= self.text(out, field.form, rebuilds_as, value);
                }
            }
        }
        out.push(b'}');
        Some(exact)
    }

    /// Appends the exact bytes of all groups that need it.
    fn bytes(&self, out: &mut Vec<u8>) {
        json::string(out, BYTES_KEY.as_bytes());
        out.push(b':');
        let mut comma = b'{';
        for first in self.inexact.iter().filter_map(|&at| self.lines.fields.get(at)) {
            out.push(comma);
            comma = b',';
            write_key(out, first, "");
            out.push(b':');
            if !first.is_line() && self.lines.group(first).nth(1).is_none() {
                json::base64(out, first.header.value);
                continue;
            }
            let mut comma = b'[';
            for field in self.lines.group(first) {
                out.push(comma);
                comma = b',';
                json::base64(out, field.header.value);
            }
            out.push(b']');
        }
        out.push(b'}');
    }

    /// Values of a message that is UTF-8 are too, and unescaping keeps them so; what was URL-encoded may be anything.
    #[inline]
    fn is_utf8(&self, form: Form, text: &[u8]) -> bool {
        (self.lines.utf8 && form != Form::Url) || std::str::from_utf8(text).is_ok()
    }

    fn decoded<'t>(&self, text: &'t [u8]) -> Cow<'t, str> {
        self.charset.decode_without_bom_handling(text).0
    }
}

fn is_variables(field: &Field<'_>) -> bool {
    matches!(field.form, Form::Variables | Form::RawVariables)
}

/// Appends the key of a line, `suffix` behind it.
fn write_key(out: &mut Vec<u8>, field: &Field<'_>, suffix: &str) {
    out.push(b'"');
    write_name(out, field);
    out.extend_from_slice(suffix.as_bytes());
    out.push(b'"');
}

/// Appends the inside of the key of a line.
#[inline]
fn write_name(out: &mut Vec<u8>, field: &Field<'_>) {
    if field.is_line() {
        out.extend_from_slice(LINES_KEY.as_bytes());
    } else if field.rule.id != 0 {
        // The names of the table need no escape.
        out.extend_from_slice(field.header.name);
    } else {
        if field.header.name.first() == Some(&RESERVED) {
            out.push(RESERVED);
        }
        json::escaped(out, field.header.name);
    }
}

fn order(out: &mut Vec<u8>, lines: &Lines<'_>) {
    json::string(out, ORDER_KEY.as_bytes());
    out.push(b':');
    let mut comma = b'[';
    for field in &lines.fields {
        out.push(comma);
        comma = b',';
        write_key(out, field, if field.header.separator == Separator::Colon { ":" } else { "" });
    }
    out.push(b']');
}

/// A `name=value` taken apart.
pub(crate) fn variable(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = text.iter().position(|&byte| byte == b'=')?;
    let (name, [_, value @ ..]) = text.split_at_checked(equals)? else { return None };
    Some((name, value))
}

/// Whether all names are there, valid, and no two are the same.
fn distinct<'n>(names: impl Iterator<Item = Option<&'n [u8]>>, valid: impl Fn(&[u8]) -> bool) -> bool {
    const MAX_ON_STACK: usize = 8;
    let mut few: [&[u8]; MAX_ON_STACK] = [b""; MAX_ON_STACK];
    let mut many = std::collections::HashSet::new();
    for (at, name) in names.enumerate() {
        let Some(name) = name.filter(|name| valid(name)) else { return false };
        if few.iter().take(at).any(|before| *before == name) {
            return false;
        }
        match few.get_mut(at) {
            Some(place) => *place = name,
            None if !many.insert(name) => return false,
            None => {}
        }
    }
    true
}
