//! Who writes into the journal: one thread, and one sync of the disk for all that waits.
//!
//! A batch of commands that comes in at once would otherwise keep every other command waiting for a sync each. Work is done in
//! the order in which it came; nobody is told of a result before it is on disk.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot};

use super::{Journal, JournalError};

/// Works that wait; whoever comes then waits before.
const QUEUED_WORKS: usize = 1024;
/// The most works that share a sync.
const BATCH_WORKS: usize = 256;

/// Why nothing is done while the disk does not even take back what it did not take.
const STUCK: &str = "the disk did not take what came before, and it could not be taken back yet";

/// Tells whoever asked, once it is known whether the batch is on disk.
type Tell = Box<dyn FnOnce(Result<(), &str>) + Send>;
/// Done with the journal, or not at all.
type Work = Box<dyn FnOnce(Option<&Journal>) -> Tell + Send>;

/// The way to that thread. It ends with the last of these.
#[derive(Clone, Debug)]
pub(in crate::command) struct Desk(mpsc::Sender<Work>);

impl Desk {
    /// Starts the thread. Where the system gives none, every work is answered so.
    pub(in crate::command) fn start(journal: Arc<Journal>) -> Self {
        let (works, waiting) = mpsc::channel(QUEUED_WORKS);
        let thread = std::thread::Builder::new().name("journal".into());
        if let Err(error) = thread.spawn(move || run(&journal, waiting)) {
            tracing::error!(%error, "no thread for the journal of commands: no command is carried out");
        }
        Self(works)
    }

    /// Has the work done; its result is on disk when this answers.
    ///
    /// # Errors
    /// The work's own, or that the disk did not take it.
    pub(in crate::command) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (tell, told) = oneshot::channel();
        let work: Work = Box::new(move |journal| {
            let refused = || Err(JournalError::NotKept(STUCK.to_owned()));
            let result = catch_unwind(AssertUnwindSafe(|| journal.map_or_else(refused, work)));
            Box::new(move |kept| {
                let told = match (result, kept) {
                    (Ok(result), Ok(())) => Ok(result),
                    (Ok(result), Err(words)) => Ok(result.and(Err(JournalError::NotKept(words.to_owned())))),
                    (Err(panic), _) => Err(panic),
                };
                // Whoever asked may have gone.
                let _ = tell.send(told);
            })
        });
        if self.0.send(work).await.is_err() {
            return Err(JournalError::NotKept("its thread is gone".to_owned()));
        }
        match told.await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(_) => Err(JournalError::NotKept("its thread is gone".to_owned())),
        }
    }
}

/// Reads what the journal has, beside the desk, on a thread that may wait for the disk. To write is the desk's alone: it
/// would be within a batch, and told before that is on disk.
pub(in crate::command) async fn reading<T: Send + 'static>(
    journal: &Arc<Journal>,
    read: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    let journal = Arc::clone(journal);
    match tokio::task::spawn_blocking(move || read(&journal)).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn run(journal: &Journal, mut waiting: mpsc::Receiver<Work>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut works = vec![first];
        while works.len() < BATCH_WORKS
            && let Ok(next) = waiting.try_recv()
        {
            works.push(next);
        }
        // Within a transaction that nobody will commit, what is told would not be on disk.
        if journal.take_back().is_err() {
            works.into_iter().for_each(|work| work(None)(Ok(())));
            continue;
        }
        // Where none can be begun, each stands for itself.
        if works.len() > 1 && journal.begin().is_ok() {
            together(journal, works);
        } else {
            works.into_iter().for_each(|work| work(Some(journal))(Ok(())));
        }
    }
}

/// Does them in the transaction that was begun.
fn together(journal: &Journal, works: Vec<Work>) {
    let mut done = Vec::with_capacity(works.len());
    let mut works = works.into_iter();
    for work in works.by_ref() {
        done.push(work(Some(journal)));
        // SQLite takes a whole transaction back where the disk is full or fails.
        if !journal.is_begun() {
            done.drain(..).for_each(|tell| tell(Err("the disk did not take it")));
            return works.for_each(|work| work(Some(journal))(Ok(())));
        }
    }
    match journal.commit() {
        Ok(()) => done.into_iter().for_each(|tell| tell(Ok(()))),
        Err(error) => {
            let words = error.to_string();
            done.into_iter().for_each(|tell| tell(Err(&words)));
        }
    }
}

