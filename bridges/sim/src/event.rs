//! One event before it is written: everything but its `Timestamp` and its `SequenceNumber`.

use crate::classes;
use crate::clock;

/// One event. Its place in the order, and so its number, is given when it is published.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) privilege: String,
    /// The classes of `privilege`.
    pub(crate) classes: u32,
    /// The recorded microsecond, where a recording is played unchanged; else the moment of publishing is taken.
    pub(crate) recorded_micros: Option<u64>,
    /// The header lines after those that every event has, each with its CRLF.
    pub(crate) body: Vec<u8>,
}

/// What the server puts on every event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) micros: Option<u64>,
    pub(crate) sequence: Option<u64>,
}

impl Event {
    pub(crate) fn new(name: &str, privilege: &str) -> Self {
        Self {
            name: name.to_owned(),
            privilege: privilege.to_owned(),
            classes: classes::of_privilege(privilege),
            recorded_micros: None,
            body: Vec::new(),
        }
    }

    /// Adds one header line.
    pub(crate) fn line(mut self, name: &str, value: &str) -> Self {
        push_line(&mut self.body, name, value);
        self
    }

    /// Adds header lines that are already written out.
    pub(crate) fn lines(mut self, lines: &[u8]) -> Self {
        self.body.extend_from_slice(lines);
        self
    }

    /// The whole event, with the empty line that ends it.
    pub(crate) fn write(&self, stamp: Stamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.body.len() + 128);
        push_line(&mut out, "Event", &self.name);
        push_line(&mut out, "Privilege", &self.privilege);
        if let Some(micros) = stamp.micros {
            push_line(&mut out, "Timestamp", &clock::timestamp(micros));
        }
        if let Some(sequence) = stamp.sequence {
            push_line(&mut out, "SequenceNumber", &sequence.to_string());
            out.extend_from_slice(origin(&self.name).as_bytes());
        }
        out.extend_from_slice(&self.body);
        out.extend_from_slice(b"\r\n");
        out
    }

    /// The value of the first body line with this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        lines(&self.body).find_map(|line| value_of(line, name))
    }
}

/// Where in Asterisk 22.10.1 an event is made: the lines that `debug=on` adds after the number.
pub(crate) fn origin(event: &str) -> &'static str {
    match event {
        "UserEvent" => "File: manager.c\r\nLine: 6479\r\nFunc: action_userevent\r\n",
        "OriginateResponse" => "File: manager.c\r\nLine: 4447\r\nFunc: fast_originate\r\n",
        "DialBegin" | "DialState" => "File: manager_channels.c\r\nLine: 1345\r\nFunc: channel_dial_cb\r\n",
        "DialEnd" => "File: manager_channels.c\r\nLine: 1355\r\nFunc: channel_dial_cb\r\n",
        "HangupRequest" | "SoftHangupRequest" => {
            "File: manager_channels.c\r\nLine: 873\r\nFunc: channel_hangup_request_cb\r\n"
        }
        "Newchannel" | "Newstate" | "Newexten" | "NewCallerid" | "NewConnectedLine" | "Hangup" => {
            "File: manager_channels.c\r\nLine: 806\r\nFunc: channel_snapshot_update\r\n"
        }
        _ => "File: manager.c\r\nLine: 593\r\nFunc: manager_default_msg_cb\r\n",
    }
}

/// Appends `name: value` and CRLF.
pub(crate) fn push_line(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The CRLF-ended lines of a block, without their ends.
pub(crate) fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    block
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|l| !l.is_empty())
}

/// The value of `line`, if it is a header of that name and text.
pub(crate) fn value_of<'line>(line: &'line [u8], name: &str) -> Option<&'line str> {
    let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b": ")?;
    std::str::from_utf8(value).ok()
}
