//! One engine, one simulated Asterisk, a journal on disk, and requests by hand.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use amibus::{
    asterisk::{self, Actions, ServerSettings, Target, run_events},
    command::{
        Engine,
        decode::decode,
        engine::{Nowhere, Server, Settings},
        finals::Finals,
        journal::{Claim, Journal},
        pace::{Keeper, Limit, Pacer},
        policy::{Policy, Rule},
        shared::Shared,
    },
    filter::Filter,
    health::Health,
    intake::Intake,
    metrics::{CommandMetrics, Metrics},
    normalize::Profile,
    seen::Seen,
    spool::{self, Spool},
    writer::{Origin, Writer},
};
use amibus_ami::Limits;
use amibus_contract::{Begin, Request};
use amibus_sim::{Sim, SimOptions};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    least::answer_all,
    told::{Told, What},
};

/// How long an action may take to be answered: a disk that is slow to sync is not to be taken for an Asterisk that is silent.
pub(super) const ACTION_DEADLINE: Duration = Duration::from_secs(2);
/// Of commands that name none, likewise.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(3);
/// How long Asterisk stands still where its connection is to break meanwhile.
pub(super) const STALL: Duration = Duration::from_secs(3);

pub(super) struct Bench {
    pub(super) sim: Arc<Sim>,
    pub(super) engine: Arc<Engine>,
    pub(super) journal: Arc<Journal>,
    settings: Arc<ServerSettings>,
    writer: Arc<Writer>,
    spool: Arc<Spool>,
    finals: Arc<Finals>,
    actions: Actions,
    pacer: Option<Arc<Pacer>>,
    metrics: Metrics,
    directory: tempfile::TempDir,
    stop: CancellationToken,
    _guard: DropGuard,
}

/// What became of one request.
pub(super) struct Asked {
    pub(super) response: Value,
    pub(super) acknowledged: bool,
    pub(super) dead_lettered: bool,
}

impl Bench {
    pub(super) async fn connected() -> Self {
        Self::with_limits(|_| {}).await
    }

    /// With calls that last.
    pub(super) async fn with_talk(talk: Duration) -> Self {
        Self::with(talk, |_| {}).await
    }

