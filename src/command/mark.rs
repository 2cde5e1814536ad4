//! What the journal, and the claim that is shared, are told of a command on its way to the socket.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::warn;

use super::{
    begun::{BEGUN_WRITTEN_WITHIN, Beginning},
    engine::{Engine, RECORD_RETRY, Server},
    hold::{Hold, claim, still_ours},
    journal::Journal,
    send::{Call, NotBegun},
};
use crate::failpoint;

/// Marks one command that holds its claim.
pub(super) struct Marks<'a> {
    pub(super) engine: &'a Engine,
    pub(super) server: &'a Server,
    pub(super) id: &'a str,
    /// Where claims are shared.
    pub(super) hold: Option<&'a Hold<'a>>,
    /// Where the bus keeps what is begun.
    pub(super) begin: Option<Beginning<'a>>,
}

impl Marks<'_> {
    /// Claims the command in front of others, or has the bus keep that it is begun; then puts on disk that it will be sent.
    ///
    /// # Errors
    /// Why nothing may be written.
    pub(super) async fn sending(&self, call: Call) -> Result<(), NotBegun> {
        claim(self.hold).await?;
        if let Some(begin) = &self.begin {
            // The bus may have kept it all the same, and not have been heard any more.
            begin.begin(self.id).await.inspect_err(|_| self.not_begun())?;
        }
        failpoint::hit("shared_claimed");
        let (id, Call { channel_id, pace }) = (self.id.to_owned(), call);
        let spool = Arc::clone(&self.server.spool);
        // The number is taken at the desk, behind whatever was seen there of what is wanted of the log.
        let record = move |journal: &Journal| {
            journal.sending_call(&id, channel_id.as_deref(), &pace, Some(spool.next()))
        };
        let recorded = self.engine.blocking(record).await;
        recorded.map_err(|error| {
            self.not_begun();
            NotBegun::NotRecorded(error.to_string())
        })
    }

    /// Makes sure of it just before the socket: what came after [`Marks::sending`] may have taken its time. Else it is taken
    /// back.
    ///
    /// # Errors
    /// Why nothing may be written.
    pub(super) async fn still_ours(&self) -> Result<(), NotBegun> {
        let ours = match &self.begin {
            Some(begin) => begin.still_ours(self.id).await,
            None => still_ours(self.hold).await,
        };
        if ours.is_err() {
            self.unsend().await;
            self.not_begun();
        }
        ours
    }

    /// Until when that lets it be written, if at all by `most`.
    pub(super) fn write_by(&self, most: Instant) -> Instant {
        self.begin.as_ref().map_or(most, |_| most.min(Instant::now() + BEGUN_WRITTEN_WITHIN))
    }

    /// Takes all of that back, in the opposite order, before a command waits again of which no byte was written: amibus may
    /// end in that wait, and another one may send it meanwhile.
    pub(super) async fn step_back(&self) {
        self.unsend().await;
        self.not_begun();
        if let Some(hold) = self.hold
            && let Err(fault) = hold.release().await
        {
            warn!(id = self.id, %fault, "a claim could not be given back; it stays ours");
        }
    }

    /// Keeps Asterisk's Success of a call whose end is waited for.
    pub(super) async fn accepted(&self, answer: Vec<u8>) {
        let id = self.id.to_owned();
        if let Err(error) = self.engine.blocking(move |journal| journal.accepted(&id, &answer)).await {
            let id = self.id;
            warn!(id, %error, "the journal does not keep that Asterisk took it; a crash would make it unknown");
        }
    }

    /// Nothing of it was written: whoever gets it from the bus may know.
    fn not_begun(&self) {
        if let Some(begin) = &self.begin {
            begin.take_back();
        }
    }

    /// Goes on trying: as long as the journal says that it is being sent, nobody can tell that it was not.
    async fn unsend(&self) {
        loop {
            let id = self.id.to_owned();
            match self.engine.blocking(move |journal| journal.unsend(&id)).await {
                Ok(()) => return,
                Err(error) => {
                    let id = self.id;
                    warn!(id, %error, "a command that was not sent is still marked as being sent; trying again");
                    tokio::time::sleep(RECORD_RETRY).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use amibus_contract::Begin;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::command::testing::{self, Begins};

    #[tokio::test(start_paused = true)]
    async fn what_is_somebody_elses_just_before_the_socket_is_taken_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, _spool) = testing::engine(dir.path());
        let (bus, stop) = (Arc::new(Begins::default()), CancellationToken::new());
        let record: Arc<dyn Begin> = bus.clone();
        let server = engine.servers.get("pbx1").expect("configured");
        let begin = Some(Beginning::of(&record, None, &stop));
        let marks = Marks { engine: &engine, server, id: "a", hold: None, begin };
        let claimed = engine.blocking(|journal| journal.claim("a", &testing::originate(), None)).await;
        claimed.expect("it is ours");
        assert!(marks.sending(Call::default()).await.is_ok() && marks.still_ours().await.is_ok());
        assert!(bus.is_begun() && marked(&engine).await == 1);
        // Longer than that holds, in front of the socket.
        tokio::time::advance(Duration::from_secs(3)).await;
        bus.refuse();
        assert!(marks.still_ours().await.is_err());
        assert!(!bus.is_begun() && marked(&engine).await == 0, "nothing says that it may have been sent");
        let later = Instant::now() + Duration::from_secs(60);
        assert!(marks.write_by(later) <= Instant::now() + BEGUN_WRITTEN_WITHIN);
        assert_eq!(Marks { begin: None, ..marks }.write_by(later), later);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_kept_as_begun_and_not_heard_of_before_amibus_leaves_is_taken_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, _spool) = testing::engine(dir.path());
        let (bus, stop) = (Arc::new(Begins::default()), CancellationToken::new());
        bus.silence();
        stop.cancel();
        let record: Arc<dyn Begin> = bus.clone();
        let server = engine.servers.get("pbx1").expect("configured");
        let begin = Some(Beginning::of(&record, None, &stop));
        let marks = Marks { engine: &engine, server, id: "a", hold: None, begin };
        assert!(matches!(marks.sending(Call::default()).await, Err(NotBegun::Left)));
        assert_eq!((bus.asked(), bus.is_begun()), (1, false), "nothing was sent, and the bus may know");
    }

    /// How many commands are marked as being sent.
    async fn marked(engine: &Engine) -> usize {
        engine.blocking(|journal| journal.interrupted("", 10)).await.expect("it reads").len()
    }
}
