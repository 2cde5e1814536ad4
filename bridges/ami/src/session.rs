//! One AMI session as a value: bytes and instants in, bytes and values out.
//!
//! A driver hands in what it read ([`Session::input`]), writes what it is given
//! ([`Session::next_transmit`]), and calls [`Session::tick`] at [`Session::next_deadline`]. When the
//! connection has ended for any reason it calls [`Session::close`], which accounts for every action.
//!
//! States: banner -> (challenge ->) login -> ready -> closed. Invariants: a caller's action ends in exactly one
//! [`Output::Reply`] or [`Output::Unanswered`]; an event is given out exactly once, as an event or as
//! an item of a reply; a response is matched by its first ActionID alone, an event only against a
//! list that is under way.
//!
//! Life: a ping is due when nothing was received for a while. *Any* byte received after it proves
//! life, an `Error` too (during a graceful stop every action answers so). Asterisk runs one action at a
//! time, so silence while an action of ours is being run is not held against it until that action's
//! own deadline; but while a ping is overdue no further action is taken ([`SendError::Silent`]).

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use crate::action::{Action, ActionError};
use crate::action_id::ActionId;
use crate::config::SessionConfig;
use crate::decoder::{BANNER, Decoded, Decoder, Tail};
use crate::error::{SendError, SessionError};
use crate::frame::{Frame, Kind};
use crate::login::{Credentials, LoginError, LoginMethod};
use crate::output::{Output, Sink};
use crate::pending::{Claim, Pending, Purpose};
use crate::reply::ReplyError;

#[derive(Debug, PartialEq, Eq)]
enum State {
    Banner,
    Challenge(ActionId),
    Login(ActionId),
    Ready,
    Closed,
}

struct Ping {
    sent: Instant,
    /// When nothing more is sent, since the answer is late.
    overdue_at: Instant,
    overdue: bool,
    dead_at: Instant,
}

/// One AMI session. See the [module](self).
pub struct Session {
    config: SessionConfig,
    credentials: Credentials,
    state: State,
    decoder: Decoder,
    pending: Pending,
    outgoing: VecDeque<(ActionId, Vec<u8>)>,
    login_by: Instant,
    received: Instant,
    ping: Option<Ping>,
}

impl Session {
    /// A session over a connection that was made just now.
    ///
    /// # Errors
    /// The username or the secret cannot be sent as a header.
    pub fn new(config: SessionConfig, now: Instant) -> Result<Self, ActionError> {
        let credentials = Credentials {
            username: config.username.clone(),
            secret: config.secret.clone(),
            method: config.login,
            events: config.event_mask.clone(),
        };
        credentials.check()?;
        Ok(Self {
            credentials,
            state: State::Banner,
            decoder: Decoder::new(config.limits.clone()),
            pending: Pending::default(),
            outgoing: VecDeque::new(),
            login_by: now + config.login_deadline,
            received: now,
            ping: None,
            config,
        })
    }

    /// Takes `bytes`, everything unread, of which the last came just now. Returns how many of them to
    /// remove from the front; the rest is to be handed in again, with what comes next.
    ///
    /// # Errors
    /// The session is over. Call [`close`](Self::close) and drop the connection.
    pub fn input(&mut self, bytes: &[u8], now: Instant, sink: Sink<'_>) -> Result<usize, SessionError> {
        if self.state == State::Closed {
            return Err(SessionError::Closed);
        }
        self.received = now;
        self.ping = None;
        let mut consumed = 0;
        loop {
            let unread = bytes.get(consumed..).unwrap_or_default();
            let result = match self.decoder.decode(unread).map_err(SessionError::Frame) {
                Ok(Decoded::Incomplete) => return Ok(consumed),
                Ok(Decoded::Banner { line, consumed: length }) => {
                    consumed += length;
                    self.on_banner(line, now, sink)
                }
                Ok(Decoded::Frame { frame, consumed: length }) => {
                    consumed += length;
                    self.on_frame(frame, now, sink)
                }
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                self.state = State::Closed;
                return Err(error);
            }
        }
    }

