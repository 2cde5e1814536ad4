//! Outcomes that were recorded, and of which the journal does not know whether they were published.
//!
//! A process that dies between writing a response into the spool and noting that in the journal leaves both: so the next
//! start looks into the spool first. Else an outcome would be told twice, in two messages with an id each.

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    path::Path,
    time::{Duration, SystemTime},
};

use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;
use tracing::warn;

use super::{
    audit,
    engine::Engine,
    journal::{JournalError, Open},
    recover::RECOVERED_AT_ONCE,
    response,
};
use crate::spool::scan::{self, Since};

/// What the type of every response begins with, as it stands in the body.
const RESPONSE: &[u8] = b"\"ami.response.";
/// How much earlier than an outcome was claimed the spool is read, for a clock that was set a little meanwhile.
const CLOCK_MARGIN: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Body {
    correlationid: String,
    data: Value,
}

impl Engine {
    /// Publishes outcomes that were recorded just before a process died, each once.
    pub(super) async fn publish_recorded(&self) -> Result<(), JournalError> {
        let mut after = String::new();
        loop {
            let behind = after.clone();
            let left = self.blocking(move |journal| journal.unpublished(&behind, RECOVERED_AT_ONCE)).await?;
            let Some(last) = left.last() else { return Ok(()) };
            after.clone_from(&last.id);
            let mut servers: BTreeMap<String, Vec<Open>> = BTreeMap::new();
            for one in left {
                servers.entry(one.server.clone()).or_default().push(one);
            }
            for (name, left) in servers {
                self.publish_on(&name, left).await?;
            }
        }
    }

    async fn publish_on(&self, name: &str, left: Vec<Open>) -> Result<(), JournalError> {
        let server = self.servers.get(name);
        let (writer, spool) = self.place(server);
        let (left, mut told) = match server.map(|server| server.spool_dir.clone()) {
            Some(dir) => {
                let searched = tokio::task::spawn_blocking(move || {
                    let told = told(&dir, &left);
                    (left, told)
                });
                match searched.await {
                    Ok((left, Ok(told))) => (left, told),
                    Ok((left, Err(error))) => {
                        warn!(server = name, %error, "the spool cannot be searched: outcomes may be told twice");
                        (left, BTreeMap::new())
                    }
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                }
            }
            None => (left, BTreeMap::new()),
        };
        for one in left {
            let body = match told.remove(&one.id) {
                Some(body) => body,
                None => {
                    let data = one.response.unwrap_or_default();
                    audit::published(one.sender.as_deref(), &one.id, &one.server, &one.action, &data);
                    let message = response::append(writer, spool, Some(&one.id), &one.action, &data);
                    if !self.written(server, &message).await {
                        warn!(id = one.id, "an outcome is not written yet");
                        self.note_later(&one.id, server, &message);
                        continue;
                    }
                    message.body.to_vec()
                }
            };
            self.blocking(move |journal| journal.published(&one.id, &body)).await?;
        }
        Ok(())
    }
}

/// Those of `left` whose very response is in the spool of `dir`, with the first body that tells it.
fn told(dir: &Path, left: &[Open]) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let wanted: BTreeMap<&str, Value> = left
        .iter()
        .filter_map(|one| Some((&*one.id, serde_json::from_slice(one.response.as_deref()?).ok()?)))
        .collect();
    let since = |one: &Open| match (one.log_from, one.since) {
        (Some(number), _) => Since::number(number),
        (None, Some(at)) => Since::time(at.checked_sub(CLOCK_MARGIN).unwrap_or(SystemTime::UNIX_EPOCH)),
        (None, None) => Since::number(0),
    };
    let Some(since) = left.iter().map(since).reduce(Since::or) else { return Ok(BTreeMap::new()) };
    let responses = memmem::Finder::new(RESPONSE);
    let mut found = BTreeMap::new();
    scan::payloads(dir, since, |payload| {
        if responses.find(payload).is_some()
            && let Ok(body) = serde_json::from_slice::<Body>(payload)
            // Another payload under the same id was rejected, and told so under that id too.
            && wanted.get(&*body.correlationid) == Some(&body.data)
        {
            found.entry(body.correlationid).or_insert_with(|| payload.to_vec());
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
