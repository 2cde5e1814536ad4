//! `run`: ready, reload, leave.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use amibus_services::Ports;
use amibus_sim::{Recording, Sim, SimOptions};

use super::program::{File, LIMIT, Running, amibus};

/// What fits into a pipe that nobody reads.
const PIPE_BYTES: usize = 64 * 1024;

fn configuration(sim: &Sim, more: &str) -> String {
    format!(
        r#"
[[server]]
name = "pbx1"
url = "ami://{}"
username = "amibus"
secret = "amibus"

[bus.zeromq]
publish = "tcp://127.0.0.1:*"

[http]
listen = "127.0.0.1:0"

[shutdown]
drain = "3s"

[spool]
dir = "@/state"
{more}"#,
        sim.addr()
    )
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(LIMIT)).expect("set");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn until(address: &str, path: &str, wanted: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let answer = get(address, path);
        if answer.contains(wanted) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} never said {wanted}:\n{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn address(running: &mut Running) -> String {
    let line = running.log(|line| line.contains("health and metrics"));
    let line: serde_json::Value = serde_json::from_str(&line).expect("a log line is JSON off a terminal");
    line["address"].as_str().expect("the address").to_owned()
}

#[test]
fn it_gets_ready_reloads_and_leaves() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sim = runtime.block_on(Sim::start(SimOptions::default())).expect("a simulated Asterisk");
    let file = File::new(&configuration(&sim, ""));
    let mut running = Running::start(amibus(&["run", "-c", &file.name()]));
    let http = address(&mut running);
    until(&http, "/ready", "200 OK");
    let call = Recording::named("dial-basic-22").expect("embedded");
    runtime.block_on(sim.play(&call, 1000.0));
    until(&http, "/metrics", "amibus_messages_published_total{server=\"pbx1\",bus=\"zeromq\"}");
    until(&http, "/metrics", "amibus_link_up{server=\"pbx1\"} 1");

    file.write(&configuration(&sim, "[log]\nlevle = \"info\"\n"));
    running.signal("HUP");
    let line = running.log(|line| line.contains("the configuration is not taken"));
    assert!(line.contains("log.levle: unknown key; did you mean"), "{line}");
    until(&http, "/ready", "200 OK");

    file.write(&configuration(&sim, "").replace("pbx1", "pbx9"));
    running.signal("HUP");
    let http = address(&mut running);
    until(&http, "/ready", "\"pbx9\":{\"state\":\"up\"");

    running.signal("TERM");
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("everything was delivered"), "{}", ended.err);
    assert_eq!(ended.out, "");
}

#[test]
fn what_cannot_be_had_is_not_taken() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sim = runtime.block_on(Sim::start(SimOptions::default())).expect("a simulated Asterisk");
    let file = File::new(&configuration(&sim, ""));
    let mut running = Running::start(amibus(&["run", "-c", &file.name()]));
    let http = address(&mut running);
    until(&http, "/ready", "200 OK");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").to_string();
    let commands = "commands = \"tcp://127.0.0.1:*\"\n\n[http]";
    let spool = file.path().display().to_string();
    for (text, expected) in [
        (configuration(&sim, "").replace("127.0.0.1:0", &port), "(http.listen): Address already in use"),
        (
            configuration(&sim, "").replace("@/state", &spool).replace("[http]", commands),
            "cannot be made: File exists",
        ),
    ] {
        file.write(&text);
        assert_eq!(Running::start(amibus(&["check", "-c", &file.name()])).end().code, Some(0));
        running.signal("HUP");
        let line = running.log(|line| line.contains("the configuration is not taken"));
        assert!(line.contains(expected), "{line}");
        until(&http, "/ready", "200 OK");
    }

    let other = "[log]\nlevel = \"debug\"\nformat = \"text\"\n";
    file.write(&format!("worker_threads = 3\n{}", configuration(&sim, other)));
    running.signal("HUP");
    running.log(|line| line.contains("log.level is taken"));
    running.log(|line| line.contains("log.format changed and is not taken"));
    running.log(|line| line.contains("worker_threads") && line.contains("\"next\":3"));
    assert_eq!(address(&mut running), http, "the port stays");
    running.signal("TERM");
    assert_eq!(running.end().code, Some(0));
}

