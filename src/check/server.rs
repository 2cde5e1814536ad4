//! What an AMI user cannot see or do, asked of the real server.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use amibus_ami::{Action, Frame, OwnedFrame, Reply};
use globset::GlobBuilder;
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Finding,
    privileges::{self, Actions as Permitted, READ_CLASSES},
};
use crate::{
    asterisk::{Actions, DownReason, EventSink, ServerSettings, Up, run_events},
    command::policy::Rule,
    normalize::sequence_number,
};

/// What the connector may take beyond the time for connecting: a login that is refused takes Asterisk 1 s.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);
/// How long a second session may take until it can send actions, where `FullyBooted` cannot be read.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long to look for events that tell how this server marks its events.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Logs in, asks, and logs off again.
pub async fn server(mut settings: ServerSettings, rules: &[Rule]) -> Vec<Finding> {
    let snapshots = std::mem::take(&mut settings.snapshots);
    let deadline = Instant::now() + settings.connect_timeout + LOGIN_LIMIT;
    let settings = Arc::new(settings);
    let stop = CancellationToken::new();
    let seen = Arc::new(Seen::default());
    let events = tokio::spawn(run_events(Arc::clone(&settings), Sink(Arc::clone(&seen)), stop.clone()));
    let findings = match seen.link(deadline).await {
        Err(reason) => vec![Finding::Failed(reason)],
        Ok(up) => ask(&settings, &seen, &up, &snapshots, rules, &stop).await,
    };
    stop.cancel();
    // The session says goodbye within a time of its own; a panic in there was printed already.
    let _ = events.await;
    findings
}

async fn ask(
    settings: &Arc<ServerSettings>,
    seen: &Seen,
    up: &Up,
    snapshots: &[String],
    rules: &[Rule],
    stop: &CancellationToken,
) -> Vec<Finding> {
    let mut findings = vec![Finding::Fine(format!("logged in, Asterisk {}", up.version))];
    let (actions, session) = Actions::new(Arc::clone(settings));
    let session = tokio::spawn(session.run(stop.clone()));
    let mut ready = actions.ready();
    let wait = timeout_at(Instant::now() + READY_LIMIT, ready.wait_for(|ready| *ready));
    // What a watch lends out keeps its writer waiting, so it is given back at once.
    let is_ready = wait.await.is_ok_and(|ready| ready.is_ok());
    if !is_ready {
        findings.push(Finding::Failed("the session for actions is not ready: see the log".to_owned()));
        return findings;
    }
    match run(&actions, "ListCommands", None).await {
        Ok(reply) => {
            let permitted = Permitted::read(&reply.response.frame());
            writes(&permitted, snapshots, rules, &mut findings);
            reads(&actions, settings, &permitted, seen, &mut findings).await;
        }
        Err(message) => {
            findings.push(Finding::Warning(format!("what the user may do cannot be told: {message}")));
        }
    }
    stop.cancel();
    let _ = session.await;
    findings
}

/// What the user cannot do, of what is configured.
fn writes(permitted: &Permitted, snapshots: &[String], rules: &[Rule], findings: &mut Vec<Finding>) {
    let classes: Vec<&str> = permitted.write_classes().into_iter().collect();
    let classes = if classes.is_empty() { "none".to_owned() } else { classes.join(",") };
    findings.push(Finding::Fine(format!("may run {} actions (write = {classes})", permitted.count())));
    let missing: Vec<&str> =
        snapshots.iter().map(String::as_str).filter(|list| !permitted.has(list)).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        findings
            .push(Finding::Warning(format!("may not run {missing}: no snapshot of it after a reconnect")));
    }
    for (index, rule) in rules.iter().enumerate() {
        for text in &rule.actions {
            let Ok(glob) = GlobBuilder::new(text).case_insensitive(true).build() else { continue };
            let glob = glob.compile_matcher();
            if !permitted.names().any(|action| glob.is_match(action)) {
                let number = index + 1;
                findings.push(Finding::Warning(format!(
                    "command.allow #{number} allows {text}, and the AMI user may not run it (write = in manager.conf), \
                     or this Asterisk does not know it"
                )));
            }
        }
    }
}

