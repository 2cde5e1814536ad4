//! One command on its way to Asterisk and back: wait for the server, send once, wait for the answer.

use std::time::Duration;

use amibus_ami::{Action, OwnedFrame, Reply};
use amibus_contract::Fault;
use jiff::Timestamp;
use tokio::{
    sync::{SemaphorePermit, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    decode::{Command, Wait},
    engine::{Server, Settings},
    error::{Code, CommandError, Outcome},
    mark::Marks,
    pace::Grant,
    response::{self, Response},
};
use crate::{asterisk::ActionFailure, failpoint};

/// The longest wait for what became of a call, whatever `Timeout` says.
const MAX_FINAL_WAIT: Duration = Duration::from_secs(24 * 3600);
/// How long Asterisk lets an Originate ring that names no `Timeout`, in milliseconds (`main/manager.c`,
/// `action_originate`).
const DEFAULT_ORIGINATE_TIMEOUT_MS: u64 = 30_000;

/// A command that holds its claim.
pub(super) struct Errand<'a> {
    pub(super) settings: &'a Settings,
    pub(super) server: &'a Server,
    pub(super) id: &'a str,
    pub(super) command: &'a Command,
    /// Not to be written after this.
    pub(super) deadline: Option<Instant>,
    /// Whether the bus keeps the command meanwhile, so that it may wait for the server.
    pub(super) may_wait: bool,
    /// Its place among all commands.
    pub(super) arrival: u64,
    /// Ends the wait for the server.
    pub(super) stop: &'a CancellationToken,
}

/// What the journal keeps of an Originate that is about to be sent; of other actions, nothing.
#[derive(Debug, Default)]
pub(super) struct Call {
    pub(super) channel_id: Option<String>,
    /// The names of the limits that count it.
    pub(super) pace: Vec<String>,
}

/// The leave to send.
struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    /// Of an Originate that limits are about.
    grant: Option<Grant>,
}

/// How an errand ended.
pub(super) enum Ended {
    /// With this outcome; something may have been sent.
    Sent(Response),
    /// With this outcome, and for certain nothing was sent.
    Unsent(Response),
    /// Nothing was sent: another amibus has it, or the store of claims did not answer.
    NotClaimed(Option<Fault>),
    /// Nothing was sent, and the bus delivers the command again: amibus is leaving, or another one has it now.
    Stopped,
}

/// Why nothing may be written yet.
pub(super) enum NotBegun {
    /// The journal cannot keep that it is sent, in its words.
    NotRecorded(String),
    /// Another amibus has it; or why the claim could not be shared.
    NotClaimed(Option<Fault>),
    /// Its deadline passed before its bus kept that it is begun.
    TooLate,
    /// It is somebody else's now, or amibus is leaving.
    Left,
}

/// What became of one try.
enum Attempt<'a> {
    /// It was written, or may have been.
    Made(Turn<'a>, Option<oneshot::Receiver<OwnedFrame>>, Result<Reply, ActionFailure>),
    /// No byte of it was written, and it may wait for the next one.
    Again,
    Ended(Ended),
}

/// Why an errand ended before anything was sent.
enum Hindered {
    Error(CommandError),
    Stopped,
}

impl From<CommandError> for Hindered {
    fn from(error: CommandError) -> Self {
        Self::Error(error)
    }
}

