//! The action session: a bounded handle in front, one connection behind it.
//!
//! It is a session of its own so that an action that blocks in Asterisk blocks no event. It asks for the events of
//! the class `system` alone, for `FullyBooted`: before that, actions fail in odd ways. Asterisk sends it right
//! after the login where it is booted and the user may read that class. So a user who may not read it is
//! waited for [`BOOT_GRACE`]; one who was seen to read it, up to [`BOOT_DEADLINE`].
//!
//! While a ping is overdue the session is not ready: what is asked then is refused at once, though the
//! connection is kept until the action that runs is late.
//!
//! Invariants: each [`Actions::run`] ends in exactly one answer, at its deadline at the latest; an action is
//! written at most once; an answer that says it was not written is true.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use amibus_ami::{Action, EventMask, Output, OwnedFrame, Reply, ReplyError};
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{self, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    events::LEAVE_DEADLINE,
    link::{DownReason, Ended, Retries, Role, log_end, open},
    settings::ServerSettings,
    wire::{Wire, at},
};

/// Actions that wait to be taken by the session.
pub const QUEUED_ACTIONS: usize = 64;
/// How long after the login `FullyBooted` is waited for from a user who may not be able to read it.
pub const BOOT_GRACE: Duration = Duration::from_secs(3);
/// The same, from a user who was seen to read it.
pub const BOOT_DEADLINE: Duration = Duration::from_secs(300);
/// How long after its deadline the session may take to say so.
const LATE: Duration = Duration::from_secs(1);

/// Why an action has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ActionFailure {
    /// There is no session, or one over which nothing comes. Asterisk never saw the action.
    #[error("not connected to Asterisk")]
    NotConnected,
    /// There is a session, but Asterisk is still loading its modules. It never saw the action.
    #[error("Asterisk is not fully booted yet")]
    NotBooted,
    /// Its deadline passed before it could be written. Asterisk never saw it.
    #[error("it could not be sent in time")]
    NeverWritten,
    /// The session ended first. Where it was written, nobody knows what became of it.
    #[error("the connection ended before the answer")]
    Lost {
        /// Whether its bytes had been handed to the connection. If not, Asterisk never saw it.
        written: bool,
    },
    /// It was written, and not answered in full before its deadline.
    #[error("no whole answer in time")]
    TimedOut {
        /// The response, where only the end of its list is missing: then it was carried out.
        response: Option<OwnedFrame>,
    },
    /// It was carried out, and its event list is longer than amibus takes.
    #[error("an event list of more than {limit} {unit}")]
    TooLarge {
        /// How much is taken.
        limit: usize,
        /// Of what: `events` or `bytes`.
        unit: &'static str,
        /// What Asterisk answered.
        response: OwnedFrame,
    },
}

type Answer = Result<Reply, ActionFailure>;

struct Request {
    action: Action,
    /// Not to be written after this.
    write_by: Instant,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
    claim: Claim,
}

/// Either the session takes a request, or whoever waits for it gives it up: never both.
#[derive(Clone, Default)]
struct Claim(Arc<AtomicBool>);

impl Claim {
    /// Whether the caller is the first.
    fn first(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    LoggedIn,
    Ready,
    /// It was ready, and a ping is overdue.
    Silent,
}

/// Sends actions to one server. Clones send over the same session.
#[derive(Clone, Debug)]
pub struct Actions {
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<State>,
    ready: watch::Receiver<bool>,
}

impl Actions {
    /// A handle, and the task that has to run for it to be of use.
    pub fn new(settings: Arc<ServerSettings>) -> (Self, ActionSession) {
        let (requests, incoming) = mpsc::channel(QUEUED_ACTIONS);
        let (state_in, state) = watch::channel(State::Down);
        let (ready_in, ready) = watch::channel(false);
        let session = ActionSession {
            settings,
            incoming,
            state: state_in,
            ready: ready_in,
            reads_boot: false,
            token: 0,
        };
        (Self { requests, state, ready }, session)
    }

