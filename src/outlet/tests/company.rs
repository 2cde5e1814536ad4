//! A lane that catches up beside other buses, against a bus that takes its time: all that is on its way is stored together.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::sleep;

use super::{drain::CATCHING_UP_MESSAGES, *};

/// So many messages a lane may have on its way anyway.
const BATCH: usize = 4 * CATCHING_UP_MESSAGES;
/// That many wait without a limit yet.
const CURRENT: usize = 2 * BATCH;
/// The number of a log's first record.
const FIRST: u64 = 1;

/// What the bus answers in a round: until when what it was offered is on its way, and how many of it are stored then.
type Answer = Box<dyn FnMut(&Seen, &[Message]) -> (Until, usize) + Send>;

enum Until {
    /// So long, or until more is there.
    More(Duration),
    Passed(Duration),
}

/// How many messages were on their way in each round, and how many of them it stored.
type Seen = Vec<(usize, usize)>;

#[derive(Clone)]
struct Slow {
    seen: Arc<Mutex<Seen>>,
    answer: Arc<Mutex<Answer>>,
}

impl Outlet for Slow {
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        self.advance_until(batch, Box::pin(pending()))
    }

    fn advance_until<'a>(
        &'a mut self,
        batch: &'a [Message],
        more: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Published> {
        let (until, stored) = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            (self.answer.lock().unwrap_or_else(PoisonError::into_inner))(&seen, batch)
        };
        Box::pin(async move {
            let safe = match until {
                Until::Passed(time) => {
                    sleep(time).await;
                    stored
                }
                Until::More(time) => tokio::select! {
                    biased;
                    () = more => 0,
                    () = sleep(time) => stored,
                },
            };
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push((batch.len(), safe));
            Published::all(safe, Reach::Stored)
        })
    }

    fn dead_letter<'a>(&'a mut self, _: &'a Message, _: &'a Fault) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(async { Ok(false) })
    }
}

/// Appends so many, and waits until they are on the disk.
fn append_all(spool: &Spool, writer: &Writer, count: usize) {
    append(spool, writer, count);
    while spool.status().unwritten_bytes > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The number of the record whose reading is held up; none where it is no record's.
type HeldUp = Arc<AtomicU64>;

fn not_held() -> HeldUp {
    HeldUp::new(AtomicU64::new(u64::MAX))
}

/// What a bus sees of a lane that has `waiting` on the disk and answers so, until the spool is closed and empty.
async fn seen(
    waiting: usize,
    has_company: bool,
    held_up: HeldUp,
    answer: impl FnOnce(Arc<Spool>, Arc<Writer>) -> Answer,
) -> Seen {
    let dir = tempfile::tempdir().expect("a directory");
    let (writer, decoder) = (writer(), writer());
    // What waits is read from the disk.
    let options = Options { cache_bytes: 0, ..Options::default() };
    let opened = spool::open(dir.path(), options, &[BUS]).expect("opens");
    let decode = move |body| {
        let message = decoder.read(body)?;
        while held_up.load(Ordering::Relaxed) == number(&message) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(message)
    };
    let spool = opened.start(Arc::new(decode)).expect("threads");
    assert_eq!(spool.next(), FIRST);
    append_all(&spool, &writer, waiting);
    let answer = Arc::new(Mutex::new(answer(Arc::clone(&spool), Arc::clone(&writer))));
    let (bus, metrics) = (Slow { seen: Arc::default(), answer }, Metrics::default());
    let seen = Arc::clone(&bus.seen);
    let lane = Lane {
        writer,
        spool,
        number: 0,
        bridge: of_outlets(move |_| bus.clone()),
        batch_messages: BATCH,
        batch_bytes: usize::MAX,
        budget: Budget::new(usize::MAX / 2),
        has_company,
        metrics: metrics.lane("pbx1", BUS),
        bus_metrics: metrics.bus(BUS),
    };
    assert_eq!(lane.run(CancellationToken::new()).await, 0, "nothing is left");
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.clone()
}

/// More comes with each round than the least limit lets go.
#[tokio::test(start_paused = true)]
async fn a_source_that_is_faster_than_the_limited_lane_is_caught_up_with() {
    const ROUNDS: usize = 40;
    let seen = seen(CURRENT + 1, true, not_held(), |spool, writer| {
        Box::new(move |seen, batch| {
            let is_current = spool.backlog(0).waiting <= batch.len() as u64;
            if is_current || seen.len() == ROUNDS {
                spool.close();
            } else {
                append_all(&spool, &writer, CATCHING_UP_MESSAGES * 5 / 4);
            }
            (Until::Passed(Duration::from_millis(500)), batch.len())
        })
    })
    .await;
    assert_eq!(seen[0].0, CATCHING_UP_MESSAGES, "it is limited");
    assert!(seen.len() < ROUNDS, "it does not catch up: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lane_alone_is_not_limited() {
    let seen = seen(CURRENT + 1, false, not_held(), |spool, _| {
        Box::new(move |_, batch| {
            spool.close();
            (Until::Passed(Duration::from_millis(1)), batch.len())
        })
    })
    .await;
    assert_eq!(seen[0].0, BATCH);
}

/// More than the limit is on its way, more is being read, and more comes than is current.
#[tokio::test(start_paused = true)]
async fn a_limit_that_falls_under_a_read_neither_keeps_the_lane_busy_nor_holds_it_up() {
    const ON_WAY: usize = CATCHING_UP_MESSAGES * 3 / 2;
    const BEING_READ: usize = CATCHING_UP_MESSAGES;
    // The first of what is read behind the first batch.
    let held_up = HeldUp::new(AtomicU64::new(FIRST + BATCH as u64));
    let seen = seen(BATCH + BEING_READ, true, Arc::clone(&held_up), |spool, writer| {
        // To close it wakes the lane.
        let mut is_open = true;
        Box::new(move |seen, batch| match seen.len() {
            0 => (Until::Passed(Duration::ZERO), batch.len() - ON_WAY),
            1 => {
                append_all(&spool, &writer, CURRENT);
                held_up.store(u64::MAX, Ordering::Relaxed);
                (Until::More(Duration::from_secs(1)), 0)
            }
            rounds => {
                assert!(rounds < 100, "{seen:?}");
                if is_open && spool.backlog(0).waiting == batch.len() as u64 {
                    is_open = false;
                    spool.close();
                }
                (Until::More(Duration::from_millis(10)), batch.len())
            }
        })
    })
    .await;
    let [first, second, third, ..] = seen[..] else { panic!("{seen:?}") };
    assert_eq!([first, second], [(BATCH, BATCH - ON_WAY), (ON_WAY, 0)]);
    assert_eq!(third.0, ON_WAY + BEING_READ, "what was being read follows");
    assert!(seen[3..].iter().any(|(on_way, _)| *on_way == CATCHING_UP_MESSAGES), "it is limited: {seen:?}");
    // In which nothing came and nothing was stored.
    let idle = seen.windows(2).filter(|pair| pair[0].1 == 0 && pair[0].0 == pair[1].0).count();
    assert!(idle <= 3, "{idle} of {} rounds", seen.len());
}