impl Errand<'_> {
    /// Sends the action once, after `marks` has put on disk that it will be sent. Where its end is waited for, `marks` is
    /// told of Asterisk's Success first.
    ///
    /// Where the connection breaks before a byte was written, a command that may wait does so, within its deadline, and as
    /// one that was only claimed.
    pub(super) async fn run(&self, marks: &Marks<'_>) -> Ended {
        let channel_id = response::channel_id(&self.command.server, self.id);
        let action = match build(self.command, Some(&channel_id)) {
            Ok(action) => action,
            Err(error) => return Ended::Unsent(self.failed(error)),
        };
        let (turn, finals, sent) = loop {
            match self.attempt(&action, &channel_id, marks).await {
                Attempt::Made(turn, finals, sent) => break (turn, finals, sent),
                Attempt::Again => marks.step_back().await,
                Attempt::Ended(ended) => return ended,
            }
        };
        if sent.is_ok() {
            failpoint::hit("answered");
        }
        let writer = &self.server.writer;
        let mut response = match sent {
            Ok(reply) => Response::of_reply(self.id, self.command, writer, &reply).bounded(),
            Err(failure) => Response::of_failure(self.id, self.command, writer, failure),
        };
        if response.outcome == Outcome::Refused {
            turn.take_back();
        } else {
            // Its call counts from now on until its channel hangs up.
            drop(turn);
        }
        if let (Some(finals), Outcome::Executed) = (finals, response.outcome) {
            marks.accepted(response.answer().to_vec()).await;
            let within = self.settings.final_timeout + originate_timeout(self.command);
            let seen = tokio::time::timeout(within, finals).await;
            response.join(seen.ok().and_then(Result::ok), writer);
        }
        Ended::Sent(response)
    }

    /// Waits for its turn, and tries to send it.
    async fn attempt(&self, action: &Action, channel_id: &str, marks: &Marks<'_>) -> Attempt<'_> {
        let deadline = self.deadline;
        let mut turn = match self.turn(deadline, channel_id).await {
            Ok(turn) => turn,
            Err(Hindered::Error(error)) => return Attempt::Ended(Ended::Unsent(self.failed(error))),
            Err(Hindered::Stopped) => return Attempt::Ended(Ended::Stopped),
        };
        failpoint::hit("paced");
        if self.may_wait && self.stop.is_cancelled() {
            turn.take_back();
            return Attempt::Ended(Ended::Stopped);
        }
        let finals = (self.command.wait == Wait::Final && is_originate(self.command))
            .then(|| self.server.finals.expect(channel_id));
        let call = is_originate(self.command)
            .then(|| Call { channel_id: Some(channel_id.to_owned()), pace: turn.limits() });
        if let Err(why) = marks.sending(call.unwrap_or_default()).await {
            return Attempt::Ended(self.not_begun(why));
        }
        failpoint::hit("sending_recorded");
        if let Err(why) = self.counted(&mut turn, marks).await {
            turn.take_back();
            return match why {
                Hindered::Error(error) => Attempt::Ended(Ended::Sent(self.failed(error))),
                Hindered::Stopped => {
                    marks.step_back().await;
                    Attempt::Ended(Ended::Stopped)
                }
            };
        }
        if let Err(why) = marks.still_ours().await {
            turn.take_back();
            return Attempt::Ended(self.not_begun(why));
        }
        let late = || Attempt::Ended(Ended::Sent(self.failed(deadline_passed(self.command))));
        // All of that took its time: nothing is sent too late.
        if passed(deadline) || self.overdue() {
            turn.take_back();
            return late();
        }
        let answer_by = Instant::now() + self.server.action_deadline;
        let write_by = marks.write_by(deadline.unwrap_or(answer_by).min(answer_by));
        let actions = &self.server.actions;
        match actions.run_by(action.clone(), write_by.into_std(), answer_by.into_std()).await {
            // However long it lay in a queue on the way to the socket: nothing is written too late.
            Err(failure) if never_written(&failure) && passed(deadline) => {
                turn.take_back();
                late()
            }
            Err(failure) if never_written(&failure) => {
                turn.take_back();
                if self.may_wait {
                    return Attempt::Again;
                }
                // Its id is free again: the same command may come from a bus that lets it wait.
                marks.step_back().await;
                let writer = &self.server.writer;
                Attempt::Ended(Ended::Unsent(Response::of_failure(self.id, self.command, writer, failure)))
            }
            sent => Attempt::Made(turn, finals, sent),
        }
    }

    /// Waits until its turn counts as one to write. What its bus keeps as begun does not wait once it is to be left: whoever
    /// has it next would be told so.
    async fn counted(&self, turn: &mut Turn<'_>, marks: &Marks<'_>) -> Result<(), Hindered> {
        tokio::select! {
            biased;
            () = self.stop.cancelled(), if marks.begin.is_some() => Err(Hindered::Stopped),
            counted = until(self.deadline, turn.write()) => {
                counted.ok_or_else(|| deadline_passed(self.command).into())
            }
        }
    }

    fn not_begun(&self, why: NotBegun) -> Ended {
        match why {
            NotBegun::NotClaimed(fault) => Ended::NotClaimed(fault),
            NotBegun::Left => Ended::Stopped,
            NotBegun::TooLate => Ended::Unsent(self.failed(deadline_passed(self.command))),
            NotBegun::NotRecorded(error) => {
                let text = format!("the journal could not record it, so it was not sent: {error}");
                Ended::Unsent(self.failed(CommandError::new(Code::NotRecorded, text)))
            }
        }
    }

    /// Waits until the server is ready, the pace lets the command go on, and the server has room. The room and the place
    /// among the calls are given up while the server is away, so that whoever may not wait is told at once.
    async fn turn(&self, deadline: Option<Instant>, channel_id: &str) -> Result<Turn<'_>, Hindered> {
        loop {
            self.wait_until_ready(deadline).await?;
            let grant = self.paced(deadline, channel_id).await?;
            let permit = tokio::select! {
                permit = until(deadline, self.server.permits.acquire()) => permit,
                () = self.stop.cancelled(), if self.may_wait => return Err(Hindered::Stopped),
            };
            let Some(Ok(permit)) = permit else { return Err(deadline_passed(self.command).into()) };
            if *self.server.actions.ready().borrow() {
                return Ok(Turn { _permit: permit, grant });
            }
        }
    }

    /// Waits until the limits that are about the command let it go on.
    async fn paced(&self, deadline: Option<Instant>, channel_id: &str) -> Result<Option<Grant>, Hindered> {
        let Some(pacer) = &self.server.pacer else { return Ok(None) };
        let limits = pacer.limits_of(self.command);
        if limits == 0 {
            return Ok(None);
        }
        let mut ready = self.server.actions.ready();
        let unavailable = |text: String| Err(CommandError::new(Code::Unavailable, text).into());
        tokio::select! {
            grant = until(deadline, pacer.turn(limits, self.arrival, channel_id)) => {
                grant.map(Some).ok_or_else(|| deadline_passed(self.command).into())
            }
            () = self.stop.cancelled() => {
                if self.may_wait { Err(Hindered::Stopped) } else { unavailable("amibus leaves".to_owned()) }
            }
            _ = ready.wait_for(|ready| !*ready), if !self.may_wait => unavailable(self.away()),
        }
    }

    fn away(&self) -> String {
        format!("{} is not connected at the moment", self.command.server)
    }

    async fn wait_until_ready(&self, deadline: Option<Instant>) -> Result<(), Hindered> {
        let mut ready = self.server.actions.ready();
        let away = || Hindered::Error(CommandError::new(Code::Unavailable, self.away()));
        if !*ready.borrow() && !self.may_wait {
            return Err(away());
        }
        let waited = tokio::select! {
            waited = until(deadline, ready.wait_for(|ready| *ready)) => waited.map(|waited| waited.is_ok()),
            () = self.stop.cancelled(), if self.may_wait => return Err(Hindered::Stopped),
        };
        match waited {
            // The session's task is gone.
            Some(false) => Err(away()),
            Some(true) if !passed(deadline) => Ok(()),
            _ => Err(deadline_passed(self.command).into()),
        }
    }

    /// Whether its own deadline passed by the wall clock: the one that waits are measured by stands still while the machine
    /// sleeps.
    fn overdue(&self) -> bool {
        self.command.deadline.is_some_and(|at| Timestamp::now() >= at)
    }

    fn failed(&self, error: CommandError) -> Response {
        Response::of_error(Some(self.id.to_owned()), &self.command.server, &self.command.action, error)
    }
}

