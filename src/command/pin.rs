//! How long a server's log is kept for look-ups, beyond what its buses need.
//!
//! | kept | for |
//! |---|---|
//! | from where the oldest call without an outcome began to be sent, or an outcome that is not known to be published | the next start, which looks it up ([`recover`](super::recover)) |
//! | what came in within the last [`KEPT_FOR`], or twice the takeover time of shared claims where that is longer, and so long after a start all | calls that another amibus began, of which this one may have seen events |
//!
//! The log's own limits in bytes and time come first.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::engine::Engine;

/// How often it is seen what is still wanted.
const SEEN_EVERY: Duration = Duration::from_secs(1);
/// How long what every bus has is kept in any case.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// So many times the takeover time a log is kept for calls of others.
const TAKEOVERS: u32 = 2;

/// Where a log ended at which moment, one a second within the time that it is kept for.
#[derive(Debug, Default)]
struct Ends(VecDeque<(Instant, u64)>);

impl Ends {
    /// The log ends before `next` now. Answers where it ended `kept` ago; `None`: that is not known yet, so all of it may have
    /// come since.
    fn pass(&mut self, now: Instant, next: u64, kept: Duration) -> Option<u64> {
        self.0.push_back((now, next));
        let old = |at: &Instant| now.duration_since(*at) >= kept;
        while self.0.get(1).is_some_and(|(at, _)| old(at)) {
            self.0.pop_front();
        }
        self.0.front().filter(|(at, _)| old(at)).map(|(_, number)| *number)
    }
}

impl Engine {
    /// Tells each server's log from where on it is wanted, until `stop`. For after [`Engine::recover`]: until then all is
    /// kept.
    pub async fn keep_logs(self: Arc<Self>, stop: CancellationToken) {
        let takeover = self.shared.as_ref().map_or(Duration::ZERO, |shared| shared.takeover() * TAKEOVERS);
        stop.run_until_cancelled(self.keep_logs_for(takeover.max(KEPT_FOR))).await;
    }

    async fn keep_logs_for(&self, kept: Duration) {
        let mut ends: BTreeMap<&str, Ends> = BTreeMap::new();
        let mut refused = false;
        loop {
            tokio::time::sleep(SEEN_EVERY).await;
            for (name, server) in &self.servers {
                let (own_name, spool) = (name.clone(), Arc::clone(&server.spool));
                // In one go at the desk: whatever begins to be sent later, begins at this number or behind it.
                let seen =
                    self.blocking(move |journal| Ok((spool.next(), journal.wanted_from(&own_name)?))).await;
                match seen {
                    Ok((next, wanted)) => {
                        refused = false;
                        if let Some(recent) = ends.entry(name).or_default().pass(Instant::now(), next, kept) {
                            server.spool.keep_from(wanted.unwrap_or(recent).min(recent));
                        }
                    }
                    Err(error) if !refused => {
                        refused = true;
                        warn!(server = name, %error, "the journal does not tell what is wanted of the log; it is kept");
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{
        error::{Code, CommandError},
        journal::Claim,
        response::Response,
        testing,
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    fn segments(dir: &std::path::Path) -> Vec<u64> {
        let names = std::fs::read_dir(dir)
            .expect("a spool")
            .filter_map(|file| file.ok()?.file_name().into_string().ok());
        let mut firsts: Vec<u64> = names.filter_map(|name| name.strip_suffix(".seg")?.parse().ok()).collect();
        firsts.sort_unstable();
        firsts
    }

    #[tokio::test]
    async fn the_log_of_an_open_call_stays_and_goes_with_its_outcome() {
        let dir = tempfile::tempdir().expect("a directory");
        let (engine, spool) = testing::engine(dir.path());
        let log = dir.path().join("spool");
        let append = |count: u64| {
            for n in 0..count {
                let response = Response::of_error(
                    Some(n.to_string()),
                    "pbx1",
                    "Ping",
                    CommandError::new(Code::Interrupted, "late"),
                );
                engine.append(engine.servers.get("pbx1"), &response);
            }
        };
        append(100);
        let call = testing::command();
        let begun = engine.blocking({
            let spool = Arc::clone(&spool);
            move |journal| {
                assert_eq!(journal.claim("call-1", &call, None)?, Claim::Ours);
                journal.sending_call("call-1", Some("channel"), &[], Some(spool.next()))
            }
        });
        begun.await.expect("recorded");
        append(100);
        let (mut reader, mut taken) = (spool.reader(0), 0);
        while taken < 200 {
            let batch = tokio::time::timeout(PATIENCE, reader.batch(200, 1 << 20)).await.expect("in time");
            taken += batch.expect("open").messages.len();
        }
        reader.commit(200);
        let until = async |gone: &dyn Fn(&[u64]) -> bool| {
            let deadline = Instant::now() + PATIENCE;
            while !gone(&segments(&log)) {
                assert!(Instant::now() < deadline, "{:?}", segments(&log));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let keeping = engine.keep_logs_for(Duration::ZERO);
        let looked = async {
            until(&|firsts| firsts.first().is_some_and(|first| *first > 50)).await;
            // Each of these would remove more.
            tokio::time::sleep(3 * SEEN_EVERY).await;
            assert!(segments(&log).first().is_some_and(|first| *first <= 101), "{:?}", segments(&log));
            let ended = engine.blocking(|journal| {
                journal.done("call-1", "executed", b"{}")?;
                journal.published("call-1", b"{}")
            });
            ended.await.expect("recorded");
            until(&|firsts| firsts.first().is_some_and(|first| *first > 150)).await;
        };
        tokio::select! {
            () = keeping => panic!("it ended"),
            () = looked => {}
        }
    }

    #[test]
    fn what_came_in_lately_is_kept() {
        let (mut ends, begun) = (Ends::default(), Instant::now());
        let kept = Duration::from_secs(10);
        for second in 0..100_u64 {
            // What a process before this one wrote may be as young.
            let from = ends.pass(begun + Duration::from_secs(second), 1000 + second * 5, kept);
            assert_eq!(from, second.checked_sub(10).map(|then| 1000 + then * 5), "at {second} s");
            assert!(ends.0.len() <= 11, "{}", ends.0.len());
        }
    }
}