/// The runtime's threads, those that wait for a disk among them.
#[cfg(target_os = "linux")]
fn worker_threads(running: &Running) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", running.child.id())).expect("it runs");
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("tokio-rt-worker")).count()
}

#[test]
#[cfg(target_os = "linux")]
fn it_has_as_many_worker_threads_as_are_configured_and_few_otherwise() {
    const CONFIGURED: usize = 64;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sim = runtime.block_on(Sim::start(SimOptions::default())).expect("a simulated Asterisk");
    for (first_line, is_configured) in
        [(format!("worker_threads = {CONFIGURED}"), true), (String::new(), false)]
    {
        let file = File::new(&format!("{first_line}\n{}", configuration(&sim, "")));
        let mut running = Running::start(amibus(&["run", "-c", &file.name()]));
        let http = address(&mut running);
        until(&http, "/ready", "200 OK");
        let threads = worker_threads(&running);
        assert_eq!(threads >= CONFIGURED, is_configured, "{threads}");
        running.signal("TERM");
        assert_eq!(running.end().code, Some(0));
    }
}

/// A bus that is not there, so that leaving takes as long as it may.
fn undeliverable(sim: &Sim) -> String {
    configuration(sim, "")
        .replace("bus.zeromq", "bus.nats")
        .replace("publish = \"tcp://127.0.0.1:*\"", "url = \"nats://127.0.0.1:1\"")
}

#[test]
fn a_signal_that_comes_twice_counts_once_and_a_later_one_leaves_at_once() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sim = runtime.block_on(Sim::start(SimOptions::default())).expect("a simulated Asterisk");
    let call = Recording::named("dial-basic-22").expect("embedded");
    for (drain, again, code) in [("3s", false, 0), ("50s", true, 1)] {
        let file = File::new(&undeliverable(&sim).replace("3s", drain));
        let mut running = Running::start(amibus(&["run", "-c", &file.name()]));
        let http = address(&mut running);
        until(&http, "/metrics", "amibus_link_up{server=\"pbx1\"} 1");
        runtime.block_on(sim.play(&call, 1000.0));
        running.signal("TERM");
        running.log(|line| line.contains("draining"));
        running.signal("TERM");
        let begun = Instant::now();
        if again {
            // The times of signals are what is tested.
            std::thread::sleep(Duration::from_millis(1200));
            running.signal("TERM");
        }
        let ended = running.end();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_standard_error_that_is_not_read_stops_nothing() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sim = runtime.block_on(Sim::start(SimOptions::default())).expect("a simulated Asterisk");
    let ports = Ports::take();
    let http = format!("127.0.0.1:{}", ports.port(0));
    let file = File::new(&configuration(&sim, "").replace("127.0.0.1:0", &http));
    let (unread, mut stuck) = std::io::pipe().expect("a pipe");
    stuck.write_all(&[b'x'; PIPE_BYTES]).expect("just filled");
    let mut command = amibus(&["run", "-c", &file.name()]);
    let mut child = command.stderr(stuck).spawn().expect("starts");
    let deadline = Instant::now() + LIMIT;
    while TcpStream::connect(&http).is_err() {
        assert!(Instant::now() < deadline, "it never listened");
        std::thread::sleep(Duration::from_millis(20));
    }
    until(&http, "/ready", "200 OK");
    let killed = std::process::Command::new("kill").arg(child.id().to_string()).status();
    assert!(killed.expect("kill runs").success());
    assert_eq!(super::program::wait(&mut child).code(), Some(0));
    drop(unread);
}

#[test]
fn a_port_that_is_taken_is_told() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let sim = runtime.block_on(Sim::start(SimOptions::default())).expect("a simulated Asterisk");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let file = File::new(&configuration(&sim, "").replace("127.0.0.1:0", &address));
    let ended = Running::start(amibus(&["run", "-c", &file.name()])).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains(&format!("error: cannot listen on {address} (http.listen)")), "{ended:?}");
}
