//! Commands of a bus that keeps which of them were begun, as two amibus without shared claims see them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use amibus::command::Code;
use amibus_contract::{Begin, BoxFuture, Decision, Fault, FaultKind};
use amibus_sim::{Sim, SimOptions};
use tokio_util::sync::CancellationToken;

use super::{
    bench::{Bench, request_of},
    ended,
    recovery::ORIGINATE,
};

const OTHER: &str = r#"{"server":"pbx1","action":"UserEvent","id":"other","fields":{"UserEvent":"x"}}"#;
const READS: &str = r#"{"server":"pbx1","action":"Ping","id":"reads"}"#;

/// What the bus answers to a begin.
#[derive(Clone)]
pub(super) enum Answer {
    Kept,
    /// And that it takes the command away.
    KeptAndGone(CancellationToken),
    NotOurs,
    Never,
}

/// What the bus keeps of one command.
pub(super) struct Kept {
    before: bool,
    answer: Answer,
    /// How many actions Asterisk had got when it was asked to keep it, and how often it was.
    sim: Arc<Sim>,
    seen: AtomicUsize,
    asked: AtomicUsize,
    taken_back: AtomicUsize,
}

impl Kept {
    pub(super) fn new(bench: &Bench, before: bool, answer: Answer) -> Arc<Self> {
        let [seen, asked, taken_back] = [0; 3].map(AtomicUsize::new);
        Arc::new(Self { before, answer, sim: Arc::clone(&bench.sim), seen, asked, taken_back })
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn taken_back(&self) -> usize {
        self.taken_back.load(Ordering::Relaxed)
    }
}

impl Begin for Kept {
    fn take_back(&self) {
        self.taken_back.fetch_add(1, Ordering::Relaxed);
    }

    fn begun_before(&self) -> bool {
        self.before
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.seen.store(sent(&self.sim, "UserEvent") + self.sim.originates().len(), Ordering::Relaxed);
            match &self.answer {
                Answer::Kept => Ok(()),
                Answer::KeptAndGone(withdrawn) => {
                    withdrawn.cancel();
                    Ok(())
                }
                Answer::NotOurs => Err(Fault::new(FaultKind::Refused, "gone").deciding(Decision::Skip)),
                Answer::Never => std::future::pending().await,
            }
        })
    }
}

fn sent(sim: &Sim, action: &str) -> usize {
    let line = format!("Action: {action}");
    sim.actions().iter().filter(|sent| sent.starts_with(line.as_bytes())).count()
}

#[tokio::test]
async fn a_command_is_begun_before_it_is_sent() {
    let bench = Bench::connected().await;
    for (body, begins) in [(ORIGINATE, true), (OTHER, true), (READS, false)] {
        let kept = Kept::new(&bench, false, Answer::Kept);
        let before = sent(&bench.sim, "UserEvent") + bench.sim.originates().len();
        let asked = bench.ask(request_of(body, kept.clone())).await;
        assert_eq!(asked.response["data"]["outcome"], "executed", "{}", asked.response);
        assert!(asked.acknowledged);
        let times = kept.asked();
        assert_eq!(times > 0, begins, "{body}");
        assert!(!begins || kept.seen.load(Ordering::Relaxed) == before, "nothing was sent yet: {body}");
        bench.ask(request_of(body, kept.clone())).await;
        assert_eq!(kept.asked(), times, "what is done is not begun again: {body}");
    }
}

#[tokio::test]
async fn what_went_to_somebody_else_is_neither_run_nor_answered_nor_kept() {
    let bench = Bench::connected().await;
    let asked = bench.ask(request_of(ORIGINATE, Kept::new(&bench, false, Answer::NotOurs))).await;
    assert!(asked.response.is_null() && !asked.acknowledged, "{}", asked.response);
    assert_eq!((bench.sim.originates().len(), bench.shown("call-1").is_some()), (0, false));
    let asked = bench.ask(request_of(ORIGINATE, Kept::new(&bench, false, Answer::Kept))).await;
    assert_eq!(asked.response["data"]["outcome"], "executed", "it came back, and nobody had begun it");
}

#[tokio::test]
async fn what_is_taken_away_as_it_is_begun_is_not_sent_and_its_begin_taken_back() {
    let bench = Bench::connected().await;
    let withdrawn = CancellationToken::new();
    let kept = Kept::new(&bench, false, Answer::KeptAndGone(withdrawn.clone()));
    let asked = bench.ask_withdrawn(request_of(ORIGINATE, kept.clone()), &withdrawn).await;
    assert!(asked.response.is_null() && !asked.acknowledged, "{}", asked.response);
    assert_eq!((bench.sim.originates().len(), kept.asked(), kept.taken_back()), (0, 1, 1));
    assert_eq!(bench.shown("call-1"), None, "whoever gets it next runs it");
}

#[tokio::test]
async fn a_bus_that_does_not_answer_in_time_lets_it_expire() {
    let bench = Bench::connected().await;
    let asked = bench.ask(request_of(ORIGINATE, Kept::new(&bench, false, Answer::Never))).await;
    ended(&asked.response, "expired", Code::DeadlinePassed);
    assert!(asked.acknowledged && bench.sim.originates().is_empty());
}

#[tokio::test]
async fn what_somebody_had_begun_is_never_sent_again() {
    let bench = Bench::connected().await;
    for (id, body) in [("call-1", ORIGINATE), ("other", OTHER)] {
        // Claimed, by a process that may have been ended behind the begin or before it: which, nobody knows.
        bench.claim(id, body);
        for _ in 0..2 {
            let kept = Kept::new(&bench, true, Answer::Kept);
            let asked = bench.ask(request_of(body, kept.clone())).await;
            ended(&asked.response, "unknown", Code::Interrupted);
            assert_eq!((asked.acknowledged, kept.asked()), (true, 0));
        }
    }
    assert_eq!((bench.sim.originates().len(), sent(&bench.sim, "UserEvent")), (0, 0));
    let asked = bench.ask(request_of(READS, Kept::new(&bench, true, Answer::Kept))).await;
    assert_eq!(asked.response["data"]["outcome"], "executed", "what only reads runs again");
}

#[tokio::test]
async fn a_call_that_another_amibus_began_is_found() {
    let talk = Duration::from_secs(60);
    let options = SimOptions { ring: Duration::from_millis(10), talk, ..SimOptions::default() };
    let sim = Arc::new(Sim::start(options).await.expect("a simulated Asterisk"));
    let one = Bench::at(Arc::clone(&sim), |_| {}, None).await;
    let other = Bench::at(sim, |_| {}, None).await;
    one.ask(request_of(ORIGINATE, Kept::new(&one, false, Answer::Kept))).await;
    let asked = other.ask(request_of(ORIGINATE, Kept::new(&other, true, Answer::Kept))).await;
    assert_eq!(asked.response["data"]["outcome"], "executed", "{}", asked.response);
    assert!(asked.acknowledged);
    assert_eq!(other.sim.originates().len(), 1, "not dialled twice");
}
