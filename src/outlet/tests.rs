//! A lane against a bus that answers in every way that the contract lets it, while its spool overflows.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use amibus_contract::{BoxFuture, Kind, Published, Reach};
use tokio::{sync::watch, time::Instant};

use super::*;
use crate::{
    buses::testing::{BUS, of_outlets},
    metrics::Metrics,
    normalize::{Notice, Profile},
    spool::{self, Options},
};

mod company;
mod many;

const BATCH_MESSAGES: usize = 32;
const BATCH_BYTES: usize = 16 << 10;
/// One of so many records is refused for good.
const POISON_EVERY: u64 = 53;
/// At least.
const ROUNDS: u64 = 8;
/// So often at least a loss comes behind what is on its way.
const LOSSES_BEHIND: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(30);

/// What is safe on the bus, each with the numbers that it stands for, in the order in which it became so.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Record(u64),
    Letter(u64),
    Gap(u64, u64),
}

#[derive(Default)]
struct Script {
    random: u64,
    is_away: bool,
    /// What is on its way is stored one by one, without an accident, until a loss comes behind it or nothing is left.
    is_calm: bool,
    told: Vec<Told>,
    on_way: Vec<String>,
    /// So many were offered when the last fault came, and are not done with: nothing else is to be offered.
    owed: usize,
    faults: u64,
    parts: u64,
    gaps_behind_others: u64,
    /// So often nothing was safe yet when more was asked for.
    followed: u64,
}

#[derive(Clone)]
struct Scripted {
    script: Arc<Mutex<Script>>,
    /// Whether messages that are on their way get no further, where there are several: the first of them are stored then, and
    /// others stay on their way.
    is_held: watch::Receiver<bool>,
}

fn number(message: &Message) -> u64 {
    message.attributes().sequence().and_then(|digits| digits.parse().ok()).expect("a number")
}

fn told(message: &Message) -> Told {
    if message.attributes().kind() != GAP_TYPE {
        return Told::Record(number(message));
    }
    let body: serde_json::Value = serde_json::from_slice(&message.body).expect("JSON");
    let field = |name: &str| body["data"][name].as_u64().expect("a number");
    Told::Gap(field("first"), field("last"))
}

fn is_refused(message: &Message) -> bool {
    matches!(told(message), Told::Record(number) if number % POISON_EVERY == 7)
}

impl Script {
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % limit as u64).expect("small")
    }

    /// Whether all of it is on its way now, and more may follow.
    fn follows(&mut self, batch: &[Message]) -> bool {
        let is_asked = self.below(2) == 0;
        if is_asked {
            let ids: Vec<String> = batch.iter().map(|message| message.attributes().id().to_owned()).collect();
            assert!(ids.starts_with(&self.on_way), "it does not begin with what is on its way");
            self.on_way = ids;
            self.followed += 1;
        }
        is_asked
    }

    fn answer(&mut self, batch: &[Message], whole: bool) -> Published {
        let ids: Vec<String> = batch.iter().map(|message| message.attributes().id().to_owned()).collect();
        assert!(ids.starts_with(&self.on_way), "it does not begin with what is on its way");
        assert!(!whole || self.on_way.is_empty(), "nothing is, after a fault");
        assert!(!batch.is_empty() && batch.len() <= BATCH_MESSAGES + 1, "{} messages", batch.len());
        let bytes: usize = batch.iter().map(|message| message.body.len()).sum();
        assert!(bytes < BATCH_BYTES + 2 * batch.iter().map(|message| message.body.len()).max().unwrap_or(0));
        assert!(self.owed == 0 || (whole && self.owed == batch.len()), "more was taken after a fault");
        let is_gap = |message: &&Message| matches!(told(message), Told::Gap(..));
        let gaps = batch.iter().skip(self.on_way.len().max(1)).filter(is_gap).count() as u64;
        self.gaps_behind_others += gaps;
        self.is_calm &= gaps == 0 && !whole;
        let is_calm = self.is_calm;
        let aim = match (whole, is_calm) {
            (true, _) => batch.len(),
            (false, true) => 1,
            (false, false) => 1 + self.below(batch.len()),
        };
        let refused = batch.iter().position(is_refused).filter(|at| *at < aim);
        let (safe, fault) = match refused {
            _ if self.is_away => (0, Some(FaultKind::Unreachable)),
            _ if !is_calm && self.below(12) == 0 => {
                (self.below(refused.unwrap_or(aim).max(1)), Some(FaultKind::TimedOut))
            }
            Some(at) => (at, Some(FaultKind::TooLarge)),
            None => (aim, None),
        };
        self.told.extend(batch.iter().take(safe).map(told));
        self.faults += u64::from(fault.is_some());
        self.parts += u64::from(fault.is_none() && safe < batch.len());
        self.owed = if self.owed > 0 || fault.is_some() { batch.len() - safe } else { 0 };
        self.on_way = if fault.is_some() { Vec::new() } else { ids.into_iter().skip(safe).collect() };
        self.is_calm &= !self.on_way.is_empty();
        Published { safe, reach: Reach::Stored, fault: fault.map(|kind| Fault::new(kind, "scripted")) }
    }
}

impl Scripted {
    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outlet for Scripted {
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(async move { self.lock().answer(batch, true) })
    }

