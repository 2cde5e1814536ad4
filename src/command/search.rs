//! The search for calls that a dead process had begun: in the log, and among the live channels.
//!
//! What is found is kept in the journal at once, all in one: a process that dies again and again, early, still gets on.

use std::{collections::BTreeMap, pin::pin, time::Duration};

use tracing::{info, warn};

use super::{
    channels::{self, Listed},
    doubt::in_the_log,
    engine::{Engine, Server},
    evidence::{self, Evidence},
    journal::Open,
    response::{Response, channel_id},
};
use crate::spool::scan::Since;

/// How long a server that is away may keep the look-up among its live channels waiting.
pub(super) const LOOK_UP_WAIT: Duration = Duration::from_secs(60);
/// How long the events of a call that ended during the look-up may take to be in the log.
pub(super) const SETTLED: Duration = Duration::from_secs(2);
/// How long after a look-up that failed the next one follows.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(1);

/// The calls of one server that are searched for.
pub(super) struct Search<'a> {
    engine: &'a Engine,
    name: &'a str,
    server: &'a Server,
    /// Those that are not found yet, by their ChannelId.
    channels: BTreeMap<String, Open>,
    found: Vec<(Open, Response)>,
}

impl<'a> Search<'a> {
    pub(super) fn new(engine: &'a Engine, name: &'a str, server: &'a Server, calls: Vec<Open>) -> Self {
        let channels = calls.into_iter().map(|call| (channel_id(name, &call.id), call)).collect();
        Self { engine, name, server, channels, found: Vec::new() }
    }

    /// Reads the log and asks for the live channels at once: a long log takes its time, and calls end meanwhile. Of calls
    /// that Asterisk is known to have taken the log alone tells more.
    pub(super) async fn once(&mut self) {
        let wanted = self.sought();
        if wanted.is_empty() {
            return self.read_the_log().await;
        }
        let channels = self.channels.keys().cloned().collect();
        let logged = in_the_log(self.name, &self.server.spool_dir, self.since(), channels);
        let alive = tokio::time::timeout(LOOK_UP_WAIT, living(self.name, self.server, &wanted));
        let (mut logged, mut alive) = (pin!(logged), pin!(alive));
        let (mut log_is_read, mut is_asked) = (false, false);
        while (!log_is_read || !is_asked) && !self.channels.is_empty() {
            tokio::select! {
                read = &mut logged, if !log_is_read => {
                    log_is_read = true;
                    self.searched(read).await;
                }
                listed = &mut alive, if !is_asked => {
                    is_asked = true;
                    match listed {
                        Ok(events) => self.proven(events).await,
                        Err(_) => {
                            let server = self.name;
                            warn!(server, "the server is away: its live channels were not looked at");
                        }
                    }
                }
            }
        }
    }

    /// What ended in between, or was seen while actions were not answered, has left its events in the log meanwhile.
    pub(super) async fn once_more(&mut self) {
        if !self.sought().is_empty() {
            tokio::time::sleep(SETTLED).await;
            self.read_the_log().await;
        }
    }

    /// What was found since this was asked, with its outcome.
    pub(super) fn found(&mut self) -> Vec<(Open, Response)> {
        std::mem::take(&mut self.found)
    }

    /// What was not.
    pub(super) fn left(self) -> impl Iterator<Item = Open> {
        self.channels.into_values()
    }

    /// The channels of calls of which nobody knows whether Asterisk took them.
    fn sought(&self) -> Vec<String> {
        let unanswered =
            self.channels.iter().filter(|(_, call)| call.response.is_none() && call.is_originate());
        unanswered.map(|(channel, _)| channel.clone()).collect()
    }

    /// From where the log may tell of any of these.
    fn since(&self) -> Since {
        let since = |call: &Open| match (call.log_from, call.sent_at) {
            (Some(number), _) => Since::number(number),
            (None, Some(at)) => evidence::sent_at(at),
            (None, None) => Since::number(0),
        };
        self.channels.values().map(since).reduce(Since::or).unwrap_or(Since::number(0))
    }

    async fn read_the_log(&mut self) {
        if !self.channels.is_empty() {
            let channels = self.channels.keys().cloned().collect();
            let read = in_the_log(self.name, &self.server.spool_dir, self.since(), channels).await;
            self.searched(read).await;
        }
    }

    /// Keeps what the log proved. For the others the next look, of this process or of one after it, goes on where this
    /// one ended: however often a start is cut short, the log is not read from the same place again.
    async fn searched(&mut self, (events, number): (Evidence, u64)) {
        let mut ids = Vec::new();
        for (channel, call) in &mut self.channels {
            if !events.contains_key(channel) {
                call.log_from = Some(call.log_from.unwrap_or(0).max(number));
                ids.push(call.id.clone());
            }
        }
        if let Err(error) = self.engine.blocking(move |journal| journal.looked(&ids, number)).await {
            warn!(%error, "the journal does not keep how far the log was searched");
        }
        self.proven(events).await;
    }

    /// Keeps `executed` for the calls of which there is evidence.
    async fn proven(&mut self, events: Evidence) {
        let before = self.found.len();
        for (channel, event) in events {
            let Some(call) = self.channels.remove(&channel) else { continue };
            info!(id = call.id, server = call.server, channel, "a call begun before a crash was found");
            let (answer, event) = (call.response.clone(), Some(event));
            let response = Response::of_evidence(&call.id, &call.server, &call.action, answer, event);
            self.found.push((call, response));
        }
        let new = self.found.get(before..).unwrap_or_default();
        let kept: Vec<_> = new
            .iter()
            .map(|(call, response)| (call.id.clone(), response.outcome.as_str(), response.data()))
            .collect();
        if let Err(error) = self.engine.blocking(move |journal| journal.all_ended(&kept)).await {
            warn!(%error, "the journal does not keep what was found; a process that dies now leaves it to be found again");
        }
    }
}

/// Asks until Asterisk answers.
pub(super) async fn living(name: &str, server: &Server, wanted: &[String]) -> Evidence {
    loop {
        let mut ready = server.actions.ready();
        if ready.wait_for(|ready| *ready).await.is_err() {
            // The session's task is gone: amibus leaves.
            std::future::pending::<()>().await;
        }
        match channels::list(&server.actions, server.action_deadline).await {
            Listed::These(listed) => return evidence::among_the_living(&listed, &server.writer, wanted),
            Listed::Refused(words) => {
                warn!(server = name, words, "Asterisk does not tell its live channels");
                return Evidence::new();
            }
            Listed::NotAsked => tokio::time::sleep(LOOK_UP_AGAIN).await,
        }
    }
}
