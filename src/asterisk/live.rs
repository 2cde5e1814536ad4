//! The connector against real Asterisks.

use std::{sync::Arc, time::Duration};

use amibus_ami::{Action, LoginError, LoginMethod};
use amibus_services::{Asterisk, AsteriskOptions, Version};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ActionFailure, Actions, DownReason, ServerSettings, Target, TlsSettings, action_ids,
    dial::dial,
    link::{Ended, open},
    run_events,
    tests::script::Told,
};

mod blocked;
mod stops;
mod values;

const PATIENCE: Duration = Duration::from_secs(60);

fn asterisk(version: Version) -> Asterisk {
    Asterisk::start(version, &AsteriskOptions::default())
}

fn settings(asterisk: &Asterisk, user: &str) -> ServerSettings {
    let target = Target::Ami { host: "127.0.0.1".to_owned(), port: asterisk.ami_port() };
    let settings = ServerSettings::new("pbx", target, user, format!("{user}-pass").into(), action_ids());
    ServerSettings {
        backoff_min: Duration::from_millis(50),
        backoff_max: Duration::from_millis(200),
        ping_interval: Duration::from_secs(1),
        ping_deadline: Duration::from_secs(2),
        ..settings
    }
}

/// The event session of a server, running.
struct Watched {
    told: Told,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Watched {
    fn start(settings: ServerSettings) -> Self {
        let (told, shutdown) = (Told::default(), CancellationToken::new());
        let task = tokio::spawn(run_events(Arc::new(settings), told.clone(), shutdown.clone()));
        Self { told, shutdown, task }
    }

    /// Waits until a line that begins so was told, after the first `after` lines; gives its index.
    async fn told(&self, begin: &str, after: usize) -> usize {
        let find = async {
            loop {
                let lines = self.told.lines();
                if let Some(found) = lines.iter().skip(after).position(|line| line.starts_with(begin)) {
                    return after + found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, find).await.unwrap_or_else(|_| panic!("no {begin:?} in {:?}", self.told.lines()))
    }

    /// Waits until the session ends of an Asterisk that stops by itself; gives the index of the line. Asterisk says why
    /// first (`Shutdown`), but does not wait until that is written to each session (`really_quit` in `main/asterisk.c`):
    /// on a busy machine it is gone before.
    async fn told_farewell(&self, farewell: &str, after: usize) -> usize {
        let down = self.told("down ", after).await;
        let lines = self.told.lines();
        let is_said = lines[after..down].iter().any(|line| line == "event Shutdown");
        let expected = if is_said { farewell } else { "down Asterisk closed the connection" };
        assert_eq!(lines[down], expected, "{lines:?}");
        down
    }

    async fn stop(self) -> Vec<String> {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
        self.told.lines()
    }
}

fn acting(settings: ServerSettings) -> (Actions, CancellationToken) {
    let (actions, session) = Actions::new(Arc::new(settings));
    let shutdown = CancellationToken::new();
    tokio::spawn(session.run(shutdown.clone()));
    (actions, shutdown)
}

async fn is_ready(actions: &Actions) -> Duration {
    let begun = tokio::time::Instant::now();
    timeout(PATIENCE, actions.ready().wait_for(|ready| *ready)).await.unwrap().unwrap();
    begun.elapsed()
}

async fn run(
    actions: &Actions,
    name: &str,
    fields: &[(&str, &str)],
) -> Result<amibus_ami::Reply, ActionFailure> {
    let action =
        fields.iter().fold(Action::new(name).unwrap(), |a, (name, value)| a.header(name, value).unwrap());
    actions.run(action, std::time::Instant::now() + PATIENCE).await
}

/// Runs a command of the command line. Asterisk says `FullyBooted` a moment before it knows the last of them.
async fn cli(actions: &Actions, command: &str) -> Result<amibus_ami::Reply, ActionFailure> {
    let known = async {
        loop {
            let answer = run(actions, "Command", &[("Command", command)]).await;
            let Ok(reply) = &answer else { return answer };
            let output = reply.response.frame().output().next().unwrap_or_default();
            if !output.starts_with(b"No such command") {
                return answer;
            }
        }
    };
    timeout(PATIENCE, known).await.unwrap()
}

async fn sees_a_call(version: Version, expected: &str) {
    let asterisk = asterisk(version);
    for login in [LoginMethod::Plain, LoginMethod::Md5] {
        let watched = Watched::start(ServerSettings { login, ..settings(&asterisk, "full") });
        let up = watched.told("up ", 0).await;
        let line = watched.told.lines()[up].clone();
        assert!(line.starts_with(&format!("up {expected}")) && line.contains("boot 20"), "{line}");
        for list in ["CoreShowChannels", "BridgeList", "QueueStatus"] {
            watched.told(&format!("snapshot {list}, "), up).await;
        }
        let (actions, shutdown) = acting(settings(&asterisk, "full"));
        is_ready(&actions).await;
        let call =
            [("Channel", "Local/s@nowhere"), ("Application", "Wait"), ("Data", "1"), ("Async", "true")];
        let reply = run(&actions, "Originate", &call).await.unwrap();
        assert!(reply.response.frame().is_success(), "{reply:?}");
        watched.told("event OriginateResponse", up).await;
        shutdown.cancel();
        assert_eq!(watched.stop().await.last().unwrap(), "down amibus is stopping");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_22_is_seen_and_acted_on() {
    sees_a_call(Version::V22, "22.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_16_is_seen_and_acted_on() {
    sees_a_call(Version::V16, "16.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_boot_is_known_at_once_where_it_may_be_read() {
    let asterisk = asterisk(Version::V22);
    let (actions, _full) = acting(settings(&asterisk, "full"));
    assert!(is_ready(&actions).await < super::actions::BOOT_GRACE, "FullyBooted was not read");
    let (actions, _blind) = acting(settings(&asterisk, "writeonly"));
    assert!(is_ready(&actions).await >= super::actions::BOOT_GRACE, "FullyBooted was read without the right");
    let lists = run(&actions, "CoreShowChannels", &[]).await.unwrap();
    assert!(lists.complete.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_answered_by_a_real_asterisk() {
    let asterisk = asterisk(Version::V22);
    let (actions, _shutdown) = acting(settings(&asterisk, "full"));
    is_ready(&actions).await;
    let queues = run(&actions, "QueueStatus", &[]).await.unwrap();
    assert!(queues.items.len() > 1 && queues.complete.is_some(), "{queues:?}");
    let cli = cli(&actions, "core show version").await.unwrap();
    let output: Vec<&[u8]> = cli.response.frame().output().collect();
    assert!(output.first().is_some_and(|line| line.starts_with(b"Asterisk 22")), "{cli:?}");
    let unknown = run(&actions, "NoSuchAction", &[]).await.unwrap();
    assert_eq!(unknown.response.frame().name(), b"Error");
    // Forty at once are answered each with its own.
    let many = (0..40).map(|number| {
        let actions = actions.clone();
        tokio::spawn(async move {
            let variable = format!("GV{number}");
            let set =
                run(&actions, "Setvar", &[("Variable", &variable), ("Value", &number.to_string())]).await;
            assert!(set.unwrap().response.frame().is_success());
            let got = run(&actions, "Getvar", &[("Variable", &variable)]).await.unwrap();
            assert_eq!(got.response.frame().first("Value"), Some(number.to_string().as_bytes()));
        })
    });
    for one in many.collect::<Vec<_>>() {
        one.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_a_real_asterisk_are_told_apart() {
    let asterisk = asterisk(Version::V22);
    for (user, secret) in [("full", "wrong"), ("nobody", "nobody-pass"), ("acl", "acl-pass")] {
        for login in [LoginMethod::Plain, LoginMethod::Md5] {
            let settings = ServerSettings { secret: secret.into(), login, ..settings(&asterisk, user) };
            let watched = Watched::start(settings);
            watched.told("down wrong username or secret", 0).await;
            watched.stop().await;
        }
    }
    let first = Watched::start(settings(&asterisk, "single"));
    first.told("up ", 0).await;
    let second = Watched::start(settings(&asterisk, "single"));
    second.told(&format!("down {}", LoginError::AlreadyInUse), 0).await;
    second.stop().await;
    first.stop().await;
    let odd = ServerSettings { secret: "p4:ss wörd ; =end".into(), ..settings(&asterisk, "odd") };
    for login in [LoginMethod::Plain, LoginMethod::Md5] {
        let watched = Watched::start(ServerSettings { login, ..odd.clone() });
        watched.told("up ", 0).await;
        watched.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_careful_user_is_enough() {
    let asterisk = asterisk(Version::V22);
    let watched = Watched::start(settings(&asterisk, "bridge"));
    let up = watched.told("up 22.", 0).await;
    watched.told("snapshot CoreShowChannels, 0 items", up).await;
    watched.stop().await;
    let watched = Watched::start(settings(&asterisk, "readonly"));
    watched.told("up AMI 11.", 0).await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_whom_it_is_told_to() {
    let asterisk = asterisk(Version::V22);
    let tls = |ca: Option<std::path::PathBuf>, name: Option<&str>| {
        let tls = TlsSettings { ca_file: ca, server_name: name.map(str::to_owned), ..TlsSettings::default() };
        Target::Amis { host: "127.0.0.1".to_owned(), port: asterisk.amis_port(), tls }
    };
    let right = ServerSettings { target: tls(Some(asterisk.ca_file()), None), ..settings(&asterisk, "full") };
    let watched = Watched::start(right.clone());
    watched.told("up 22.", 0).await;
    let (actions, _shutdown) = acting(right);
    is_ready(&actions).await;
    assert!(run(&actions, "QueueStatus", &[]).await.unwrap().complete.is_some());
    watched.stop().await;

    let limit = Duration::from_secs(10);
    assert!(dial(&tls(Some(asterisk.ca_file()), Some("localhost")), limit).await.is_ok());
    for wrong in [tls(None, None), tls(Some(asterisk.ca_file()), Some("pbx.example"))] {
        let error = dial(&wrong, limit).await.err().expect("a certificate that must not be trusted");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let missing = dial(&tls(Some("/nonexistent/ca.pem".into()), None), limit).await.err().unwrap();
    assert!(missing.is_configuration() && missing.to_string().contains("/nonexistent/ca.pem"), "{missing}");
    // AMI in the clear on the port of TLS, and the other way round.
    let clear = Target::Ami { host: "127.0.0.1".to_owned(), port: asterisk.amis_port() };
    let mistaken = ServerSettings {
        target: clear,
        connect_timeout: Duration::from_secs(1),
        ..settings(&asterisk, "full")
    };
    let watched = Watched::start(mistaken);
    watched.told("down ", 0).await;
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_crashes_and_hangs_heal_by_themselves() {
    let mut asterisk = asterisk(Version::V22);
    let watched = Watched::start(settings(&asterisk, "full"));
    let (actions, _shutdown) = acting(settings(&asterisk, "full"));
    let up = watched.told("up ", 0).await;
    is_ready(&actions).await;

    let restart = cli(&actions, "core restart now").await;
    assert!(matches!(restart, Ok(_) | Err(ActionFailure::Lost { written: true })), "{restart:?}");
    let down = watched.told_farewell("down Asterisk restarts", up).await;
    let up = watched.told("up ", down).await;
    assert!(watched.told.lines()[up].ends_with("resumed false"), "another run of Asterisk");
    is_ready(&actions).await;
    // What the modules refused before the boot was over is asked for again.
    watched.told("snapshot QueueStatus, ", up).await;

    // Killed: nothing is said.
    asterisk.kill();
    let down = watched.told("down ", up).await;
    assert_eq!(watched.told.lines()[down], "down Asterisk closed the connection");
    assert_eq!(run(&actions, "Ping", &[]).await, Err(ActionFailure::NotConnected));
    asterisk.restart();
    let up = watched.told("up ", down).await;
    is_ready(&actions).await;

    // Hung: the connection stays open, and only the ping finds it.
    asterisk.pause();
    let down = watched.told("down nothing received", up).await;
    asterisk.resume();
    let up = watched.told("up ", down).await;
    assert!(watched.told.lines()[up].ends_with("resumed true"), "the same run of Asterisk");
    watched.stop().await;
}

#[tokio::test]
async fn nobody_at_home_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let target = Target::Ami { host: "127.0.0.1".to_owned(), port: free };
    let settings = Arc::new(ServerSettings::new("pbx", target, "me", "x".into(), action_ids()));
    let reason = open(&settings, settings.events.clone()).await.err().unwrap();
    let ended = Ended { reason, since: None };
    assert!(matches!(ended.reason, DownReason::Unreachable(_)));
}
