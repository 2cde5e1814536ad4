//! The way of a command: decode, policy, deadline, claim, send, outcome, reply, acknowledge.
//!
//! | a process dies | the command | its outcome |
//! |---|---|---|
//! | before `sending` is recorded | was not sent; a durable bus delivers it again | whatever it becomes then |
//! | between `sending` and `done` | may have been sent; is never sent again | [`recover`](super::recover) tells |
//! | after `done` | was answered or not; delivered again, the recorded outcome is answered | as recorded |

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use amibus_contract::{Begin, Bytes, Message, Rejection, Request};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    audit::Audit,
    decode::{Command, Partial, decode},
    doubt::{Doubts, Place},
    error::{Code, CommandError},
    finals::Finals,
    follow::Elsewhere,
    hold::Hold,
    journal::{Claim, Journal, JournalError, desk::Desk},
    late::Late,
    pace::Pacer,
    policy::Policy,
    release::Left,
    response::{self, Response},
    send::{build, deadline},
    shared::Shared,
    work::{InWork, keeping, unless_withdrawn},
};
use crate::{
    asterisk::Actions,
    failpoint,
    metrics::{BusMetrics, CommandMetrics},
    spool::Spool,
    writer::Writer,
};

/// The pause after an outcome that could not be recorded, before trying again.
pub(super) const RECORD_RETRY: Duration = Duration::from_secs(1);
/// Why nobody knows what became of a command.
pub(super) const INTERRUPTED: &str = "amibus was ended between sending it and recording what became of it";

/// What the engine may do, from the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest command, in bytes.
    pub max_command_bytes: usize,
    /// A command without a deadline of its own gets this long; `None`: for ever.
    pub default_deadline: Option<Duration>,
    /// How much longer than the Originate's own Timeout its end is awaited.
    pub final_timeout: Duration,
}

/// One server as the engine sees it.
pub struct Server {
    /// How its messages are written.
    pub writer: Arc<Writer>,
    /// Where its responses go, for every bus.
    pub spool: Arc<Spool>,
    /// The way to its Asterisk.
    pub actions: Actions,
    /// The Originates whose end is awaited.
    pub finals: Arc<Finals>,
    /// Where that spool lies, for looking calls up after a crash.
    pub spool_dir: PathBuf,
    /// How long Asterisk may take to answer an action, its list included.
    pub action_deadline: Duration,
    /// What is counted.
    pub metrics: CommandMetrics,
    /// Bounds the commands in work.
    pub permits: Arc<Semaphore>,
    /// How many calls it is given; `None`: any number.
    pub pacer: Option<Arc<Pacer>>,
}

/// What answers commands for servers that are not configured.
pub struct Nowhere {
    /// How the answers are written.
    pub writer: Arc<Writer>,
    /// A spool without lanes: these answers go to their sender alone.
    pub spool: Arc<Spool>,
    /// What is counted.
    pub metrics: CommandMetrics,
}

/// Everything that carries out commands.
pub struct Engine {
    pub(super) settings: Settings,
    policy: Policy,
    pub(super) journal: Desk,
    pub(super) servers: BTreeMap<String, Server>,
    /// For commands to servers that are not configured.
    pub(super) nowhere: Nowhere,
    /// The claims that other amibus share, where a bus holds them.
    pub(super) shared: Option<Shared>,
    /// The ids in work in this process, with their end.
    pub(super) running: InWork,
    /// The calls of a dead process that are still looked for.
    pub(super) looking_up: watch::Sender<BTreeSet<String>>,
    /// What was not sent, and whose shared claim could not be given back.
    pub(super) left: Left,
    /// Counts the requests as they come in.
    arrivals: AtomicU64,
    /// Outcomes that are told, and not noted as published yet.
    pub(super) late: Arc<Late>,
    /// The calls of this process that nobody answered for.
    pub(super) doubts: Doubts,
    /// Those that were answered for, and whose end was not seen.
    pub(super) unseen: Doubts,
}

/// What goes back for one request.
pub(super) struct Answer {
    pub(super) message: Message,
    /// Set when the request could not be read.
    pub(super) unreadable: Option<Rejection>,
}