    /// Sends an action, and waits for its whole reply until `deadline` (of the runtime's clock). The reply to
    /// `Originate` says only that it was queued.
    ///
    /// Dropping the returned future does not call the action back, once it has been taken by the session.
    ///
    /// # Errors
    /// See [`ActionFailure`]: they say whether Asterisk may have seen it.
    pub async fn run(&self, action: Action, deadline: Instant) -> Result<Reply, ActionFailure> {
        self.run_by(action, deadline, deadline).await
    }

    /// The same with an action that must not be written after `write_by`, which may be before its `deadline`.
    ///
    /// # Errors
    /// See [`Actions::run`].
    pub async fn run_by(
        &self,
        action: Action,
        write_by: Instant,
        deadline: Instant,
    ) -> Result<Reply, ActionFailure> {
        match *self.state.borrow() {
            State::Down | State::Silent => return Err(ActionFailure::NotConnected),
            State::LoggedIn => return Err(ActionFailure::NotBooted),
            State::Ready => {}
        }
        let (answer, mut answered) = oneshot::channel();
        let claim = Claim::default();
        let request = Request { action, write_by, deadline, answer, claim: claim.clone() };
        match time::timeout_at(write_by.min(deadline).into(), self.requests.send(request)).await {
            Err(_) => return Err(ActionFailure::NeverWritten),
            Ok(Err(_)) => return Err(ActionFailure::NotConnected),
            Ok(Ok(())) => {}
        }
        for patience in [write_by.min(deadline), deadline, deadline + LATE] {
            match time::timeout_at(patience.into(), &mut answered).await {
                Ok(Ok(answer)) => return answer,
                Err(_) | Ok(Err(_)) if claim.first() => return Err(ActionFailure::NeverWritten),
                Ok(Err(_)) => break,
                // The session has it, and keeps its deadline itself; it only has to get round to it.
                Err(_) => {}
            }
        }
        Err(ActionFailure::Lost { written: true })
    }

    /// Whether actions can be sent: logged in, and Asterisk is fully booted as far as can be told.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }
}

/// The task behind [`Actions`].
#[derive(Debug)]
pub struct ActionSession {
    settings: Arc<ServerSettings>,
    incoming: mpsc::Receiver<Request>,
    state: watch::Sender<State>,
    ready: watch::Sender<bool>,
    /// Whether the user was seen to read `FullyBooted`, and has not missed it since.
    reads_boot: bool,
    token: u64,
}

impl ActionSession {
    /// Runs the action session of one server until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        self.serve(&shutdown).await;
        self.incoming.close();
        while let Ok(request) = self.incoming.try_recv() {
            refuse(request);
        }
    }

