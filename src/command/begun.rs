//! Commands of a bus that keeps which of them were begun ([`Begin`]): several amibus that take from it share that, where
//! they share no claims.
//!
//! | found begun, by whomsoever | what becomes of it |
//! |---|---|
//! | the own journal knows its outcome, or that it was being sent | as after any restart ([`recover`](super::recover)) |
//! | an action that only reads | it runs again |
//! | an Originate | looked up by its ChannelId, as one in [`doubt`](super::doubt): `executed`, with the event that proves it; else `unknown` |
//! | anything else | `unknown`: nobody can tell |
//!
//! While that is found out it counts as being sent in the own journal: a process that dies over it goes on with it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use amibus_contract::Begin;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    decode::Command,
    engine::{Answer, Circumstances, Engine, RECORD_RETRY, Server},
    error::{Code, CommandError},
    evidence,
    journal::{Claim, Journal},
    moment::Moment,
    recover::is_read_only,
    response::{Response, channel_id},
    send::{NotBegun, is_originate, until},
};

/// How much longer than amibus wants to stay the bus may take to keep that a command is begun.
const BEGUN_AFTER_STOP: Duration = Duration::from_secs(5);
/// For how long after it was asked a begin is taken as ours: less than a bus waits for a process that stands still.
const BEGIN_HOLDS: Duration = Duration::from_secs(2);
/// For how long after that a command may lie in a queue on the way to the socket: both together are less, too. And it is
/// less than the 2 s that a bus gives what was begun to end, before another one gets it.
pub(super) const BEGUN_WRITTEN_WITHIN: Duration = Duration::from_secs(1);
/// What the sender is told of a command that somebody else may have run.
const BEGUN_BEFORE: &str = "an amibus had begun to send it, and its outcome was not acknowledged";

/// The begin of one command, to be kept by its bus.
pub(super) struct Beginning<'a> {
    record: &'a Arc<dyn Begin>,
    deadline: Option<Instant>,
    stop: &'a CancellationToken,
    /// When the bus was asked for what it has confirmed.
    since: Mutex<Option<Moment>>,
}

impl Circumstances<'_> {
    /// The bus's record of the command's begin. Of an action that only reads, none is needed.
    fn record(&self, command: &Command) -> Option<&Arc<dyn Begin>> {
        self.begin.as_ref().filter(|_| !is_read_only(&command.action))
    }

    /// Whether somebody may have run the command.
    pub(super) fn is_begun(&self, command: &Command) -> bool {
        self.record(command).is_some_and(|begin| begin.begun_before())
    }

    /// What has to be kept before the command is sent, by its `deadline`; `None`: nothing.
    pub(super) fn beginning(&self, command: &Command, deadline: Option<Instant>) -> Option<Beginning<'_>> {
        Some(Beginning::of(self.record(command)?, deadline, self.stop))
    }
}

impl<'a> Beginning<'a> {
    pub(super) fn of(
        record: &'a Arc<dyn Begin>,
        deadline: Option<Instant>,
        stop: &'a CancellationToken,
    ) -> Self {
        Self { record, deadline, stop, since: Mutex::default() }
    }
}

impl Beginning<'_> {
    /// Has the bus keep that the command is about to be sent.
    ///
    /// # Errors
    /// Why it must not be.
    pub(super) async fn begin(&self, id: &str) -> Result<(), NotBegun> {
        let asked = Moment::now();
        let left = async {
            self.stop.cancelled().await;
            tokio::time::sleep(BEGUN_AFTER_STOP).await;
        };
        let begun = tokio::select! {
            begun = until(self.deadline, self.record.begin()) => begun,
            () = left => return Err(NotBegun::Left),
        };
        let Err(fault) = begun.ok_or(NotBegun::TooLate)? else {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
            return Ok(());
        };
        info!(id, %fault, "a command was not begun here");
        Err(NotBegun::Left)
    }

    /// The same once more where that was a while ago: what comes before the socket may have taken its time, and this
    /// process may have been stopped in it.
    ///
    /// # Errors
    /// As for [`Beginning::begin`].
    pub(super) async fn still_ours(&self, id: &str) -> Result<(), NotBegun> {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match since {
            Some(since) if since.elapsed() < BEGIN_HOLDS => Ok(()),
            _ => self.begin(id).await,
        }
    }

    /// Nothing of it was written.
    pub(super) fn take_back(&self) {
        self.record.take_back();
    }
}

impl Engine {
    /// Finds out what became of a command that somebody had begun, and that the own journal does not know as sent. `None`:
    /// it is left to its bus.
    pub(super) async fn begun_before(
        &self,
        server: &Server,
        id: &str,
        command: &Command,
        how: &Circumstances<'_>,
    ) -> Option<Arc<Answer>> {
        let channel = is_originate(command).then(|| channel_id(&command.server, id));
        let (own_id, own_command) = (id.to_owned(), command.clone());
        let (sender, durable, own_channel) = (how.sender.clone(), how.durable, channel.clone());
        let recorded = self.blocking(move |journal| {
            match journal.claim_from(&own_id, &own_command, sender.as_deref(), durable)? {
                Claim::Ours => {
                    journal.sending_call(&own_id, own_channel.as_deref(), &[], None).map(|()| true)
                }
                _ => Ok(false),
            }
        });
        match recorded.await {
            Ok(true) => {}
            // It is looked at anew when it comes again.
            Ok(false) => return None,
            Err(error) => {
                warn!(id, %error, "the journal cannot keep a command that was begun; it waits on its bus");
                return None;
            }
        }
        let since = SystemTime::now().checked_sub(how.age).unwrap_or(SystemTime::UNIX_EPOCH);
        let event = match &channel {
            Some(channel) => {
                let look = self.doubts.look(&command.server, server, channel, evidence::sent_at(since));
                match how.left.run_until_cancelled(look).await {
                    Some(event) => event,
                    None => {
                        self.not_looked_up(id, how).await;
                        return None;
                    }
                }
            }
            None => None,
        };
        let response = match event {
            Some(event) => {
                info!(id, server = command.server, channel, "a call that another amibus began was found");
                Response::of_evidence(id, &command.server, &command.action, None, Some(event))
            }
            None => {
                warn!(id, server = command.server, action = command.action, "{BEGUN_BEFORE}");
                let error = CommandError::new(Code::Interrupted, BEGUN_BEFORE);
                Response::of_error(Some(id.to_owned()), &command.server, &command.action, error)
            }
        };
        how.audit.found_begun();
        self.finish(server, id, how, response, None).await.ok()
    }

