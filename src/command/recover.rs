//! What a process that died left in the journal, looked at before any command is taken.
//!
//! | it had begun to send | what becomes of it |
//! |---|---|
//! | an action that only reads ([`READ_ONLY`]), from a bus that delivers it again | its claim is free again: it runs again |
//! | an Originate that Asterisk had answered with Success, its end awaited | `executed`, with what the log tells of its end, or saying that it was not seen |
//! | another Originate | looked up by its ChannelId, in the spool and among the live channels: `executed`, with the event that proves it; else `unknown` |
//! | anything else | `unknown`: nobody can tell |
//!
//! What it had only claimed was not sent. Where its bus delivers it again, here or to another amibus, it is claimed anew and
//! runs; where its requester would have to ask again, that is waited for (`left_behind.rs`).
//!
//! An Originate's look-up waits for its server, so it goes on beside the first commands. The same id delivered again
//! meanwhile waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    audit,
    engine::{Engine, RECORD_RETRY, Server},
    error::{Code, CommandError},
    journal::{Journal, JournalError, Open},
    response::Response,
    search::Search,
    shared::Ending,
};

/// Commands of a dead process that are looked at in one go.
pub(super) const RECOVERED_AT_ONCE: usize = 1000;

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
        if self.shared.is_none() {
            // Where claims are shared, their nonces are needed to give them back first.
            self.blocking(Journal::forget_claimed).await?;
        }
        self.blocking(Journal::leave_behind).await?;
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
                let ids = calls.iter().map(|call| call.id.clone()).collect();
                let looking = engine.renewing(ids, engine.look_up_on(&name, calls));
                stop.run_until_cancelled(looking).await;
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

    /// Those whose outcome is kept in the journal, with it; and the others.
    async fn known(&self, calls: Vec<Open>) -> (Vec<(Open, Response)>, Vec<Open>) {
        let (mut ended, mut open) = (Vec::new(), Vec::new());
        for mut call in calls {
            let id = call.id.clone();
            let kept = self.blocking(move |journal| journal.kept(&id)).await.ok().flatten();
            match kept.as_deref().map(Response::of_data) {
                Some(Some(response)) => ended.push((call, response)),
                Some(None) => {
                    call.response = None;
                    open.push(call);
                }
                None => open.push(call),
            }
        }
        (ended, open)
    }

    /// The evidence first, of all of them: calls end meanwhile, and with them what tells of them. To record and tell an
    /// outcome takes its time, so what is known already is told beside that: the search may wait for the server.
    async fn look_up_on(&self, name: &str, calls: Vec<Open>) {
        let (ended, open) = self.known(calls).await;
        let Some(server) = self.servers.get(name) else {
            self.tell(None, ended).await;
            let open = open.into_iter().map(|call| (unknown(&call), call));
            return self.tell(None, open.map(|(response, call)| (call, response)).collect()).await;
        };
        let mut search = Search::new(self, name, server, open);
        tokio::join!(search.once(), self.tell(Some(server), ended));
        self.tell(Some(server), search.found()).await;
        search.once_more().await;
        self.tell(Some(server), search.found()).await;
        let left = search.left().map(|call| {
            let response = match &call.response {
                Some(answer) => {
                    let answer = Some(answer.clone());
                    Response::of_evidence(&call.id, &call.server, &call.action, answer, None)
                }
                None => unknown(&call),
            };
            (call, response)
        });
        self.tell(Some(server), left.collect()).await;
    }

    async fn tell(&self, server: Option<&Server>, ended: Vec<(Open, Response)>) {
        for (call, response) in ended {
            self.recovered(server, &call, &response).await;
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

fn unknown(one: &Open) -> Response {
    warn!(id = one.id, server = one.server, action = one.action, "outcome unknown after a crash");
    let error = CommandError::new(Code::Interrupted, super::engine::INTERRUPTED);
    Response::of_error(Some(one.id.clone()), &one.server, &one.action, error)
}