    pub(super) async fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        Self::with(Duration::from_millis(10), change).await
    }

    async fn with(talk: Duration, change: impl FnOnce(&mut Limits)) -> Self {
        let options = SimOptions { ring: Duration::from_millis(10), talk, ..SimOptions::default() };
        let sim = Arc::new(Sim::start(options).await.expect("a simulated Asterisk"));
        Self::at(sim, change, None).await
    }

    /// One of several that share an Asterisk, and their claims.
    pub(super) async fn at(sim: Arc<Sim>, change: impl FnOnce(&mut Limits), shared: Option<Shared>) -> Self {
        let target = Target::Ami { host: "127.0.0.1".into(), port: sim.addr().port() };
        let ids = asterisk::action_ids();
        let mut settings = ServerSettings::new("pbx1", target, "amibus", "amibus".into(), ids);
        settings.backoff_min = Duration::from_millis(20);
        settings.backoff_max = Duration::from_millis(100);
        change(&mut settings.limits);
        let directory = tempfile::tempdir().expect("a directory");
        let journal = Arc::new(open(directory.path()));
        let settings = Arc::new(settings);
        let writer = writer("pbx1");
        let opened = spool::open(&directory.path().join("spool"), spool::Options::default(), &["test"]);
        let decoder = Arc::clone(&writer);
        let spool =
            opened.expect("a spool").start(Arc::new(move |body| decoder.read(body))).expect("threads");
        let finals = Arc::new(Finals::default());
        let stop = CancellationToken::new();
        let (actions, session) = Actions::new(Arc::clone(&settings));
        tokio::spawn(session.run(stop.clone()));
        let metrics = Metrics::default();
        let parts = (&writer, &spool, &finals, directory.path());
        let engine = engine(&journal, &actions, parts, &metrics, &rules(), shared);
        let guard = stop.clone().drop_guard();
        let bench = Self {
            sim,
            engine,
            journal,
            settings,
            writer,
            spool,
            finals,
            actions,
            pacer: None,
            metrics,
            directory,
            stop,
            _guard: guard,
        };
        bench.until_ready(true).await;
        bench
    }

    /// Waits until a command is in this state.
    pub(super) async fn until_state(&self, id: &str, state: &str) {
        let reached = async {
            while self.shown(id).is_none_or(|entry| entry.state != state) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), reached)
            .await
            .unwrap_or_else(|_| panic!("not {state}"));
    }

    /// With limits; to be asked for before the event session.
    pub(super) fn with_pace(mut self, limits: &[Limit]) -> Self {
        let metrics = |limit: &str| self.metrics.pace("pbx1", limit);
        self.pacer = Pacer::new("pbx1", limits, metrics).expect("globs");
        let parts = (&self.writer, &self.spool, &self.finals, self.directory.path());
        let pacer = self.pacer.clone();
        self.engine = paced(&self.journal, &self.actions, parts, &self.metrics, &rules(), pacer, None);
        let keeper = Keeper {
            server: "pbx1".into(),
            pacer: self.pacer.clone().expect("a limit"),
            actions: self.actions.clone(),
            action_deadline: Duration::from_secs(5),
            journal: Arc::clone(&self.journal),
        };
        tokio::spawn(keeper.run(self.stop.clone()));
        self
    }

    /// Runs an event session too.
    pub(super) async fn with_events(self) -> Self {
        let health = Arc::new(Health::new(["pbx1"], []));
        let mut state = health.watch_server("pbx1").expect("configured");
        let intake = Intake {
            pacer: self.pacer.clone(),
            writer: Arc::clone(&self.writer),
            spool: Arc::clone(&self.spool),
            filter: Arc::new(Filter::new(&[]).expect("no rules")),
            finals: Arc::clone(&self.finals),
            action_ids: self.settings.action_ids.clone(),
            metrics: self.metrics.server("pbx1"),
            health,
            seen: Seen::new(true),
        };
        tokio::spawn(run_events(Arc::clone(&self.settings), intake, self.stop.clone()));
        let up = state.wait_for(|s| matches!(s, amibus::health::ServerState::Up { .. }));
        tokio::time::timeout(Duration::from_secs(10), up).await.expect("in time").expect("up");
        self
    }

    pub(super) async fn until_ready(&self, ready: bool) {
        let mut state = self.actions.ready();
        let changed = state.wait_for(|now| *now == ready);
        tokio::time::timeout(Duration::from_secs(10), changed)
            .await
            .expect("in time")
            .expect("the session runs");
    }

    /// Waits until this limit counts no call.
    pub(super) async fn until_no_call(&self, limit: &str) {
        let line = format!("amibus_pace_calls{{server=\"pbx1\",limit=\"{limit}\"}} 0");
        let none = async {
            while !self.metrics.encode().lines().any(|told| told == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), none).await.expect("the calls end");
    }

    /// Hands a request to the engine and waits for all that becomes of it.
    pub(super) async fn ask(&self, request: Request) -> Asked {
        ask(&self.engine, request, &CancellationToken::new()).await
    }

    /// The same with a token that tells the engine to leave.
    pub(super) async fn ask_until(&self, request: Request, stop: &CancellationToken) -> Asked {
        ask(&self.engine, request, stop).await
    }

    /// The bus takes the request away when `withdrawn` is cancelled.
    pub(super) async fn ask_withdrawn(&self, request: Request, withdrawn: &CancellationToken) -> Asked {
        ask_withdrawn(&self.engine, request, &CancellationToken::new(), Some(withdrawn.clone())).await
    }

    /// The same under other rules.
    pub(super) async fn ask_denied(&self, request: Request) -> Asked {
        let parts = (&self.writer, &self.spool, &self.finals, self.directory.path());
        let denying = engine(&self.journal, &self.actions, parts, &self.metrics, &[], None);
        ask(&denying, request, &CancellationToken::new()).await
    }

    /// An engine over the same journal that has a second server, `pbx2`, with a log of its own.
    pub(super) fn with_second(&self) -> Arc<Engine> {
        let second = self.directory.path().join("spool2");
        let writer = writer("pbx2");
        let opened = spool::open(&second, spool::Options::default(), &["test"]).expect("a spool");
        let decoder = Arc::clone(&writer);
        let spool = opened.start(Arc::new(move |body| decoder.read(body))).expect("threads");
        let first = (&self.writer, &self.spool, &self.finals, self.directory.path().join("spool"));
        let servers = [
            ("pbx1", server(&self.actions, first, self.metrics.commands("pbx1"))),
            (
                "pbx2",
                server(&self.actions, (&writer, &spool, &self.finals, second), self.metrics.commands("pbx2")),
            ),
        ];
        let servers = servers.map(|(name, server)| (name.to_owned(), server));
        engine_of(&self.journal, BTreeMap::from(servers), &self.metrics, &rules(), None)
    }

    /// Claims a command of a bus that delivers nothing again.
    pub(super) fn claim_of_request(&self, id: &str, body: &str) -> Claim {
        let command = decode(&request(body), 4096).expect("a command");
        self.journal.claim_from(id, &command, None, false).expect("claims")
    }

    /// Has SQLite refuse a kind of write to the journal, until [`Bench::mend_journal`].
    pub(super) fn refuse_writes(&self, when: &str) {
        let trigger = format!(
            "CREATE TRIGGER refuse BEFORE UPDATE ON command WHEN {when} BEGIN SELECT RAISE(ABORT, 'refused'); END"
        );
        self.journal_by_hand(&trigger);
    }

    pub(super) fn mend_journal(&self) {
        self.journal_by_hand("DROP TRIGGER refuse");
    }

    /// The same over an Asterisk that answers every action but the login's with `answer`, `%` being its ActionID.
    pub(super) async fn answering(&self, answer: &'static [u8], request: Request) -> Asked {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(answer_all(listener, answer));
        let mut settings = (*self.settings).clone();
        settings.target = Target::Ami { host: "127.0.0.1".into(), port };
        settings.login = amibus_ami::LoginMethod::Plain;
        let (actions, session) = Actions::new(Arc::new(settings));
        tokio::spawn(session.run(self.stop.clone()));
        let ready = actions.ready().wait_for(|ready| *ready).await.map(|ready| *ready);
        assert!(ready.expect("the session runs"));
        let parts = (&self.writer, &self.spool, &self.finals, self.directory.path());
        let engine = engine(&self.journal, &actions, parts, &self.metrics, &rules(), None);
        ask(&engine, request, &CancellationToken::new()).await
    }

    pub(super) fn claim(&self, id: &str, body: &str) -> Claim {
        let command = decode(&request(body), 4096).expect("a command");
        self.journal.claim(id, &command, None).expect("claims")
    }

    /// What the journal says of a command.
    pub(super) fn shown(&self, id: &str) -> Option<amibus::command::look::Entry> {
        let look = amibus::command::look::Look::open(&self.directory.path().join("commands.sqlite"));
        look.expect("opens").show(id).expect("reads")
    }

    /// The journal as a process leaves it that is killed after sending.
    pub(super) fn as_if_killed(&self, id: &str) {
        self.journal_by_hand(&format!(
            "UPDATE command SET state = 'sending', outcome = NULL, response = NULL, body = NULL, done_at = NULL
             WHERE id = '{id}'"
        ));
    }

    /// The journal as a process leaves it that is killed after it published an outcome, and before it noted that.
    pub(super) fn as_if_not_published(&self, id: &str) {
        self.journal_by_hand(&format!("UPDATE command SET body = NULL WHERE id = '{id}'"));
    }

    /// Puts an event into the log that nobody who waits for it sees.
    pub(super) fn log(&self, event: &str) {
        let origin = Origin { received: std::time::SystemTime::now(), given: None, boot: None, number: None };
        let frame = amibus_ami::Frame::parse(event.as_bytes());
        self.spool.append_read(|sequence| self.writer.event(frame, sequence, &origin));
    }

    /// Waits until the spool has a whole record on disk in which `text` stands.
    pub(super) async fn until_on_disk(&self, text: &str) {
        let dir = self.directory.path().join("spool");
        for _ in 0..500 {
            let files = std::fs::read_dir(&dir).expect("a spool").filter_map(Result::ok);
            let segments = files.filter(|file| file.path().extension().is_some_and(|end| end == "seg"));
            let mut bytes = segments.filter_map(|file| std::fs::read(file.path()).ok());
            if bytes.any(|bytes| String::from_utf8_lossy(&bytes).contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the spool never had {text}");
    }

    /// Makes every further write to the journal fail.
    pub(super) fn break_journal(&self) {
        self.journal_by_hand("DROP TABLE command");
    }

    fn journal_by_hand(&self, statement: &str) {
        let path = self.directory.path().join("commands.sqlite");
        let other = rusqlite::Connection::open(path).expect("opens");
        other.busy_timeout(Duration::from_secs(5)).expect("set");
        other.execute_batch(statement).expect("done");
    }

    /// What a bus would get.
    pub(super) async fn published(&self) -> Vec<Value> {
        let mut reader = self.spool.reader(0);
        let batch = tokio::time::timeout(Duration::from_secs(2), reader.batch(1000, 1 << 20));
        let Ok(batch) = batch.await else { return Vec::new() };
        let batch = batch.expect("open");
        batch.messages.iter().map(|m| serde_json::from_slice(&m.body).expect("JSON")).collect()
    }
}

/// A request without a topic's help, that somebody waits for.
pub(super) fn request(body: &str) -> Request {
    let (told, _) = mpsc::channel(1);
    Request {
        server: None,
        action: None,
        identity: None,
        sent_at: None,
        sender: None,
        durable: false,
        reply_wanted: true,
        body: body.to_owned().into(),
        handle: Box::new(Told { hear: told, withdrawn: None, begin: None }),
    }
}

/// A request of a durable bus that keeps what was begun.
pub(super) fn request_of(body: &str, begin: Arc<dyn Begin>) -> Request {
    let (hear, _) = mpsc::channel(1);
    let told = Told { hear, withdrawn: None, begin: Some(begin) };
    Request { durable: true, handle: Box::new(told), ..request(body) }
}

async fn ask(engine: &Engine, request: Request, stop: &CancellationToken) -> Asked {
    ask_withdrawn(engine, request, stop, None).await
}

async fn ask_withdrawn(
    engine: &Engine,
    mut request: Request,
    stop: &CancellationToken,
    withdrawn: Option<CancellationToken>,
) -> Asked {
    let (told, mut hear) = mpsc::channel(4);
    request.handle = Box::new(Told { hear: told, withdrawn, begin: request.handle.begin() });
    let metrics = Metrics::default();
    engine.handle(request, "test", &metrics.bus("test"), stop).await;
    let mut asked = Asked { response: Value::Null, acknowledged: false, dead_lettered: false };
    while let Some(what) = hear.recv().await {
        match what {
            What::Reply(body) => asked.response = serde_json::from_slice(&body).expect("JSON"),
            What::Acknowledged => asked.acknowledged = true,
            What::DeadLettered => asked.dead_lettered = true,
        }
    }
    asked
}

fn engine(
    journal: &Arc<Journal>,
    actions: &Actions,
    (writer, spool, finals, dir): (&Arc<Writer>, &Arc<Spool>, &Arc<Finals>, &Path),
    metrics: &Metrics,
    rules: &[Rule],
    shared: Option<Shared>,
) -> Arc<Engine> {
    paced(journal, actions, (writer, spool, finals, dir), metrics, rules, None, shared)
}

fn paced(
    journal: &Arc<Journal>,
    actions: &Actions,
    (writer, spool, finals, dir): (&Arc<Writer>, &Arc<Spool>, &Arc<Finals>, &Path),
    metrics: &Metrics,
    rules: &[Rule],
    pacer: Option<Arc<Pacer>>,
    shared: Option<Shared>,
) -> Arc<Engine> {
    let parts = (writer, spool, finals, dir.join("spool"));
    let server = Server { pacer, ..server(actions, parts, metrics.commands("pbx1")) };
    engine_of(journal, BTreeMap::from([("pbx1".to_owned(), server)]), metrics, rules, shared)
}

fn server(
    actions: &Actions,
    (writer, spool, finals, spool_dir): (&Arc<Writer>, &Arc<Spool>, &Arc<Finals>, PathBuf),
    metrics: CommandMetrics,
) -> Server {
    Server {
        writer: Arc::clone(writer),
        spool: Arc::clone(spool),
        actions: actions.clone(),
        finals: Arc::clone(finals),
        spool_dir,
        action_deadline: ACTION_DEADLINE,
        metrics,
        permits: Arc::new(Semaphore::new(8)),
        pacer: None,
    }
}

fn engine_of(
    journal: &Arc<Journal>,
    servers: BTreeMap<String, Server>,
    metrics: &Metrics,
    rules: &[Rule],
    shared: Option<Shared>,
) -> Arc<Engine> {
    let policy = Policy::new(rules).expect("globs");
    let nowhere =
        Nowhere { writer: self::writer("unknown"), spool: Spool::nowhere(), metrics: metrics.commands("") };
    let settings = Settings {
        max_command_bytes: 4096,
        default_deadline: Some(DEFAULT_DEADLINE),
        final_timeout: Duration::from_millis(300),
    };
    Engine::sharing(settings, policy, Arc::clone(journal), servers, nowhere, shared)
}

fn rules() -> [Rule; 2] {
    let allow = ["Ping", "NoSuchAction", "QueueStatus", "UserEvent"].map(str::to_owned).to_vec();
    let bound = |name: &str, glob: &str| (name.to_owned(), vec![glob.to_owned()]);
    let fields = vec![bound("Application", "Wait"), bound("Channel", "*")];
    [
        Rule { actions: allow, ..Rule::default() },
        Rule { actions: vec!["Originate".into()], fields, ..Rule::default() },
    ]
}

fn writer(server: &str) -> Arc<Writer> {
    let profile = Profile::new(server, None).expect("a profile");
    Arc::new(Writer::new(profile, "ami", "log").expect("a prefix"))
}

fn open(directory: &Path) -> Journal {
    Journal::open(&directory.join("commands.sqlite"), Duration::from_secs(3600)).expect("opens")
}
