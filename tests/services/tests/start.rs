//! Every server starts, answers, survives a restart on its port, and dies with its parent.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use amibus_services::{
    Asterisk, AsteriskOptions, KAFKA_PASSWORD, KAFKA_USER, Kafka, KafkaOptions, Nats, NatsOptions, Process,
    Python, Version,
};

/// Set where this test program is the parent that gets killed: the file that it writes the server's pid to.
const PARENT: &str = "AMIBUS_TEST_PARENT";

/// How long a server may outlive its killed parent.
const GONE_SECONDS: u64 = 2;

fn alive(pid: u32) -> bool {
    // A process that ended but was not waited for is a zombie: it has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn within(seconds: u64, what: &str, mut yes: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !yes() {
        assert!(Instant::now() < deadline, "{what}: not within {seconds} s");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs the test `name` of this program in a process of its own, which holds a server until it is killed with
/// SIGKILL, and checks that the server and its directory are gone with it.
fn dies_with_its_parent(name: &str) {
    let shared = tempfile::tempdir().expect("a temporary directory");
    let file = shared.path().join("pid");
    let mut parent = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", name, "--nocapture"])
        .env(PARENT, &file)
        .stdout(Stdio::null())
        .spawn()
        .expect("this program again");
    within(90, "the server of the other process", || {
        assert!(matches!(parent.try_wait(), Ok(None)), "the other process ended");
        file.exists()
    });
    let text = fs::read_to_string(&file).expect("pid and directory");
    let (pid, directory) = text.split_once(' ').expect("pid and directory");
    let pid: u32 = pid.parse().expect("a pid");
    assert!(alive(pid));
    parent.kill().expect("SIGKILL");
    parent.wait().expect("the end of the other process");
    within(GONE_SECONDS, "the end of the server", || !alive(pid));
    within(GONE_SECONDS, "the end of its directory", || !Path::new(directory).exists());
}

/// In the process that is to be killed: tells about the server, and waits for the kill.
fn hold(process: &Process) {
    let Some(file) = env::var_os(PARENT) else { return };
    let temporary = Path::new(&file).with_extension("new");
    let pid = process.pid().expect("a running server");
    fs::write(&temporary, format!("{pid} {}", process.directory().display())).expect("the pid file");
    fs::rename(&temporary, &file).expect("the pid file");
    thread::sleep(Duration::from_secs(120));
    panic!("nobody killed this process");
}

fn is_parent() -> bool {
    env::var_os(PARENT).is_some()
}

#[test]
fn nats() {
    let mut nats = Nats::start(&NatsOptions { jetstream: true, ..NatsOptions::default() });
    hold(&nats);
    let (url, first) = (nats.url(), nats.pid().expect("a pid"));
    nats.kill();
    assert!(!alive(first));
    assert!(TcpStream::connect(nats.address()).is_err());
    nats.restart();
    assert_eq!(nats.url(), url);
    let second = nats.pid().expect("a pid");
    assert_ne!(first, second);
    nats.stop();
    assert!(!alive(second));
    nats.restart();
    let last = nats.pid().expect("a pid");
    let directory = nats.directory().to_owned();
    drop(nats);
    assert!(!alive(last));
    assert!(!directory.exists());
}

#[test]
fn a_paused_server_does_not_answer_until_it_is_resumed() {
    use std::io::Read;
    let nats = Nats::jetstream();
    nats.pause();
    let mut stream = TcpStream::connect(nats.address()).expect("the kernel still accepts");
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mut byte = [0];
    assert!(stream.read(&mut byte).is_err());
    nats.resume();
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    assert_eq!(stream.read(&mut byte).expect("the greeting"), 1);
}

#[test]
fn nats_dies_with_its_parent() {
    assert!(!is_parent());
    dies_with_its_parent("nats");
}

#[test]
fn asterisk_22() {
    let options = AsteriskOptions { debug_seq: true, ..AsteriskOptions::default() };
    let mut asterisk = Asterisk::start(Version::V22, &options);
    hold(&asterisk);
    assert!(asterisk.cli("core show version").starts_with("Asterisk 22."));
    let port = asterisk.ami_port();
    asterisk.kill();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    asterisk.restart();
    assert_eq!(asterisk.ami_port(), port);
    assert!(asterisk.cli("manager show settings").contains(&format!("127.0.0.1:{port}")));
    assert!(asterisk.cli("dialplan show flows").contains("1001"));
}

#[test]
fn two_asterisks_of_a_version_run_at_once() {
    let extra = "[more]\nsecret = more-pass\nread = all\nwrite = all\n";
    let options = AsteriskOptions { manager: extra.to_owned(), ..AsteriskOptions::default() };
    let first = Asterisk::start(Version::V16, &options);
    let second = Asterisk::start(Version::V16, &AsteriskOptions::default());
    let output = Command::new("openssl")
        .args(["s_client", "-brief", "-verify_return_error", "-verify_hostname", "localhost", "-CAfile"])
        .arg(first.ca_file())
        .args(["-connect", &format!("127.0.0.1:{}", first.amis_port())])
        .stdin(Stdio::null())
        .output()
        .expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(first.cli("core show version").starts_with("Asterisk 16."));
    assert!(first.cli("manager show users").contains("more"));
    assert!(!second.cli("manager show users").contains("more"));
    for port in
        [first.amis_port(), first.http_port(), first.https_port(), second.amis_port(), second.http_port()]
    {
        TcpStream::connect(("127.0.0.1", port)).expect("a listener");
    }
}

#[test]
fn asterisk_dies_with_its_parent() {
    dies_with_its_parent("asterisk_22");
}

#[test]
fn kafka() {
    let mut kafka = Kafka::start(&KafkaOptions { sasl: true, tls: true, ..KafkaOptions::default() });
    hold(&kafka);
    for address in [kafka.sasl_brokers(), kafka.tls_brokers(), kafka.sasl_tls_brokers()] {
        TcpStream::connect(address).expect("a listener");
    }
    let brokers = kafka.brokers();
    kafka.kill();
    assert!(TcpStream::connect(&brokers).is_err());
    kafka.restart();
    assert_eq!(kafka.brokers(), brokers);
    TcpStream::connect(&brokers).expect("a listener");
}

#[test]
fn kafka_lets_its_user_in_on_every_listener() {
    let kafka = Kafka::start(&KafkaOptions { sasl: true, tls: true, ..KafkaOptions::default() });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kafka_listeners.py");
    let ca = kafka.ca_file().display().to_string();
    let addresses =
        [kafka.brokers(), kafka.sasl_brokers(), kafka.tls_brokers(), kafka.sasl_tls_brokers(), ca];
    let arguments = addresses.each_ref().map(String::as_str);
    let python = Python::spawn(script, &[&arguments[..], &[KAFKA_USER, KAFKA_PASSWORD]].concat());
    let lines = python.lines_until(Duration::from_secs(60), |line| line == "done");
    let wanted = [
        "PLAINTEXT",
        "SSL",
        "SASL_PLAINTEXT PLAIN",
        "SASL_PLAINTEXT SCRAM-SHA-256",
        "SASL_PLAINTEXT SCRAM-SHA-512",
        "SASL_SSL SCRAM-SHA-512",
        "refused",
        "done",
    ];
    assert_eq!(lines, wanted);
}

#[test]
fn kafka_dies_with_its_parent() {
    dies_with_its_parent("kafka");
}

#[test]
fn python_has_the_clients_of_all_buses() {
    let script = tempfile::Builder::new().suffix(".py").tempfile().expect("a file");
    let text = "import sys, zmq, nats, confluent_kafka\nprint('ready', sys.argv[1])\nprint('done')\n";
    fs::write(script.path(), text).expect("a script");
    let mut python = Python::spawn(script.path(), &["now"]);
    let lines = python.lines_until(Duration::from_secs(30), |line| line == "done");
    assert_eq!(lines, ["ready now", "done"]);
    assert_eq!(python.line(Duration::from_secs(30)), None);
    python.process().kill();
}
