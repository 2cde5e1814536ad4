//! From where on commands may stand in their servers' logs.

use rusqlite::params;

use super::{Journal, JournalError, signed};

impl Journal {
    /// The lowest number in a server's log at which anything may stand of a call without an outcome, or of an outcome that
    /// is not known to be published: zero where nobody knows. `None`: there is no such command.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn wanted_from(&self, server: &str) -> Result<Option<u64>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT min(coalesce(log_from, 0)) FROM (
                 SELECT log_from FROM command WHERE state = 'sending' AND server = ?1 AND channel_id IS NOT NULL
                 UNION ALL
                 SELECT log_from FROM command WHERE state = 'done' AND body IS NULL AND server = ?1
             )",
        )?;
        let number: Option<i64> = find.query_row([server], |row| row.get(0))?;
        Ok(number.and_then(|number| u64::try_from(number).ok()))
    }

    /// Keeps that nothing of these commands stands in the log before this number.
    ///
    /// # Errors
    /// When it could not be recorded; then the next look begins where this one did.
    pub fn looked(&self, ids: &[String], number: u64) -> Result<(), JournalError> {
        let look = "UPDATE command SET log_from = ?2
                    WHERE id = ?1 AND state = 'sending' AND coalesce(log_from, 0) < ?2";
        self.in_one(|| {
            let connection = self.lock();
            let mut update = connection.prepare_cached(look)?;
            ids.iter().try_for_each(|id| Ok(update.execute(params![id, signed(number)]).map(drop)?))
        })
    }

    /// For the start: no command is in the log of a server behind its end, where somebody removed that log.
    ///
    /// # Errors
    /// When it could not be recorded.
    pub fn log_ends(&self, server: &str, next: u64) -> Result<(), JournalError> {
        self.lock()
            .prepare_cached(
                "UPDATE command SET log_from = NULL
                 WHERE (state = 'sending' OR (state = 'done' AND body IS NULL)) AND server = ?1 AND log_from > ?2",
            )?
            .execute(params![server, signed(next)])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{journal::Claim, testing};

    /// Claims and begins a call at this number.
    fn begin(journal: &Journal, id: &str, number: Option<u64>) {
        let claim = journal.claim(id, &testing::command(), None).expect("claims");
        assert_eq!(claim, Claim::Ours);
        journal.sending_call(id, Some(&format!("channel-{id}")), &[], number).expect("records");
    }

    fn open() -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("commands.sqlite");
        let journal = Journal::open(&path, Duration::from_secs(3600)).expect("opens");
        (dir, journal)
    }

    fn numbers(journal: &Journal) -> Vec<Option<u64>> {
        journal.interrupted("", 10).expect("reads").iter().map(|open| open.log_from).collect()
    }

    #[test]
    fn the_log_is_wanted_until_the_outcome_is_published() {
        let (_dir, journal) = open();
        assert_eq!(journal.wanted_from("pbx1").expect("reads"), None);
        begin(&journal, "a", Some(7));
        begin(&journal, "b", Some(20));
        assert_eq!(journal.wanted_from("pbx1").expect("reads"), Some(7));
        assert_eq!(journal.wanted_from("pbx2").expect("reads"), None);
        journal.done("a", "executed", b"{}").expect("records");
        assert_eq!(journal.wanted_from("pbx1").expect("reads"), Some(7), "its message may not be written");
        journal.published("a", b"{}").expect("records");
        assert_eq!(journal.wanted_from("pbx1").expect("reads"), Some(20));
        journal.unsend("b").expect("records");
        assert_eq!(journal.wanted_from("pbx1").expect("reads"), None);
    }

    #[test]
    fn a_look_is_kept_and_never_taken_back() {
        let (_dir, journal) = open();
        begin(&journal, "a", Some(7));
        begin(&journal, "b", None);
        assert_eq!(journal.wanted_from("pbx1").expect("reads"), Some(0), "all of it: nobody knows");
        let ids = ["a".to_owned(), "b".to_owned()];
        journal.looked(&ids, 50).expect("records");
        assert_eq!(numbers(&journal), [Some(50), Some(50)]);
        journal.looked(&ids, 40).expect("records");
        assert_eq!(numbers(&journal), [Some(50), Some(50)]);
    }

    #[test]
    fn a_log_that_was_removed_is_read_from_its_begin() {
        let (_dir, journal) = open();
        begin(&journal, "a", Some(7));
        begin(&journal, "b", Some(100));
        journal.log_ends("pbx1", 8).expect("records");
        assert_eq!(numbers(&journal), [Some(7), None]);
    }
}