    /// A command whose look-up broke off. Where its bus took it away, it is looked up elsewhere, and forgotten here; where
    /// amibus leaves, the next start goes on. Until that is written nobody else has its turn here: it would find a command
    /// that was being sent, and that nobody looks for.
    async fn not_looked_up(&self, id: &str, how: &Circumstances<'_>) {
        while !how.stop.is_cancelled() {
            let own_id = id.to_owned();
            let forget = move |journal: &Journal| {
                journal.unsend(&own_id)?;
                journal.release(&own_id)
            };
            let Err(error) = self.blocking(forget).await else { return };
            warn!(id, %error, "a command that its bus took away is still marked as being sent; trying again");
            tokio::time::sleep(RECORD_RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use amibus_contract::{BoxFuture, Bytes, Fault, Handle, Message, Reach, Rejection, Request};
    use rusqlite::Connection;

    use super::*;
    use crate::{
        command::testing::{self, Begins},
        metrics::Metrics,
    };

    const PATIENCE: Duration = Duration::from_secs(20);
    const LOOK_EVERY: Duration = Duration::from_millis(10);

    #[tokio::test]
    async fn what_was_begun_before_the_machine_slept_is_asked_for_once_more() {
        let (bus, stop) = (Arc::new(Begins::default()), CancellationToken::new());
        let record: Arc<dyn Begin> = bus.clone();
        let begin = Beginning::of(&record, None, &stop);
        assert!(begin.begin("a").await.is_ok() && begin.still_ours("a").await.is_ok());
        assert_eq!(bus.asked(), 1, "a moment ago");
        *begin.since.lock().expect("whole") = Some(Moment::now().slept(BEGIN_HOLDS));
        assert!(begin.still_ours("a").await.is_ok());
        assert_eq!(bus.asked(), 2);
    }

    /// A request of a bus on which somebody had begun it, until it is taken away.
    struct Begun(CancellationToken);

    impl Handle for Begun {
        fn reply<'a>(&'a mut self, _: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>> {
            Box::pin(async { Ok(Reach::Sent) })
        }
        fn keep(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
            Box::pin(async { Ok(()) })
        }
        fn keep_every(&self) -> Option<Duration> {
            None
        }
        fn withdrawn(&self) -> Option<BoxFuture<'static, ()>> {
            Some(Box::pin(self.0.clone().cancelled_owned()))
        }
        fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
            Box::pin(async { Ok(()) })
        }
        fn begin(&self) -> Option<Arc<dyn Begin>> {
            Some(Arc::new(Begins::before()))
        }
        fn dead_letter(self: Box<Self>, _: Rejection) -> BoxFuture<'static, Result<(), Fault>> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test]
    async fn what_is_taken_away_while_it_is_looked_up_is_forgotten_as_soon_as_the_journal_can() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, _spool) = testing::engine(dir.path());
        let body =
            r#"{"id": "a", "server": "pbx1", "action": "Originate", "fields": {"Channel": "Local/1@x"}}"#;
        let gone = CancellationToken::new();
        let request = Request {
            server: None,
            action: None,
            identity: Some("a".to_owned()),
            sent_at: None,
            sender: None,
            durable: true,
            reply_wanted: false,
            body: Bytes::from_static(body.as_bytes()),
            handle: Box::new(Begun(gone.clone())),
        };
        let (metrics, stop, own) =
            (Metrics::default().bus("test"), CancellationToken::new(), Arc::clone(&engine));
        let work = tokio::spawn(async move { own.handle(request, "test", &metrics, &stop).await });
        let marked =
            async || engine.blocking(|journal| journal.interrupted("", 10)).await.expect("it reads").len();
        let marked_within = async |count| {
            let until = Instant::now() + PATIENCE;
            while marked().await != count {
                assert!(Instant::now() < until, "{count} are marked as being sent");
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        marked_within(1).await;
        let other = Connection::open(dir.path().join("commands.sqlite")).expect("opens");
        let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON command BEGIN SELECT RAISE(FAIL, 'no'); END;";
        other.execute_batch(refuse).expect("it refuses");
        gone.cancel();
        tokio::time::sleep(RECORD_RETRY).await;
        assert!(!work.is_finished() && marked().await == 1, "it has its turn until that is written");
        other.execute_batch("DROP TRIGGER refuse").expect("it takes that again");
        tokio::time::timeout(PATIENCE, work).await.expect("in time").expect("no panic");
        assert_eq!(marked().await, 0);
    }
}
