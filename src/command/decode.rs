//! From bytes to a [`Command`], or to an error that names the field and the remedy.
//!
//! A command is plain, or the `data` of a CloudEvent. What comes out is valid by itself: its headers can be sent, its
//! deadline is a time, its server and action are known and agree with the topic. Whether it is allowed, and
//! whether the server exists, is decided elsewhere.

use amibus_contract::Request;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    error::{Code, CommandError},
    fields,
    json::Json,
};

/// The longest command id, in bytes.
pub const MAX_ID_BYTES: usize = 200;
/// The longest action name, in bytes.
pub const MAX_ACTION_BYTES: usize = 80;

/// How long the sender wants to wait before the outcome is final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// For Asterisk's own answer, and the list that it announces.
    #[default]
    Response,
    /// For Originate: until it is known what became of the call.
    Final,
}

/// A command that can be carried out.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// The sender's id, or the message's own identity; `None` where there is neither.
    pub id: Option<String>,
    /// The server's configured name.
    pub server: String,
    /// The AMI action.
    pub action: String,
    /// Not to be sent after this time.
    pub deadline: Option<Timestamp>,
    /// What to wait for.
    pub wait: Wait,
    /// The action's headers in order, without Action and ActionID.
    pub headers: Vec<(String, String)>,
    /// SHA-256 over what the command asks for (server, action, headers, wait), in hex: same payload, same hash.
    pub payload_hash: String,
}

impl Command {
    /// What stands in the journal for a message that cannot be read, so that it is rejected once.
    pub(super) fn unreadable(server: &str, action: &str, body: &[u8]) -> Self {
        Self {
            id: None,
            server: server.to_owned(),
            action: action.to_owned(),
            deadline: None,
            wait: Wait::default(),
            headers: Vec::new(),
            payload_hash: hex(&Sha256::digest(body)),
        }
    }
}

/// What could be read of a command that is rejected, so that its sender recognises the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    /// The id, where it could be read.
    pub id: Option<String>,
    /// The server, where it could be read.
    pub server: Option<String>,
    /// The action, where it could be read.
    pub action: Option<String>,
}

/// Decodes a request's body.
///
/// # Errors
/// What is wrong, and as much of the command as could be read.
pub fn decode(request: &Request, max_bytes: usize) -> Result<Command, Box<(CommandError, Partial)>> {
    let mut partial = Partial {
        id: request.identity.clone(),
        server: request.server.clone(),
        action: request.action.clone(),
    };
    read(&request.body, max_bytes, &mut partial).map_err(|error| Box::new((error, partial)))
}

/// Looks at a command before it is published: what [`decode`] and the way to Asterisk would object to.
///
/// # Errors
/// What is wrong, with the field.
pub fn check(body: &[u8], max_bytes: usize) -> Result<(), CommandError> {
    let command = read(body, max_bytes, &mut Partial::default())?;
    super::send::build(&command, None).map(drop)
}

fn read(body: &[u8], max_bytes: usize, partial: &mut Partial) -> Result<Command, CommandError> {
    if body.len() > max_bytes {
        let text = format!("{} bytes, at most {max_bytes} are taken (command.max_command_bytes)", body.len());
        return Err(CommandError::new(Code::TooLarge, text));
    }
    let malformed = |text: String| CommandError::new(Code::Malformed, text);
    let parsed = Json::parse(body).map_err(|e| malformed(format!("not the JSON of a command: {e}")))?;
    let Json::Object(mut entries) = parsed else {
        return Err(malformed(format!("a command is a JSON object, this is {}", parsed.what())));
    };
    let envelope = match entries.iter().any(|(key, _)| key == "specversion") {
        true => Some(open_cloud_event(&mut entries)?),
        false => None,
    };
    let command = Keys { entries, path: if envelope.is_some() { "data." } else { "" } };
    build(command, envelope.unwrap_or_default(), partial)
}

#[derive(Default)]
struct Envelope {
    id: Option<String>,
    action: Option<String>,
    expiry: Option<String>,
}

/// Takes a CloudEvent apart: `entries` becomes its `data`.
fn open_cloud_event(entries: &mut Vec<(String, Json)>) -> Result<Envelope, CommandError> {
    let mut keys = Keys { entries: std::mem::take(entries), path: "" };
    let version = keys.text("specversion", 8)?;
    if version.as_deref() != Some("1.0") {
        return Err(CommandError::at(
            Code::InvalidField,
            "specversion",
            "only CloudEvents 1.0 is understood",
        ));
    }
    let kind = keys.text("type", 200)?.unwrap_or_default();
    let Some(action) = kind.strip_prefix("ami.command.") else {
        let text = format!("a command's type is ami.command.<Action>, this is {kind:?}");
        return Err(CommandError::at(Code::InvalidField, "type", text));
    };
    let envelope = Envelope {
        id: keys.text("id", MAX_ID_BYTES)?,
        action: Some(action.to_owned()),
        expiry: keys.text("expirytime", 64)?,
    };
    match keys.take("data") {
        Some(Json::Object(data)) => *entries = data,
        Some(other) => {
            let text = format!("the command is an object, this is {}", other.what());
            return Err(CommandError::at(Code::InvalidField, "data", text));
        }
        None => return Err(CommandError::at(Code::MissingField, "data", "the command itself is missing")),
    }
    Ok(envelope)
}

