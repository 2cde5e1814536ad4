//! One action. What Asterisk would cut, split or mangle cannot be built.
//!
//! Limits, from `main/manager.c` and `include/asterisk/manager.h`: a line of 1023 bytes or more ends the
//! action early, and what follows runs as a new action; headers past the 128th are dropped; NUL cuts
//! a line; CR and LF end one. The session adds `Action` and `ActionID` as the first two lines.

use std::fmt;

use thiserror::Error;

use crate::action_id::ActionId;

/// Bytes of one line to the server, its CRLF excluded (`main/manager.c`).
pub const MAX_ACTION_LINE_BYTES: usize = 1022;
/// Header lines of one action, `Action` and `ActionID` included (`AST_MAX_MANHEADERS`).
pub const MAX_ACTION_HEADERS: usize = 128;

/// The lines that the session itself writes.
const OWN_HEADERS: usize = 2;

/// A field cannot be sent to Asterisk. Nothing was sent; the same call fails again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ActionError {
    /// The action or a field has no name.
    #[error("the name of the {what} is empty")]
    EmptyName {
        /// `action` or `field`.
        what: &'static str,
    },
    /// A name holds something other than printable text, a colon, or blanks at its ends.
    #[error("{name:?} cannot be the name of a header")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// A value holds CR, LF or NUL, which would end the line.
    #[error("the value of {field} holds CR, LF or NUL")]
    LineBreak {
        /// The field's name.
        field: String,
    },
    /// `Name: value` is longer than Asterisk reads.
    #[error("the line of {field} has {bytes} bytes, more than {MAX_ACTION_LINE_BYTES}")]
    LineTooLong {
        /// The field's name.
        field: String,
        /// Bytes of the line, its CRLF excluded.
        bytes: usize,
    },
    /// More headers than Asterisk keeps.
    #[error("{field} would be a header more than the {MAX_ACTION_HEADERS} that Asterisk reads")]
    TooManyHeaders {
        /// The first field that does not fit.
        field: String,
    },
    /// `Action` and `ActionID` are not the caller's to give.
    #[error("{field} is not a field of an action")]
    Reserved {
        /// The field's name.
        field: String,
    },
}

impl ActionError {
    /// The name of the field that is wrong; `Action` where it is the action's own name.
    pub fn field(&self) -> &str {
        match self {
            Self::EmptyName { .. } => "Action",
            Self::BadName { name } => name,
            Self::LineBreak { field }
            | Self::LineTooLong { field, .. }
            | Self::TooManyHeaders { field }
            | Self::Reserved { field } => field,
        }
    }
}

/// An action that Asterisk reads exactly as it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Action {
    name: String,
    fields: Vec<(String, Vec<u8>)>,
}

impl Action {
    /// An action without fields.
    ///
    /// # Errors
    /// The name is empty, too long, or not one printable word.
    pub fn new(name: &str) -> Result<Self, ActionError> {
        if name.is_empty() {
            return Err(ActionError::EmptyName { what: "action" });
        }
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ActionError::BadName { name: name.to_owned() });
        }
        check_line("Action", name.as_bytes())?;
        Ok(Self { name: name.to_owned(), fields: Vec::new() })
    }

    /// The same action with one header line more. A name may repeat.
    ///
    /// # Errors
    /// Asterisk would not read this line as it stands, or not at all.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, ActionError> {
        let value = value.as_ref();
        if name.is_empty() {
            return Err(ActionError::EmptyName { what: "field" });
        }
        if name.contains(|c: char| c.is_control() || c == ':') || name.trim() != name {
            return Err(ActionError::BadName { name: name.to_owned() });
        }
        if name.eq_ignore_ascii_case("Action") || name.eq_ignore_ascii_case("ActionID") {
            return Err(ActionError::Reserved { field: name.to_owned() });
        }
        check_line(name, value)?;
        if self.fields.len() + OWN_HEADERS >= MAX_ACTION_HEADERS {
            return Err(ActionError::TooManyHeaders { field: name.to_owned() });
        }
        self.fields.push((name.to_owned(), value.to_vec()));
        Ok(self)
    }

    /// The action's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fields in the order given, `Action` and `ActionID` excluded.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The first value of that name (case-insensitive).
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.headers().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The bytes for the wire. The ActionID comes second, so that no header can push it past the 128th.
    pub fn encode(&self, id: &ActionId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + 32 * self.fields.len());
        write_line(&mut bytes, "Action", self.name.as_bytes());
        write_line(&mut bytes, "ActionID", id.as_str().as_bytes());
        for (name, value) in self.headers() {
            write_line(&mut bytes, name, value);
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// Prints everything except secrets.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Action({}", self.name)?;
        for (name, value) in self.headers() {
            let shown = if is_secret(name) { "***".to_owned() } else { value.escape_ascii().to_string() };
            write!(f, ", {name}: {shown}")?;
        }
        write!(f, ")")
    }
}

/// Whether a field of that name is never to be printed: what `Login` proves itself with.
pub fn is_secret(field: &str) -> bool {
    ["Secret", "Key", "Password"].iter().any(|secret| secret.eq_ignore_ascii_case(field))
}

fn check_line(name: &str, value: &[u8]) -> Result<(), ActionError> {
    if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(ActionError::LineBreak { field: name.to_owned() });
    }
    let bytes = name.len() + ": ".len() + value.len();
    match bytes > MAX_ACTION_LINE_BYTES {
        true => Err(ActionError::LineTooLong { field: name.to_owned(), bytes }),
        false => Ok(()),
    }
}

fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.extend_from_slice(part);
    }
}