    fn advance<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            let was_held = batch.len() > 1 && *self.is_held.borrow();
            if was_held {
                let _ = self.is_held.wait_for(|is_held| !is_held).await;
            }
            let mut script = self.lock();
            script.is_calm |= was_held;
            script.answer(batch, false)
        })
    }

    fn advance_until<'a>(
        &'a mut self,
        batch: &'a [Message],
        more: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Published> {
        Box::pin(async move {
            if more.now_or_never().is_some() && self.lock().follows(batch) {
                return Published::all(0, Reach::Stored);
            }
            self.advance(batch).await
        })
    }

    fn dead_letter<'a>(
        &'a mut self,
        message: &'a Message,
        _: &'a Fault,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        let mut script = self.lock();
        let number = number(message);
        let answer = match script.below(4) {
            0 => Err(Fault::new(FaultKind::TimedOut, "scripted")),
            _ => Ok(number.is_multiple_of(2)),
        };
        if answer == Ok(true) {
            script.told.push(Told::Letter(number));
            script.owed -= 1;
        }
        Box::pin(async move { answer })
    }
}

fn writer() -> Arc<Writer> {
    Arc::new(Writer::new(Profile::new("pbx1", None).expect("a profile"), "ami", "log").expect("a prefix"))
}

/// A spool that holds some hundred messages, and keeps few of them in memory.
fn small_spool(dir: &Path) -> Arc<Spool> {
    let options = Options {
        segment_bytes: 4096,
        max_bytes: 128 << 10,
        cache_bytes: 32 << 10,
        flush_interval: Duration::from_millis(50),
        ..Options::default()
    };
    let decoder = writer();
    let opened = spool::open(dir, options, &[BUS]).expect("opens");
    opened.start(Arc::new(move |body| decoder.read(body))).expect("threads")
}

fn append(spool: &Spool, writer: &Writer, count: usize) {
    for n in 0..count {
        let data = format!(r#"{{"pad":"{}"}}"#, "x".repeat(n % 400));
        let notice = Notice {
            kind: Kind::Link,
            name: "test",
            subject: None,
            key: None,
            correlation: None,
            data: data.as_bytes(),
        };
        spool.append(|sequence| writer.notice(&notice, sequence, SystemTime::now()));
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Each number is told of once and in its place: as a record, as a dead letter, or in a gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_told_of_once_and_in_its_place_whatever_the_bus_answers() {
    let dir = tempfile::tempdir().expect("a directory");
    let (spool, writer) = (small_spool(dir.path()), writer());
    let begun = spool.next();
    let (hold, is_held) = watch::channel(false);
    let script = Arc::new(Mutex::new(Script { random: 0x2545_f491_4f6c_dd1d, ..Script::default() }));
    let bus = Scripted { script, is_held };
    let (outlet, metrics) = (bus.clone(), Metrics::default());
    let lane = Lane {
        writer: Arc::clone(&writer),
        spool: Arc::clone(&spool),
        number: 0,
        bridge: of_outlets(move |_| outlet.clone()),
        batch_messages: BATCH_MESSAGES,
        batch_bytes: BATCH_BYTES,
        budget: Budget::new(BATCH_BYTES / 2),
        has_company: true,
        metrics: metrics.lane("pbx1", BUS),
        bus_metrics: metrics.bus(BUS),
    };
    let lane = tokio::spawn(lane.run(CancellationToken::new()));
    // The script's luck decides what a round meets: there are as many as it takes.
    let covers_all = || {
        let script = bus.lock();
        script.gaps_behind_others >= LOSSES_BEHIND
            && script.followed > 0
            && script.parts > ROUNDS
            && script.faults > ROUNDS
            && script.told.iter().any(|told| matches!(told, Told::Letter(_)))
    };
    let begun_at = Instant::now();
    for round in 0.. {
        if round >= ROUNDS && covers_all() {
            break;
        }
        assert!(begun_at.elapsed() < 4 * PATIENCE, "the interesting cases do not come up");
        let burst = 40 + bus.lock().below(160);
        append(&spool, &writer, burst);
        let dropped = || spool.account().lanes[0].dropped;
        let (dropped_before, faults_before) = (dropped(), bus.lock().faults);
        match round % 4 {
            // A loss behind messages that are on their way.
            0 | 1 => {
                until("it is current", || spool.account().lanes[0].waiting == 0).await;
                hold.send_replace(true);
                append(&spool, &writer, 60);
                until("it overflows", || {
                    append(&spool, &writer, 50);
                    // More than are refused meanwhile.
                    dropped() > dropped_before + 2 * BATCH_MESSAGES as u64
                })
                .await;
                hold.send_replace(false);
            }
            2 => {
                bus.lock().is_away = true;
                until("it is missed", || bus.lock().faults > faults_before).await;
                append(&spool, &writer, 400);
                bus.lock().is_away = false;
            }
            _ => {}
        }
    }
    spool.close();
    assert_eq!(lane.await.expect("it ends"), 0, "nothing is left");
    let script = bus.lock();
    let (mut next, mut counts) = (begun, [0; 3]);
    for told in &script.told {
        let (first, last, kind) = match *told {
            Told::Record(number) => (number, number, 0),
            Told::Letter(number) => (number, number, 1),
            Told::Gap(first, last) => (first, last, 2),
        };
        assert_eq!(first, next, "{told:?}");
        next = last + 1;
        counts[kind] += last + 1 - first;
    }
    assert_eq!(next, spool.next(), "as far as the last");
    let account = spool.account().lanes[0];
    assert_eq!([account.published, account.dead_lettered, account.dropped], counts);
    assert_eq!(account.waiting, 0);
}
