//! From a claim in the own journal to an outcome that is to be recorded: agreed on with the other amibus where claims
//! are shared, and sent at most once.

use std::sync::Arc;

use amibus_contract::Fault;
use tracing::warn;

use super::{
    decode::Command,
    engine::{Answer, Circumstances, Engine, Server, not_recorded},
    error::{Code, CommandError, Outcome},
    follow::{Elsewhere, Next, not_claimed},
    hold::Hold,
    mark::Marks,
    recover::is_read_only,
    response::Response,
    send::{Ended, Errand, deadline},
    shared::{Seen, Shared},
    work::Working,
};
use crate::spool::scan::Since;

/// Why an errand has no outcome.
enum Unfinished {
    /// It was not sent, and this says why.
    Answer(Arc<Answer>),
    /// It was not sent here, but another amibus has it or ended it.
    Elsewhere,
    /// It was not sent, and is left to its bus.
    Stopped,
    /// It was not sent: another amibus has it, or the store of claims did not answer.
    NotClaimed(Option<Fault>),
}

impl Engine {
    pub(super) async fn run(
        &self,
        server: &Server,
        id: &str,
        command: &Command,
        how: &Circumstances<'_>,
    ) -> Option<Arc<Answer>> {
        let _working = Working::new(&server.metrics);
        let deadline = deadline(&self.settings, command, how.age);
        if self.shared.is_none() || is_read_only(&command.action) {
            return match self.errand(server, id, command, how, deadline, None).await {
                Ok((response, _)) => self.finish(server, id, how, response, None).await.ok(),
                Err(Unfinished::Answer(answer)) => Some(answer),
                Err(Unfinished::Elsewhere) => None,
                Err(Unfinished::Stopped) => {
                    self.taken_away(id, how).await;
                    None
                }
                Err(Unfinished::NotClaimed(_)) => None,
            };
        }
        let hold = match self.hold(id).await {
            Ok(Some(hold)) => hold,
            Ok(None) => return Some(self.rejected(Some(server), Some(id.into()), command, gone(), how)),
            Err(error) => {
                let error = not_recorded(&error);
                return Some(self.rejected(Some(server), Some(id.into()), command, error, how));
            }
        };
        loop {
            let turn = match self.look(server, &command.payload_hash, &hold, how.durable, how.left).await {
                Next::Ours => match self.errand(server, id, command, how, deadline, Some(&hold)).await {
                    Ok((response, was_sent)) => {
                        match self.finish(server, id, how, response, Some((&hold, was_sent))).await {
                            Ok(answer) => return Some(answer),
                            Err(Elsewhere) => continue,
                        }
                    }
                    Err(Unfinished::Answer(answer)) => return Some(answer),
                    Err(Unfinished::Elsewhere) => continue,
                    Err(Unfinished::Stopped) => Next::Stopped,
                    Err(Unfinished::NotClaimed(fault)) => {
                        match not_claimed(fault, how.durable, how.left).await {
                            Some(turn) => turn,
                            None => continue,
                        }
                    }
                },
                turn => turn,
            };
            match turn {
                Next::Ours => {}
                Next::Stopped => {
                    // Whoever is asked instead of us would wait for a claim of ours that nobody renews.
                    let is_away = self.shared.as_ref().is_some_and(Shared::is_away);
                    if !how.durable || ((hold.is_touched() || is_away) && !how.stop.is_cancelled()) {
                        self.left.add(id);
                    } else {
                        self.taken_away(id, how).await;
                    }
                    return None;
                }
                Next::Ended(ending) => {
                    let tell = || how.audit.shared(id, &ending);
                    let message = self.adopt(Some(server), id, &command.action, &ending, tell).await;
                    return Some(Arc::new(Answer { message, unreadable: None }));
                }
                Next::Rejected(error) => {
                    let response =
                        Response::of_error(Some(id.into()), &command.server, &command.action, error);
                    match self.unsent(server, id, response, how, Some(&hold)).await {
                        Ok(answer) => return Some(answer),
                        Err(Elsewhere) => continue,
                    }
                }
            }
        }
    }

