//! One line for every command: who, what, verdict, outcome. No value of a field: these may be private.
//!
//! | verdict | meaning |
//! |---|---|
//! | `allowed` | the rules let it through; the outcome tells what became of it |
//! | `forbidden` | no rule permits it |
//! | `unjudged` | it did not come to the rules: it cannot be read, its server is unknown, its id was used before, the journal fails |
//! | `repeated` | delivered again: the recorded outcome is answered, nothing is run |
//! | `recovered` | the outcome of a command that a dead process had begun, this one's or another amibus |
//! | `shared` | the rules let it through, and another amibus ran it: its outcome is answered. `shared_by` says which one |
//! | `left` | amibus leaves before it ended: no outcome. What was not sent is left to its bus; what was, to the next start |
//!
//! A request has one line whichever way it goes: [`Audit`] writes it when it is dropped, where nothing else did.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tracing::info;

use super::{
    decode::{Command, Partial},
    error::{Code, CommandError},
    journal::Open,
    response::Response,
    shared::Ending,
};

/// The line of one request, until it is written.
pub(super) struct Audit {
    bus: &'static str,
    sender: Option<String>,
    id: Option<String>,
    server: Option<String>,
    action: Option<String>,
    allowed: AtomicBool,
    found_begun: AtomicBool,
    written: AtomicBool,
}

/// What is the same in every line.
struct Line<'a> {
    bus: Option<&'a str>,
    sender: Option<&'a str>,
    id: Option<&'a str>,
    server: &'a str,
    action: &'a str,
    verdict: &'static str,
    outcome: Option<&'a str>,
    error: Option<&'a CommandError>,
    /// Which amibus said so, where claims are shared.
    shared_by: Option<&'a str>,
}

impl Audit {
    /// Of a request that was just taken.
    pub(super) fn new(
        bus: &'static str,
        sender: Option<String>,
        decoded: &Result<Command, Box<(CommandError, Partial)>>,
    ) -> Self {
        let (id, server, action) = match decoded {
            Ok(command) => (&command.id, Some(&command.server), Some(&command.action)),
            Err(unreadable) => (&unreadable.1.id, unreadable.1.server.as_ref(), unreadable.1.action.as_ref()),
        };
        let (id, server, action) = (id.clone(), server.cloned(), action.cloned());
        let [allowed, found_begun, written] = [false; 3].map(AtomicBool::new);
        Self { bus, sender, id, server, action, allowed, found_begun, written }
    }

    /// The rules let it through.
    pub(super) fn allowed(&self) {
        self.allowed.store(true, Relaxed);
    }

    /// Somebody had begun it before.
    pub(super) fn found_begun(&self) {
        self.found_begun.store(true, Relaxed);
    }

    /// It ended so.
    pub(super) fn ended(&self, response: &Response) {
        let code = response.error.as_ref().map(|error| error.code);
        let verdict = match code {
            Some(Code::Forbidden) => "forbidden",
            Some(Code::Interrupted) => "recovered",
            _ if self.found_begun.load(Relaxed) => "recovered",
            _ if self.allowed.load(Relaxed) => "allowed",
            _ => "unjudged",
        };
        self.write(&Line { bus: Some(self.bus), ..Line::of(response, self.sender.as_deref(), verdict) });
    }

    /// It ended before, with this outcome.
    pub(super) fn repeated(&self, id: &str, outcome: &str) {
        self.write(&Line { id: Some(id), outcome: Some(outcome), ..self.line("repeated") });
    }

    /// Another amibus ended it so; or we did, for one that seems gone.
    pub(super) fn shared(&self, id: &str, ending: &Ending) {
        let verdict = if ending.ours { "recovered" } else { "shared" };
        let (outcome, shared_by) = (Some(&*ending.outcome), Some(&*ending.instance));
        self.write(&Line { id: Some(id), outcome, shared_by, ..self.line(verdict) });
    }

    fn line(&self, verdict: &'static str) -> Line<'_> {
        Line {
            bus: Some(self.bus),
            sender: self.sender.as_deref(),
            id: self.id.as_deref(),
            server: self.server.as_deref().unwrap_or_default(),
            action: self.action.as_deref().unwrap_or_default(),
            verdict,
            outcome: None,
            error: None,
            shared_by: None,
        }
    }

    fn write(&self, line: &Line<'_>) {
        if !self.written.swap(true, Relaxed) {
            line.write();
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.write(&self.line("left"));
    }
}

impl<'a> Line<'a> {
    fn of(response: &'a Response, sender: Option<&'a str>, verdict: &'static str) -> Self {
        Self {
            bus: None,
            sender,
            id: response.id.as_deref(),
            server: &response.server,
            action: &response.action,
            verdict,
            outcome: Some(response.outcome.as_str()),
            error: response.error.as_ref(),
            shared_by: None,
        }
    }

    fn write(&self) {
        info!(
            target: "amibus::audit",
            bus = self.bus,
            sender = self.sender,
            id = self.id,
            server = self.server,
            action = self.action,
            verdict = self.verdict,
            outcome = self.outcome,
            code = self.error.map(|error| error.code.as_str()),
            field = self.error.and_then(|error| error.field.as_deref()),
            shared_by = self.shared_by,
            "command"
        );
    }
}

/// The outcome of a command that a dead process had begun, and that came by no request of this one.
pub(super) fn recovered(sender: Option<&str>, response: &Response) {
    Line::of(response, sender, "recovered").write();
}

/// The outcome that a dead process had recorded and published nowhere: its line comes before that. `data` is the response's.
pub(super) fn published(sender: Option<&str>, id: &str, server: &str, action: &str, data: &[u8]) {
    let data: serde_json::Value = serde_json::from_slice(data).unwrap_or_default();
    let outcome = data.get("outcome").and_then(serde_json::Value::as_str);
    Line { outcome, ..recovered_line(sender, id, server, action) }.write();
}

/// The outcome of a command that a dead process had begun, as all share it.
pub(super) fn recovered_elsewhere(call: &Open, ending: &Ending) {
    let line = recovered_line(call.sender.as_deref(), &call.id, &call.server, &call.action);
    Line { outcome: Some(&ending.outcome), shared_by: Some(&ending.instance), ..line }.write();
}

fn recovered_line<'a>(sender: Option<&'a str>, id: &'a str, server: &'a str, action: &'a str) -> Line<'a> {
    Line {
        bus: None,
        sender,
        id: Some(id),
        server,
        action,
        verdict: "recovered",
        outcome: None,
        error: None,
        shared_by: None,
    }
}
