//! Where commands come in from a bus.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{BoxFuture, Bytes, Fault, Message, Reach};

/// Which commands an inlet takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The prefix of all topics.
    pub prefix: String,
    /// The servers that this process serves, by their configured names.
    pub servers: Vec<String>,
}

/// One command as it came from the bus, undecoded.
pub struct Request {
    /// The server that the topic names, where it names one.
    pub server: Option<String>,
    /// The action that the topic names, where it names one.
    pub action: Option<String>,
    /// The message's own identity on a durable bus, the same at each redelivery, e.g. `AMI_COMMANDS:42` (stream
    /// and sequence) or `ami.command:0:17` (topic, partition, offset).
    pub identity: Option<String>,
    /// When the bus took the message, by the bus's own clock, where it says so.
    pub sent_at: Option<SystemTime>,
    /// Who sent it, as far as the bus tells, for the audit log.
    pub sender: Option<String>,
    /// Whether the bus keeps the message until it is acknowledged, and delivers it again otherwise.
    pub durable: bool,
    /// Whether somebody waits for a reply on this very message.
    pub reply_wanted: bool,
    /// The command, undecoded.
    pub body: Bytes,
    /// The way back.
    pub handle: Box<dyn Handle>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("server", &self.server)
            .field("action", &self.action)
            .field("identity", &self.identity)
            .field("sent_at", &self.sent_at)
            .field("sender", &self.sender)
            .field("durable", &self.durable)
            .field("reply_wanted", &self.reply_wanted)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Why a command could not be read, for the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The error's code, from the closed list in the schema.
    pub code: String,
    /// What is wrong, in words.
    pub message: String,
    /// The field that it is about, where there is one.
    pub field: Option<String>,
}

/// The way back to the sender of one request.
///
/// A handle that is dropped leaves the request unacknowledged: a durable bus delivers it again.
pub trait Handle: Send {
    /// Sends the response to whoever waits for one on this message; does nothing where nobody does.
    ///
    /// # Errors
    /// When the reply could not be sent. The outcome is recorded all the same.
    fn reply<'a>(&'a mut self, response: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>>;

    /// Tells the bus that the request is still being worked on, so that it is not delivered to somebody else. To be
    /// called at least every [`Handle::keep_every`].
    fn keep(&mut self) -> BoxFuture<'_, Result<(), Fault>>;

    /// How often [`Handle::keep`] must be called; `None` where the bus does not need it.
    fn keep_every(&self) -> Option<Duration>;

    /// Completes when the bus takes the request away, to deliver it to another process: what is not yet being carried out
    /// must not be begun any more. `None` where the bus does not do that, or cannot tell.
    fn withdrawn(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// Tells the bus that the request is done with: its outcome is recorded.
    ///
    /// # Errors
    /// When the bus could not be told. It may then deliver the request again.
    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>>;

    /// Puts a request that cannot be read where such ones are kept (the dead-letter topic), and acknowledges it. On a
    /// bus without such a place this only acknowledges.
    ///
    /// # Errors
    /// As for [`Handle::acknowledge`].
    fn dead_letter(self: Box<Self>, cause: Rejection) -> BoxFuture<'static, Result<(), Fault>>;

    /// The bus's own record of which requests were begun, where it keeps one; `None` where it does not.
    fn begin(&self) -> Option<Arc<dyn Begin>> {
        None
    }
}

/// Whether one request was begun, as its bus keeps it for all who may ever be handed the request.
///
/// Who begins what it then runs once, and runs nothing that was begun before, runs nothing twice: whoever it is delivered
/// to, and whenever they died.
pub trait Begin: Send + Sync {
    /// Whether it was begun before it was handed out, by whomsoever: it may have been run.
    fn begun_before(&self) -> bool;

    /// Puts on record that it may be run from now on. Answers once the bus keeps that and while the request is still this
    /// process's; waits across outages of the bus. When the future is dropped before it has answered, the record may stay.
    ///
    /// # Errors
    /// The request is somebody else's now, or was begun before: it must not be run.
    fn begin(&self) -> BoxFuture<'_, Result<(), Fault>>;

    /// Takes that back: nothing of it was carried out. It may be begun again. The bus may keep the begin for a while, or
    /// for good where this process ends meanwhile.
    fn take_back(&self);
}

/// A source of requests.
pub trait Inlet: Send {
    /// The next request. Waits across outages of the bus, reconnecting by itself; `Err` says that the inlet cannot
    /// go on as configured (see the fault's decision), `Ok(None)` that it was closed.
    ///
    /// Requests already handed out do not stop the next one: the caller bounds how many it works on by not asking.
    ///
    /// # Cancellation
    /// Dropping the future loses no request.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Request>, Fault>>;
}