    async fn serve(&mut self, shutdown: &CancellationToken) {
        let mut retries = Retries::new(&self.settings);
        loop {
            let ended = self.session(shutdown).await;
            self.set(State::Down);
            let wait = retries.wait(&ended);
            log_end(&self.settings, Role::Actions, &ended, wait);
            let pause = sleep(wait);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = &mut pause => break,
                    Some(request) = self.incoming.recv() => refuse(request),
                }
            }
        }
    }

    async fn session(&mut self, shutdown: &CancellationToken) -> Ended {
        let settings = Arc::clone(&self.settings);
        let events = EventMask::classes(["system"]).unwrap_or_default();
        let opening = open(&settings, events);
        tokio::pin!(opening);
        let opened = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Err(DownReason::Stopping),
                opened = &mut opening => break opened,
                Some(request) = self.incoming.recv() => refuse(request),
            }
        };
        match opened {
            Ok(wire) => self.drive(wire, shutdown).await,
            Err(reason) => Ended { reason, since: None },
        }
    }

    /// One session, from the banner to its end.
    pub(super) async fn drive(&mut self, mut wire: Wire, shutdown: &CancellationToken) -> Ended {
        let mut desk = Desk::default();
        let mut boot_by = None;
        let error = loop {
            let takes = desk.booted && wire.can_send();
            tokio::select! {
                () = shutdown.cancelled() => {
                    wire.leave(LEAVE_DEADLINE, |output, _| desk.hear(output)).await;
                    wire.close(|output| desk.hear(output));
                    return Ended { reason: DownReason::Stopping, since: desk.since };
                }
                step = wire.step(|output, _| desk.hear(output)) => if let Err(error) = step { break error },
                Some(request) = self.incoming.recv(), if takes => self.take(request, &mut wire, &mut desk),
                () = at(boot_by), if !desk.booted => {
                    tracing::debug!(server = self.settings.name, "no FullyBooted: the user may not read it");
                    desk.booted = true;
                    // If it could once, it cannot any more.
                    self.reads_boot = false;
                }
            }
            if let (None, Some(since)) = (boot_by, desk.since) {
                let patience = if self.reads_boot { BOOT_DEADLINE } else { BOOT_GRACE };
                boot_by = Some((since + patience).into_std());
                self.set(State::LoggedIn);
            }
            self.reads_boot |= desk.read_boot;
            if desk.booted && *self.state.borrow() == State::LoggedIn {
                tracing::info!(server = self.settings.name, booted = desk.read_boot, "ready for actions");
                self.set(State::Ready);
            }
            self.listen(wire.is_silent());
        };
        self.set(State::Down);
        let cut = wire.close(|output| desk.hear(output)) > 0;
        Ended { reason: DownReason::of(error, cut, desk.shutdown), since: desk.since }
    }

    fn take(&mut self, request: Request, wire: &mut Wire, desk: &mut Desk) {
        // Nobody waits for it any more, or it would be late already.
        if request.answer.is_closed() || request.write_by <= super::wire::now() || !request.claim.first() {
            let _ = request.answer.send(Err(ActionFailure::NeverWritten));
            return;
        }
        self.token += 1;
        match wire.send(&request.action, self.token, request.write_by, request.deadline) {
            Ok(()) => drop(desk.waiting.insert(self.token, request.answer)),
            Err(_) => refuse(request),
        }
    }

    /// Takes no requests while `silent`.
    fn listen(&self, silent: bool) {
        let state = *self.state.borrow();
        match (state, silent) {
            (State::Ready, true) => {
                tracing::warn!(
                    server = self.settings.name,
                    "no answer to a ping: no actions until one comes"
                );
                self.set(State::Silent);
            }
            (State::Silent, false) => self.set(State::Ready),
            _ => {}
        }
    }

    fn set(&self, state: State) {
        self.state.send_replace(state);
        self.ready.send_replace(state == State::Ready);
    }
}

/// Who waits for what in one session, and how far that session is.
#[derive(Debug, Default)]
struct Desk {
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    since: Option<time::Instant>,
    booted: bool,
    /// `FullyBooted` was read, not only assumed.
    read_boot: bool,
    shutdown: Option<bool>,
}

impl Desk {
    fn hear(&mut self, output: Output<'_>) {
        match output {
            Output::LoggedIn => self.since = Some(time::Instant::now()),
            Output::FullyBooted => (self.booted, self.read_boot) = (true, true),
            Output::Event(frame) if frame.is_event("Shutdown") => {
                let restart = frame.first("Restart").is_some_and(|value| value.eq_ignore_ascii_case(b"True"));
                self.shutdown = Some(restart);
            }
            Output::Reply { token, result, .. } => self.answer(token, result.map_err(failure)),
            Output::Unanswered { token, written, .. } => {
                self.answer(token, Err(ActionFailure::Lost { written }))
            }
            _ => {}
        }
    }

    fn answer(&mut self, token: u64, answer: Answer) {
        if let Some(waiting) = self.waiting.remove(&token) {
            // Whoever asked may have gone.
            let _ = waiting.send(answer);
        }
    }
}

fn failure(error: ReplyError) -> ActionFailure {
    match error {
        ReplyError::TimedOut { written: false, .. } => ActionFailure::NeverWritten,
        ReplyError::TimedOut { written: true, response } => ActionFailure::TimedOut { response },
        ReplyError::ListTooLong { limit, response } => {
            ActionFailure::TooLarge { limit, unit: "events", response }
        }
        ReplyError::ListTooLarge { limit, response } => {
            ActionFailure::TooLarge { limit, unit: "bytes", response }
        }
    }
}

fn refuse(request: Request) {
    let _ = request.answer.send(Err(ActionFailure::NotConnected));
}
