//! One message of the server, borrowed from the buffer that it was read into.
//!
//! The first line alone decides what a message is (an `OriginateResponse` event holds a `Response:`
//! header, a `UserEvent` may hold anything). Values are bytes: they are neither trimmed nor decoded,
//! and a lone CR or LF belongs to the value that it stands in. Lines end in CRLF.
//!
//! Before Asterisk 14 the output of `Command` came as `Response: Follows`, `Privilege:`, `ActionID:`
//! and then raw text up to `--END COMMAND--` (`action_command` in `main/manager.c` of Asterisk 13).
//! [`Frame::headers`] gives such a text as one last line without a colon, [`Frame::output`] line by line.

use std::fmt;

use memchr::{memchr, memchr_iter};

/// The last words of the old form of `Command` output.
pub(crate) const END_COMMAND: &[u8] = b"--END COMMAND--";

/// What the first line of a message says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Event: Name`.
    Event,
    /// `Response: Status`.
    Response,
    /// Anything else: what is torn off when a value holds an empty line.
    Other,
}

/// How a header line separates its name from its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// `Name: value`; further blanks belong to the value.
    ColonBlank,
    /// `Name:value`.
    Colon,
    /// A line without a colon: the name is empty and the value is the whole line.
    None,
}

impl Separator {
    /// The bytes between name and value.
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::ColonBlank => b": ",
            Self::Colon => b":",
            Self::None => b"",
        }
    }
}

/// One header line. `name`, `separator` and `value`, one after the other, are the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'b> {
    /// What stands before the first colon.
    pub name: &'b [u8],
    /// Everything after the separator, untrimmed.
    pub value: &'b [u8],
    /// What stands between them.
    pub separator: Separator,
}

impl<'b> Header<'b> {
    /// Takes a line apart, without its CRLF.
    pub fn parse(line: &'b [u8]) -> Self {
        match memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) {
            Some((name, [_, b' ', value @ ..])) => Self { name, value, separator: Separator::ColonBlank },
            Some((name, [_, value @ ..])) => Self { name, value, separator: Separator::Colon },
            _ => Self::text(line),
        }
    }

    /// Appends the line as it came, without its CRLF.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name);
        out.extend_from_slice(self.separator.as_bytes());
        out.extend_from_slice(self.value);
    }

    /// Whether this header has that name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.separator != Separator::None && self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    fn text(line: &'b [u8]) -> Self {
        Self { name: b"", value: line, separator: Separator::None }
    }
}

/// A message, without its final empty line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame<'b> {
    raw: &'b [u8],
    name: &'b [u8],
    kind: Kind,
}

impl<'b> Frame<'b> {
    /// Reads the first line of `raw`, a message without its final empty line.
    pub fn parse(raw: &'b [u8]) -> Self {
        // What nearly every message begins with needs no search for its colon.
        if let Some(behind) = raw.strip_prefix(b"Event: ") {
            return Self { raw, name: split_line(behind).0, kind: Kind::Event };
        }
        let (line, _) = split_line(raw);
        let first = Header::parse(line);
        let kind = if first.is("Event") {
            Kind::Event
        } else if first.is("Response") {
            Kind::Response
        } else {
            Kind::Other
        };
        Self { raw, name: if kind == Kind::Other { b"" } else { first.value }, kind }
    }

    /// The bytes of the message, without the empty line that ended it.
    pub fn raw(&self) -> &'b [u8] {
        self.raw
    }

    /// What the first line says.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The name of an event or the status of a response, untrimmed; empty for [`Kind::Other`].
    pub fn name(&self) -> &'b [u8] {
        self.name
    }

    /// Whether this is the event of that name (case-insensitive).
    pub fn is_event(&self, name: &str) -> bool {
        self.kind == Kind::Event && self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Whether this is a response that says `Success`.
    pub fn is_success(&self) -> bool {
        self.kind == Kind::Response && self.name.eq_ignore_ascii_case(b"Success")
    }

    /// All header lines in the order of the wire, the first included.
    pub fn headers(&self) -> Headers<'b> {
        Headers { rest: Some(self.raw).filter(|raw| !raw.is_empty()), line: 0, follows: self.follows() }
    }

    /// The value of the first header of that name (case-insensitive), untrimmed.
    pub fn first(&self, name: &str) -> Option<&'b [u8]> {
        self.headers().find(|header| header.is(name)).map(|header| header.value)
    }

    /// The lines that a CLI command printed, in either form of the `Command` response.
    pub fn output(&self) -> impl Iterator<Item = &'b [u8]> {
        let follows = self.follows();
        self.headers().flat_map(move |header| {
            let body = follows && header.separator == Separator::None;
            let text = match body {
                true => header.value.strip_suffix(END_COMMAND).unwrap_or(header.value),
                false if header.is("Output") => header.value,
                false => return OutputLines { rest: None, split: false },
            };
            OutputLines { rest: Some(text).filter(|text| !body || !text.is_empty()), split: body }
        })
    }

    /// Copies the message out of the buffer.
    pub fn to_owned(&self) -> OwnedFrame {
        OwnedFrame { raw: self.raw.into() }
    }

    fn follows(&self) -> bool {
        self.kind == Kind::Response
            && self.name.eq_ignore_ascii_case(b"Follows")
            && self.raw.ends_with(END_COMMAND)
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame(\"{}\")", self.raw.escape_ascii())
    }
}

/// A message that owns its bytes: what a reply is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedFrame {
    raw: Box<[u8]>,
}

impl OwnedFrame {
    /// The message again.
    pub fn frame(&self) -> Frame<'_> {
        Frame::parse(&self.raw)
    }
}

impl fmt::Debug for OwnedFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frame().fmt(f)
    }
}

/// The header lines of a message in the order of the wire. See [`Frame::headers`].
#[derive(Clone, Debug)]
pub struct Headers<'b> {
    rest: Option<&'b [u8]>,
    line: usize,
    follows: bool,
}

impl<'b> Iterator for Headers<'b> {
    type Item = Header<'b>;

    #[inline]
    fn next(&mut self) -> Option<Header<'b>> {
        let rest = self.rest?;
        let (line, after) = split_line(rest);
        let header = Header::parse(line);
        if self.follows && self.is_body(&header) {
            self.rest = None;
            return Some(Header::text(rest));
        }
        self.line += 1;
        self.rest = after;
        Some(header)
    }
}

impl Headers<'_> {
    /// The old form of `Command` output has two headers after the first line, then text.
    fn is_body(&self, header: &Header<'_>) -> bool {
        match self.line {
            0 => false,
            1 => !header.is("Privilege") && !header.is("ActionID"),
            2 => !header.is("ActionID"),
            _ => true,
        }
    }
}

/// The first line, and what follows its CRLF if it has one.
#[inline]
fn split_line(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let crlf = memchr_iter(b'\n', text).find_map(|lf| {
        let (before, after) = text.split_at_checked(lf)?;
        Some((before.strip_suffix(b"\r")?, after.get(1..)?))
    });
    match crlf {
        Some((line, after)) => (line, Some(after)),
        None => (text, None),
    }
}

struct OutputLines<'b> {
    rest: Option<&'b [u8]>,
    split: bool,
}

impl<'b> Iterator for OutputLines<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let rest = self.rest.take()?;
        let Some((line, after)) =
            memchr(b'\n', rest).filter(|_| self.split).and_then(|lf| rest.split_at_checked(lf))
        else {
            return Some(rest);
        };
        self.rest = after.get(1..).filter(|after| !after.is_empty());
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}