/// What the user cannot see, and how events are marked.
async fn reads(
    actions: &Actions,
    settings: &ServerSettings,
    permitted: &Permitted,
    seen: &Seen,
    findings: &mut Vec<Finding>,
) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let mut classes = None;
    let mut general = Vec::new();
    if permitted.has("Command") && settings.username.chars().all(plain) {
        let user = cli(actions, &format!("manager show user {}", settings.username)).await;
        classes = privileges::read_classes(&user);
        general = cli(actions, "manager show settings").await;
    }
    let is_on =
        |name: &str| privileges::setting(&general, name).map(|value| value.eq_ignore_ascii_case("yes"));
    let (timestamps, numbers) = match (is_on("Timestamp events"), is_on("Debug")) {
        (Some(timestamps), Some(numbers)) => (Some(timestamps), Some(numbers)),
        // The login of the session for actions is itself an event, for whoever may see it.
        _ => seen.marks(Instant::now() + LOOK_LIMIT).await,
    };
    let lacks = classes.as_ref().map(lacking);
    findings.push(match &lacks {
        Some(lacks) => missing_classes(lacks),
        None => guessed_classes(seen),
    });
    let sees_some = lacks.is_some_and(|lacks| !lacks.is_empty()) || seen.misses_numbers();
    if settings.every_number && numbers == Some(true) && sees_some {
        findings.push(Finding::Warning(
            "SequenceNumbers are missing for this user, who does not see every event, and amibus will announce each as a \
             gap: give it read = all and no eventfilter in manager.conf, or set sequence_numbers = \"some\" for this server"
                .to_owned(),
        ));
    }
    findings.push(match timestamps {
        Some(true) => Finding::Fine("events carry Timestamp".to_owned()),
        Some(false) => Finding::Warning(
            "events carry no Timestamp, so their time is when amibus read them: set timestampevents = yes in \
             manager.conf"
                .to_owned(),
        ),
        None => Finding::Warning(format!(
            "no event came within {} s, so whether events carry Timestamp and SequenceNumber cannot be told \
             (timestampevents = yes, debug = on)",
            LOOK_LIMIT.as_secs()
        )),
    });
    match numbers {
        Some(true) => findings.push(Finding::Fine(
            "events carry SequenceNumber: what was missed is counted".to_owned(),
        )),
        Some(false) => findings.push(Finding::Warning(
            "events carry no SequenceNumber, so what was missed across a reconnect cannot be counted, and what Asterisk \
             throws away for a session that lags is not noticed: set debug = on in manager.conf"
                .to_owned(),
        )),
        None => {}
    }
}

/// The usual classes that are not among these.
fn lacking(classes: &BTreeSet<String>) -> Vec<String> {
    let has = |class: &str| classes.contains(class) || classes.contains("all");
    let lacks = READ_CLASSES.iter().filter(|(class, _)| !has(class));
    lacks.map(|(class, what)| format!("{class} ({what})")).collect()
}

fn missing_classes(missing: &[String]) -> Finding {
    if missing.is_empty() {
        return Finding::Fine("sees the events of every class".to_owned());
    }
    Finding::Warning(format!("does not see {}: read = in manager.conf", missing.join(", ")))
}

fn guessed_classes(seen: &Seen) -> Finding {
    let (booted, logins) = seen.proofs();
    let rest =
        "which other events it sees cannot be told without the class `command`: see read = in manager.conf";
    match (booted, logins) {
        (true, _) => Finding::Fine(format!("sees FullyBooted (read has system); {rest}")),
        (false, true) => Finding::Warning(format!(
            "does not see FullyBooted (read has no system), so that a start of Asterisk is waited out by time; {rest}"
        )),
        (false, false) => Finding::Warning(format!(
            "sees neither FullyBooted (read has no system), so that a start of Asterisk is waited out by time, nor \
             logins (read has no security); {rest}"
        )),
    }
}

