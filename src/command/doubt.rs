//! Originates of which something was not seen; each is looked up as those of a dead process are.
//!
//! | what was not seen | why | where it is looked up | nothing found |
//! |---|---|---|---|
//! | the answer | the connection broke, or Asterisk hung | in the log and among the live channels | `unknown` |
//! | after Asterisk's Success, the end that is waited for | the events broke off, or it took too long | in the log | `executed`, its end not seen |
//!
//! A connection that breaks leaves many in doubt at once. One look serves all that wait for it.
//!
//! A look takes at most [`LOOK_UP_WAIT`] and [`SETTLED`], beside the time to read the log, and whoever comes while
//! one is under way waits for its end first. Nobody is answered before, however impatient: the outcome that is found then
//! would be another one.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    decode::Command,
    engine::{Engine, Server},
    error::{Code, Outcome},
    evidence::{self, Evidence},
    response::{Response, channel_id},
    search::{LOOK_UP_WAIT, SETTLED, living},
    send::is_originate,
};
use crate::spool::scan::Since;

/// The calls of one process that are in doubt, by server. Bounded by the commands in work.
#[derive(Debug)]
pub(super) struct Doubts {
    servers: BTreeMap<String, Doubted>,
    place: Place,
}

/// Where a call is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Log,
    LogAndLiveChannels,
}

#[derive(Debug, Default)]
struct Doubted {
    /// Who looks.
    turn: tokio::sync::Mutex<()>,
    waiting: Mutex<Vec<Doubt>>,
}

#[derive(Debug)]
struct Doubt {
    channel: String,
    since: Since,
    /// The event that proves it, if there is one.
    told: oneshot::Sender<Option<Vec<u8>>>,
}

impl Doubts {
    pub(super) fn new<'a>(servers: impl Iterator<Item = &'a String>, place: Place) -> Self {
        Self { servers: servers.map(|name| (name.clone(), Doubted::default())).collect(), place }
    }
}

impl Engine {
    /// Looks a call up where its `response` says that nobody knows whether Asterisk took it, or what became of it, sent at
    /// `since` or later. `None`: amibus is leaving. It stays as being sent, and the next start looks it up.
    pub(super) async fn without_doubt(
        &self,
        server: &Server,
        id: &str,
        command: &Command,
        since: Since,
        mut response: Response,
        stop: &CancellationToken,
    ) -> Option<Response> {
        let code = response.error.as_ref().map(|error| error.code);
        let channel = channel_id(&command.server, id);
        if code == Some(Code::FinalNotSeen) {
            let look = self.unseen.look(&command.server, server, &channel, since);
            if let Some(event) = stop.run_until_cancelled(look).await? {
                info!(id, server = command.server, channel, "a call whose end was not seen was found");
                response.join_found(event);
            }
            return Some(response);
        }
        let in_doubt = matches!(code, Some(Code::ConnectionLost | Code::NoAnswer));
        if response.outcome != Outcome::Unknown || !in_doubt || !is_originate(command) {
            return Some(response);
        }
        let look = self.doubts.look(&command.server, server, &channel, since);
        Some(match stop.run_until_cancelled(look).await? {
            Some(event) => {
                info!(id, server = command.server, channel, "a call that was not answered for was found");
                Response::of_evidence(id, &command.server, &command.action, None, Some(event))
            }
            None => response,
        })
    }
}

impl Doubts {
    /// An event that proves a call, of whichever amibus, sent at `since` or later.
    pub(super) async fn look(
        &self,
        name: &str,
        server: &Server,
        channel: &str,
        since: Since,
    ) -> Option<Vec<u8>> {
        let doubted = self.servers.get(name)?;
        let (told, mut tell) = oneshot::channel();
        doubted.lock().push(Doubt { channel: channel.to_owned(), since, told });
        let _turn = doubted.turn.lock().await;
        // Who had the turn before may have looked for this one too.
        if let Ok(found) = tell.try_recv() {
            return found;
        }
        let (wanted, since) = doubted.all();
        let mut found = Evidence::new();
        if let Some(since) = since {
            let wanted = wanted.clone();
            found = match self.place {
                Place::Log => in_the_log(name, &server.spool_dir, since, wanted).await.0,
                Place::LogAndLiveChannels => seek(name, server, since, wanted).await,
            };
        }
        // One whose look is broken off leaves the others to the next.
        doubted.tell(wanted.len(), &found);
        tell.await.ok().flatten()
    }
}

impl Doubted {
    /// The channels of all who wait now, and from where the log is read for them; for who has the turn.
    fn all(&self) -> (Vec<String>, Option<Since>) {
        let mut waiting = self.lock();
        waiting.retain(|doubt| !doubt.told.is_closed());
        let since = waiting.iter().map(|doubt| doubt.since).reduce(Since::or);
        (waiting.iter().map(|doubt| doubt.channel.clone()).collect(), since)
    }

