//! The way of a command: decode, policy, deadline, claim, send, outcome, reply, acknowledge.
//!
//! | a process dies | the command | its outcome |
//! |---|---|---|
//! | before `sending` is recorded | was not sent; a durable bus delivers it again | whatever it becomes then |
//! | between `sending` and `done` | may have been sent; is never sent again | `unknown`, code `interrupted` |
//! | after `done` | was answered or not; delivered again, the recorded outcome is answered | as recorded |

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amibus_contract::{Handle, Inlet, Message, Rejection, Request};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use super::{
    decode::{Command, Partial, decode},
    error::{Code, CommandError},
    finals::Finals,
    journal::{Claim, Journal, JournalError, Record},
    policy::Policy,
    response::{self, Response},
    send::{Errand, build},
};
use crate::{
    asterisk::Actions,
    metrics::{BusMetrics, CommandMetrics},
    queue::Queue,
    writer::Writer,
};

/// Requests of one bus that are held at once, waiting or in work; beyond that the rest waits on the bus.
pub const MAX_HELD_REQUESTS: usize = 1024;
/// The pause after an inlet that cannot go on.
const INLET_RETRY: Duration = Duration::from_secs(30);

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
    pub queue: Arc<Queue>,
    /// The way to its Asterisk.
    pub actions: Actions,
    /// The Originates whose end is awaited.
    pub finals: Arc<Finals>,
    /// How long Asterisk may take to answer an action, its list included.
    pub action_deadline: Duration,
    /// What is counted.
    pub metrics: CommandMetrics,
    /// Bounds the commands in work.
    pub permits: Arc<Semaphore>,
}

/// What answers commands for servers that are not configured.
pub struct Nowhere {
    /// How the answers are written.
    pub writer: Arc<Writer>,
    /// A queue without lanes: these answers go to their sender alone.
    pub queue: Arc<Queue>,
    /// What is counted.
    pub metrics: CommandMetrics,
}

/// Everything that carries out commands.
pub struct Engine {
    settings: Settings,
    policy: Policy,
    journal: Arc<Journal>,
    servers: BTreeMap<String, Server>,
    /// For commands to servers that are not configured.
    nowhere: Nowhere,
    /// The ids in work in this process, with their end.
    running: Mutex<HashMap<String, watch::Receiver<Option<Arc<Answer>>>>>,
}

/// What goes back for one request.
struct Answer {
    message: Message,
    /// Set when the request could not be read.
    unreadable: Option<Rejection>,
}

