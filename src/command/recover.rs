//! What a process that died left in the journal, looked at before any command is taken.
//!
//! | it had begun to send | what becomes of it |
//! |---|---|
//! | an action that only reads ([`READ_ONLY`]), from a bus that delivers it again | its claim is free again: it runs again |
//! | an Originate that Asterisk had answered with Success, its end awaited | `executed`, with what the log tells of its end, or saying that it was not seen |
//! | another Originate | looked up by its ChannelId, in the spool and among the live channels: `executed`, with the event that proves it; else `unknown` |
//! | anything else | `unknown`: nobody can tell |
//!
//! What it had only claimed was not sent: it runs when it is delivered again, and where nobody does that, it is told and
//! forgotten.
//!
//! An Originate's look-up waits for its server, so it goes on beside the first commands. The same id delivered again
//! meanwhile waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    audit,
    channels::{self, Listed},
    doubt::in_the_log,
    engine::{Engine, RECORD_RETRY, Server},
    error::{Code, CommandError},
    evidence::{self, Evidence},
    journal::{JournalError, Open},
    response::{Response, channel_id},
    shared::Ending,
};
use crate::spool::scan::Since;

/// Commands of a dead process that are looked at in one go.
pub(super) const RECOVERED_AT_ONCE: usize = 1000;
/// How long a server that is away may keep the look-up among its live channels waiting.
pub(super) const LOOK_UP_WAIT: Duration = Duration::from_secs(60);
/// How long the events of a call that ended during the look-up may take to be in the log.
pub(super) const SETTLED: Duration = Duration::from_secs(2);
/// How long after a look-up that failed the next one follows.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(1);

/// Actions that change nothing in Asterisk, of those that `ListCommands` of Asterisk 16 and 22 names. Not here: `Getvar` and
/// `Status`, which may call dialplan functions, and what makes Asterisk ask others (`PJSIPQualify`).
pub const READ_ONLY: &[&str] = &[
    "Agents",
    "BridgeInfo",
    "BridgeList",
    "BridgeTechnologyList",
    "ConfbridgeList",
    "ConfbridgeListRooms",
    "CoreSettings",
    "CoreShowChannelMap",
    "CoreShowChannels",
    "CoreStatus",
    "DAHDIShowChannels",
    "DAHDIShowStatus",
    "DBGet",
    "DBGetTree",
    "DeviceStateList",
    "ExtensionState",
    "ExtensionStateList",
    "FAXSession",
    "FAXSessions",
    "FAXStats",
    "FilterList",
    "GetConfig",
    "GetConfigJSON",
    "IAXnetstats",
    "IAXpeerlist",
    "IAXpeers",
    "IAXregistry",
    "ListCategories",
    "ListCommands",
    "MailboxCount",
    "MailboxStatus",
    "MeetmeList",
    "MeetmeListRooms",
    "ModuleCheck",
    "MWIGet",
    "ParkedCalls",
    "Parkinglots",
    "Ping",
    "PJSIPShowAors",
    "PJSIPShowAuths",
    "PJSIPShowContacts",
    "PJSIPShowEndpoint",
    "PJSIPShowEndpoints",
    "PJSIPShowRegistrationInboundContactStatuses",
    "PJSIPShowRegistrationsInbound",
    "PJSIPShowRegistrationsOutbound",
    "PJSIPShowResourceLists",
    "PJSIPShowSubscriptionsInbound",
    "PJSIPShowSubscriptionsOutbound",
    "PresenceState",
    "PresenceStateList",
    "PRIShowSpans",
    "QueueRule",
    "QueueStatus",
    "QueueSummary",
    "ShowDialPlan",
    "SIPpeers",
    "SIPpeerstatus",
    "SIPshowpeer",
    "SIPshowregistry",
    "SKINNYdevices",
    "SKINNYlines",
    "SKINNYshowdevice",
    "SKINNYshowline",
    "VoicemailBoxSummary",
    "VoicemailUsersList",
    "VoicemailUserStatus",
];

/// Whether an action changes nothing, so that it may run twice.
pub(super) fn is_read_only(action: &str) -> bool {
    READ_ONLY.iter().any(|known| known.eq_ignore_ascii_case(action))
}

/// Originates that a dead process had begun to send, by server. Bounded by what it had in work.
#[derive(Debug, Default)]
pub struct Calls(BTreeMap<String, Vec<Open>>);