    /// Answers the first `count` of those who wait: whoever came later stands behind them.
    fn tell(&self, count: usize, found: &Evidence) {
        for doubt in self.lock().drain(..count) {
            // Who leaves does not wait any more.
            let _ = doubt.told.send(found.get(&doubt.channel).cloned());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Doubt>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the log, among the live channels once the server is back, and in the log again.
async fn seek(name: &str, server: &Server, since: Since, wanted: Vec<String>) -> Evidence {
    let (mut found, read) = in_the_log(name, &server.spool_dir, since, wanted.clone()).await;
    let left: Vec<String> = wanted.into_iter().filter(|channel| !found.contains_key(channel)).collect();
    if left.is_empty() {
        return found;
    }
    match tokio::time::timeout(LOOK_UP_WAIT, living(name, server, &left)).await {
        Ok(living) => found.extend(living),
        Err(_) => warn!(server = name, "the server is away: its live channels were not looked at"),
    }
    // What ended in between, or was seen while actions were not answered, has left its events in the log meanwhile.
    tokio::time::sleep(SETTLED).await;
    found.extend(in_the_log(name, &server.spool_dir, Since::number(read), left).await.0);
    found
}

/// What the log has of these channels, and the number from which the next look goes on for the others.
pub(super) async fn in_the_log(name: &str, dir: &Path, since: Since, wanted: Vec<String>) -> (Evidence, u64) {
    let dir = dir.to_path_buf();
    let logged = tokio::task::spawn_blocking(move || evidence::in_the_log(&dir, since, &wanted)).await;
    match logged {
        Ok(Ok(read)) => return read,
        Ok(Err(error)) => warn!(server = name, %error, "the spool cannot be searched for calls"),
        Err(error) => warn!(server = name, %error, "the spool could not be searched for calls"),
    }
    (Evidence::new(), 0)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Arc,
        time::{Duration, SystemTime},
    };

    use tokio::time::Instant;

    use super::*;
    use crate::command::testing;

    /// How long one look takes at most, without the time to read the log: the server is away, or came back just in time.
    const LONGEST_LOOK: Duration = Duration::from_secs(LOOK_UP_WAIT.as_secs() + SETTLED.as_secs());
    /// How many of them: one that was under way, and its own.
    const LOOKS_AT_MOST: u32 = 2;
    /// What reading an empty log may take.
    const LOG: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn who_is_in_doubt_waits_for_two_looks_at_most() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, _spool) = testing::engine(dir.path());
        // Asterisk is away, and stays so.
        let begun = Instant::now();
        let looks: Vec<_> = (0..20)
            .map(|n| {
                let engine = Arc::clone(&engine);
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(n * 3)).await;
                    let (server, asked) = (engine.servers.get("pbx1").expect("configured"), Instant::now());
                    let since = Since::time(SystemTime::now());
                    let found = engine.doubts.look("pbx1", server, &n.to_string(), since).await;
                    (found, asked.elapsed())
                })
            })
            .collect();
        for look in looks {
            let (found, took) = look.await.expect("it ends");
            assert_eq!(found, None);
            assert!(took >= LOOK_UP_WAIT, "it was looked for as long as for any: {took:?}");
            assert!(took <= LONGEST_LOOK * LOOKS_AT_MOST + LOG, "{took:?}");
        }
        assert!(begun.elapsed() <= LONGEST_LOOK * LOOKS_AT_MOST + LOG, "one look for all that waited");
    }

    const CALL: &str = "amibus-call";

    /// An engine in whose log an event of [`CALL`] stands, while its Asterisk is away.
    async fn logged(dir: &std::path::Path) -> Arc<Engine> {
        let (engine, spool) = testing::engine(dir);
        let event = format!("Event: Newchannel\r\nChannel: Local/1@s\r\nUniqueid: {CALL}\r\n\r\n");
        let origin =
            crate::writer::Origin { received: SystemTime::now(), given: None, boot: None, number: None };
        let frame = amibus_ami::Frame::parse(event.as_bytes());
        let server = engine.servers.get("pbx1").expect("configured");
        spool.append_read(|sequence| server.writer.event(frame, sequence, &origin));
        assert!(spool.in_a_file(spool.next() - 1).await);
        engine
    }

    fn look(engine: &Arc<Engine>, channel: &'static str) -> tokio::task::JoinHandle<Option<Vec<u8>>> {
        let engine = Arc::clone(engine);
        tokio::spawn(async move {
            let server = engine.servers.get("pbx1").expect("configured");
            engine.doubts.look("pbx1", server, channel, Since::number(0)).await
        })
    }

    /// Waits until so many are in doubt.
    async fn waiting(engine: &Engine, count: usize) {
        while engine.doubts.servers["pbx1"].lock().len() < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_look_that_is_broken_off_costs_nobody_else_its_answer() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = logged(dir.path()).await;
        let broken = look(&engine, "amibus-other");
        waiting(&engine, 1).await;
        let turn = engine.doubts.servers["pbx1"].turn.try_lock();
        assert!(turn.is_err(), "it looks");
        let looks = [look(&engine, CALL), look(&engine, CALL)];
        waiting(&engine, 3).await;
        broken.abort();
        for look in looks {
            let found = tokio::time::timeout(LOG, look).await.expect("in time").expect("it ends");
            assert!(found.is_some(), "the log shows it");
        }
    }

    #[tokio::test]
    async fn who_asks_again_for_a_call_is_answered_as_who_left() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = logged(dir.path()).await;
        let turn = engine.doubts.servers["pbx1"].turn.lock().await;
        let left = look(&engine, CALL);
        waiting(&engine, 1).await;
        left.abort();
        let again = [look(&engine, CALL), look(&engine, CALL)];
        waiting(&engine, 3).await;
        drop(turn);
        for look in again {
            let found = tokio::time::timeout(LOG, look).await.expect("in time").expect("it ends");
            assert!(found.is_some(), "the log shows it");
        }
    }
}
