//! Commands that were marked as being sent, and of which no byte was written: they wait as they did before.

use std::{sync::Arc, time::Duration};

use amibus::command::{Code, shared::Shared};
use amibus_contract::Request;
use amibus_services::Nats;
use amibus_sim::{Sim, SimOptions};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    begun::{Answer, Kept},
    bench::{Asked, Bench, STALL, request, request_of},
    ended, shared,
};

/// One action at a time.
async fn narrow(shared: Option<Shared>) -> Bench {
    let options = SimOptions { ring: Duration::from_millis(10), ..SimOptions::default() };
    let sim = Arc::new(Sim::start(options).await.expect("a simulated Asterisk"));
    Bench::at(sim, |limits| limits.pending_actions = 1, shared).await
}

fn late_body(deadline: &str) -> String {
    format!(
        r#"{{"server":"pbx1","action":"Originate","id":"late","deadline":"{deadline}",
            "fields":{{"Channel":"Local/1@s","Application":"Wait"}}}}"#
    )
}

fn late(deadline: &str) -> Request {
    let mut late = request(&late_body(deadline));
    late.durable = true;
    late
}

impl Bench {
    /// Asterisk stands still, and `late` lies behind another action on its way to the socket when the connection
    /// breaks. Then Asterisk is away, and `then` happens while `late` waits.
    async fn broken_off(
        &self,
        late: Request,
        stop: &CancellationToken,
        then: impl Future<Output = ()>,
    ) -> Asked {
        let then = async {
            self.until_state("late", "claimed").await;
            then.await;
        };
        self.broken(late, stop, &Notify::new(), then).await
    }

    /// The same, `then` happening at once. Tells when `late` is being sent, before the connection breaks.
    async fn broken(
        &self,
        late: Request,
        stop: &CancellationToken,
        is_sending: &Notify,
        then: impl Future<Output = ()>,
    ) -> Asked {
        self.sim.stall(STALL);
        let first = self.ask(request(r#"{"server":"pbx1","action":"NoSuchAction","id":"first"}"#));
        let late = async {
            self.until_state("first", "sending").await;
            self.ask_until(late, stop).await
        };
        let cut = async {
            self.until_state("late", "sending").await;
            is_sending.notify_one();
            self.sim.refuse().await.expect("refuses");
            self.sim.drop_sessions();
            self.until_ready(false).await;
            then.await;
        };
        let (first, late, ()) = tokio::join!(first, late, cut);
        assert_eq!(first.response["data"]["outcome"], "unknown", "{}", first.response);
        late
    }
}

#[tokio::test]
async fn what_was_not_written_is_left_to_its_bus_at_the_end() {
    let bench = narrow(None).await;
    let stop = CancellationToken::new();
    let left = bench.broken_off(late("2099-01-01T00:00:00Z"), &stop, async { stop.cancel() }).await;
    assert!(left.response.is_null() && !left.acknowledged, "{}", left.response);
    assert_eq!(
        bench.shown("late").expect("recorded").state,
        "claimed",
        "so a kill would not make it unknown"
    );
    bench.sim.accept().await.expect("accepts");
    bench.until_ready(true).await;
    let again = bench.ask(late("2099-01-01T00:00:00Z")).await.response;
    assert_eq!(again["data"]["outcome"], "executed", "delivered again, it runs: {again}");
    assert_eq!(bench.sim.originates().len(), 1);
}

#[tokio::test]
async fn what_was_not_written_is_sent_once_the_server_is_back() {
    let bench = narrow(None).await;
    let stop = CancellationToken::new();
    let back = async { bench.sim.accept().await.expect("accepts") };
    let sent = bench.broken_off(late("2099-01-01T00:00:00Z"), &stop, back).await;
    assert_eq!(sent.response["data"]["outcome"], "executed", "{}", sent.response);
    let entry = bench.shown("late").expect("recorded");
    assert!(entry.sent_at.is_some(), "marked anew before it was sent: {entry:?}");
    assert_eq!(bench.sim.originates().len(), 1);
}

#[tokio::test]
async fn what_was_not_written_is_begun_anew_before_it_is_sent() {
    let bench = narrow(None).await;
    let (stop, kept) = (CancellationToken::new(), Kept::new(&bench, false, Answer::Kept));
    let back = async {
        let taken_back = async {
            while kept.taken_back() < kept.asked() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let while_it_waits = tokio::time::timeout(Duration::from_secs(10), taken_back).await;
        while_it_waits.expect("it counts as not begun");
        bench.sim.accept().await.expect("accepts");
    };
    let late = request_of(&late_body("2099-01-01T00:00:00Z"), kept.clone());
    let sent = bench.broken_off(late, &stop, back).await;
    assert_eq!(sent.response["data"]["outcome"], "executed", "{}", sent.response);
    assert!(kept.taken_back() > 0);
    assert_eq!(kept.asked(), kept.taken_back() + 1, "once more before it was sent");
    assert_eq!(bench.sim.originates().len(), 1);
}

/// The same id over two buses at once.
#[tokio::test]
async fn a_requester_whose_command_was_not_written_is_told_and_the_copy_on_a_durable_bus_runs() {
    let bench = narrow(None).await;
    let (stop, is_sending) = (CancellationToken::new(), Notify::new());
    let copy = async {
        is_sending.notified().await;
        bench.ask(late("2099-01-01T00:00:00Z")).await
    };
    let asked = bench.broken(request(&late_body("2099-01-01T00:00:00Z")), &stop, &is_sending, async {
        // The copy has claimed it anew.
        bench.until_state("late", "claimed").await;
        bench.sim.accept().await.expect("accepts");
    });
    let (asked, copy) = tokio::join!(asked, copy);
    ended(&asked.response, "rejected", Code::Unavailable);
    assert_eq!(copy.response["data"]["outcome"], "executed", "{}", copy.response);
    assert!(copy.acknowledged);
    assert_eq!(bench.sim.originates().len(), 1);
}

#[tokio::test]
async fn what_was_not_written_expires() {
    let bench = narrow(None).await;
    let (stop, at) = (CancellationToken::new(), jiff::Timestamp::now() + STALL * 2);
    let expired = bench.broken_off(late(&at.to_string()), &stop, async {}).await;
    ended(&expired.response, "expired", Code::DeadlinePassed);
    assert!(bench.sim.originates().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_written_is_free_for_another_amibus_while_it_waits() {
    let nats = tokio::task::spawn_blocking(Nats::jetstream).await.expect("a server");
    let claims = shared::claims(&nats);
    let own = Shared::new(Arc::clone(&claims), shared::PREFIX, "one", shared::NEVER);
    let bench = narrow(Some(own)).await;
    let stop = CancellationToken::new();
    let key = shared::key("late");
    let free = async {
        let gone = async {
            while claims.read(&key).await.expect("reads").is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.expect("given back");
        bench.sim.accept().await.expect("accepts");
    };
    let sent = bench.broken_off(late("2099-01-01T00:00:00Z"), &stop, free).await;
    assert_eq!(sent.response["data"]["outcome"], "executed", "{}", sent.response);
    assert!(claims.read(&key).await.expect("reads").is_some(), "claimed again before it was sent");
    assert_eq!(bench.sim.originates().len(), 1);
}
