//! The event session: log in, learn who is there, deliver, and begin again when it ends.
//!
//! Order of what a sink is told: `up`, everything since the login in the order of the wire, `down`, and so on.
//! Events that come before Asterisk has said who it is are held, at most [`HELD_BYTES`] of them or for
//! [`IDENTITY_DEADLINE`]; then `up` is told with what is known, and they follow.
//!
//! Snapshots are asked for on this same session, after `up`, so that each has its place among the events: one is
//! what Asterisk said between the event before it and the event after it. While Asterisk still loads its modules
//! it refuses some lists, so they wait for `FullyBooted`, or for [`BOOT_GRACE`] where that does not come (the user
//! may not read it). If it comes after all, they are asked for once more.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use amibus_ami::{Action, Frame, Output, OwnedFrame, Reply, ReplyError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    actions::BOOT_GRACE,
    identity::Identity,
    link::{DownReason, Ended, Retries, Role, log_end, open},
    settings::ServerSettings,
    wire::{Wire, at, now},
};

/// Bytes of events, [`HELD_OVERHEAD_BYTES`] for each included, held until Asterisk has said who it is.
pub const HELD_BYTES: usize = 8 * 1024 * 1024;
/// What a held event is reckoned to take besides its bytes.
pub const HELD_OVERHEAD_BYTES: usize = size_of::<Held>() + 16;
/// How long Asterisk has for that.
pub const IDENTITY_DEADLINE: Duration = Duration::from_secs(5);
/// How long a goodbye may take.
pub const LEAVE_DEADLINE: Duration = Duration::from_millis(500);

/// How long nothing may come before a sink that waits is told.
pub const TICK: Duration = Duration::from_millis(250);

/// How long a session rests after a read while its sink is behind, so that others get to run. A read has 64 KiB where there is
/// more, and the timer takes up to another millisecond: it goes on at some 25 to 45 MB a second, 60,000 to 100,000 events of 411 bytes.
/// A real Asterisk sent 43,000, in bursts 94,000, which its queue and the kernel's buffers even out; it waits 0.1 s for who does not read.
pub const REST: Duration = Duration::from_millis(1);

/// The actions that tell who is there, by their tokens. Those of snapshots are counted from [`SNAPSHOTS`].
const IDENTIFY: [&str; 3] = ["CoreSettings", "CoreStatus", "Ping"];
const SNAPSHOTS: u64 = IDENTIFY.len() as u64;

/// The server is seen from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Up {
    /// Asterisk's version (`22.10.1`), or AMI's (`AMI 11.0.0`) where the user may not ask for it.
    pub version: String,
    /// When Asterisk was started, in its own words: another text is another run of Asterisk. `None` where the
    /// user may not ask for it.
    pub boot: Option<String>,
    /// Whether this is the same run of Asterisk as before. What happened in between was missed all the same.
    pub resumed: bool,
    /// What Asterisk's clock said after the login. Whatever this session does not see was sent before.
    pub clock: Option<SystemTime>,
}

