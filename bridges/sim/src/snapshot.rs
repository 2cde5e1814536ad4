//! The block of lines that describes a channel (`ast_manager_build_channel_state_string_prefix`).

use crate::event::{Event, push_line};

/// Channel states by their number (`ast_state2str` in main/channel.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelState {
    Down,
    Ring,
    Ringing,
    Up,
    Busy,
}

impl ChannelState {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Down => ("0", "Down"),
            Self::Ring => ("4", "Ring"),
            Self::Ringing => ("5", "Ringing"),
            Self::Up => ("6", "Up"),
            Self::Busy => ("7", "Busy"),
        }
    }
}

/// One channel of an originated call.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    pub(crate) name: String,
    pub(crate) state: ChannelState,
    pub(crate) caller_number: String,
    pub(crate) caller_name: String,
    /// Whether the connected line is set, which for an originated channel is its caller too.
    pub(crate) connected: bool,
    pub(crate) account: String,
    pub(crate) context: String,
    pub(crate) exten: String,
    pub(crate) uniqueid: String,
    pub(crate) linkedid: String,
    /// `ChanVariable` names and values.
    pub(crate) variables: Vec<(String, String)>,
}

impl Leg {
    /// The channel before it is given its caller and its variables.
    pub(crate) fn blank(&self) -> Self {
        Self {
            caller_number: String::new(),
            caller_name: String::new(),
            account: String::new(),
            variables: self.variables.iter().map(|(name, _)| (name.clone(), String::new())).collect(),
            ..self.clone()
        }
    }

    /// An event of class `call` about this channel.
    pub(crate) fn event(&self, name: &str) -> Event {
        self.event_of(name, "call,all")
    }

    /// An event about this channel.
    pub(crate) fn event_of(&self, name: &str, privilege: &str) -> Event {
        let mut event = Event::new(name, privilege);
        self.write("", &mut event.body);
        event
    }

    /// The lines, each name with `prefix` before it.
    pub(crate) fn write(&self, prefix: &str, out: &mut Vec<u8>) {
        let (state, state_words) = self.state.words();
        let (number, name) = (unknown_if_empty(&self.caller_number), unknown_if_empty(&self.caller_name));
        let name = escape(name);
        let (line_number, line_name) =
            if self.connected { (number, name.as_str()) } else { ("<unknown>", "<unknown>") };
        for (header, value) in [
            ("Channel", self.name.as_str()),
            ("ChannelState", state),
            ("ChannelStateDesc", state_words),
            ("CallerIDNum", number),
            ("CallerIDName", &name),
            ("ConnectedLineNum", line_number),
            ("ConnectedLineName", line_name),
            ("Language", "en"),
            ("AccountCode", &self.account),
            ("Context", &self.context),
            ("Exten", &self.exten),
            ("Priority", "1"),
            ("Uniqueid", &self.uniqueid),
            ("Linkedid", &self.linkedid),
        ] {
            out.extend_from_slice(prefix.as_bytes());
            push_line(out, header, value);
        }
        for (variable, value) in &self.variables {
            out.extend_from_slice(prefix.as_bytes());
            push_line(out, "ChanVariable", &format!("{variable}={}", escape(value)));
        }
    }
}

/// What Asterisk writes for a number or name that is not set.
pub(crate) fn unknown_if_empty(text: &str) -> &str {
    if text.is_empty() { "<unknown>" } else { text }
}

/// Asterisk's C-escaping of names and variable values (`ast_escape_c` in main/utils.c).
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\'' | '"' | '\\' => {
                out.push('\\');
                out.push(letter);
            }
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            _ => out.push(letter),
        }
    }
    out
}