impl Calls {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

impl Engine {
    /// Answers what a dead process had begun to send, as far as the journal alone tells. Once, before any command.
    /// Answers how many outcomes stay unknown, and the calls that [`Engine::look_up`] has to look for.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn recover(self: &Arc<Self>) -> Result<(usize, Calls), JournalError> {
        for (name, server) in &self.servers {
            let (name, next) = (name.clone(), server.spool.next());
            self.blocking(move |journal| journal.log_ends(&name, next)).await?;
        }
        self.publish_recorded().await?;
        self.release_left_behind().await?;
        let (mut count, mut calls, mut after) = (0, Calls::default(), String::new());
        loop {
            let behind = after.clone();
            let open = self.blocking(move |journal| journal.interrupted(&behind, RECOVERED_AT_ONCE)).await?;
            let Some(last) = open.last() else { break };
            after.clone_from(&last.id);
            for one in open {
                let reads = is_read_only(&one.action);
                if reads && one.durable {
                    self.blocking(move |journal| journal.unsend(&one.id)).await?;
                } else if (self.shared.is_some() && !reads)
                    || (one.is_originate() && self.servers.contains_key(&one.server))
                {
                    // Where claims are shared, its outcome is agreed on with others, who may be away.
                    calls.0.entry(one.server.clone()).or_default().push(one);
                } else {
                    let response = unknown(&one);
                    let tell = || audit::recovered(one.sender.as_deref(), &response);
                    self.record(&one.id, self.servers.get(&one.server), &response, tell).await?;
                    count += 1;
                }
            }
        }
        // Whoever asks for one of them waits from now on.
        self.looking_up.send_replace(calls.0.values().flatten().map(|call| call.id.clone()).collect());
        Ok((count, calls))
    }

