//! The journal of commands: what was claimed, what was sent, what became of it. Survives kill -9 and power loss.
//!
//! One SQLite file (WAL, `synchronous=FULL`), which an operator may open. A row a command:
//!
//! | state | what is known | found so after a crash |
//! |---|---|---|
//! | `claimed` | never sent | claimed anew when its bus delivers it again, or its requester asks again |
//! | `sending` | the socket write began, the outcome is open | outcome `unknown`, never sent again |
//! | `done` | its outcome | the same outcome is answered again |
//!
//! One process at a time: a lock on the file beside it ([`LOCK_SUFFIX`]) is held while the journal is open.
//!
//! Limits: rows older than `max_age` and beyond [`MAX_ROWS`] are removed when done, oldest first; nothing else is.

pub(super) mod desk;
mod logged;
mod paced;
mod schema;
#[cfg(test)]
mod tests;

use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, OptionalExtension, params};

use super::decode::Command;

/// What the name of the lock file ends with.
pub const LOCK_SUFFIX: &str = "lock";
/// How long a journal that another process holds is waited for: it may be on its way out.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The most rows kept.
pub const MAX_ROWS: i64 = 2_000_000;
/// How many claims pass between two removals of old rows.
const CLAIMS_BETWEEN_REMOVALS: u64 = 1_000;

/// The journal could not be read or written. Nothing may be sent then.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file, or the disk under it.
    #[error("{0}")]
    Storage(#[from] rusqlite::Error),
    /// The lock file cannot be made.
    #[error("the lock file of the journal: {0}")]
    Lock(#[source] std::io::Error),
    /// Another process has it open. Each amibus needs a `spool.dir` of its own.
    #[error("another amibus uses this journal; each needs a spool.dir of its own")]
    InUse,
    /// It was written by an amibus that knows more.
    #[error(
        "a newer amibus wrote this journal (version {found}, this one reads {}); start that one, or move the journal away: ids in it are then unknown",
        schema::VERSION
    )]
    Newer {
        /// Its version.
        found: i64,
    },
    /// It was written, and is not on disk.
    #[error("it could not be put on disk: {0}")]
    NotKept(String),
    /// The command is not, or no longer, this process's to send.
    #[error("the command is not claimed by this process any more")]
    NotOurs,
}

/// What a claim found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours to run.
    Ours,
    /// It ended before: its outcome, and the message that was published.
    Done(Record),
    /// It was being sent when a process died, and nobody recorded an outcome.
    Interrupted,
    /// The id belongs to another payload.
    Reused,
}

/// An outcome as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The outcome as a word.
    pub outcome: String,
    /// The response's `data`, JSON.
    pub response: Vec<u8>,
    /// The whole CloudEvent as it was published, once it was.
    pub body: Option<Vec<u8>>,
}

/// A command found without an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The command's id.
    pub id: String,
    /// The server.
    pub server: String,
    /// The action.
    pub action: String,
    /// Who sent it, as its bus knows them.
    pub sender: Option<String>,
    /// When it was about to be written to Asterisk.
    pub sent_at: Option<SystemTime>,
    /// When it was claimed.
    pub since: Option<SystemTime>,
    /// What was kept of its response: of one in work, Asterisk's own answer, which was Success.
    pub response: Option<Vec<u8>>,
    /// Whether its bus delivers it again, or its requester was answered: nobody is to be told of an unsent one.
    pub durable: bool,
    /// Nothing of it stands in its server's log before this number; `None`: nobody knows.
    pub log_from: Option<u64>,
}

/// The journal, open for one process.
pub struct Journal {
    connection: Mutex<Connection>,
    max_age: Duration,
    /// Milliseconds since 1970.
    opened_at: i64,
    /// Held while the journal is open.
    _lock: File,
    claims: std::sync::atomic::AtomicU64,
}

