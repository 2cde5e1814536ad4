//! What a process that died left in the journal, looked at before any command is taken.
//!
//! | it had begun to send | what becomes of it |
//! |---|---|
//! | an action that only reads ([`READ_ONLY`]) | its claim is free again: delivered again, it runs again |
//! | an Originate | looked up by its ChannelId, in the spool and among the live channels: `executed`, with the event that proves it; else `unknown` |
//! | anything else | `unknown`: nobody can tell |
//!
//! An Originate's look-up waits for its server, so it goes on beside the first commands. The same id delivered again
//! meanwhile waits for it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    engine::{Engine, Server},
    error::{Code, CommandError},
    evidence::{self, Evidence},
    journal::{JournalError, Open},
    response::{self, Response, channel_id},
};

/// Commands of a dead process that are looked at in one go.
const RECOVERED_AT_ONCE: usize = 1000;
/// How long a server that is away may keep the look-up among its live channels waiting.
const LOOK_UP_WAIT: Duration = Duration::from_secs(60);
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
        self.publish_recorded().await?;
        let (mut count, mut calls, mut after) = (0, Calls::default(), String::new());
        loop {
            let behind = after.clone();
            let open = self.blocking(move |journal| journal.interrupted(&behind, RECOVERED_AT_ONCE)).await?;
            let Some(last) = open.last() else { break };
            after.clone_from(&last.id);
            for one in open {
                if READ_ONLY.iter().any(|action| action.eq_ignore_ascii_case(&one.action)) {
                    self.blocking(move |journal| journal.unsend(&one.id)).await?;
                } else if one.action.eq_ignore_ascii_case("Originate")
                    && self.servers.contains_key(&one.server)
                {
                    calls.0.entry(one.server.clone()).or_default().push(one);
                } else {
                    self.record(&one.id, self.servers.get(&one.server), &unknown(&one)).await?;
                    count += 1;
                }
            }
        }
        // Whoever asks for one of them waits from now on.
        self.looking_up.send_replace(calls.count() > 0);
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
        servers.join_all().await;
        if !stop.is_cancelled() {
            self.looking_up.send_replace(false);
        }
    }

    async fn look_up_on(&self, name: &str, calls: Vec<Open>) {
        let Some(server) = self.servers.get(name) else { return };
        let mut channels: BTreeMap<String, Open> =
            calls.into_iter().map(|call| (channel_id(name, &call.id), call)).collect();
        let since = channels.values().filter_map(|call| call.sent_at).min();
        let (dir, wanted) = (server.spool_dir.clone(), channels.keys().cloned().collect::<Vec<_>>());
        let since = since.unwrap_or(SystemTime::UNIX_EPOCH);
        let logged = tokio::task::spawn_blocking(move || evidence::in_the_log(&dir, since, &wanted)).await;
        match logged {
            Ok(Ok(found)) => self.proven(server, &mut channels, found).await,
            Ok(Err(error)) => warn!(server = name, %error, "the spool cannot be searched for calls"),
            Err(error) => warn!(server = name, %error, "the spool could not be searched for calls"),
        }
        if !channels.is_empty() {
            let wanted: Vec<String> = channels.keys().cloned().collect();
            match tokio::time::timeout(LOOK_UP_WAIT, living(server, &wanted)).await {
                Ok(found) => self.proven(server, &mut channels, found).await,
                Err(_) => warn!(server = name, "the server is away: its live channels were not looked at"),
            }
        }
        for call in channels.values() {
            self.until_recorded(Some(server), unknown(call)).await;
        }
    }

    /// Records `executed` for the calls of which there is evidence.
    async fn proven(&self, server: &Server, channels: &mut BTreeMap<String, Open>, found: Evidence) {
        for (channel, event) in found {
            let Some(call) = channels.remove(&channel) else { continue };
            let response = Response::of_evidence(&call.id, &call.server, &call.action, event);
            info!(id = call.id, server = call.server, channel, "a call begun before a crash was found");
            self.until_recorded(Some(server), response).await;
        }
    }

    async fn until_recorded(&self, server: Option<&Server>, response: Response) {
        let id = response.id.clone().unwrap_or_default();
        while let Err(error) = self.record(&id, server, &response).await {
            tracing::error!(id, %error, "an outcome cannot be recorded; trying again");
            tokio::time::sleep(super::engine::RECORD_RETRY).await;
        }
    }

    /// Publishes outcomes that were recorded just before a process died.
    async fn publish_recorded(&self) -> Result<(), JournalError> {
        loop {
            let left = self.blocking(|journal| journal.unpublished(RECOVERED_AT_ONCE)).await?;
            if left.is_empty() {
                return Ok(());
            }
            for (one, data) in left {
                let (writer, spool) = self.place(self.servers.get(&one.server));
                let message = response::append(writer, spool, Some(&one.id), &one.action, &data);
                self.blocking(move |journal| journal.published(&one.id, &message.body)).await?;
            }
        }
    }
}

fn unknown(one: &Open) -> Response {
    warn!(id = one.id, server = one.server, action = one.action, "outcome unknown after a crash");
    let error = CommandError::new(Code::Interrupted, super::engine::INTERRUPTED);
    Response::of_error(Some(one.id.clone()), &one.server, &one.action, error)
}

/// Asks until Asterisk answers.
async fn living(server: &Server, wanted: &[String]) -> Evidence {
    loop {
        let mut ready = server.actions.ready();
        if ready.wait_for(|ready| *ready).await.is_err() {
            // The session's task is gone: amibus leaves.
            std::future::pending::<()>().await;
        }
        let asked =
            evidence::among_the_living(&server.actions, &server.writer, server.action_deadline, wanted);
        match asked.await {
            Some(found) => return found,
            None => tokio::time::sleep(LOOK_UP_AGAIN).await,
        }
    }
}
