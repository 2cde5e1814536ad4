//! What a process finds of the one before.

use super::*;
use crate::command::testing::originate;

fn command(hash: &str) -> Command {
    Command { payload_hash: hash.into(), ..originate() }
}

fn open(dir: &Path) -> Journal {
    Journal::open(&dir.join("commands.sqlite"), Duration::from_secs(3600)).expect("opens")
}

#[test]
fn an_outcome_is_recorded_once_and_found_again_by_the_next_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    assert_eq!(journal.claim("a", &command("h"), None).expect("claims"), Claim::Ours);
    journal.sending("a").expect("records");
    journal.done("a", "executed", b"{1}").expect("records");
    journal.done("a", "unknown", b"{2}").expect("ignored");
    journal.published("a", b"body").expect("records");
    drop(journal);
    let journal = open(dir.path());
    let record =
        Record { outcome: "executed".into(), response: b"{1}".to_vec(), body: Some(b"body".to_vec()) };
    assert_eq!(journal.claim("a", &command("h"), None).expect("reads"), Claim::Done(record));
    assert_eq!(journal.claim("a", &command("other"), None).expect("reads"), Claim::Reused);
}

#[test]
fn what_a_dead_process_left_is_told_apart() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    for id in ["never-sent", "sent"] {
        assert_eq!(journal.claim(id, &command("h"), Some("me")).expect("claims"), Claim::Ours);
    }
    journal.sending("sent").expect("records");
    drop(journal);
    let journal = open(dir.path());
    assert_eq!(journal.claim("never-sent", &command("h"), None).expect("claims"), Claim::Ours);
    assert_eq!(journal.claim("sent", &command("h"), None).expect("reads"), Claim::Interrupted);
    let left = journal.interrupted("", 10).expect("reads");
    let ids: Vec<&str> = left.iter().map(|open| &*open.id).collect();
    assert_eq!((ids, left[0].sent_at.is_some()), (vec!["sent"], true));
    assert_eq!(journal.interrupted("sent", 10).expect("reads"), []);
    journal.unsend("sent").expect("records");
    assert_eq!(journal.claim("sent", &command("h"), None).expect("claims"), Claim::Ours);
}

#[test]
fn one_process_at_a_time_and_one_send_for_a_claim() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = open(dir.path());
    let second = Journal::open(&dir.path().join("commands.sqlite"), Duration::ZERO);
    assert!(matches!(second, Err(JournalError::InUse)));
    assert_eq!(journal.claim("a", &command("h"), None).expect("claims"), Claim::Ours);
    journal.sending("a").expect("ours");
    assert!(matches!(journal.sending("a"), Err(JournalError::NotOurs)));
    assert!(!journal.release("a").expect("reads"), "what was sent is not forgotten");
    assert_eq!(journal.recorded("a", "h").expect("reads"), Some(Claim::Interrupted));
    assert_eq!(journal.recorded("b", "h").expect("reads"), None);
}

#[test]
fn old_outcomes_are_removed_and_open_commands_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("commands.sqlite");
    let journal = Journal::open(&path, Duration::ZERO).expect("opens");
    journal.claim("done", &command("h"), None).expect("claims");
    journal.done("done", "executed", b"{}").expect("records");
    journal.claim("open", &command("h"), None).expect("claims");
    journal.sending("open").expect("records");
    drop(journal);
    std::thread::sleep(Duration::from_millis(5));
    let journal = Journal::open(&path, Duration::ZERO).expect("opens");
    assert_eq!(journal.claim("done", &command("h"), None).expect("claims"), Claim::Ours);
    assert_eq!(journal.claim("open", &command("h"), None).expect("reads"), Claim::Interrupted);
}
