//! Proof that the server has read everything so far: a message to ourselves, behind all others, that came back.
//!
//! The server handles what one connection sends in order. Anyone may listen to everything (`>`), so an unanswered
//! request would prove nothing, and async-nats offers no PING of its own.

use std::time::Duration;

use amibus_contract::{Fault, FaultKind};
use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::{dial::Dialled, faults};

/// How long the server's refusal of something may take to reach us after the barrier: async-nats reports it aside of
/// the messages.
pub(crate) const REFUSAL_WITHIN: Duration = Duration::from_millis(20);

/// A subject of our own on one connection.
#[derive(Debug)]
pub(crate) struct Barrier {
    subject: String,
    echoes: Subscriber,
    passed: u64,
}

impl Barrier {
    pub(crate) async fn new(dialled: &Dialled) -> Result<Self, Fault> {
        let subject = dialled.client.new_inbox();
        let echoes = dialled.client.subscribe(subject.clone()).await;
        let echoes = echoes.map_err(|error| Fault::new(FaultKind::Unreachable, error.to_string()))?;
        Ok(Self { subject, echoes, passed: 0 })
    }

    /// As [`Self::pass`]; what the server refused of all that is known afterwards too.
    pub(crate) async fn settle(&mut self, dialled: &Dialled) -> Result<(), Fault> {
        self.pass(dialled).await?;
        tokio::time::sleep(REFUSAL_WITHIN).await;
        Ok(())
    }

    /// Ready when the server has read all that was sent on this connection before. The caller bounds the wait.
    pub(crate) async fn pass(&mut self, dialled: &Dialled) -> Result<(), Fault> {
        self.passed += 1;
        let mark = Bytes::from(self.passed.to_string());
        let before = dialled.refused_so_far();
        let sent = dialled.client.publish(self.subject.clone(), mark.clone()).await;
        sent.map_err(|error| Fault::new(FaultKind::Unreachable, error.to_string()))?;
        let refused = dialled.refused(before, |said| said.contains(&self.subject));
        tokio::pin!(refused);
        loop {
            tokio::select! {
                biased;
                echo = self.echoes.next() => match echo {
                    Some(echo) if echo.payload == mark => return Ok(()),
                    Some(_) => {}
                    None => return Err(faults::lost()),
                },
                // Being refused the message proves as much; being refused the subscription leaves us deaf.
                said = &mut refused => {
                    return if said.contains("Publish") { Ok(()) } else { Err(faults::forbidden(&said)) };
                }
            }
        }
    }
}