/// What is known of a request beside its command.
pub(super) struct Circumstances<'a> {
    pub(super) audit: Audit,
    pub(super) sender: Option<String>,
    pub(super) durable: bool,
    /// How long ago its bus took it.
    pub(super) age: Duration,
    /// The message's own identity on a durable bus.
    identity: Option<String>,
    body: Bytes,
    /// Its bus's record of what was begun; not asked where claims are shared, which know more.
    pub(super) begin: Option<Arc<dyn Begin>>,
    /// Its place among all requests.
    pub(super) arrival: u64,
    pub(super) stop: &'a CancellationToken,
    /// Ends with `stop`, and when the bus takes the request away: what is not yet being sent is left to the bus.
    pub(super) left: &'a CancellationToken,
}

impl Engine {
    /// An engine; the journal's open commands of a dead process are answered by [`Engine::recover`].
    pub fn new(
        settings: Settings,
        policy: Policy,
        journal: Arc<Journal>,
        servers: BTreeMap<String, Server>,
        nowhere: Nowhere,
    ) -> Arc<Self> {
        Self::sharing(settings, policy, journal, servers, nowhere, None)
    }

    /// The same, one of several that share their claims.
    pub fn sharing(
        settings: Settings,
        policy: Policy,
        journal: Arc<Journal>,
        servers: BTreeMap<String, Server>,
        nowhere: Nowhere,
        shared: Option<Shared>,
    ) -> Arc<Self> {
        let (running, looking_up) = (InWork::default(), watch::Sender::default());
        let arrivals = AtomicU64::new(0);
        let doubts = Doubts::new(servers.keys(), Place::LogAndLiveChannels);
        let unseen = Doubts::new(servers.keys(), Place::Log);
        let journal = Desk::start(journal);
        Arc::new(Self {
            settings,
            policy,
            journal,
            servers,
            nowhere,
            shared,
            running,
            looking_up,
            left: Left::default(),
            arrivals,
            late: Arc::default(),
            doubts,
            unseen,
        })
    }

    /// Carries out one request, answers and acknowledges it. A command that a durable bus keeps and that still waits
    /// for its server at `stop` is left to the bus.
    pub async fn handle(
        &self,
        request: Request,
        bus: &'static str,
        metrics: &BusMetrics,
        stop: &CancellationToken,
    ) {
        self.handle_in_order(self.arrival(), request, bus, metrics, stop).await;
    }

    /// The place of a request that came in now, among all.
    pub(super) fn arrival(&self) -> u64 {
        self.arrivals.fetch_add(1, Ordering::Relaxed)
    }

    /// The same for a request that came in at this place.
    pub(super) async fn handle_in_order(
        &self,
        arrival: u64,
        request: Request,
        bus: &'static str,
        metrics: &BusMetrics,
        stop: &CancellationToken,
    ) {
        failpoint::hit("taken");
        let decoded = decode(&request, self.settings.max_command_bytes);
        let server = match &decoded {
            Ok(command) => Some(command.server.as_str()),
            Err(unreadable) => unreadable.1.server.as_deref(),
        };
        let server = server.and_then(|name| self.servers.get(name));
        let Request { sender, durable, identity, sent_at, body, mut handle, .. } = request;
        // A time to come is a clock that differs from ours.
        let age = sent_at.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        let audit = Audit::new(bus, sender.clone(), &decoded);
        let (withdrawn, left) = (handle.withdrawn(), &stop.child_token());
        let begin = if self.shared.is_some() { None } else { handle.begin() };
        let circumstances =
            Circumstances { audit, sender, durable, age, identity, body, begin, arrival, stop, left };
        let work = async {
            let answer = self.answer(decoded, &circumstances).await?;
            self.written(server, &answer.message).await;
            Some(answer)
        };
        let work = keeping(handle.as_mut(), Box::pin(work));
        let answer = unless_withdrawn(withdrawn, left, work).await;
        let Some(answer) = answer else { return };
        if let Err(fault) = handle.reply(&answer.message).await {
            warn!(bus, %fault, id = answer.message.attributes().id(), "the reply could not be sent");
        }
        failpoint::hit("replied");
        let ended = match &answer.unreadable {
            Some(rejection) => {
                metrics.commands_dead_lettered.inc();
                handle.dead_letter(rejection.clone()).await
            }
            None => handle.acknowledge().await,
        };
        failpoint::hit("acknowledged");
        if let Err(fault) = ended {
            warn!(bus, %fault, "a command could not be acknowledged; it may come again and is not run again");
        }
    }