async fn run(actions: &Actions, name: &str, header: Option<(&str, &str)>) -> Result<Reply, String> {
    let mut action = Action::new(name).map_err(|error| error.to_string())?;
    if let Some((name, value)) = header {
        action = action.header(name, value).map_err(|error| error.to_string())?;
    }
    let deadline = (Instant::now() + ANSWER_LIMIT).into_std();
    let reply = actions.run(action, deadline).await.map_err(|failure| failure.to_string())?;
    let frame = reply.response.frame();
    if frame.is_success() {
        return Ok(reply);
    }
    Err(String::from_utf8_lossy(frame.first("Message").unwrap_or(b"an Error without a message")).into_owned())
}

/// The lines of a CLI command's output; none where it cannot be run.
async fn cli(actions: &Actions, command: &str) -> Vec<String> {
    let Ok(reply) = run(actions, "Command", Some(("Command", command))).await else { return Vec::new() };
    reply.response.frame().output().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
}

/// What the event session has seen so far.
#[derive(Default)]
struct Seen {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    link: Option<Result<Up, String>>,
    booted: bool,
    logins: bool,
    /// Whether an event had a Timestamp, and whether it had a SequenceNumber.
    marks: Option<(bool, bool)>,
    /// The first and the last SequenceNumber, and how many events had one.
    numbers: Option<(u32, u32, u32)>,
}

impl Seen {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.news.notify_waiters();
    }

    /// Waits until `look` finds something.
    async fn wait<T>(&self, deadline: Instant, look: impl Fn(&State) -> Option<T>) -> Option<T> {
        loop {
            let news = self.news.notified();
            let mut news = std::pin::pin!(news);
            news.as_mut().enable();
            let found = look(&self.state.lock().unwrap_or_else(PoisonError::into_inner));
            if found.is_some() {
                return found;
            }
            timeout_at(deadline, news).await.ok()?;
        }
    }

    async fn link(&self, deadline: Instant) -> Result<Up, String> {
        let link = self.wait(deadline, |state| state.link.clone()).await;
        link.unwrap_or_else(|| Err("no login in time".to_owned()))
    }

    async fn marks(&self, deadline: Instant) -> (Option<bool>, Option<bool>) {
        let marks = self.wait(deadline, |state| state.marks).await;
        (marks.map(|(timestamp, _)| timestamp), marks.map(|(_, number)| number))
    }

    /// Whether there are fewer numbers than from the first to the last. What is out of order at this moment counts too.
    fn misses_numbers(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.numbers.is_some_and(|(first, last, count)| last - first >= count)
    }

    fn proofs(&self) -> (bool, bool) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.booted, state.logins)
    }
}

struct Sink(Arc<Seen>);

impl EventSink for Sink {
    fn up(&mut self, up: Up) {
        self.0.change(|state| state.link = Some(Ok(up)));
    }

    fn event(&mut self, frame: Frame<'_>, _: SystemTime) {
        self.0.change(|state| {
            // FullyBooted never carries a Timestamp, whatever is set.
            if frame.is_event("FullyBooted") {
                state.booted = true;
            } else if state.marks.is_none() {
                state.marks =
                    Some((frame.first("Timestamp").is_some(), frame.first("SequenceNumber").is_some()));
            }
            if let Some(number) = sequence_number(&frame) {
                let (first, last, count) = state.numbers.unwrap_or((number, number, 0));
                state.numbers = Some((first.min(number), last.max(number), count.saturating_add(1)));
            }
            state.logins |= frame.is_event("SuccessfulAuth") || frame.is_event("ChallengeSent");
        });
    }

    fn other(&mut self, _: Frame<'_>, _: SystemTime) {}

    fn snapshot(&mut self, _: &str, _: Vec<OwnedFrame>) {}

    fn down(&mut self, reason: &DownReason) {
        let reason = reason.to_string();
        self.0.change(|state| state.link = Some(Err(reason)));
    }
}
