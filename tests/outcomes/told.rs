//! What an engine does with a request, told to the test.

use std::{sync::Arc, time::Duration};

use amibus_contract::{Begin, BoxFuture, Fault, Handle, Message, Reach, Rejection};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(super) enum What {
    Reply(Vec<u8>),
    Acknowledged,
    DeadLettered,
}

pub(super) struct Told {
    pub(super) hear: mpsc::Sender<What>,
    /// When the bus takes the request away.
    pub(super) withdrawn: Option<CancellationToken>,
    pub(super) begin: Option<Arc<dyn Begin>>,
}

impl Told {
    fn tell(&self, what: What) {
        self.hear.try_send(what).expect("room for what becomes of one request");
    }
}

impl Handle for Told {
    fn reply<'a>(&'a mut self, response: &'a Message) -> BoxFuture<'a, Result<Reach, Fault>> {
        self.tell(What::Reply(response.body.to_vec()));
        Box::pin(async { Ok(Reach::Sent) })
    }

    fn keep(&mut self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn keep_every(&self) -> Option<Duration> {
        Some(Duration::from_millis(50))
    }

    fn withdrawn(&self) -> Option<BoxFuture<'static, ()>> {
        let withdrawn = self.withdrawn.clone()?;
        Some(Box::pin(withdrawn.cancelled_owned()))
    }

    fn acknowledge(self: Box<Self>) -> BoxFuture<'static, Result<(), Fault>> {
        self.tell(What::Acknowledged);
        Box::pin(async { Ok(()) })
    }

    fn dead_letter(self: Box<Self>, _cause: Rejection) -> BoxFuture<'static, Result<(), Fault>> {
        self.tell(What::DeadLettered);
        Box::pin(async { Ok(()) })
    }

    fn begin(&self) -> Option<Arc<dyn Begin>> {
        self.begin.clone()
    }
}
