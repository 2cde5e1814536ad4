//! An engine for the tests of this folder, whose server is away.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use amibus_contract::{Begin, BoxFuture, Fault, FaultKind};
use tokio::sync::Semaphore;

use super::{
    decode::{Command, Wait},
    engine::{Engine, Nowhere, Server, Settings},
    finals::Finals,
    journal::Journal,
    policy::Policy,
};
use crate::{
    asterisk::{self, Actions, ServerSettings, Target},
    metrics::Metrics,
    normalize::Profile,
    spool::{self, Options, Spool},
    writer::Writer,
};

const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn writer(server: &str) -> Arc<Writer> {
    Arc::new(Writer::new(Profile::new(server, None).expect("a profile"), "ami", "log").expect("a prefix"))
}

pub(super) fn command() -> Command {
    Command {
        id: None,
        server: "pbx1".into(),
        action: "Ping".into(),
        deadline: None,
        wait: Wait::Response,
        headers: Vec::new(),
        payload_hash: "h".into(),
    }
}

pub(super) fn originate() -> Command {
    Command { action: "Originate".into(), ..command() }
}

/// Of one server, `pbx1`, that is away. A segment of its spool takes a few records.
pub(super) fn engine(dir: &Path) -> (Arc<Engine>, Arc<Spool>) {
    let journal = Journal::open(&dir.join("commands.sqlite"), PATIENCE).expect("opens");
    let options = Options { segment_bytes: 1, pinned: true, ..Options::default() };
    let opened = spool::open(&dir.join("spool"), options, &["test"]).expect("opens");
    let decoder = writer("pbx1");
    let spool = opened.start(Arc::new(move |body| decoder.read(body))).expect("threads");
    let target = Target::Ami { host: "127.0.0.1".into(), port: 1 };
    let settings = ServerSettings::new("pbx1", target, "a", "a".into(), asterisk::action_ids());
    let (actions, _) = Actions::new(Arc::new(settings));
    let metrics = Metrics::default();
    let server = Server {
        writer: writer("pbx1"),
        spool: Arc::clone(&spool),
        actions,
        finals: Arc::new(Finals::default()),
        spool_dir: dir.join("spool"),
        action_deadline: PATIENCE,
        metrics: metrics.commands("pbx1"),
        permits: Arc::new(Semaphore::new(1)),
        pacer: None,
    };
    let nowhere =
        Nowhere { writer: writer("unknown"), spool: Spool::nowhere(), metrics: metrics.commands("") };
    let settings = Settings { max_command_bytes: 4096, default_deadline: None, final_timeout: PATIENCE };
    let policy = Policy::new(&[]).expect("no rules");
    let servers = BTreeMap::from([("pbx1".to_owned(), server)]);
    (Engine::new(settings, policy, Arc::new(journal), servers, nowhere), spool)
}

/// A bus that keeps what was begun.
#[derive(Default)]
pub(super) struct Begins {
    before: bool,
    refuses: AtomicBool,
    is_silent: AtomicBool,
    begun: AtomicBool,
    asked: AtomicU32,
}

impl Begins {
    /// Of a command that somebody had begun.
    pub(super) fn before() -> Self {
        Self { before: true, ..Self::default() }
    }

    /// From now on it is somebody else's.
    pub(super) fn refuse(&self) {
        self.refuses.store(true, Ordering::Relaxed);
    }

    /// From now on it keeps what it is asked to, and its answer is lost.
    pub(super) fn silence(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Begin for Begins {
    fn begun_before(&self) -> bool {
        self.before
    }

    fn begin(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let refused = self.refuses.load(Ordering::Relaxed);
        if !refused {
            self.begun.store(true, Ordering::Relaxed);
        }
        if self.is_silent.load(Ordering::Relaxed) {
            return Box::pin(std::future::pending());
        }
        let gone = || Fault::new(FaultKind::Refused, "gone");
        Box::pin(std::future::ready(if refused { Err(gone()) } else { Ok(()) }))
    }

    fn take_back(&self) {
        self.begun.store(false, Ordering::Relaxed);
    }
}
