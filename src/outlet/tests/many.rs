//! Many lanes of one bus that is held up: what they have in memory together is bounded, and none is without.

use std::collections::BTreeMap;

use super::*;

const LANES: usize = 12;
const TOTAL_BYTES: usize = 48 << 10;
/// No message of these tests has more, in bytes.
const MESSAGE_BYTES: usize = 1024;
const MESSAGES: usize = 300;

/// What each lane has on offer, by server; all is stored once nothing is held any more.
#[derive(Clone)]
struct Held {
    offered: Arc<Mutex<BTreeMap<String, usize>>>,
    is_held: watch::Receiver<bool>,
    lane: String,
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offered(&self, batch: &[Message]) {
        let bytes = batch.iter().map(|message| message.body.len()).sum();
        self.lock().insert(self.lane.clone(), bytes);
    }
}

impl Outlet for Held {
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(self.advance_until(batch, Box::pin(pending())))
    }

    fn advance_until<'a>(
        &'a mut self,
        batch: &'a [Message],
        more: BoxFuture<'a, ()>,
    ) -> BoxFuture<'a, Published> {
        Box::pin(async move {
            self.offered(batch);
            let mut is_held = self.is_held.clone();
            tokio::select! {
                biased;
                _ = is_held.wait_for(|is_held| !is_held) => {
                    self.offered(&[]);
                    Published::all(batch.len(), Reach::Stored)
                }
                () = more => Published::all(0, Reach::Stored),
            }
        })
    }

    fn dead_letter<'a>(&'a mut self, _: &'a Message, _: &'a Fault) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(async { Ok(false) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_lanes_that_are_held_up_have_a_bounded_part_in_memory_and_none_is_without() {
    let dir = tempfile::tempdir().expect("a directory");
    let (hold, is_held) = watch::channel(true);
    let bus = Held { offered: Arc::default(), is_held, lane: String::new() };
    let outlet = bus.clone();
    let bridge = of_outlets(move |lane| Held { lane: lane.to_owned(), ..outlet.clone() });
    let (budget, metrics) = (Budget::new(TOTAL_BYTES), Metrics::default());
    let (mut lanes, mut spools) = (Vec::new(), Vec::new());
    for number in 0..LANES {
        let name = format!("pbx{number}");
        let spool = small_spool(&dir.path().join(&name));
        let profile = Profile::new(&name, None).expect("a profile");
        let writer = Arc::new(Writer::new(profile, "ami", "log").expect("a prefix"));
        append(&spool, &writer, MESSAGES);
        let lane = Lane {
            writer,
            spool: Arc::clone(&spool),
            number: 0,
            bridge: Arc::clone(&bridge),
            batch_messages: MESSAGES,
            batch_bytes: 2 * TOTAL_BYTES,
            budget: Arc::clone(&budget),
            has_company: true,
            metrics: metrics.lane(&name, BUS),
            bus_metrics: metrics.bus(BUS),
        };
        lanes.push(tokio::spawn(lane.run(CancellationToken::new())));
        spools.push(spool);
    }
    let least = LANE_BYTES - MESSAGE_BYTES;
    until("each has its own", || {
        let offered = bus.lock();
        offered.len() == LANES && offered.values().all(|bytes| *bytes >= least)
    })
    .await;
    let all: usize = bus.lock().values().sum();
    // A lane's last message may end beyond what the lane has.
    assert!(all <= TOTAL_BYTES + LANES * (LANE_BYTES + MESSAGE_BYTES), "{all}");
    hold.send_replace(false);
    until("all is published", || spools.iter().all(|spool| spool.account().lanes[0].waiting == 0)).await;
    spools.iter().for_each(|spool| spool.close());
    for lane in lanes {
        assert_eq!(lane.await.expect("it ends"), 0);
    }
    assert_eq!(Share::of(&budget).ask(LANE_BYTES, 2 * TOTAL_BYTES), TOTAL_BYTES, "all of it is given back");
}
