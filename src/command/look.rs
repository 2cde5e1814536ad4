//! What the journal says, for a person: read while amibus runs or not, and never written.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

/// The journal, open for reading.
pub struct Look {
    connection: Connection,
}

/// Which commands are asked for; `None` and empty mean any.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The server's name.
    pub server: Option<String>,
    /// The action, in any case.
    pub action: Option<String>,
    /// `claimed`, `sending` or `done`.
    pub state: Option<String>,
    /// An outcome's word.
    pub outcome: Option<String>,
    /// At most so many, the newest; never more than [`MAX_LISTED`].
    pub limit: u32,
}

/// A command as the journal has it. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// Its server.
    pub server: String,
    /// Its action.
    pub action: String,
    /// Who sent it, as its bus knows them.
    pub sender: Option<String>,
    /// `claimed`, `sending` or `done`.
    pub state: String,
    /// What became of it.
    pub outcome: Option<String>,
    /// When it was claimed.
    pub claimed_at: i64,
    /// When it was about to be written to Asterisk.
    pub sent_at: Option<i64>,
    /// When its outcome was recorded.
    pub done_at: Option<i64>,
    /// The response's `data`, JSON.
    pub response: Option<Vec<u8>>,
}

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// There is none: no command was ever taken here.
    #[error("there is no journal of commands at {0}")]
    None(std::path::PathBuf),
    /// It cannot be read.
    #[error("the journal of commands cannot be read: {0}")]
    Storage(#[from] rusqlite::Error),
}

/// The most commands that are listed in one go: their ids are held meanwhile.
pub const MAX_LISTED: u32 = 100_000;

const COLUMNS: &str = "id, server, action, sender, state, outcome, claimed_at, sent_at, done_at, response";

impl Look {
    /// Opens the journal at `path`.
    ///
    /// # Errors
    /// When there is none, or it is none.
    pub fn open(path: &Path) -> Result<Self, LookError> {
        if !path.exists() {
            return Err(LookError::None(path.to_owned()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        Ok(Self { connection })
    }

    /// The newest commands that fit, newest first, handed to `each` until it says no more. While `each` works, nothing is
    /// being read: a journal that somebody goes on reading grows. What was removed meanwhile is left out.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn list(&self, wanted: &Wanted, mut each: impl FnMut(Entry) -> bool) -> Result<(), LookError> {
        let limit = wanted.limit.min(MAX_LISTED);
        let mut select = self.connection.prepare(
            "SELECT id FROM command
             WHERE (?1 IS NULL OR server = ?1) AND (?2 IS NULL OR lower(action) = lower(?2))
               AND (?3 IS NULL OR state = ?3) AND (?4 IS NULL OR outcome = ?4)
             ORDER BY claimed_at DESC, id LIMIT ?5",
        )?;
        let Wanted { server, action, state, outcome, .. } = wanted;
        let ids = select.query_map(params![server, action, state, outcome, limit], |row| row.get(0))?;
        let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
        for id in ids {
            if self.show(&id)?.is_some_and(|entry| !each(entry)) {
                break;
            }
        }
        Ok(())
    }

    /// One command.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn show(&self, id: &str) -> Result<Option<Entry>, LookError> {
        let select = format!("SELECT {COLUMNS} FROM command WHERE id = ?1");
        Ok(self.connection.query_row(&select, [id], entry).optional()?)
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: row.get(0)?,
        server: row.get(1)?,
        action: row.get(2)?,
        sender: row.get(3)?,
        state: row.get(4)?,
        outcome: row.get(5)?,
        claimed_at: row.get(6)?,
        sent_at: row.get(7)?,
        done_at: row.get(8)?,
        response: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{
        decode::{Command, Wait},
        journal::Journal,
    };

    fn command(server: &str, action: &str) -> Command {
        Command {
            id: None,
            server: server.into(),
            action: action.into(),
            deadline: None,
            wait: Wait::Response,
            headers: Vec::new(),
            payload_hash: "h".into(),
        }
    }

    fn ids(look: &Look, wanted: &Wanted) -> Vec<String> {
        let mut ids = Vec::new();
        look.list(wanted, |entry| {
            ids.push(entry.id);
            true
        })
        .expect("reads");
        ids.sort();
        ids
    }

    #[test]
    fn a_journal_in_use_is_read_and_asked_by_each_column() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("commands.sqlite");
        assert!(matches!(Look::open(&path), Err(LookError::None(_))));
        let journal = Journal::open(&path, Duration::from_secs(3600)).expect("opens");
        journal.claim("a", &command("pbx1", "Originate"), Some("dialer")).expect("claims");
        journal.claim("b", &command("pbx1", "Ping"), None).expect("claims");
        journal.claim("c", &command("pbx2", "originate"), None).expect("claims");
        journal.sending("b").expect("records");
        journal.sending("c").expect("records");
        journal.done("c", "executed", b"{\"outcome\":\"executed\"}").expect("records");

        let look = Look::open(&path).expect("opens beside the process that writes");
        let any = Wanted { limit: 10, ..Wanted::default() };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(ids(&look, &any), ["a", "b", "c"]);
        assert_eq!(ids(&look, &Wanted { server: some("pbx1"), ..any.clone() }), ["a", "b"]);
        assert_eq!(ids(&look, &Wanted { action: some("ORIGINATE"), ..any.clone() }), ["a", "c"]);
        assert_eq!(ids(&look, &Wanted { state: some("sending"), ..any.clone() }), ["b"]);
        assert_eq!(ids(&look, &Wanted { outcome: some("executed"), ..any.clone() }), ["c"]);
        assert_eq!(ids(&look, &Wanted { limit: 2, ..any.clone() }).len(), 2);
        // While an entry is handed out, the journal is not held: a checkpoint gets through to its end.
        look.list(&any, |_| {
            let writer = Connection::open(&path).expect("opens");
            let pragma = "PRAGMA wal_checkpoint(TRUNCATE)";
            let busy: i64 = writer.query_row(pragma, [], |row| row.get(0)).expect("a checkpoint");
            assert_eq!(busy, 0, "nobody reads");
            true
        })
        .expect("reads");
        let shown = look.show("a").expect("reads").expect("there");
        assert_eq!(
            (shown.sender.as_deref(), &*shown.state, shown.outcome),
            (Some("dialer"), "claimed", None)
        );
        assert_eq!(
            look.show("c").expect("reads").expect("there").response.as_deref(),
            Some(&b"{\"outcome\":\"executed\"}"[..])
        );
        assert_eq!(look.show("d").expect("reads"), None);
    }
}