impl Journal {
    fn begin(&self) -> Result<(), JournalError> {
        Ok(self.lock().execute_batch("BEGIN IMMEDIATE")?)
    }

    fn is_begun(&self) -> bool {
        !self.lock().is_autocommit()
    }

    fn commit(&self) -> Result<(), JournalError> {
        Ok(self.lock().execute_batch("COMMIT")?)
    }

    /// Ends what was begun and could not be committed.
    fn take_back(&self) -> Result<(), JournalError> {
        let connection = self.lock();
        if connection.is_autocommit() { Ok(()) } else { Ok(connection.execute_batch("ROLLBACK")?) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::{journal::Claim, testing::command};

    #[tokio::test]
    async fn all_that_waits_is_done_in_order_and_one_that_fails_hinders_no_other() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("commands.sqlite");
        let journal = Arc::new(Journal::open(&path, Duration::from_secs(3600)).expect("opens"));
        let desk = Desk::start(Arc::clone(&journal));
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let first = desk.work(move |_| Ok(held.recv().is_ok()));
        let claims = (0..600).map(|n| {
            let desk = desk.clone();
            async move {
                let id = format!("{}", n % 300);
                desk.work(move |journal| match n {
                    77 => Err(JournalError::NotOurs),
                    _ => journal
                        .claim(&id, &command(), None)
                        .and_then(|claim| journal.sending(&id).map(|()| claim)),
                })
                .await
            }
        });
        let release = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            hold.send(()).expect("it waits");
        };
        let (first, claims, ()) = tokio::join!(first, futures_util::future::join_all(claims), release);
        assert!(first.expect("done"));
        let ours = claims.iter().filter(|claim| matches!(claim, Ok(Claim::Ours))).count();
        let others = claims.iter().filter(|claim| matches!(claim, Err(JournalError::NotOurs))).count();
        assert_eq!((ours, others), (300, 300), "{claims:?}");
        let other = rusqlite::Connection::open(&path).expect("opens");
        let kept: i64 = other.query_row("SELECT count(*) FROM command", [], |row| row.get(0)).expect("reads");
        assert_eq!(kept, 300);
    }

    #[tokio::test]
    async fn nobody_is_told_of_what_the_disk_did_not_take() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("commands.sqlite");
        let journal = Arc::new(Journal::open(&path, Duration::from_secs(3600)).expect("opens"));
        let (tell, told) = std::sync::mpsc::channel();
        let work = |id: &'static str, tell: std::sync::mpsc::Sender<_>| -> Work {
            Box::new(move |journal| {
                let journal = journal.expect("it may be done");
                let claimed = journal.claim(id, &command(), None);
                if id == "b" {
                    // As SQLite does by itself when the disk is full.
                    journal.lock().execute_batch("ROLLBACK").expect("takes it back");
                }
                Box::new(move |kept| {
                    let _ = tell.send((id, claimed.is_ok() && kept.is_ok()));
                })
            })
        };
        journal.begin().expect("begins");
        together(&journal, ["a", "b", "c"].map(|id| work(id, tell.clone())).into());
        drop(tell);
        assert_eq!(told.into_iter().collect::<Vec<_>>(), [("a", false), ("b", false), ("c", true)]);
        assert_eq!(journal.recorded("c", "h").expect("reads"), None);
        let claimed = journal.release("a").expect("reads");
        assert!(!claimed, "what nobody was told of is not there");
    }

    #[tokio::test]
    async fn what_nobody_committed_is_taken_back_before_anything_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("commands.sqlite");
        let desk = Desk::start(Arc::new(Journal::open(&path, Duration::from_secs(3600)).expect("opens")));
        // As after a commit that the disk refused, and a roll-back too.
        let left = desk.work(|journal| {
            journal.begin()?;
            journal.claim("a", &command(), None)
        });
        assert_eq!(left.await.expect("done"), Claim::Ours);
        assert_eq!(
            desk.work(|journal| journal.claim("b", &command(), None)).await.expect("done"),
            Claim::Ours
        );
        let other = rusqlite::Connection::open(&path).expect("opens");
        let mut ids = other.prepare("SELECT id FROM command").expect("reads");
        let ids: Vec<String> =
            ids.query_map([], |row| row.get(0)).expect("reads").filter_map(Result::ok).collect();
        assert_eq!(ids, ["b"], "what is told is on disk");
    }
}