    /// Sends the command once. Answers its outcome, which is not recorded yet, and whether anything may have been sent.
    async fn errand(
        &self,
        server: &Server,
        id: &str,
        command: &Command,
        how: &Circumstances<'_>,
        deadline: Option<tokio::time::Instant>,
        hold: Option<&Hold<'_>>,
    ) -> Result<(Response, bool), Unfinished> {
        let (settings, may_wait, stop) = (&self.settings, how.durable, how.left);
        let arrival = how.arrival;
        let errand = Errand { settings, server, id, command, deadline, may_wait, arrival, stop };
        let begin = how.beginning(command, deadline);
        let marks = Marks { engine: self, server, id, hold, begin };
        let since = Since::number(server.spool.next());
        // On the heap, as in `serve`: thousands may wait for their pace here.
        let run = Box::pin(async {
            match errand.run(&marks).await {
                Ended::Sent(response) => {
                    let known = self.without_doubt(server, id, command, since, response, how.stop);
                    let known = Box::pin(known).await;
                    known.map_or(Ended::Stopped, Ended::Sent)
                }
                ended => ended,
            }
        });
        let ended = match hold {
            Some(hold) => hold.keeping(run).await,
            None => run.await,
        };
        match ended {
            Ended::Stopped => Err(Unfinished::Stopped),
            Ended::NotClaimed(fault) => Err(Unfinished::NotClaimed(fault)),
            Ended::Sent(response) => Ok((response, true)),
            Ended::Unsent(response) if response.outcome == Outcome::Expired => Ok((response, false)),
            Ended::Unsent(response) => Err(match self.unsent(server, id, response, how, hold).await {
                Ok(answer) => Unfinished::Answer(answer),
                Err(Elsewhere) => Unfinished::Elsewhere,
            }),
        }
    }

    /// The bus delivers it to another process now, which has a journal of its own: here it is forgotten.
    async fn taken_away(&self, id: &str, how: &Circumstances<'_>) {
        if how.stop.is_cancelled() {
            return;
        }
        let own_id = id.to_owned();
        if let Err(error) = self.blocking(move |journal| journal.release(&own_id)).await {
            warn!(id, %error, "the claim of a command that its bus took away could not be released");
        }
    }

    /// Nothing was sent: the same id may be used again once the cause is gone. Our nonce is kept as long as the shared
    /// claim may have it.
    ///
    /// # Errors
    /// That another amibus has this very command: then nobody may be told that it was not sent.
    async fn unsent(
        &self,
        server: &Server,
        id: &str,
        response: Response,
        how: &Circumstances<'_>,
        hold: Option<&Hold<'_>>,
    ) -> Result<Arc<Answer>, Elsewhere> {
        let shared = match hold.filter(|hold| hold.is_touched()) {
            Some(hold) => match hold.release().await {
                Ok(Seen::Theirs(claimed, _)) if claimed.payload_hash == hold.payload_hash() => {
                    return Err(Elsewhere);
                }
                Ok(Seen::Done(ending)) if ending.payload_hash == hold.payload_hash() => {
                    return Err(Elsewhere);
                }
                Ok(_) => Ok(()),
                Err(fault) => Err(fault),
            },
            None => Ok(()),
        };
        let released = match shared {
            Ok(()) => {
                let id = id.to_owned();
                self.blocking(move |journal| journal.release(&id)).await.map_err(|error| error.to_string())
            }
            Err(fault) => {
                self.left.add(id);
                let own_id = id.to_owned();
                // Whatever dies before it is given back: this answer is the only one.
                let noted = self.blocking(move |journal| journal.answered(&own_id)).await;
                Err(noted.err().map_or_else(|| fault.to_string(), |error| format!("{fault}; {error}")))
            }
        };
        if let Err(error) = released {
            warn!(id, %error, "a claim could not be released; it is tried again, or taken up when the command comes again");
        }
        Ok(self.unclaimed(Some(server), response, None, how))
    }
}

fn gone() -> CommandError {
    CommandError::new(Code::NotRecorded, "its claim is not in the journal any more, so it was not sent")
}