    /// `None`: it was neither sent nor answered, and its bus delivers it again.
    async fn answer(
        &self,
        decoded: Result<Command, Box<(CommandError, Partial)>>,
        how: &Circumstances<'_>,
    ) -> Option<Arc<Answer>> {
        let command = match decoded {
            Ok(command) => command,
            Err(unreadable) => {
                let (error, partial) = *unreadable;
                return Some(self.unreadable(error, partial, how).await);
            }
        };
        let Some(server) = self.servers.get(&command.server) else {
            let text = format!("no server {:?} is configured here", command.server);
            let error = CommandError::at(Code::UnknownServer, "server", text);
            return Some(self.rejected(None, command.id.clone(), &command, error, how));
        };
        let id = command.id.clone().unwrap_or_else(response::fresh_id);
        self.once(server, &id, &command, how).await
    }

    /// Runs the command unless the same id is in work here: then its end is awaited.
    async fn once(
        &self,
        server: &Server,
        id: &str,
        command: &Command,
        how: &Circumstances<'_>,
    ) -> Option<Arc<Answer>> {
        let turn = self.running.turn(id).await;
        let answer = self.judged(server, id, command, how).await;
        drop(turn);
        answer
    }

    /// What is recorded counts more than what is allowed now: an outcome does not change with the rules.
    async fn judged(
        &self,
        server: &Server,
        id: &str,
        command: &Command,
        how: &Circumstances<'_>,
    ) -> Option<Arc<Answer>> {
        // It may be a call that is being looked for. Once that is over, its outcome is recorded and published.
        let until = deadline(&self.settings, command, how.age).filter(|_| !how.durable);
        self.looked_up(id, until, how.left).await?;
        let claim = match self.recorded(id, command).await {
            Ok(Some(claim)) => Ok(claim),
            Err(error) => Err(error),
            Ok(None) if how.is_begun(command) => {
                return Box::pin(self.begun_before(server, id, command, how)).await;
            }
            Ok(None) => {
                let allowed = self.policy.check(command).and_then(|()| {
                    how.audit.allowed();
                    build(command, None).map(drop)
                });
                if let Err(error) = allowed {
                    return Some(self.rejected(Some(server), Some(id.into()), command, error, how));
                }
                let (id, command, sender) = (id.to_owned(), command.clone(), how.sender.clone());
                let durable = how.durable;
                self.blocking(move |journal| journal.claim_from(&id, &command, sender.as_deref(), durable))
                    .await
            }
        };
        let error = match claim {
            Ok(Claim::Ours) => {
                failpoint::hit("claimed");
                // Apart from what asks for it: all of the way in one piece is too much for a thread's stack.
                return Box::pin(self.run(server, id, command, how)).await;
            }
            Ok(Claim::Done(record)) => {
                debug!(id, outcome = record.outcome, "delivered again; the recorded outcome is answered");
                how.audit.repeated(id, &record.outcome);
                let message = self.replay(Some(server), id, command, record).await;
                return Some(Arc::new(Answer { message, unreadable: None }));
            }
            // Whoever was looking for its call has left: the next start goes on.
            Ok(Claim::Interrupted) if how.stop.is_cancelled() => return None,
            Ok(Claim::Interrupted) => {
                let error = CommandError::new(Code::Interrupted, INTERRUPTED);
                let response = Response::of_error(Some(id.into()), &command.server, &command.action, error);
                // Agreed on with the others, or left as it is.
                let hold = self.hold(id).await.ok()?;
                let hold = hold.as_ref().map(|hold| (hold, true));
                return self.finish(server, id, how, response, hold).await.ok();
            }
            Ok(Claim::Reused) => {
                let text =
                    format!("the id {id:?} was used before for another payload; an id is for one command");
                CommandError::at(Code::IdReused, "id", text)
            }
            Err(error) => not_recorded(&error),
        };
        Some(self.rejected(Some(server), Some(id.into()), command, error, how))
    }

    pub(super) async fn recorded(&self, id: &str, command: &Command) -> Result<Option<Claim>, JournalError> {
        let (id, hash) = (id.to_owned(), command.payload_hash.clone());
        self.blocking(move |journal| journal.recorded(&id, &hash)).await
    }