impl Turn<'_> {
    fn limits(&self) -> Vec<String> {
        self.grant.iter().flat_map(Grant::limits).map(str::to_owned).collect()
    }

    /// Waits, where too much was written a moment ago.
    async fn write(&mut self) {
        if let Some(grant) = &mut self.grant {
            grant.write().await;
        }
    }

    /// Nothing was sent, or Asterisk refused it.
    fn take_back(self) {
        if let Some(grant) = self.grant {
            grant.take_back();
        }
    }
}

/// Until when a command may be written that its bus took `age` ago.
pub(super) fn deadline(settings: &Settings, command: &Command, age: Duration) -> Option<Instant> {
    let left = match command.deadline {
        Some(at) => Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default(),
        None => settings.default_deadline?.saturating_sub(age),
    };
    Instant::now().checked_add(left)
}

/// The action as it will be sent; Originate with what amibus adds to it.
///
/// # Errors
/// [`Code::InvalidField`] with the field that Asterisk would cut or misread.
pub(super) fn build(command: &Command, channel_id: Option<&str>) -> Result<Action, CommandError> {
    let invalid = |error: amibus_ami::ActionError| {
        let field = match error.field() {
            "Action" => "action".to_owned(),
            field => format!("fields.{field}"),
        };
        CommandError::at(Code::InvalidField, field, error.to_string())
    };
    let mut action = Action::new(&command.action).map_err(invalid)?;
    for (name, value) in &command.headers {
        if is_originate(command) && name.eq_ignore_ascii_case("Async") {
            if !["true", "yes", "1", "on"].iter().any(|yes| yes.eq_ignore_ascii_case(value)) {
                let text =
                    "an Originate is always asynchronous: leave Async out, wait with \"wait\":\"final\"";
                return Err(CommandError::at(Code::InvalidField, "fields.Async", text));
            }
            continue;
        }
        action = action.header(name, value).map_err(invalid)?;
    }
    if is_originate(command) {
        let longest = response::channel_id("", "");
        action = action.header("Async", "true").map_err(invalid)?;
        action = action.header("ChannelId", channel_id.unwrap_or(&longest)).map_err(invalid)?;
    }
    Ok(action)
}

fn never_written(failure: &ActionFailure) -> bool {
    matches!(
        failure,
        ActionFailure::NotConnected
            | ActionFailure::NotBooted
            | ActionFailure::NeverWritten
            | ActionFailure::Lost { written: false }
    )
}

pub(super) async fn until<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(at) => tokio::time::timeout_at(at, work).await.ok(),
        None => Some(work.await),
    }
}

fn passed(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|at| Instant::now() >= at)
}

pub(super) fn is_originate(command: &Command) -> bool {
    command.action.eq_ignore_ascii_case("Originate")
}

fn originate_timeout(command: &Command) -> Duration {
    let timeout = command.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("Timeout"));
    let given = timeout.and_then(|(_, value)| value.trim().parse().ok());
    Duration::from_millis(given.unwrap_or(DEFAULT_ORIGINATE_TIMEOUT_MS)).min(MAX_FINAL_WAIT)
}

fn deadline_passed(command: &Command) -> CommandError {
    let text = match command.deadline {
        Some(at) => format!("its deadline {at} passed before it could be sent"),
        None => "the default deadline (command.default_deadline) passed before it could be sent".to_owned(),
    };
    CommandError::at(Code::DeadlinePassed, "deadline", text)
}
