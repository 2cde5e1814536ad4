//! What the journal knows of claims that are shared with other amibus.

use rusqlite::{OptionalExtension, params};

use super::journal::{Journal, JournalError, Open, now, open};

/// A command of this journal, as it is claimed in front of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Its id.
    pub id: String,
    /// Its server.
    pub server: String,
    /// Its action.
    pub action: String,
    /// The hash of its payload.
    pub payload_hash: String,
    /// What tells this claim from any other one of the same id.
    pub nonce: String,
}

impl Journal {
    /// A claimed command; `None`: there is none of that id. It is given its nonce, durably, where it had none.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub fn owned(&self, id: &str) -> Result<Option<Owned>, JournalError> {
        let connection = self.lock();
        let select = "SELECT id, server, action, payload_hash, nonce FROM command WHERE id = ?1";
        let mut select = connection.prepare_cached(select)?;
        let mut find = || {
            let row = select.query_row([id], |row| {
                let nonce: Option<String> = row.get(4)?;
                let owned = |nonce| {
                    Ok::<_, rusqlite::Error>(Owned {
                        id: row.get(0)?,
                        server: row.get(1)?,
                        action: row.get(2)?,
                        payload_hash: row.get(3)?,
                        nonce,
                    })
                };
                nonce.map(owned).transpose()
            });
            row.optional()
        };
        match find()? {
            None => Ok(None),
            Some(Some(owned)) => Ok(Some(owned)),
            Some(None) => {
                connection
                    .prepare_cached(
                        "UPDATE command SET nonce = lower(hex(randomblob(16))) WHERE id = ?1 AND nonce IS NULL",
                    )?
                    .execute([id])?;
                Ok(find()?.flatten())
            }
        }
    }

    /// Keeps the outcome of a command that is not shared with the other amibus yet, so that it does not count.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn ended(&self, id: &str, outcome: &str, response: &[u8]) -> Result<(), JournalError> {
        self.lock()
            .prepare_cached(
                "UPDATE command SET outcome = ?2, response = ?3 WHERE id = ?1 AND state = 'sending'",
            )?
            .execute(params![id, outcome, response])?;
        Ok(())
    }

    /// Records an outcome together with the message that tells it. An outcome that is already there stays.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn done_and_told(
        &self,
        id: &str,
        outcome: &str,
        response: &[u8],
        body: &[u8],
    ) -> Result<(), JournalError> {
        self.lock()
            .prepare_cached(
                "UPDATE command SET state = 'done', outcome = ?2, response = ?3, body = ?4, done_at = ?5
                 WHERE id = ?1 AND state <> 'done'",
            )?
            .execute(params![id, outcome, response, body, now()])?;
        Ok(())
    }

    /// Keeps many such outcomes: id, outcome, response. All or none.
    ///
    /// # Errors
    /// When they could not be recorded.
    pub fn all_ended(&self, all: &[(String, &'static str, Vec<u8>)]) -> Result<(), JournalError> {
        self.in_one(|| all.iter().try_for_each(|(id, outcome, response)| self.ended(id, outcome, response)))
    }

    /// The `data` of an outcome that was kept so, JSON; `None`: there is none, or it counts already.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn kept(&self, id: &str) -> Result<Option<Vec<u8>>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT response FROM command WHERE id = ?1 AND state = 'sending' AND outcome IS NOT NULL",
        )?;
        Ok(find.query_row([id], |row| row.get(0)).optional()?.flatten())
    }

    /// The ids of commands that were claimed and never sent, in their order, from behind `after` on.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn claimed(&self, after: &str, limit: usize) -> Result<Vec<String>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT id FROM command WHERE state = 'claimed' AND nonce IS NOT NULL AND id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = find.query_map(params![after, limit], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// A command that is claimed, and was never sent.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn unsent(&self, id: &str) -> Result<Option<Open>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT id, server, action, sender, sent_at, response, claimed_at, durable, log_from FROM command
             WHERE id = ?1 AND state = 'claimed'",
        )?;
        Ok(find.query_row([id], open).optional()?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::testing::originate;

    #[test]
    fn a_claim_has_its_nonce_and_tells_whether_it_comes_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("commands.sqlite");
        let journal = Journal::open(&path, Duration::from_secs(3600)).expect("opens");
        for (id, durable) in [("kept", true), ("asked", false)] {
            journal.claim_from(id, &originate(), Some("me"), durable).expect("claims");
            let owned = journal.owned(id).expect("reads").expect("claimed");
            assert_eq!((owned.nonce.len(), &*owned.payload_hash), (32, "h"));
            assert_eq!(journal.owned(id).expect("reads"), Some(owned), "the same each time");
            let unsent = journal.unsent(id).expect("reads").expect("claimed");
            assert_eq!((&*unsent.id, unsent.durable), (id, durable));
        }
        assert_eq!(journal.claimed("", 10).expect("reads"), ["asked", "kept"]);
        journal.sending("kept").expect("records");
        assert_eq!(journal.unsent("kept").expect("reads"), None);
        assert_eq!(journal.claimed("", 10).expect("reads"), ["asked"]);
        assert!(journal.release("asked").expect("records"));
        assert_eq!(journal.owned("asked").expect("reads"), None);
    }
}