fn build(mut keys: Keys, envelope: Envelope, partial: &mut Partial) -> Result<Command, CommandError> {
    let id = keys.text("id", MAX_ID_BYTES)?;
    let id = keys.agree("id", id, envelope.id)?;
    if let Some(id) = &id {
        check_id(keys.path, id)?;
        partial.id = Some(id.clone());
    }
    let server = keys.text("server", amibus_contract::message::MAX_TOPIC_WORD_BYTES)?;
    partial.server = keys.agree("server", server, partial.server.take())?;
    let action = keys.text("action", MAX_ACTION_BYTES)?;
    let action = keys.agree("action", action, envelope.action)?;
    partial.action = keys.agree("action", action, partial.action.take())?;
    let deadline = keys.text("deadline", 64)?;
    let deadline =
        keys.agree("deadline", deadline, envelope.expiry)?.map(|text| keys.time(&text)).transpose()?;
    let wait = match keys.text("wait", 16)?.as_deref() {
        None | Some("response") => Wait::Response,
        Some("final") => Wait::Final,
        Some(other) => return Err(keys.invalid("wait", format!("response or final, not {other:?}"))),
    };
    let fields = keys.take("fields");
    keys.refuse_the_rest()?;
    let (Some(server), Some(action)) = (partial.server.clone(), partial.action.clone()) else {
        let missing = if partial.server.is_none() { "server" } else { "action" };
        return Err(CommandError::at(
            Code::MissingField,
            format!("{}{missing}", keys.path),
            format!("neither the topic nor the command names the {missing}"),
        ));
    };
    if !action.bytes().all(|b| b.is_ascii_alphanumeric()) || action.is_empty() {
        return Err(keys.invalid("action", "the name of an AMI action: letters and digits".to_owned()));
    }
    let headers = fields::headers(&action, fields, &format!("{}fields", keys.path))?;
    let payload_hash = hash(&server, &action, wait, &headers);
    Ok(Command { id: partial.id.clone(), server, action, deadline, wait, headers, payload_hash })
}

fn check_id(path: &str, id: &str) -> Result<(), CommandError> {
    if !id.is_empty() && id.chars().all(|c| !c.is_control()) {
        return Ok(());
    }
    let text = format!("an id is 1 to {MAX_ID_BYTES} bytes without control characters");
    Err(CommandError::at(Code::InvalidField, format!("{path}id"), text))
}

fn hash(server: &str, action: &str, wait: Wait, headers: &[(String, String)]) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    };
    add(server);
    add(&action.to_ascii_lowercase());
    add(if wait == Wait::Final { "final" } else { "response" });
    for (name, value) in headers {
        add(name);
        add(value);
    }
    hex(&hash.finalize())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The keys of one object, taken one after another.
struct Keys {
    entries: Vec<(String, Json)>,
    path: &'static str,
}

impl Keys {
    fn take(&mut self, key: &str) -> Option<Json> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(at).1)
    }

    fn invalid(&self, key: &str, message: String) -> CommandError {
        CommandError::at(Code::InvalidField, format!("{}{key}", self.path), message)
    }

    fn text(&mut self, key: &str, max_bytes: usize) -> Result<Option<String>, CommandError> {
        match self.take(key) {
            None => Ok(None),
            Some(Json::Text(text)) if text.len() <= max_bytes => Ok(Some(text)),
            Some(Json::Text(text)) => {
                Err(self.invalid(key, format!("{} bytes, at most {max_bytes} are taken", text.len())))
            }
            Some(other) => Err(self.invalid(key, format!("a string, not {}", other.what()))),
        }
    }

    /// What two places say of one thing.
    fn agree(
        &self,
        key: &str,
        here: Option<String>,
        there: Option<String>,
    ) -> Result<Option<String>, CommandError> {
        match (here, there) {
            (Some(a), Some(b)) if a != b => {
                let text = format!("the command says {a:?}, its topic or envelope says {b:?}");
                Err(CommandError::at(Code::Contradiction, format!("{}{key}", self.path), text))
            }
            (a, b) => Ok(a.or(b)),
        }
    }

    fn time(&self, text: &str) -> Result<Timestamp, CommandError> {
        text.parse().map_err(|e| self.invalid("deadline", format!("an RFC 3339 time with its zone: {e}")))
    }

    fn refuse_the_rest(&self) -> Result<(), CommandError> {
        const KNOWN: [&str; 6] = ["id", "server", "action", "deadline", "wait", "fields"];
        let Some((key, _)) = self.entries.first() else { return Ok(()) };
        let near =
            KNOWN.iter().max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
        let text = format!("a command has no such key; the nearest is {:?}", near.copied().unwrap_or("id"));
        Err(CommandError::at(Code::UnknownField, format!("{}{key}", self.path), text))
    }
}
