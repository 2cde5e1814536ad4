//! Outcomes that are told, though the disk refuses their message or the journal does not keep it: noted once they can
//! be. Until then whoever asks is told in the same message.
//!
//! Limit: [`MAX_LATE`]. An outcome beyond that, and one of a process that is killed before it is noted, may be told in a
//! second message.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use amibus_contract::Message;
use tracing::debug;

use super::{
    engine::{Engine, RECORD_RETRY, Server},
    record::sequence,
};

/// The most outcomes that are kept so.
const MAX_LATE: usize = 10_000;

/// The messages, by the id of their command.
#[derive(Debug, Default)]
pub(super) struct Late(Mutex<HashMap<String, Message>>);

impl Late {
    pub(super) fn message(&self, id: &str) -> Option<Message> {
        self.lock().get(id).cloned()
    }

    /// Answers whether nobody notes it yet, and there was room.
    fn add(&self, id: &str, message: &Message) -> bool {
        let mut messages = self.lock();
        if messages.len() >= MAX_LATE || messages.contains_key(id) {
            return false;
        }
        messages.insert(id.to_owned(), message.clone());
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Message>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Has the journal keep the message of an outcome as soon as the disk has taken both.
    pub(super) fn note_later(&self, id: &str, server: Option<&Server>, message: &Message) {
        if !self.late.add(id, message) {
            return;
        }
        let spool = server.map_or(&self.nowhere.spool, |server| &server.spool);
        let (late, spool, journal) = (Arc::clone(&self.late), Arc::clone(spool), self.journal.clone());
        let (id, sequence, body) = (id.to_owned(), sequence(message), message.body.clone());
        tokio::spawn(async move {
            if let Some(sequence) = sequence
                && !spool.in_a_file(sequence).await
            {
                // amibus leaves, and the next start looks for it.
                return;
            }
            loop {
                let (own_id, body) = (id.clone(), body.clone());
                match journal.work(move |journal| journal.published(&own_id, &body)).await {
                    Ok(()) => break,
                    Err(error) => debug!(id, %error, "a message is not kept yet"),
                }
                tokio::time::sleep(RECORD_RETRY).await;
            }
            late.lock().remove(&id);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use amibus_contract::Kind;

    use super::*;
    use crate::{
        command::{
            Code, CommandError,
            journal::{Claim, Record},
            response::Response,
            testing::{self, command, writer},
        },
        normalize::Notice,
        spool::Spool,
    };

    /// More than a segment of [`engine`]'s spool takes.
    const LONG: usize = 8192;
    const PATIENCE: Duration = Duration::from_secs(20);

    /// "a" is claimed.
    async fn engine(dir: &Path) -> (Arc<Engine>, Arc<Spool>) {
        let (engine, spool) = testing::engine(dir);
        let claimed = engine.blocking(|journal| journal.claim("a", &command(), None)).await;
        assert_eq!(claimed.expect("claims"), Claim::Ours);
        (engine, spool)
    }

    impl Engine {
        async fn told(&self) -> Message {
            let error = CommandError::new(Code::Interrupted, "x");
            let response = Response::of_error(Some("a".into()), "pbx1", "Ping", error);
            self.record("a", self.servers.get("pbx1"), &response, || {}).await.expect("recorded")
        }

        async fn by_hand(&self, statement: &'static str) {
            let done = self.blocking(move |journal| Ok(journal.lock().execute_batch(statement)?)).await;
            done.expect("done");
        }

        async fn kept(&self) -> Record {
            match self.recorded("a", &command()).await.expect("reads") {
                Some(Claim::Done(record)) => record,
                other => panic!("{other:?}"),
            }
        }

        async fn again(&self) -> Message {
            self.replay(self.servers.get("pbx1"), "a", &command(), self.kept().await).await
        }

        async fn until_noted(&self) -> Vec<u8> {
            let noted = async {
                loop {
                    if let Some(body) = self.kept().await.body {
                        break body;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(PATIENCE, noted).await.expect("noted once it can be")
        }
    }

    async fn responses(spool: &Arc<Spool>) -> Vec<Message> {
        let batch = tokio::time::timeout(PATIENCE, spool.reader(0).batch(100, 1 << 20)).await;
        let mut messages = batch.expect("in time").expect("open").messages;
        messages.retain(|message| message.attributes().correlation().is_some());
        messages
    }

    #[tokio::test]
    async fn an_outcome_is_told_to_nobody_while_the_disk_hangs_and_then_in_one_message() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, spool) = engine(dir.path()).await;
        let hangs = spool.hold_up();
        let told = engine.told();
        tokio::pin!(told);
        // Longer than `Spool::written` waits.
        assert!(tokio::time::timeout(Duration::from_secs(3), &mut told).await.is_err(), "told too early");
        assert_eq!(engine.kept().await.body, None);
        drop(hangs);
        let told = tokio::time::timeout(PATIENCE, told).await.expect("told once it is written");
        assert_eq!(engine.kept().await.body.as_deref(), Some(&told.body[..]));
        assert_eq!(engine.again().await.body, told.body);
        assert_eq!(responses(&spool).await.len(), 1);
    }

    #[tokio::test]
    async fn while_the_disk_refuses_an_outcome_has_one_message() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, spool) = engine(dir.path()).await;
        let text = serde_json::json!("x".repeat(LONG)).to_string();
        let notice = Notice {
            kind: Kind::Link,
            name: "Up",
            subject: None,
            key: None,
            correlation: None,
            data: text.as_bytes(),
        };
        let long = spool.append(|n| writer("pbx1").notice(&notice, n, std::time::SystemTime::now()));
        assert!(spool.settled(sequence(&long).expect("a number")).await);
        // No further segment can be made.
        let (path, away) = (dir.path().join("spool"), dir.path().join("away"));
        std::fs::rename(&path, &away).expect("moved");
        let told = tokio::time::timeout(PATIENCE, engine.told()).await.expect("told from memory");
        assert!(spool.status().failing.is_some(), "{:?}", spool.status());
        assert_eq!(engine.kept().await.body, None, "the disk may lose it");
        assert_eq!(engine.again().await.body, told.body);
        std::fs::rename(&away, &path).expect("moved");
        assert_eq!(engine.until_noted().await, told.body);
        assert_eq!(engine.again().await.body, told.body);
        assert_eq!(responses(&spool).await.len(), 1);
    }

    #[tokio::test]
    async fn a_message_that_the_journal_refuses_is_the_one_that_is_told_and_is_kept_later() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, spool) = engine(dir.path()).await;
        let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON command WHEN NEW.body IS NOT NULL
                      BEGIN SELECT RAISE(ABORT, 'refused'); END";
        engine.by_hand(refuse).await;
        let told = engine.told().await;
        assert_eq!((engine.kept().await.body, engine.again().await.body), (None, told.body.clone()));
        engine.by_hand("DROP TRIGGER refuse").await;
        assert_eq!(engine.until_noted().await, told.body);
        assert_eq!(engine.again().await.body, told.body);
        assert_eq!(responses(&spool).await.len(), 1);
    }
}