/// Where what is seen goes. Nothing here may wait: Asterisk ends a session that does not read.
pub trait EventSink: Send {
    /// The server is seen from here on.
    fn up(&mut self, up: Up);
    /// An event, which no list of ours contains, and when its bytes were read.
    fn event(&mut self, frame: Frame<'_>, received: SystemTime);
    /// A message that is neither event nor response, such as what is torn off by an empty line in a value.
    fn other(&mut self, frame: Frame<'_>, received: SystemTime);
    /// The items of one list action, as they are at this place among the events.
    fn snapshot(&mut self, list: &str, items: Vec<OwnedFrame>);
    /// The server is not seen any more, or still not, for a reason that was not told yet.
    fn down(&mut self, reason: &DownReason);
    /// So many bytes were read.
    fn read(&mut self, bytes: usize) {
        let _ = bytes;
    }
    /// Whether so much waits already that the session is to rest for [`REST`] after each read.
    fn is_behind(&self) -> bool {
        false
    }
    /// Whether [`EventSink::tick`] is to be called though nothing comes.
    fn is_waiting(&self) -> bool {
        false
    }
    /// Nothing came for [`TICK`].
    fn tick(&mut self) {}
}

/// Runs the event session of one server until `shutdown`.
pub async fn run_events(
    settings: Arc<ServerSettings>,
    mut sink: impl EventSink,
    shutdown: CancellationToken,
) {
    let mut retries = Retries::new(&settings);
    let mut boot = None;
    let mut told = None;
    loop {
        let ended = session(&settings, &mut sink, &mut boot, &shutdown).await;
        let reason = ended.reason.to_string();
        let news = told.as_ref() != Some(&reason) && !matches!(ended.reason, DownReason::Stopping);
        if ended.since.is_some() || news {
            sink.down(&ended.reason);
            told = Some(reason);
        }
        let wait = retries.wait(&ended);
        log_end(&settings, Role::Events, &ended, wait);
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

async fn session(
    settings: &Arc<ServerSettings>,
    sink: &mut impl EventSink,
    boot: &mut Option<String>,
    shutdown: &CancellationToken,
) -> Ended {
    let opened = tokio::select! {
        () = shutdown.cancelled() => Err(DownReason::Stopping),
        opened = open(settings, settings.events.clone()) => opened,
    };
    match opened {
        Ok(wire) => watch(settings, wire, sink, boot, shutdown).await,
        Err(reason) => Ended { reason, since: None },
    }
}

/// One session, from the banner to its end.
pub(super) async fn watch(
    settings: &ServerSettings,
    mut wire: Wire,
    sink: &mut impl EventSink,
    boot: &mut Option<String>,
    shutdown: &CancellationToken,
) -> Ended {
    let mut watch = Watch::new(settings, sink, boot);
    loop {
        let snapshots_due = watch.snapshots_due();
        let ticks = watch.up && watch.sink.is_waiting();
        let step = tokio::select! {
            () = shutdown.cancelled() => {
                wire.leave(LEAVE_DEADLINE, |output, at| watch.hear(output, at)).await;
                wire.close(|_| {});
                watch.go_up();
                return Ended { reason: DownReason::Stopping, since: watch.since };
            }
            step = wire.step(|output, at| watch.hear(output, at)) => step,
            () = at(snapshots_due) => {
                watch.want_snapshots();
                Ok(0)
            }
            () = sleep(TICK), if ticks => {
                watch.sink.tick();
                Ok(0)
            }
        };
        match step {
            Ok(0) => {}
            Ok(bytes) => {
                watch.sink.read(bytes);
                if watch.sink.is_behind() {
                    sleep(REST).await;
                }
            }
            Err(error) => {
                let cut = wire.close(|_| {}) > 0;
                // What was held has been seen, so it is told.
                watch.go_up();
                return Ended { reason: DownReason::of(error, cut, watch.shutdown), since: watch.since };
            }
        }
        for (action, token, within) in watch.wanted.drain(..) {
            if let Err(error) = wire.send(&action, token, now() + within, now() + within) {
                tracing::debug!(server = settings.name, action = action.name(), %error, "not asked");
            }
        }
    }
}

enum Held {
    Event(OwnedFrame, SystemTime),
    Other(OwnedFrame, SystemTime),
}

struct Watch<'a, S> {
    settings: &'a ServerSettings,
    sink: &'a mut S,
    last_boot: &'a mut Option<String>,
    identity: Identity,
    /// Answers to [`IDENTIFY`] still to come; events are held until there are none. `None`: not logged in.
    unanswered: Option<usize>,
    held: Vec<Held>,
    held_bytes: usize,
    wanted: Vec<(Action, u64, Duration)>,
    up: bool,
    /// Whether `FullyBooted` was read.
    booted: bool,
    /// Whether snapshots were asked for, and whether Asterisk was known to be booted then.
    asked: Option<bool>,
    since: Option<Instant>,
    /// Whether Asterisk said that it stops, and then whether it restarts.
    shutdown: Option<bool>,
}

impl<'a, S: EventSink> Watch<'a, S> {
    fn new(settings: &'a ServerSettings, sink: &'a mut S, last_boot: &'a mut Option<String>) -> Self {
        Self {
            settings,
            sink,
            last_boot,
            identity: Identity::default(),
            unanswered: None,
            held: Vec::new(),
            held_bytes: 0,
            wanted: Vec::new(),
            up: false,
            booted: false,
            asked: None,
            since: None,
            shutdown: None,
        }
    }

    fn hear(&mut self, output: Output<'_>, at: SystemTime) {
        match output {
            Output::Banner(version) => version.clone_into(&mut self.identity.ami),
            Output::LoggedIn => self.on_login(),
            Output::FullyBooted => {
                self.booted = true;
                self.want_snapshots();
            }
            Output::Event(frame) => self.on_event(frame, at),
            Output::Other(frame) if self.up => self.sink.other(frame, at),
            Output::Other(frame) => self.hold(frame, |frame| Held::Other(frame, at)),
            Output::Reply { token, result, .. } if token < SNAPSHOTS => self.on_identity(result),
            Output::Reply { token, result, .. } => self.on_snapshot(token - SNAPSHOTS, result),
            Output::Stray(frame) => {
                tracing::debug!(server = self.settings.name, ?frame, "a response that nothing asked for");
            }
            Output::Unanswered { .. } => {}
        }
    }

    fn on_login(&mut self) {
        self.since = Some(Instant::now());
        self.unanswered = Some(IDENTIFY.len());
        self.want(IDENTIFY.iter().copied(), 0, IDENTITY_DEADLINE);
    }

    #[inline]
    fn on_event(&mut self, frame: Frame<'_>, at: SystemTime) {
        if frame.is_event("Shutdown") {
            let restart = frame.first("Restart").is_some_and(|value| value.eq_ignore_ascii_case(b"True"));
            self.shutdown = Some(restart);
        }
        match self.up {
            true => self.sink.event(frame, at),
            false => self.hold(frame, |frame| Held::Event(frame, at)),
        }
    }

    fn hold(&mut self, frame: Frame<'_>, held: impl FnOnce(OwnedFrame) -> Held) {
        self.held_bytes += frame.raw().len() + HELD_OVERHEAD_BYTES;
        self.held.push(held(frame.to_owned()));
        if self.held_bytes > HELD_BYTES {
            self.go_up();
        }
    }

    fn on_identity(&mut self, result: Result<Reply, ReplyError>) {
        match result {
            Ok(reply) => self.identity.learn(&reply),
            Err(error) => {
                tracing::debug!(server = self.settings.name, %error, "Asterisk did not say who it is")
            }
        }
        self.unanswered = self.unanswered.map(|count| count.saturating_sub(1));
        if self.unanswered == Some(0) {
            self.go_up();
        }
    }

    /// Tells `up` and what was held; does nothing before the login, or a second time.
    fn go_up(&mut self) {
        if self.up || self.since.is_none() {
            return;
        }
        self.up = true;
        let (version, boot) = (self.identity.asterisk(), self.identity.boot.clone());
        let resumed = boot.is_some() && boot == *self.last_boot;
        tracing::info!(server = self.settings.name, asterisk = version, boot, resumed, "logged in");
        self.last_boot.clone_from(&boot);
        self.sink.up(Up { version, boot, resumed, clock: self.identity.clock });
        for held in std::mem::take(&mut self.held) {
            match held {
                Held::Event(frame, at) => self.sink.event(frame.frame(), at),
                Held::Other(frame, at) => self.sink.other(frame.frame(), at),
            }
        }
        if self.booted {
            self.want_snapshots();
        }
    }

    /// When snapshots are asked for though `FullyBooted` has not been read.
    fn snapshots_due(&self) -> Option<std::time::Instant> {
        let waits = self.up && self.asked.is_none();
        self.since.filter(|_| waits).map(|since| (since + BOOT_GRACE).into_std())
    }

    /// Asks for the snapshots, once `up` is told; again only if they were asked for before the boot was over.
    fn want_snapshots(&mut self) {
        if !self.up || self.asked.is_some_and(|booted| booted || !self.booted) {
            return;
        }
        self.asked = Some(self.booted);
        let settings = self.settings;
        self.want(settings.snapshots.iter().map(String::as_str), SNAPSHOTS, settings.action_deadline);
    }

    fn on_snapshot(&mut self, index: u64, result: Result<Reply, ReplyError>) {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(list) = self.settings.snapshots.get(index) else { return };
        match result {
            Ok(reply) if reply.response.frame().is_success() => self.sink.snapshot(list, reply.items),
            Ok(reply) => {
                let answer = reply.response.frame().first("Message").map(String::from_utf8_lossy);
                let answer = answer.as_deref().unwrap_or("an Error without a message");
                tracing::info!(server = self.settings.name, list, answer, "Asterisk gives no snapshot of it");
            }
            Err(error) => tracing::warn!(server = self.settings.name, list, %error, "no snapshot"),
        }
    }

    fn want<'n>(&mut self, names: impl Iterator<Item = &'n str>, first_token: u64, within: Duration) {
        for (token, name) in (first_token..).zip(names) {
            match Action::new(name) {
                Ok(action) => self.wanted.push((action, token, within)),
                Err(error) => tracing::warn!(server = self.settings.name, action = name, %error, "not asked"),
            }
        }
    }
}