    /// Looks for the calls that a dead process had begun, and records what became of each. At `stop` the rest is left
    /// to the next start.
    pub async fn look_up(self: Arc<Self>, calls: Calls, stop: CancellationToken) {
        let mut servers = JoinSet::new();
        for (name, calls) in calls.0 {
            let (engine, stop) = (Arc::clone(&self), stop.clone());
            servers.spawn(async move {
                stop.run_until_cancelled(engine.look_up_on(&name, calls)).await;
            });
        }
        while let Some(ended) = servers.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a look-up of calls broke off");
            }
        }
        if !stop.is_cancelled() {
            // Nobody waits for a look-up that broke off.
            self.looking_up.send_replace(BTreeSet::new());
        }
    }

    /// Those whose outcome was known, and kept until it is shared, have it.
    async fn known(&self, name: &str, calls: Vec<Open>) -> Vec<Open> {
        let mut open = Vec::new();
        for mut call in calls {
            let id = call.id.clone();
            let kept = self.blocking(move |journal| journal.kept(&id)).await.ok().flatten();
            let Some(data) = kept else {
                open.push(call);
                continue;
            };
            match Response::of_data(&data) {
                Some(response) => self.recovered(self.servers.get(name), &call, &response).await,
                None => {
                    call.response = None;
                    open.push(call);
                }
            }
        }
        open
    }

    async fn look_up_on(&self, name: &str, calls: Vec<Open>) {
        let calls = self.known(name, calls).await;
        let Some(server) = self.servers.get(name) else {
            for call in &calls {
                self.recovered(None, call, &unknown(call)).await;
            }
            return;
        };
        let mut channels: BTreeMap<String, Open> =
            calls.into_iter().map(|call| (channel_id(name, &call.id), call)).collect();
        let wanted: Vec<String> = channels
            .iter()
            .filter(|(_, call)| call.response.is_none() && call.is_originate())
            .map(|(id, _)| id.clone())
            .collect();
        if wanted.is_empty() {
            self.look_into_the_log(name, server, &mut channels).await;
        } else {
            self.look_at_both(name, server, &mut channels, &wanted).await;
            if !channels.is_empty() {
                // What ended in between, or was seen while actions were not answered, has left its events meanwhile.
                tokio::time::sleep(SETTLED).await;
                self.look_into_the_log(name, server, &mut channels).await;
            }
        }
        for call in channels.values() {
            let response = match &call.response {
                Some(answer) => {
                    let answer = Some(answer.clone());
                    Response::of_evidence(&call.id, &call.server, &call.action, answer, None)
                }
                None => unknown(call),
            };
            self.recovered(Some(server), call, &response).await;
        }
    }

    /// Reads the log and asks for the live channels at once: a long log takes its time, and calls end meanwhile.
    async fn look_at_both(
        &self,
        name: &str,
        server: &Server,
        channels: &mut BTreeMap<String, Open>,
        wanted: &[String],
    ) {
        let logged = in_the_log(name, &server.spool_dir, since(channels), channels.keys().cloned().collect());
        let alive = tokio::time::timeout(LOOK_UP_WAIT, living(name, server, wanted));
        let (mut logged, mut alive) = (std::pin::pin!(logged), std::pin::pin!(alive));
        let (mut log_is_read, mut is_asked) = (false, false);
        while (!log_is_read || !is_asked) && !channels.is_empty() {
            tokio::select! {
                read = &mut logged, if !log_is_read => {
                    log_is_read = true;
                    self.searched(server, channels, read).await;
                }
                listed = &mut alive, if !is_asked => {
                    is_asked = true;
                    match listed {
                        Ok(events) => self.proven(server, channels, events).await,
                        Err(_) => warn!(server = name, "the server is away: its live channels were not looked at"),
                    }
                }
            }
        }
    }

    async fn look_into_the_log(&self, name: &str, server: &Server, channels: &mut BTreeMap<String, Open>) {
        if channels.is_empty() {
            return;
        }
        let wanted = channels.keys().cloned().collect();
        let read = in_the_log(name, &server.spool_dir, since(channels), wanted).await;
        self.searched(server, channels, read).await;
    }

    /// Records what the log proved. For the others the next look, of this process or of one after it, goes on where this
    /// one ended: however often a start is cut short, the log is not read from the same place again.
    async fn searched(&self, server: &Server, channels: &mut BTreeMap<String, Open>, read: (Evidence, u64)) {
        let (events, number) = read;
        let mut ids = Vec::new();
        for (channel, call) in &mut *channels {
            if !events.contains_key(channel) {
                call.log_from = Some(call.log_from.unwrap_or(0).max(number));
                ids.push(call.id.clone());
            }
        }
        // First: what was found takes its time, and is found again.
        if let Err(error) = self.blocking(move |journal| journal.looked(&ids, number)).await {
            warn!(%error, "the journal does not keep how far the log was searched");
        }
        self.proven(server, channels, events).await;
    }

    /// Records `executed` for the calls of which there is evidence.
    async fn proven(&self, server: &Server, channels: &mut BTreeMap<String, Open>, found: Evidence) {
        for (channel, event) in found {
            let Some(call) = channels.remove(&channel) else { continue };
            let (answer, event) = (call.response.clone(), Some(event));
            let response = Response::of_evidence(&call.id, &call.server, &call.action, answer, event);
            info!(id = call.id, server = call.server, channel, "a call begun before a crash was found");
            self.recovered(Some(server), &call, &response).await;
        }
    }

    /// Records the outcome of one, tells it, and ends the wait of whoever asked for it again.
    async fn recovered(&self, server: Option<&Server>, call: &Open, response: &Response) {
        if let Some(ending) = self.shared_before(call, response).await {
            let tell = || audit::recovered_elsewhere(call, &ending);
            self.adopt(server, &call.id, &call.action, &ending, tell).await;
        } else {
            let tell = || audit::recovered(call.sender.as_deref(), response);
            while let Err(error) = self.record(&call.id, server, response, tell).await {
                tracing::error!(id = call.id, %error, "an outcome cannot be recorded; trying again");
                tokio::time::sleep(RECORD_RETRY).await;
            }
            server
                .map_or(&self.nowhere.metrics, |server| &server.metrics)
                .finished(response.outcome.as_str())
                .inc();
        }
        self.looking_up.send_modify(|ids| {
            ids.remove(&call.id);
        });
    }

    /// Forgets the commands that were never sent and that nobody delivers again. Where claims are shared, our nonce is
    /// needed to give them back first: [`Engine::release_unsent`] does both.
    async fn release_left_behind(&self) -> Result<(), JournalError> {
        while self.shared.is_none() {
            let left = self.blocking(|journal| journal.left_behind(RECOVERED_AT_ONCE)).await?;
            if left.is_empty() {
                break;
            }
            for one in left {
                self.forget_unsent(one).await?;
            }
        }
        Ok(())
    }

    /// Tells of a command that was never sent and that nobody delivers again, and forgets it: whoever sent it may send it
    /// again under its id.
    pub(super) async fn forget_unsent(&self, one: Open) -> Result<(), JournalError> {
        let error = CommandError::new(Code::Unavailable, "amibus was ended before it was sent");
        let response = Response::of_error(Some(one.id.clone()), &one.server, &one.action, error);
        let server = self.servers.get(&one.server);
        let message = self.append(server, &response);
        self.written(server, &message).await;
        audit::recovered(one.sender.as_deref(), &response);
        self.blocking(move |journal| journal.release(&one.id)).await.map(drop)
    }

    /// Agrees on the outcome with the other amibus, where claims are shared. Answers the one that counts instead of ours.
    async fn shared_before(&self, call: &Open, response: &Response) -> Option<Ending> {
        loop {
            match self.hold(&call.id).await {
                Ok(None) => return None,
                Ok(Some(hold)) => {
                    if let Ok(before) = self.share(&hold, response, true).await {
                        return before;
                    }
                }
                Err(error) => {
                    tracing::error!(id = call.id, %error, "the journal cannot be read; trying again")
                }
            }
            tokio::time::sleep(RECORD_RETRY).await;
        }
    }
}

/// From where the log may tell of any of these.
fn since(channels: &BTreeMap<String, Open>) -> Since {
    let since = |call: &Open| match (call.log_from, call.sent_at) {
        (Some(number), _) => Since::number(number),
        (None, Some(at)) => evidence::sent_at(at),
        (None, None) => Since::number(0),
    };
    channels.values().map(since).reduce(Since::or).unwrap_or(Since::number(0))
}

fn unknown(one: &Open) -> Response {
    warn!(id = one.id, server = one.server, action = one.action, "outcome unknown after a crash");
    let error = CommandError::new(Code::Interrupted, super::engine::INTERRUPTED);
    Response::of_error(Some(one.id.clone()), &one.server, &one.action, error)
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
