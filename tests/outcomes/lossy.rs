//! Claims in a real bucket, of which chosen questions are held up, and chosen answers lost or late.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use amibus_contract::{
    BoxFuture, Bytes, Claims, Fault, FaultKind,
    claims::{Created, Entry, Updated},
};
use tokio::sync::{Notify, oneshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Create,
    Update,
    Delete,
}

/// What becomes of the next call of a kind.
pub(super) enum Fate {
    /// It is carried out, and its answer lost.
    AnswerLost,
    /// It is not carried out now, its asker hears nothing, and [`Lossy::deliver`] carries it out.
    Late,
    /// It is carried out, or answered, only once the test says so.
    Held(Gate),
    /// The same, held up behind the store: it is carried out at once.
    AnswerHeld(Gate),
}

/// Where a call waits.
pub(super) struct Gate {
    came: oneshot::Sender<()>,
    go: Arc<Notify>,
}

/// The test's end of a gate.
pub(super) struct Gatekeeper {
    came: oneshot::Receiver<()>,
    go: Arc<Notify>,
}

impl Gate {
    pub(super) fn new() -> (Self, Gatekeeper) {
        let ((came, comes), go) = (oneshot::channel(), Arc::new(Notify::new()));
        (Self { came, go: Arc::clone(&go) }, Gatekeeper { came: comes, go })
    }

    async fn pass(self) {
        let _ = self.came.send(());
        self.go.notified().await;
    }
}

impl Gatekeeper {
    /// Until a call waits at the gate.
    pub(super) async fn came(&mut self) {
        (&mut self.came).await.expect("the gate is still there");
    }

    pub(super) fn open(&self) {
        self.go.notify_one();
    }
}

/// A call that was sent and is on its way still, as the server will see it.
enum OnTheWay {
    /// A value, and the revision that it expects under its key.
    Write(String, Bytes, u64),
    Delete(String, u64),
}

pub(super) struct Lossy {
    inner: Arc<dyn Claims>,
    fates: Mutex<VecDeque<(Call, Fate)>>,
    late: Mutex<Vec<OnTheWay>>,
    /// Which calls are lost altogether, until further notice.
    lost: Mutex<Vec<Call>>,
}

impl Lossy {
    pub(super) fn over(inner: Arc<dyn Claims>) -> Arc<Self> {
        let (fates, late, lost) = (Mutex::default(), Mutex::default(), Mutex::default());
        Arc::new(Self { inner, fates, late, lost })
    }

    /// What becomes of the next call of this kind that has no fate yet.
    pub(super) fn next(&self, call: Call, fate: Fate) {
        self.fates.lock().expect("whole").push_back((call, fate));
    }

    /// Loses every call of these kinds from now on.
    pub(super) fn lose(&self, calls: &[Call]) {
        *self.lost.lock().expect("whole") = calls.to_vec();
    }

    /// Carries out what was late. Answers of each whether it changed anything.
    pub(super) async fn deliver(&self) -> Vec<bool> {
        let late = std::mem::take(&mut *self.late.lock().expect("whole"));
        let mut changed = Vec::new();
        for call in late {
            changed.push(match call {
                // As the server sees it: with the revision that was expected then.
                OnTheWay::Write(key, value, revision) => {
                    let written = self.inner.update(&key, value, revision).await.expect("answered");
                    matches!(written, Updated::Made(_))
                }
                OnTheWay::Delete(key, revision) => self.inner.delete(&key, revision).await.expect("answered"),
            });
        }
        changed
    }

    fn fate(&self, call: Call) -> Result<Option<Fate>, Fault> {
        let mut fates = self.fates.lock().expect("whole");
        let found = fates.iter().position(|(of, _)| *of == call);
        let fate = found.and_then(|at| fates.remove(at)).map(|(_, fate)| fate);
        if fate.is_none() && self.lost.lock().expect("whole").contains(&call) {
            return Err(unanswered());
        }
        Ok(fate)
    }

    async fn fated<T>(
        &self,
        call: Call,
        on_the_way: impl FnOnce() -> OnTheWay,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        match self.fate(call)? {
            None => work.await,
            Some(Fate::AnswerLost) => {
                work.await?;
                Err(unanswered())
            }
            Some(Fate::Late) => {
                self.late.lock().expect("whole").push(on_the_way());
                Err(unanswered())
            }
            Some(Fate::Held(gate)) => {
                gate.pass().await;
                work.await
            }
            Some(Fate::AnswerHeld(gate)) => {
                let done = work.await;
                gate.pass().await;
                done
            }
        }
    }
}

impl Claims for Lossy {
    fn create<'a>(&'a self, key: &'a str, value: Bytes) -> BoxFuture<'a, Result<Created, Fault>> {
        let late = value.clone();
        // Where nothing was ever written, revision 0 is expected.
        let on_the_way = move || OnTheWay::Write(key.to_owned(), late, 0);
        Box::pin(self.fated(Call::Create, on_the_way, self.inner.create(key, value)))
    }

    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, Fault>> {
        self.inner.read(key)
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        revision: u64,
    ) -> BoxFuture<'a, Result<Updated, Fault>> {
        let late = value.clone();
        let on_the_way = move || OnTheWay::Write(key.to_owned(), late, revision);
        Box::pin(self.fated(Call::Update, on_the_way, self.inner.update(key, value, revision)))
    }

    fn delete<'a>(&'a self, key: &'a str, revision: u64) -> BoxFuture<'a, Result<bool, Fault>> {
        let on_the_way = move || OnTheWay::Delete(key.to_owned(), revision);
        Box::pin(self.fated(Call::Delete, on_the_way, self.inner.delete(key, revision)))
    }
}

fn unanswered() -> Fault {
    Fault::new(FaultKind::TimedOut, "no answer came in time")
}