impl Journal {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// When it cannot be opened, written, is not a journal, or another process has it.
    pub fn open(path: &Path, max_age: Duration) -> Result<Self, JournalError> {
        let lock = lock(&path.with_extension(LOCK_SUFFIX))?;
        let mut connection = Connection::open(path)?;
        schema::prepare(&mut connection)?;
        Ok(Self {
            connection: Mutex::new(connection),
            max_age,
            opened_at: now(),
            _lock: lock,
            claims: 0.into(),
        })
    }

    /// Claims an id, durably. Commands without an outcome that are `claimed` may be claimed again: the process
    /// that had them is gone, since within one process the caller claims an id once.
    ///
    /// # Errors
    /// When the claim could not be recorded.
    pub fn claim(&self, id: &str, command: &Command, sender: Option<&str>) -> Result<Claim, JournalError> {
        self.claim_from(id, command, sender, true)
    }

    /// The same, told whether the command's bus keeps it until it is acknowledged, and so delivers it again to the next
    /// process.
    ///
    /// # Errors
    /// When the claim could not be recorded.
    pub fn claim_from(
        &self,
        id: &str,
        command: &Command,
        sender: Option<&str>,
        durable: bool,
    ) -> Result<Claim, JournalError> {
        self.remove_old_at_times()?;
        let connection = self.lock();
        let added = connection
            .prepare_cached(
                "INSERT INTO command (id, payload_hash, server, action, sender, state, claimed_at, durable, nonce)
             VALUES (?1, ?2, ?3, ?4, ?5, 'claimed', ?6, ?7, lower(hex(randomblob(16))))
             ON CONFLICT DO UPDATE SET claimed_at = excluded.claimed_at, durable = excluded.durable
             WHERE state = 'claimed' AND payload_hash = excluded.payload_hash",
            )?
            .execute(params![
                id,
                command.payload_hash,
                command.server,
                command.action,
                sender,
                now().max(self.opened_at),
                durable
            ])?;
        if added == 1 {
            return Ok(Claim::Ours);
        }
        Ok(find(&connection, id, &command.payload_hash)?.unwrap_or(Claim::Ours))
    }

