//! What the journal says of calls that limits count.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, params};

use super::{Journal, JournalError, time};

/// When a call was sent, and the names of the limits that count it.
pub(super) type Paced = (SystemTime, Vec<String>);

impl Journal {
    /// What is known of the call of this channel; `None`: it is no call of this server that is counted.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn paced(&self, server: &str, channel_id: &str) -> Result<Option<Paced>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT sent_at, pace FROM command
             WHERE channel_id = ?1 AND server = ?2 AND pace IS NOT NULL AND sent_at IS NOT NULL",
        )?;
        let row = find.query_row(params![channel_id, server], |row| Ok((row.get(0)?, row.get(1)?)));
        Ok(row.optional()?.map(|(sent_at, names)| paced(sent_at, names)))
    }

    /// The calls of a server that a dead process was sending and that are counted, by their channels.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn begun_calls(&self, server: &str) -> Result<Vec<(String, Paced)>, JournalError> {
        let connection = self.lock();
        let mut find = connection.prepare_cached(
            "SELECT channel_id, sent_at, pace FROM command WHERE state = 'sending' AND server = ?1
             AND channel_id IS NOT NULL AND sent_at IS NOT NULL AND pace IS NOT NULL",
        )?;
        let rows = find.query_map([server], |row| Ok((row.get(0)?, paced(row.get(1)?, row.get(2)?))))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Names that cannot be read are none: another version wrote them.
fn paced(sent_at: i64, names: String) -> Paced {
    (time(sent_at), serde_json::from_str(&names).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::testing::originate;

    #[test]
    fn a_call_is_found_by_its_channel_with_the_limits_that_count_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("commands.sqlite");
        let journal = Journal::open(&path, Duration::from_secs(3600)).expect("opens");
        for (id, limits) in [("a", vec!["trunk-a".to_owned(), "all".to_owned()]), ("b", Vec::new())] {
            journal.claim(id, &originate(), None).expect("claims");
            journal.sending_call(id, Some(&format!("channel-{id}")), &limits, None).expect("records");
        }
        let (sent_at, limits) = journal.paced("pbx1", "channel-a").expect("reads").expect("counted");
        assert_eq!(limits, ["trunk-a", "all"]);
        assert!(sent_at.elapsed().expect("not before now") < Duration::from_secs(60));
        assert_eq!(journal.paced("pbx2", "channel-a").expect("reads"), None);
        assert_eq!(journal.paced("pbx1", "channel-b").expect("reads"), None);
        let begun = journal.begun_calls("pbx1").expect("reads");
        assert_eq!(begun, [("channel-a".to_owned(), (sent_at, limits))]);
        journal.done("a", "executed", b"{}").expect("records");
        assert_eq!(journal.begun_calls("pbx1").expect("reads"), []);
        assert!(journal.paced("pbx1", "channel-a").expect("reads").is_some(), "it may be live");
    }
}
