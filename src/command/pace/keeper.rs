//! Wakes who may go on when time alone lets them, and compares the calls that are counted with the channels that Asterisk
//! lists: after each connect, after events were missed, and every [`COMPARED_EVERY`] while calls are counted.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use amibus_ami::Reply;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Set, calls::LISTED_WITHIN, pacer::Pacer};
use crate::{
    asterisk::Actions,
    command::{
        channels::{self, Listed},
        journal::{Journal, JournalError, desk::reading},
        response::CHANNEL_ID_PREFIX,
    },
};

/// How often Asterisk is asked for its channels though nothing seems to be missing.
pub const COMPARED_EVERY: Duration = Duration::from_secs(60);
/// How long after a question that was not answered the next one follows.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How many questions in a row may go unanswered before that is told: limits of concurrent calls let nothing through meanwhile.
const UNANSWERED_BEFORE_WARNING: u32 = 10;

/// The task beside one server's pace.
pub struct Keeper {
    /// The server's name.
    pub server: String,
    /// Its pace.
    pub pacer: Arc<Pacer>,
    /// The way to its Asterisk.
    pub actions: Actions,
    /// How long Asterisk may take to answer.
    pub action_deadline: Duration,
    /// What tells which limits count the calls of a former process.
    pub journal: Arc<Journal>,
}

impl Keeper {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        if let Err(error) = self.remember().await {
            warn!(server = self.server, %error, "calls that were being sent before the start are not counted");
        }
        stop.run_until_cancelled(async { tokio::join!(self.tick(), self.watch(), self.compare_at_times()) })
            .await;
    }

    /// Calls that a former process was sending at its end may not be in Asterisk's list yet.
    async fn remember(&self) -> Result<(), JournalError> {
        let server = self.server.clone();
        let begun = reading(&self.journal, move |journal| journal.begun_calls(&server)).await?;
        self.pacer.with(|core, now| {
            for (channel, (sent_at, names)) in begun {
                core.find(&channel, self.pacer.named(&names), age(sent_at), now);
            }
        });
        Ok(())
    }

    /// Lets those go on whose time has come.
    async fn tick(&self) {
        loop {
            let changed = self.pacer.changed.notified();
            match self.pacer.wake() {
                None => changed.await,
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at.into()) => self.pacer.with(|_, _| ()),
                },
            }
        }
    }

    /// Nothing is granted while the server is away; once it is back, calls may have ended unseen.
    async fn watch(&self) {
        let mut ready = self.actions.ready();
        loop {
            let is_ready = *ready.borrow_and_update();
            self.pacer.with(|core, _| core.set_ready(is_ready));
            if is_ready {
                self.pacer.missed();
            }
            if ready.changed().await.is_err() {
                // The session's task is gone: amibus leaves.
                return std::future::pending().await;
            }
        }
    }

    async fn compare_at_times(&self) {
        let (mut warned, mut unanswered, mut due) = (false, 0, Duration::ZERO);
        loop {
            let needed = tokio::select! {
                () = self.pacer.missed.notified() => true,
                () = sleep(due) => self.pacer.with(|core, _| core.needs_comparing()),
            };
            if !needed {
                due = COMPARED_EVERY;
                continue;
            }
            let mut ready = self.actions.ready();
            if ready.wait_for(|ready| *ready).await.is_err() {
                return std::future::pending().await;
            }
            let compared = self.compare().await;
            unanswered = if matches!(compared, Ok(None)) { unanswered + 1 } else { 0 };
            if unanswered == UNANSWERED_BEFORE_WARNING {
                warn!(
                    server = self.server,
                    "Asterisk does not list its channels in time (CoreShowChannels, server.action_deadline); until it does once, \
                     limits of concurrent_calls let no call through"
                );
            }
            due = match compared {
                Ok(Some(again)) => again,
                Ok(None) => ASK_AGAIN,
                Err(words) => {
                    if !warned {
                        warn!(
                            server = self.server,
                            words,
                            "Asterisk does not list its channels (CoreShowChannels): calls whose end is not seen count \
                             until longest_call has passed"
                        );
                    }
                    warned = true;
                    self.pacer.with(|core, _| core.cannot_compare());
                    COMPARED_EVERY
                }
            };
            let expired = self.pacer.with(super::core::Core::expire);
            if expired > 0 {
                warn!(
                    server = self.server,
                    calls = expired,
                    "calls that are older than longest_call are not counted any more"
                );
            }
        }
    }

    /// Answers when to compare again; `None`: Asterisk could not be asked now.
    ///
    /// # Errors
    /// Asterisk's words, where it does not tell.
    async fn compare(&self) -> Result<Option<Duration>, String> {
        let asked = self.pacer.now();
        self.pacer.with(|core, _| core.ask());
        let live = match channels::list(&self.actions, self.action_deadline).await {
            Listed::These(listed) => ours(&listed),
            Listed::Refused(words) => return Err(words),
            Listed::NotAsked => return Ok(None),
        };
        let unknown = self.pacer.with(|core, _| core.unknown(live.iter()));
        let found = match self.own(unknown).await {
            Ok(found) => found,
            Err(error) => {
                warn!(server = self.server, %error, "live calls of a former process cannot be looked up; trying again");
                return Ok(None);
            }
        };
        if !found.is_empty() {
            info!(
                server = self.server,
                calls = found.len(),
                "calls that were live before the start are counted"
            );
        }
        let young = self.pacer.with(|core, now| core.compare(&live, &found, asked, now));
        Ok(Some(if young { LISTED_WITHIN } else { COMPARED_EVERY }))
    }

    /// Of channels that are not counted, those that limits count, with their ages.
    async fn own(&self, channels: Vec<String>) -> Result<Vec<(String, Set, Duration)>, JournalError> {
        if channels.is_empty() {
            return Ok(Vec::new());
        }
        let server = self.server.clone();
        let known = reading(&self.journal, move |journal| {
            let mut known = Vec::new();
            for channel in channels {
                if let Some(call) = journal.paced(&server, &channel)? {
                    known.push((channel, call));
                }
            }
            Ok(known)
        });
        let known = known.await?.into_iter();
        let sets = known.map(|(channel, (sent_at, names))| (channel, self.pacer.named(&names), age(sent_at)));
        Ok(sets.filter(|(_, set, _)| *set != 0).collect())
    }
}

/// The channels that amibus chose, by their `Uniqueid`.
fn ours(listed: &Reply) -> HashSet<String> {
    let unique = listed.items.iter().filter_map(|item| {
        let id = std::str::from_utf8(item.frame().first("Uniqueid")?).ok()?;
        id.starts_with(CHANNEL_ID_PREFIX).then(|| id.to_owned())
    });
    unique.collect()
}

fn age(sent_at: SystemTime) -> Duration {
    SystemTime::now().duration_since(sent_at).unwrap_or_default()
}
