//! The journal's tables, and how a journal of an older amibus becomes one of this.
//!
//! | version | what it added |
//! |---|---|
//! | 1 | the table |
//! | 2 | `channel_id`, the ChannelId of an Originate; `pace`, the limits that count its call (a JSON array of names); `nonce`, what its shared claim is recognised by |
//! | 3 | `durable`, whether the command's bus delivers it again, or whoever asked was answered: nobody is to be told of it if it was never sent; what was there before counts as such |
//! | 4 | `log_from`, the number in its server's log before which nothing of the command stands; `NULL`: nobody knows |
//!
//! Each step is one transaction: a process that dies in it leaves the version before or the one after.

use rusqlite::Connection;

use super::JournalError;

/// The version that this amibus reads and writes (`PRAGMA user_version`).
pub(super) const VERSION: i64 = 4;

const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA busy_timeout = 5000;
";

/// From nothing to version 1. Files of version 1 have been made like this.
const TO_1: &str = "
    CREATE TABLE IF NOT EXISTS command (
        id           TEXT PRIMARY KEY,
        payload_hash TEXT NOT NULL,
        server       TEXT NOT NULL,
        action       TEXT NOT NULL,
        sender       TEXT,
        state        TEXT NOT NULL CHECK (state IN ('claimed', 'sending', 'done')),
        outcome      TEXT,
        response     BLOB,
        body         BLOB,
        claimed_at   INTEGER NOT NULL,
        sent_at      INTEGER,
        done_at      INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS command_done_at ON command (done_at) WHERE done_at IS NOT NULL;
    PRAGMA user_version = 1;
";

const TO_2: &str = "
    ALTER TABLE command ADD COLUMN channel_id TEXT;
    ALTER TABLE command ADD COLUMN pace TEXT;
    ALTER TABLE command ADD COLUMN nonce TEXT;
    CREATE INDEX command_channel_id ON command (channel_id) WHERE channel_id IS NOT NULL;
    CREATE INDEX command_sending ON command (id) WHERE state = 'sending';
    PRAGMA user_version = 2;
";

const TO_3: &str = "
    ALTER TABLE command ADD COLUMN durable INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX command_left_behind ON command (id) WHERE state = 'claimed' AND durable = 0;
    PRAGMA user_version = 3;
";

const TO_4: &str = "
    ALTER TABLE command ADD COLUMN log_from INTEGER;
    CREATE INDEX command_unpublished ON command (id) WHERE state = 'done' AND body IS NULL;
    PRAGMA user_version = 4;
";

/// Makes what is missing.
pub(super) fn prepare(connection: &mut Connection) -> Result<(), JournalError> {
    connection.execute_batch(PRAGMAS)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Err(JournalError::Newer { found });
    }
    for (version, step) in [(1, TO_1), (2, TO_2), (3, TO_3), (4, TO_4)] {
        if found < version {
            let transaction = connection.transaction()?;
            transaction.execute_batch(step)?;
            transaction.commit()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_of_version_1_keeps_its_rows() {
        let mut connection = Connection::open_in_memory().expect("opens");
        connection.execute_batch(TO_1).expect("version 1");
        connection
            .execute_batch(
                "INSERT INTO command (id, payload_hash, server, action, state, claimed_at)
                 VALUES ('a', 'h', 'pbx1', 'Originate', 'sending', 1)",
            )
            .expect("a row");
        for _ in 0..2 {
            prepare(&mut connection).expect("prepares");
            let row = connection.query_row("SELECT id, channel_id, pace, nonce FROM command", [], |row| {
                let new: [Option<String>; 3] = [row.get(1)?, row.get(2)?, row.get(3)?];
                Ok((row.get::<_, String>(0)?, new))
            });
            assert_eq!(row.expect("a row"), ("a".to_owned(), [None, None, None]));
        }
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version");
        assert_eq!(version, VERSION);
    }

    #[test]
    fn a_journal_of_a_newer_amibus_is_left_alone() {
        let mut connection = Connection::open_in_memory().expect("opens");
        connection.execute_batch("PRAGMA user_version = 5").expect("sets");
        assert!(matches!(prepare(&mut connection), Err(JournalError::Newer { found: 5 })));
    }
}
