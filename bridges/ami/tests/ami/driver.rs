//! Drives a session in virtual time, and writes down what it says.

use std::time::{Duration, Instant};

use amibus_ami::{
    Action, ActionIds, EventMask, LoginMethod, Output, Reply, ReplyError, SendError, Session, SessionConfig,
    SessionError, Tail,
};

pub(crate) fn action(name: &str) -> Action {
    Action::new(name).unwrap()
}

pub(crate) fn config() -> SessionConfig {
    SessionConfig {
        login: LoginMethod::Plain,
        event_mask: EventMask::On,
        ping_interval: Duration::from_secs(10),
        ping_deadline: Duration::from_secs(5),
        login_deadline: Duration::from_secs(15),
        action_deadline: Duration::from_secs(30),
        ..SessionConfig::new("amibus", "s3cret".into(), ActionIds::new([9; 16]))
    }
}

pub(crate) struct Driver {
    pub(crate) session: Session,
    pub(crate) now: Instant,
    pub(crate) replies: Vec<(u64, Result<Reply, ReplyError>)>,
    said: Vec<String>,
    unread: Vec<u8>,
}

impl Driver {
    pub(crate) fn new(config: SessionConfig) -> Self {
        let now = Instant::now();
        let session = Session::new(config, now).unwrap();
        Self { session, now, replies: Vec::new(), said: Vec::new(), unread: Vec::new() }
    }

    /// Connected and logged in, with nothing left unsaid.
    pub(crate) fn ready(config: SessionConfig) -> Self {
        let mut driver = Self::new(config);
        driver.receives("Asterisk Call Manager/11.0.0\r\n").unwrap();
        let id = driver.writes_one("Login");
        driver
            .receives(format!(
                "Response: Success\r\nActionID: {id}\r\nMessage: Authentication accepted\r\n\r\n"
            ))
            .unwrap();
        assert_eq!(driver.said(), ["banner 11.0.0", "logged in"]);
        driver
    }

    /// Bytes of the server.
    pub(crate) fn receives(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), SessionError> {
        self.unread.extend_from_slice(bytes.as_ref());
        let (said, replies) = (&mut self.said, &mut self.replies);
        let consumed =
            self.session.input(&self.unread, self.now, &mut |output| note(output, said, replies))?;
        self.unread.drain(..consumed);
        Ok(())
    }

    /// What the session wrote since, as text.
    pub(crate) fn writes(&mut self) -> String {
        let bytes: Vec<u8> = std::iter::from_fn(|| self.session.next_transmit(self.now)).flatten().collect();
        String::from_utf8(bytes).unwrap()
    }

    /// Takes one action of that name from what the session wrote, and gives its ActionID.
    pub(crate) fn writes_one(&mut self, name: &str) -> String {
        let text = String::from_utf8(self.session.next_transmit(self.now).expect("an action")).unwrap();
        assert!(text.starts_with(&format!("Action: {name}\r\nActionID: ")), "{text}");
        text.lines().nth(1).unwrap().strip_prefix("ActionID: ").unwrap().to_owned()
    }

    /// Sends an action and has it written; gives its ActionID.
    pub(crate) fn sends(&mut self, name: &str, token: u64) -> String {
        let id = self.queues(name, token).unwrap();
        assert_eq!(self.writes_one(name), id);
        id
    }

    pub(crate) fn queues(&mut self, name: &str, token: u64) -> Result<String, SendError> {
        self.session.send(&action(name), token, self.now).map(|id| id.as_str().to_owned())
    }

    /// Lets time pass, waking the session at its deadlines as a driver would.
    pub(crate) fn waits(&mut self, seconds: u64) -> Result<(), SessionError> {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(due) = self.session.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.ticks()?;
            assert_ne!(self.session.next_deadline(), Some(due), "a deadline that was served stays");
        }
        self.now = until;
        Ok(())
    }

    pub(crate) fn ticks(&mut self) -> Result<(), SessionError> {
        let (said, replies) = (&mut self.said, &mut self.replies);
        self.session.tick(self.now, &mut |output| note(output, said, replies))
    }

    /// The connection ends; gives what is left of a cut-off message.
    pub(crate) fn ends(&mut self) -> Option<Vec<u8>> {
        let (said, replies) = (&mut self.said, &mut self.replies);
        match self.session.close(&self.unread, &mut |output| note(output, said, replies)) {
            Tail::Clean => None,
            Tail::Cut(tail) => Some(tail.to_vec()),
        }
    }

    /// What the session said since, a line each.
    pub(crate) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }
}

fn note(output: Output<'_>, said: &mut Vec<String>, replies: &mut Vec<(u64, Result<Reply, ReplyError>)>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    said.push(match output {
        Output::Banner(version) => format!("banner {version}"),
        Output::LoggedIn => "logged in".into(),
        Output::FullyBooted => "booted".into(),
        Output::Event(frame) => format!("event {}", text(frame.name())),
        Output::Stray(frame) => format!("stray {}", text(frame.name())),
        Output::Other(frame) => format!("other {}", text(frame.raw())),
        Output::Unanswered { token, written, .. } => {
            format!("{token} unanswered, {}", if written { "written" } else { "never written" })
        }
        Output::Reply { token, result, .. } => {
            let line = match &result {
                Ok(reply) => {
                    let status = text(reply.response.frame().name());
                    let end =
                        reply.complete.as_ref().map_or("no list".into(), |end| text(end.frame().name()));
                    format!("{token} {status}, {} items, {end}", reply.items.len())
                }
                Err(ReplyError::TimedOut { written, response }) => {
                    format!("{token} timed out, written {written}, response {}", response.is_some())
                }
                Err(error) => format!("{token} {error}"),
            };
            replies.push((token, result));
            line
        }
    });
}