/// What is known of a request beside its command.
struct Circumstances {
    bus: &'static str,
    sender: Option<String>,
    durable: bool,
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
        let running = Mutex::default();
        Arc::new(Self { settings, policy, journal, servers, nowhere, running })
    }

    /// Records `unknown` for what a dead process had begun to send, and publishes it. Once, before any command.
    ///
    /// # Errors
    /// When the journal cannot be read or written.
    pub async fn recover(self: &Arc<Self>) -> Result<usize, JournalError> {
        let mut count = 0;
        loop {
            let open = self.blocking(|journal| journal.interrupted(1000)).await?;
            if open.is_empty() {
                return Ok(count);
            }
            for one in open {
                let text = "amibus was ended between sending it and recording what became of it";
                let error = CommandError::new(Code::Interrupted, text);
                let response = Response::of_error(Some(one.id.clone()), &one.server, &one.action, error);
                warn!(id = one.id, server = one.server, action = one.action, "outcome unknown after a crash");
                self.record(&one.id, self.servers.get(&one.server), &response).await?;
                count += 1;
            }
        }
    }

    /// Takes commands from one bus until `stop`; then waits until those in work are done or `give_up`.
    pub async fn serve(
        self: Arc<Self>,
        mut inlet: Box<dyn Inlet>,
        bus: &'static str,
        metrics: BusMetrics,
        stop: CancellationToken,
        give_up: CancellationToken,
    ) {
        let held = Arc::new(Semaphore::new(MAX_HELD_REQUESTS));
        let tasks = TaskTracker::new();
        loop {
            let next = async {
                let permit = Arc::clone(&held).acquire_owned().await;
                (permit, inlet.next().await)
            };
            let Some((permit, next)) = stop.run_until_cancelled(next).await else { break };
            match next {
                Ok(Some(request)) => {
                    metrics.commands_received.inc();
                    let (engine, metrics) = (Arc::clone(&self), metrics.clone());
                    let work = async move {
                        engine.handle(request, bus, &metrics).await;
                        drop(permit);
                    };
                    let give_up = give_up.clone();
                    tasks.spawn(async move { give_up.run_until_cancelled_owned(work).await });
                }
                Ok(None) => break,
                Err(fault) => {
                    warn!(bus, %fault, "commands cannot be taken; trying again");
                    if stop.run_until_cancelled(tokio::time::sleep(INLET_RETRY)).await.is_none() {
                        break;
                    }
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Carries out one request, answers and acknowledges it.
    pub async fn handle(&self, request: Request, bus: &'static str, metrics: &BusMetrics) {
        let decoded = decode(&request, self.settings.max_command_bytes);
        let Request { sender, durable, mut handle, .. } = request;
        let circumstances = Circumstances { bus, sender, durable };
        let answer = keeping(handle.as_mut(), self.answer(decoded, &circumstances)).await;
        if let Err(fault) = handle.reply(&answer.message).await {
            warn!(bus, %fault, id = &*answer.message.attributes.id, "the reply could not be sent");
        }
        let ended = match &answer.unreadable {
            Some(rejection) => {
                metrics.commands_dead_lettered.inc();
                handle.dead_letter(rejection.clone()).await
            }
            None => handle.acknowledge().await,
        };
        if let Err(fault) = ended {
            warn!(bus, %fault, "a command could not be acknowledged; it may come again and is not run again");
        }
    }

    async fn answer(
        &self,
        decoded: Result<Command, Box<(CommandError, Partial)>>,
        circumstances: &Circumstances,
    ) -> Arc<Answer> {
        let command = match decoded {
            Ok(command) => command,
            Err(unreadable) => {
                let (error, partial) = *unreadable;
                return self.unreadable(error, partial, circumstances);
            }
        };
        let Some(server) = self.servers.get(&command.server) else {
            let text = format!("no server {:?} is configured here", command.server);
            let error = CommandError::at(Code::UnknownServer, "server", text);
            return self.rejected(None, command.id.clone(), &command, error, circumstances);
        };
        let verdict = self.policy.check(&command).and_then(|()| build(&command, None).map(drop));
        if let Err(error) = verdict {
            return self.rejected(Some(server), command.id.clone(), &command, error, circumstances);
        }
        let id = command.id.clone().unwrap_or_else(response::fresh_id);
        self.once(server, &id, &command, circumstances).await
    }

    /// Runs the command unless the same id is in work here: then its end is awaited.
    async fn once(&self, server: &Server, id: &str, command: &Command, how: &Circumstances) -> Arc<Answer> {
        let send = loop {
            let mut other = {
                let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
                match running.get(id) {
                    Some(other) => other.clone(),
                    None => {
                        let (send, receive) = watch::channel(None);
                        running.insert(id.to_owned(), receive);
                        break send;
                    }
                }
            };
            // When it ends the journal has its outcome, or, if its task was dropped, its state.
            let _ = other.wait_for(Option::is_some).await;
            tokio::task::yield_now().await;
        };
        let guard = Running { engine: self, id };
        let answer = self.claimed(server, id, command, how).await;
        send.send_replace(Some(Arc::clone(&answer)));
        drop(guard);
        answer
    }

    async fn claimed(
        &self,
        server: &Server,
        id: &str,
        command: &Command,
        how: &Circumstances,
    ) -> Arc<Answer> {
        let claim = {
            let (id, command, sender) = (id.to_owned(), command.clone(), how.sender.clone());
            self.blocking(move |journal| journal.claim(&id, &command, sender.as_deref())).await
        };
        let error = match claim {
            Ok(Claim::Ours) => return self.run(server, id, command, how).await,
            Ok(Claim::Done(record)) => {
                debug!(id, outcome = record.outcome, "delivered again; the recorded outcome is answered");
                let message = self.replay(server, id, command, &record);
                return Arc::new(Answer { message, unreadable: None });
            }
            Ok(Claim::Interrupted) => {
                let text = "amibus was ended between sending it and recording what became of it";
                let error = CommandError::new(Code::Interrupted, text);
                let response = Response::of_error(Some(id.into()), &command.server, &command.action, error);
                return self.finish(server, id, how, response).await;
            }
            Ok(Claim::Reused) => {
                let text =
                    format!("the id {id:?} was used before for another payload; an id is for one command");
                CommandError::at(Code::IdReused, "id", text)
            }
            Err(error) => not_recorded(&error),
        };
        self.rejected(Some(server), Some(id.into()), command, error, how)
    }

    async fn run(&self, server: &Server, id: &str, command: &Command, how: &Circumstances) -> Arc<Answer> {
        server.metrics.running.inc();
        let errand = Errand { settings: &self.settings, server, id, command, may_wait: how.durable };
        let own_id = id.to_owned();
        let response =
            errand.run(async || self.blocking(move |journal| journal.sending(&own_id)).await).await;
        server.metrics.running.dec();
        self.finish(server, id, how, response).await
    }

    /// Records the outcome, publishes it, and makes the answer.
    async fn finish(
        &self,
        server: &Server,
        id: &str,
        how: &Circumstances,
        response: Response,
    ) -> Arc<Answer> {
        let message = match self.record(id, Some(server), &response).await {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(id, %error, "an outcome could not be recorded");
                self.append(Some(server), &response)
            }
        };
        audit(how, &response);
        server.metrics.finished(response.outcome.as_str()).inc();
        Arc::new(Answer { message, unreadable: None })
    }

    /// Journal first, then the buses, then the journal again with what was published.
    async fn record(
        &self,
        id: &str,
        server: Option<&Server>,
        response: &Response,
    ) -> Result<Message, JournalError> {
        let (own_id, outcome, data) = (id.to_owned(), response.outcome.as_str(), response.data());
        self.blocking(move |journal| journal.done(&own_id, outcome, &data)).await?;
        let message = self.append(server, response);
        let (id, body) = (id.to_owned(), message.body.clone());
        self.blocking(move |journal| journal.published(&id, &body)).await?;
        Ok(message)
    }

    /// The recorded outcome once more, byte for byte where it was published.
    fn replay(&self, server: &Server, id: &str, command: &Command, record: &Record) -> Message {
        let again = || {
            let (writer, queue) = (&server.writer, &server.queue);
            response::append(writer, queue, Some(id), &command.action, &record.response)
        };
        record.body.clone().and_then(|body| server.writer.read(body)).unwrap_or_else(again)
    }

    fn append(&self, server: Option<&Server>, response: &Response) -> Message {
        let (writer, queue) = match server {
            Some(server) => (&server.writer, &server.queue),
            None => (&self.nowhere.writer, &self.nowhere.queue),
        };
        response::append(writer, queue, response.id.as_deref(), &response.action, &response.data())
    }

    /// An answer that the journal does not keep: nothing was claimed.
    fn unclaimed(
        &self,
        server: Option<&Server>,
        response: Response,
        unreadable: Option<Rejection>,
        how: &Circumstances,
    ) -> Arc<Answer> {
        audit(how, &response);
        let metrics = server.map_or(&self.nowhere.metrics, |server| &server.metrics);
        metrics.finished(response.outcome.as_str()).inc();
        Arc::new(Answer { message: self.append(server, &response), unreadable })
    }

    fn rejected(
        &self,
        server: Option<&Server>,
        id: Option<String>,
        command: &Command,
        error: CommandError,
        how: &Circumstances,
    ) -> Arc<Answer> {
        let response = Response::of_error(id, &command.server, &command.action, error);
        self.unclaimed(server, response, None, how)
    }

    fn unreadable(&self, error: CommandError, partial: Partial, how: &Circumstances) -> Arc<Answer> {
        let rejection = Rejection {
            code: error.code.as_str().to_owned(),
            message: error.message.clone(),
            field: error.field.clone(),
        };
        let server = partial.server.as_deref().and_then(|name| self.servers.get(name));
        let (name, action) = (partial.server.unwrap_or_default(), partial.action.unwrap_or_default());
        let response = Response::of_error(partial.id, &name, &action, error);
        self.unclaimed(server, response, Some(rejection), how)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let journal = Arc::clone(&self.journal);
        match tokio::task::spawn_blocking(move || work(&journal)).await {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// Takes an id out of those in work, also when its task is dropped.
struct Running<'a> {
    engine: &'a Engine,
    id: &'a str,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.engine.running.lock().unwrap_or_else(PoisonError::into_inner).remove(self.id);
    }
}

/// Runs `work`, telling the bus meanwhile that the request is being worked on.
async fn keeping<T>(handle: &mut dyn Handle, work: impl Future<Output = T>) -> T {
    let Some(every) = handle.keep_every() else { return work.await };
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(every) => {
                if let Err(fault) = handle.keep().await {
                    debug!(%fault, "the bus could not be told that a command is in work");
                }
            }
        }
    }
}

fn not_recorded(error: &JournalError) -> CommandError {
    let text = format!("the journal could not record it, so it was not sent: {error}");
    CommandError::new(Code::NotRecorded, text)
}

/// One line for every command: who, what, verdict.
fn audit(how: &Circumstances, response: &Response) {
    let error = response.error.as_ref();
    info!(
        target: "amibus::audit",
        bus = how.bus,
        sender = how.sender,
        id = response.id,
        server = response.server,
        action = response.action,
        outcome = response.outcome.as_str(),
        code = error.map(|error| error.code.as_str()),
        field = error.and_then(|error| error.field.as_deref()),
        error = error.map(|error| error.message.as_str()),
        "command"
    );
}