    /// What is known of an id without claiming it; `None`: it may be claimed.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn recorded(&self, id: &str, payload_hash: &str) -> Result<Option<Claim>, JournalError> {
        find(&self.lock(), id, payload_hash)
    }

    /// Forgets a claim of which nothing was sent. Answers whether there was one.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn release(&self, id: &str) -> Result<bool, JournalError> {
        let connection = self.lock();
        let mut delete =
            connection.prepare_cached("DELETE FROM command WHERE id = ?1 AND state = 'claimed'")?;
        Ok(delete.execute([id])? == 1)
    }

    /// Of a claim that could not be given back: its requester was told that nothing was sent, so that no later process tells
    /// it of another end. Claimed anew, it is as if nobody had been told.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn answered(&self, id: &str) -> Result<(), JournalError> {
        self.lock()
            .prepare_cached("UPDATE command SET durable = 1 WHERE id = ?1 AND state = 'claimed'")?
            .execute([id])?;
        Ok(())
    }

    /// Records that the action is about to be written to the socket. After this it is never sent again.
    ///
    /// # Errors
    /// When it could not be recorded, or is not this process's to send; then it must not be sent.
    pub fn sending(&self, id: &str) -> Result<(), JournalError> {
        self.sending_call(id, None, &[], None)
    }

    /// The same of an Originate: with its ChannelId, and the names of the limits that count its call. `log_from` is the
    /// number that the next record of its server's log gets: nothing of the command stands before it.
    ///
    /// # Errors
    /// When it could not be recorded, or is not this process's to send; then it must not be sent.
    pub fn sending_call(
        &self,
        id: &str,
        channel_id: Option<&str>,
        pace: &[String],
        log_from: Option<u64>,
    ) -> Result<(), JournalError> {
        let connection = self.lock();
        let mut update = connection.prepare_cached(
            "UPDATE command SET state = 'sending', sent_at = ?2, channel_id = ?3, pace = ?4, log_from = ?5
             WHERE id = ?1 AND state = 'claimed'",
        )?;
        let pace = (!pace.is_empty()).then(|| serde_json::json!(pace).to_string());
        match update.execute(params![id, now(), channel_id, pace, log_from.map(signed)])? {
            1 => Ok(()),
            _ => Err(JournalError::NotOurs),
        }
    }

    /// Keeps that Asterisk answered Success, and its answer (JSON), of a command whose end is still waited for.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn accepted(&self, id: &str, answer: &[u8]) -> Result<(), JournalError> {
        self.lock()
            .prepare_cached("UPDATE command SET response = ?2 WHERE id = ?1 AND state = 'sending'")?
            .execute(params![id, answer])?;
        Ok(())
    }

    /// Records the outcome. An outcome that is already there stays.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn done(&self, id: &str, outcome: &str, response: &[u8]) -> Result<(), JournalError> {
        self.lock()
            .prepare_cached(
                "UPDATE command SET state = 'done', outcome = ?2, response = ?3, done_at = ?4
                 WHERE id = ?1 AND state <> 'done'",
            )?
            .execute(params![id, outcome, response, now()])?;
        Ok(())
    }

    /// Keeps the message that carried the outcome, so that it can be answered again byte for byte.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn published(&self, id: &str, body: &[u8]) -> Result<(), JournalError> {
        self.lock()
            .prepare_cached("UPDATE command SET body = ?2 WHERE id = ?1 AND body IS NULL")?
            .execute(params![id, body])?;
        Ok(())
    }

    /// Outcomes that were recorded and not published before the process died, with their responses, in the order of their
    /// ids, from behind `after` on.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn unpublished(&self, after: &str, limit: usize) -> Result<Vec<Open>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT id, server, action, sender, sent_at, response, claimed_at, durable, log_from FROM command
             WHERE state = 'done' AND body IS NULL AND response IS NOT NULL AND id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = find.query_map(params![after, limit], open)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Takes back that it was about to be written, for an action that may run twice: its claim is free again.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn unsend(&self, id: &str) -> Result<(), JournalError> {
        self.lock()
            .prepare_cached(
                "UPDATE command SET state = 'claimed', sent_at = NULL, outcome = NULL, response = NULL, channel_id = NULL,
                 pace = NULL, log_from = NULL
                 WHERE id = ?1 AND state = 'sending'",
            )?
            .execute([id])?;
        Ok(())
    }

    /// The commands that a dead process had begun to send, in the order of their ids, from behind `after` on. For the
    /// start, before any command is taken.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn interrupted(&self, after: &str, limit: usize) -> Result<Vec<Open>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT id, server, action, sender, sent_at, response, claimed_at, durable, log_from FROM command WHERE state = 'sending' AND id > ?1
             ORDER BY id LIMIT ?2",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = find.query_map(params![after, limit], open)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Has the commands that a dead process had claimed and not begun to send, and that no bus delivers again, told from those
    /// that are claimed from now on, whatever its clock was. For the start, before any command is taken.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn leave_behind(&self) -> Result<(), JournalError> {
        self.lock().execute(
            "UPDATE command SET claimed_at = ?1 - 1 WHERE state = 'claimed' AND durable = 0 AND claimed_at >= ?1",
            [self.opened_at],
        )?;
        Ok(())
    }

    /// The ids of those of them that were not claimed anew since, in their order, from behind `after` on.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn left_behind(&self, after: &str, limit: usize) -> Result<Vec<String>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT id FROM command WHERE state = 'claimed' AND durable = 0 AND claimed_at < ?1 AND id > ?2
             ORDER BY id LIMIT ?3",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = find.query_map(params![self.opened_at, after, limit], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One of them, if it still is.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn one_left_behind(&self, id: &str) -> Result<Option<Open>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT id, server, action, sender, sent_at, response, claimed_at, durable, log_from FROM command
             WHERE id = ?1 AND state = 'claimed' AND durable = 0 AND claimed_at < ?2",
        )?;
        Ok(find.query_row(params![id, self.opened_at], open).optional()?)
    }

    /// Forgets what a dead process had claimed and not begun to send, and what its bus delivers again: it is claimed anew
    /// then, maybe by another amibus. For the start, before any command is taken.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn forget_claimed(&self) -> Result<(), JournalError> {
        self.lock().execute("DELETE FROM command WHERE state = 'claimed' AND durable = 1", [])?;
        Ok(())
    }

    fn remove_old_at_times(&self) -> Result<(), JournalError> {
        use std::sync::atomic::Ordering::Relaxed;
        if !self.claims.fetch_add(1, Relaxed).is_multiple_of(CLAIMS_BETWEEN_REMOVALS) {
            return Ok(());
        }
        let oldest = now() - i64::try_from(self.max_age.as_millis()).unwrap_or(i64::MAX);
        let connection = self.lock();
        connection.execute("DELETE FROM command WHERE state = 'done' AND done_at < ?1", [oldest])?;
        let rows: i64 = connection.query_row("SELECT count(*) FROM command", [], |row| row.get(0))?;
        if rows > MAX_ROWS {
            let at: Option<i64> = connection
                .query_row(
                    "SELECT done_at FROM command WHERE done_at IS NOT NULL ORDER BY done_at LIMIT 1 OFFSET ?1",
                    [rows - MAX_ROWS],
                    |row| row.get(0),
                )
                .optional()?;
            connection.execute("DELETE FROM command WHERE state = 'done' AND done_at <= ?1", [at])?;
        }
        Ok(())
    }

    /// Does what it is given as one, within what is begun or by itself.
    pub(super) fn in_one(&self, work: impl FnOnce() -> Result<(), JournalError>) -> Result<(), JournalError> {
        self.lock().execute_batch("SAVEPOINT one")?;
        let done = work();
        let end = if done.is_ok() { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" };
        let ended = self.lock().execute_batch(end);
        done.and_then(|()| Ok(ended?))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn open(row: &rusqlite::Row<'_>) -> rusqlite::Result<Open> {
    let sent_at: Option<i64> = row.get(4)?;
    let sent_at = sent_at.map(time);
    Ok(Open {
        id: row.get(0)?,
        server: row.get(1)?,
        action: row.get(2)?,
        sender: row.get(3)?,
        sent_at,
        response: row.get(5)?,
        since: row.get::<_, Option<i64>>(6)?.map(time),
        durable: row.get(7)?,
        log_from: row.get::<_, Option<i64>>(8)?.and_then(|number| u64::try_from(number).ok()),
    })
}

fn find(connection: &Connection, id: &str, payload_hash: &str) -> Result<Option<Claim>, JournalError> {
    let mut select = connection
        .prepare_cached("SELECT payload_hash, state, outcome, response, body FROM command WHERE id = ?1")?;
    let row = select.query_row([id], |row| {
        let hash: String = row.get(0)?;
        let state: String = row.get(1)?;
        let outcome: Option<String> = row.get(2)?;
        let response: Option<Vec<u8>> = row.get(3)?;
        Ok((hash, state, outcome, response, row.get::<_, Option<Vec<u8>>>(4)?))
    });
    let Some(row) = row.optional()? else { return Ok(None) };
    Ok(match row {
        (hash, ..) if hash != payload_hash => Some(Claim::Reused),
        (_, state, ..) if state == "claimed" => None,
        (_, state, Some(outcome), Some(response), body) if state == "done" => {
            Some(Claim::Done(Record { outcome, response, body }))
        }
        _ => Some(Claim::Interrupted),
    })
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let file = File::options().create(true).append(true).open(path).map_err(JournalError::Lock)?;
    let deadline = std::time::Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(JournalError::Lock(error)),
            Err(TryLockError::WouldBlock) if std::time::Instant::now() > deadline => {
                return Err(JournalError::InUse);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A number of a log's record as SQLite keeps it.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Of milliseconds since 1970.
fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