    /// Records the outcome, publishes it, and makes the answer. Goes on trying where the outcome cannot be recorded:
    /// until it is, nobody is told of it. `hold` is our hand on its shared claim, and whether it may have been sent.
    pub(super) async fn finish(
        &self,
        server: &Server,
        id: &str,
        how: &Circumstances<'_>,
        response: Response,
        hold: Option<(&Hold<'_>, bool)>,
    ) -> Result<Arc<Answer>, Elsewhere> {
        if let Some((hold, was_sent)) = hold
            && let Some(ending) = self.share(hold, &response, was_sent).await?
        {
            // Ours: it was shared already, and the store's word of that was lost.
            let tell = || match ending.ours {
                true => how.audit.ended(&response),
                false => how.audit.shared(id, &ending),
            };
            let message = self.adopt(Some(server), id, &response.action, &ending, tell).await;
            return Ok(Arc::new(Answer { message, unreadable: None }));
        }
        let message = loop {
            match self.record(id, Some(server), &response, || how.audit.ended(&response)).await {
                Ok(message) => break message,
                Err(error) => {
                    tracing::error!(id, %error, "an outcome cannot be recorded; trying again");
                    tokio::time::sleep(RECORD_RETRY).await;
                }
            }
        };
        self.counted(Some(server), &response);
        Ok(Arc::new(Answer { message, unreadable: None }))
    }

    /// An answer that the journal does not keep: nothing was claimed.
    pub(super) fn unclaimed(
        &self,
        server: Option<&Server>,
        response: Response,
        unreadable: Option<Rejection>,
        how: &Circumstances<'_>,
    ) -> Arc<Answer> {
        how.audit.ended(&response);
        self.counted(server, &response);
        Arc::new(Answer { message: self.append(server, &response), unreadable })
    }

    pub(super) fn counted(&self, server: Option<&Server>, response: &Response) {
        let metrics = server.map_or(&self.nowhere.metrics, |server| &server.metrics);
        metrics.finished(response.outcome.as_str()).inc();
    }

    pub(super) fn rejected(
        &self,
        server: Option<&Server>,
        id: Option<String>,
        command: &Command,
        error: CommandError,
        how: &Circumstances<'_>,
    ) -> Arc<Answer> {
        let response = Response::of_error(id, &command.server, &command.action, error);
        self.unclaimed(server, response, None, how)
    }

    /// A message that comes again is rejected again in the same words, and published once.
    async fn unreadable(
        &self,
        error: CommandError,
        partial: Partial,
        how: &Circumstances<'_>,
    ) -> Arc<Answer> {
        let rejection = Rejection {
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
            field: error.field.clone(),
        };
        let server = partial.server.as_deref().and_then(|name| self.servers.get(name));
        let (name, action) = (partial.server.unwrap_or_default(), partial.action.unwrap_or_default());
        let response = Response::of_error(partial.id, &name, &action, error);
        let Some(identity) = &how.identity else {
            return self.unclaimed(server, response, Some(rejection), how);
        };
        let nothing = Command::unreadable(&name, &action, &how.body);
        // It may be delivered again while it is still being rejected.
        let _turn = self.running.turn(identity).await;
        let known = {
            let (identity, nothing) = (identity.clone(), nothing.clone());
            self.blocking(move |journal| journal.claim(&identity, &nothing, None)).await
        };
        let message = match known {
            Ok(Claim::Done(record)) => {
                how.audit.repeated(identity, &record.outcome);
                self.replay(server, identity, &nothing, record).await
            }
            Ok(Claim::Ours) => {
                match self.record(identity, server, &response, || how.audit.ended(&response)).await {
                    Ok(message) => {
                        self.counted(server, &response);
                        message
                    }
                    Err(_) => return self.unclaimed(server, response, Some(rejection), how),
                }
            }
            _ => return self.unclaimed(server, response, Some(rejection), how),
        };
        Arc::new(Answer { message, unreadable: Some(rejection) })
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.journal.work(work).await
    }
}

pub(super) fn not_recorded(error: &JournalError) -> CommandError {
    let text = format!("the journal could not record it, so it was not sent: {error}");
    CommandError::new(Code::NotRecorded, text)
}
