//! Bytes from a client to actions, with Asterisk's own limits and oddities (`get_input` in main/manager.c).
//!
//! A line ends with LF, with or without CR; NUL cuts it; a header name may have any case and no blank after
//! its colon. A line of more than [`LINE_BYTES_MAX`] bytes spoils its action; one of exactly a byte more also
//! ends it, and the headers after it become a new action. Headers past [`HEADERS_MAX`] spoil it too.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

/// The longest line without its end.
pub(crate) const LINE_BYTES_MAX: usize = 1_022;
/// Headers an action; further ones are not even read for an ActionID.
pub(crate) const HEADERS_MAX: usize = 128;
/// Raw bytes of one action that are kept for looking at.
const RAW_BYTES_MAX: usize = 256 << 10;

/// What a client asked.
#[derive(Debug, Default)]
pub(crate) struct Action {
    headers: Vec<(String, Vec<u8>)>,
    /// Why it cannot be carried out, in Asterisk's words.
    pub(crate) spoiled: Option<&'static str>,
    /// The bytes as they came.
    pub(crate) raw: Bytes,
}

impl Action {
    /// The bytes of a header's value.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// The text of a header's value; empty counts as absent.
    pub(crate) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.bytes(name).filter(|value| !value.is_empty()).map(String::from_utf8_lossy)
    }

    /// Every value of a header that may be repeated.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = Cow<'_, str>> {
        let same = move |(known, _): &&(String, Vec<u8>)| known.eq_ignore_ascii_case(name);
        self.headers.iter().filter(same).map(|(_, value)| String::from_utf8_lossy(value))
    }

    /// Headers in their order.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

/// Collects lines into actions.
#[derive(Debug, Default)]
pub(crate) struct ActionReader {
    line: Vec<u8>,
    /// Length of the current line with what was not kept of it.
    line_bytes: usize,
    action: Action,
    header_count: usize,
    raw: BytesMut,
}

impl ActionReader {
    /// Takes bytes from the socket and appends each action that they complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], actions: &mut Vec<Action>) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            self.take(line.strip_suffix(b"\n").unwrap_or(line));
            self.raw_push(b"\n");
            self.end_line(actions);
            bytes = rest;
        }
        self.take(bytes);
    }

    fn take(&mut self, part: &[u8]) {
        self.raw_push(part);
        self.line_bytes = self.line_bytes.saturating_add(part.len());
        let room = (LINE_BYTES_MAX + 2).saturating_sub(self.line.len());
        self.line.extend_from_slice(part.get(..room).unwrap_or(part));
    }

    fn raw_push(&mut self, part: &[u8]) {
        let room = RAW_BYTES_MAX.saturating_sub(self.raw.len());
        self.raw.extend_from_slice(part.get(..room).unwrap_or(part));
    }

    fn end_line(&mut self, actions: &mut Vec<Action>) {
        let mut line = std::mem::take(&mut self.line);
        let mut line_bytes = std::mem::take(&mut self.line_bytes);
        if line_bytes == line.len() && line.last() == Some(&b'\r') {
            line.pop();
            line_bytes -= 1;
        }
        if line_bytes == 0 {
            self.end_action(actions);
        } else if line_bytes > LINE_BYTES_MAX {
            self.action.spoiled = Some("Failed to parse message: line too long");
            if line_bytes == LINE_BYTES_MAX + 1 {
                self.end_action(actions);
            }
        } else {
            self.header(&line);
        }
    }

    fn header(&mut self, line: &[u8]) {
        self.header_count += 1;
        if self.header_count > HEADERS_MAX {
            self.action.spoiled = Some("Too many lines in message or allocation failure");
            return;
        }
        let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let Some(colon) = memchr::memchr(b':', line) else { return };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        let blanks = value.iter().take_while(|byte| **byte <= b' ').count();
        let name = String::from_utf8_lossy(name).into_owned();
        self.action.headers.push((name, value.get(blanks..).unwrap_or_default().to_vec()));
    }

    fn end_action(&mut self, actions: &mut Vec<Action>) {
        let mut action = std::mem::take(&mut self.action);
        action.raw = std::mem::take(&mut self.raw).freeze();
        self.header_count = 0;
        actions.push(action);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions(bytes: &[u8]) -> Vec<Action> {
        let mut reader = ActionReader::default();
        let mut actions = Vec::new();
        reader.feed(bytes, &mut actions);
        actions
    }

    #[test]
    fn lines_end_in_many_ways_and_names_have_any_case() {
        let got = actions(b"ACTION:Ping\nactionid:  a\r\nActionID: b\r\n\r\n");
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].text("Action").as_deref(), Some("Ping"));
        assert_eq!(got[0].text("ActionID").as_deref(), Some("a"), "of two, the first");
    }

    #[test]
    fn bytes_one_at_a_time_give_the_same() {
        let mut reader = ActionReader::default();
        let mut got = Vec::new();
        for byte in b"Action: Ping\r\nActionID: x\r\n\r\n" {
            reader.feed(&[*byte], &mut got);
        }
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].raw.as_ref(), b"Action: Ping\r\nActionID: x\r\n\r\n");
    }

    #[test]
    fn long_lines_spoil_and_one_length_splits() {
        let with = |bytes: usize| format!("Action: Ping\r\nX: {}\r\nY: 1\r\n\r\n", "a".repeat(bytes - 3));
        assert!(actions(with(1022).as_bytes())[0].spoiled.is_none());
        assert_eq!(actions(with(1023).as_bytes()).len(), 2, "the headers after it become a new action");
        assert_eq!(actions(with(1024).as_bytes()).len(), 1);
        assert!(actions(with(1024).as_bytes())[0].spoiled.is_some());
        assert!(actions(with(10_000).as_bytes())[0].spoiled.is_some());
    }

    #[test]
    fn too_many_headers_spoil() {
        let with = |count: usize| format!("Action: Ping\r\n{}\r\n", "H: v\r\n".repeat(count - 1));
        assert!(actions(with(128).as_bytes())[0].spoiled.is_none());
        assert!(actions(with(129).as_bytes())[0].spoiled.is_some());
    }
}