    /// The next bytes to write. They count as written from here on, so ask only when the last ones
    /// are gone. An action that is late by now is passed over: the next [`tick`](Self::tick) reports it as never
    /// written.
    pub fn next_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        loop {
            let (id, bytes) = self.outgoing.pop_front()?;
            if self.pending.set_written(&id, now) {
                return Some(bytes);
            }
        }
    }

    /// When to call [`tick`](Self::tick), if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.state {
            State::Closed => None,
            State::Banner | State::Challenge(_) | State::Login(_) => Some(self.login_by),
            State::Ready => {
                let life = match &self.ping {
                    Some(ping) if ping.overdue => ping.dead_at,
                    Some(ping) => ping.overdue_at,
                    None => self.received + self.config.ping_interval,
                };
                Some(self.pending.next_deadline().map_or(life, |deadline| deadline.min(life)))
            }
        }
    }

    /// Does what is due: gives up late actions, sends a ping, finds the connection dead.
    ///
    /// # Errors
    /// The session is over. Call [`close`](Self::close) and drop the connection.
    pub fn tick(&mut self, now: Instant, sink: Sink<'_>) -> Result<(), SessionError> {
        let result = match self.state {
            State::Closed => return Err(SessionError::Closed),
            State::Ready => {
                self.expire(now, sink);
                self.keep_alive(now)
            }
            _ if now < self.login_by => Ok(()),
            State::Banner => Err(SessionError::LoginTimeout { waiting_for: "banner" }),
            State::Challenge(_) => Err(SessionError::LoginTimeout { waiting_for: "challenge" }),
            State::Login(_) => Err(SessionError::LoginTimeout { waiting_for: "answer to the login" }),
        };
        if result.is_err() {
            self.state = State::Closed;
        }
        result
    }

    /// Queues an action, to be answered within the configured time. `token` comes back with the reply.
    ///
    /// # Errors
    /// Nothing was queued, and nothing will be reported for it.
    pub fn send(&mut self, action: &Action, token: u64, now: Instant) -> Result<ActionId, SendError> {
        self.send_until(action, token, now + self.config.action_deadline)
    }

    /// Queues an action, to be answered before `deadline`.
    ///
    /// # Errors
    /// Nothing was queued, and nothing will be reported for it.
    pub fn send_until(
        &mut self,
        action: &Action,
        token: u64,
        deadline: Instant,
    ) -> Result<ActionId, SendError> {
        self.send_within(action, token, deadline, deadline)
    }

    /// Queues an action, to be written before `write_by` and answered before `deadline`. What is late for being written is
    /// reported as timed out and never written, at its `deadline` at the latest.
    ///
    /// # Errors
    /// Nothing was queued, and nothing will be reported for it.
    pub fn send_within(
        &mut self,
        action: &Action,
        token: u64,
        write_by: Instant,
        deadline: Instant,
    ) -> Result<ActionId, SendError> {
        self.check_send()?;
        Ok(self.enqueue(action, Purpose::Caller(token), write_by.min(deadline), deadline))
    }

    /// Whether an action could be sent now.
    ///
    /// # Errors
    /// Why not.
    pub fn check_send(&self) -> Result<(), SendError> {
        let limit = self.config.limits.pending_actions;
        match self.state {
            State::Closed => Err(SendError::Closed),
            State::Ready if self.ping.as_ref().is_some_and(|ping| ping.overdue) => Err(SendError::Silent),
            State::Ready if self.pending.open() >= limit => Err(SendError::TooManyPending { limit }),
            State::Ready => Ok(()),
            _ => Err(SendError::NotLoggedIn),
        }
    }

    /// Queues a `Logoff`, so that Asterisk closes the connection. Does nothing before the login.
    pub fn logoff(&mut self, now: Instant) {
        if let (State::Ready, Ok(action)) = (&self.state, Action::new("Logoff")) {
            self.enqueue_own(&action, now);
        }
    }

    /// The connection has ended, by whomever: reports every action that has no reply, in the order
    /// of sending, and tells what is left of a message that was cut off. `unread` is what
    /// [`input`](Self::input) has not consumed.
    pub fn close<'b>(&mut self, unread: &'b [u8], sink: Sink<'_>) -> Tail<'b> {
        self.state = State::Closed;
        self.outgoing.clear();
        for unfinished in self.pending.drain() {
            let (action_id, token, written) = (unfinished.id, unfinished.token, unfinished.written);
            sink(Output::Unanswered { action_id, token, written });
        }
        self.decoder.finish(unread)
    }

    /// Whether the login has succeeded and the session is not over.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Empty lines that stood between messages so far.
    pub fn empty_lines(&self) -> u64 {
        self.decoder.empty_lines()
    }

    fn on_banner(&mut self, line: &[u8], now: Instant, sink: Sink<'_>) -> Result<(), SessionError> {
        let version = line.strip_prefix(BANNER).and_then(|version| std::str::from_utf8(version).ok());
        let Some(version) = version else {
            return Err(SessionError::NotAsterisk { line: line.escape_ascii().to_string() });
        };
        sink(Output::Banner(version));
        let action = self.credentials.first_action().map_err(SessionError::Unsendable)?;
        let id = self.enqueue_own(&action, now);
        self.state = match self.config.login {
            LoginMethod::Md5 => State::Challenge(id),
            LoginMethod::Plain => State::Login(id),
        };
        Ok(())
    }

    fn on_frame(&mut self, frame: Frame<'_>, now: Instant, sink: Sink<'_>) -> Result<(), SessionError> {
        match frame.kind() {
            Kind::Other => sink(Output::Other(frame)),
            Kind::Event => match self.pending.event(&frame, &self.config.limits) {
                Claim::NotOurs => {
                    if frame.is_event("FullyBooted") {
                        sink(Output::FullyBooted);
                    }
                    sink(Output::Event(frame));
                }
                Claim::Taken => {}
                Claim::Done(action_id, token, result) => sink(Output::Reply { action_id, token, result }),
            },
            Kind::Response if self.answers_login(&frame) => return self.on_login(&frame, now, sink),
            Kind::Response => match self.pending.response(&frame, &self.config.limits) {
                Claim::NotOurs => sink(Output::Stray(frame)),
                Claim::Taken => {}
                Claim::Done(action_id, token, result) => sink(Output::Reply { action_id, token, result }),
            },
        }
        Ok(())
    }

    /// Before the login has succeeded an Error without ActionID can only be about the login.
    fn answers_login(&self, frame: &Frame<'_>) -> bool {
        match (&self.state, frame.first("ActionID")) {
            (State::Challenge(id) | State::Login(id), Some(given)) => given == id.as_str().as_bytes(),
            (State::Challenge(_) | State::Login(_), None) => !frame.is_success(),
            _ => false,
        }
    }

    fn on_login(&mut self, frame: &Frame<'_>, now: Instant, sink: Sink<'_>) -> Result<(), SessionError> {
        // The answer also clears the entry of the action that it answers.
        self.pending.response(frame, &self.config.limits);
        if matches!(self.state, State::Challenge(_)) {
            let challenge = frame.first("Challenge").filter(|_| frame.is_success());
            let Some(challenge) = challenge else {
                return Err(match LoginError::from_answer(frame) {
                    LoginError::Refused(words) => LoginError::NoChallenge(words).into(),
                    known => known.into(),
                });
            };
            let action = self.credentials.answer(challenge).map_err(SessionError::Unsendable)?;
            self.state = State::Login(self.enqueue_own(&action, now));
            return Ok(());
        }
        if !frame.is_success() {
            return Err(LoginError::from_answer(frame).into());
        }
        self.state = State::Ready;
        sink(Output::LoggedIn);
        Ok(())
    }

    /// One of the session's own, whose answer nobody waits for.
    fn enqueue_own(&mut self, action: &Action, deadline: Instant) -> ActionId {
        self.enqueue(action, Purpose::Own, deadline, deadline)
    }

    fn enqueue(
        &mut self,
        action: &Action,
        purpose: Purpose,
        write_by: Instant,
        deadline: Instant,
    ) -> ActionId {
        let id = self.config.action_ids.next();
        let within = (write_by, deadline);
        self.pending.insert(id.clone(), purpose, action.name(), within, &self.config.limits);
        self.outgoing.push_back((id.clone(), action.encode(&id)));
        id
    }

    fn expire(&mut self, now: Instant, sink: Sink<'_>) {
        for (late, response) in self.pending.expire(now, &self.config.limits) {
            self.outgoing.retain(|(id, _)| *id != late.id);
            let result = Err(ReplyError::TimedOut { written: late.written, response });
            sink(Output::Reply { action_id: late.id, token: late.token, result });
        }
    }

    fn keep_alive(&mut self, now: Instant) -> Result<(), SessionError> {
        match &mut self.ping {
            Some(ping) if now >= ping.dead_at => {
                let waited = now.saturating_duration_since(ping.sent);
                return Err(SessionError::Dead {
                    silent: now.saturating_duration_since(self.received),
                    waited,
                });
            }
            Some(ping) => {
                ping.overdue = now >= ping.overdue_at;
                return Ok(());
            }
            None if now < self.received + self.config.ping_interval => return Ok(()),
            None => {}
        }
        let overdue_at = now + self.config.ping_deadline;
        let running = self.pending.last_written_deadline();
        let dead_at = running.map_or(overdue_at, |running| running.max(overdue_at));
        let action = Action::new("Ping").map_err(SessionError::Unsendable)?;
        self.enqueue_own(&action, now);
        self.ping = Some(Ping { sent: now, overdue_at, overdue: false, dead_at });
        Ok(())
    }
}

/// Leaves out what is to be written: the login is in it.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("username", &self.config.username)
            .field("state", &self.state)
            .field("pending", &self.pending.open())
            .finish_non_exhaustive()
    }
}
