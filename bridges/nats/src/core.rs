//! Publishing by core NATS: the server has read it, and hands it to whoever listens now.

use std::{collections::HashSet, sync::Arc};

use amibus_contract::{BoxFuture, Fault, FaultKind, Message, Outlet, Published, Reach};
use async_nats::{HeaderMap, PublishErrorKind, Subject, client::PublishError};
use bytes::Bytes;

use crate::{
    barrier::Barrier,
    dead, faults, headers,
    hub::{Hub, Line},
    subjects,
};

/// How many subjects are remembered as permitted.
const MAX_KNOWN_SUBJECTS: usize = 4096;

/// An outlet without JetStream.
#[derive(Debug)]
pub(crate) struct CoreOutlet {
    hub: Arc<Hub>,
    on: Option<(Arc<Line>, Barrier)>,
    /// Subjects that this connection has used before.
    known: HashSet<String>,
    /// How many of its refusals were looked at.
    looked_at: u64,
}

impl CoreOutlet {
    pub(crate) fn new(hub: Arc<Hub>) -> Self {
        Self { hub, on: None, known: HashSet::new(), looked_at: 0 }
    }

    async fn ready(&mut self) -> Result<(), Fault> {
        self.hub.open()?;
        if self.on.as_ref().is_some_and(|(line, _)| line.alive()) {
            return Ok(());
        }
        self.on = None;
        self.known.clear();
        let line = self.hub.line().await?;
        let barrier =
            line.dialled.within(self.hub.settings.ack_timeout, Barrier::new(&line.dialled)).await??;
        self.looked_at = line.dialled.refused_so_far();
        self.on = Some((line, barrier));
        Ok(())
    }

    /// Sends messages and waits until the server has read them: how many are safe, and what stopped it.
    async fn send(&mut self, parcels: &[Parcel<'_>]) -> (usize, Option<Fault>) {
        if let Err(fault) = self.ready().await {
            return (0, Some(fault));
        }
        let Some((line, barrier)) = &mut self.on else { return (0, Some(faults::lost())) };
        let dialled = &line.dialled;
        let all = async {
            let mut sent = 0;
            let mut refused = None;
            for parcel in parcels {
                let (subject, headers, body) = parcel.parts();
                let published = dialled.client.publish_with_headers(subject, headers, body).await;
                if let Err(error) = published {
                    refused = Some(publishing(&error));
                    break;
                }
                sent += 1;
            }
            // A refusal of a subject that was permitted before is noticed with the next batch, which then waits for
            // whatever else is refused.
            let calm = dialled.refused_so_far() == self.looked_at;
            if calm && parcels.iter().all(|parcel| self.known.contains(parcel.subject())) {
                barrier.pass(dialled).await?;
            } else {
                barrier.settle(dialled).await?;
            }
            Ok((sent, refused))
        };
        let done = dialled.within(self.hub.settings.ack_timeout, all).await.and_then(|done| done);
        match done {
            Ok((sent, refused)) => {
                let before = std::mem::replace(&mut self.looked_at, dialled.refused_so_far());
                if before != self.looked_at {
                    self.known.clear();
                    let forbidden = parcels.iter().take(sent).enumerate().find_map(|(index, parcel)| {
                        let said = dialled.refusal(before, parcel.subject())?;
                        Some((index, Some(faults::forbidden(&said))))
                    });
                    if let Some(forbidden) = forbidden {
                        return forbidden;
                    }
                }
                if self.known.len() > MAX_KNOWN_SUBJECTS {
                    self.known.clear();
                }
                for subject in parcels.iter().map(Parcel::subject) {
                    if !self.known.contains(subject) {
                        self.known.insert(subject.to_owned());
                    }
                }
                (sent, refused)
            }
            Err(fault) => {
                line.give_up();
                self.on = None;
                (0, Some(fault))
            }
        }
    }
}

/// What is sent.
enum Parcel<'a> {
    Message(&'a Message),
    /// A subject and a body.
    Letter(String, Bytes),
}

impl Parcel<'_> {
    fn subject(&self) -> &str {
        match self {
            Self::Message(message) => message.topic.as_str(),
            Self::Letter(subject, _) => subject,
        }
    }

    fn parts(&self) -> (Subject, HeaderMap, Bytes) {
        match self {
            Self::Message(message) => {
                (subjects::of(&message.topic), headers::of(message), message.body.clone())
            }
            Self::Letter(subject, body) => (subject.as_str().into(), HeaderMap::new(), body.clone()),
        }
    }
}

fn publishing(error: &PublishError) -> Fault {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Fault::new(FaultKind::TooLarge, error.to_string()),
        PublishErrorKind::InvalidSubject => Fault::new(FaultKind::Refused, error.to_string()),
        PublishErrorKind::Send => Fault::new(FaultKind::Unreachable, error.to_string()),
    }
}

impl Outlet for CoreOutlet {
    fn publish<'a>(&'a mut self, batch: &'a [Message]) -> BoxFuture<'a, Published> {
        Box::pin(async move {
            let parcels: Vec<Parcel<'_>> = batch.iter().map(Parcel::Message).collect();
            let (safe, fault) = self.send(&parcels).await;
            Published { safe, reach: Reach::Sent, fault }
        })
    }

    fn dead_letter<'a>(
        &'a mut self,
        message: &'a Message,
        cause: &'a Fault,
    ) -> BoxFuture<'a, Result<bool, Fault>> {
        Box::pin(async move {
            let letter = Parcel::Letter(subjects::dead(&message.topic), dead::message(message, cause));
            match self.send(&[letter]).await {
                (1, None) => Ok(true),
                (_, fault) => Err(fault.unwrap_or_else(faults::lost)),
            }
        })
    }
}
