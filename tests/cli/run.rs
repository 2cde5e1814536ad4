//! `run`: ready, reload, leave.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use amibus_sim::{Recording, Sim, SimOptions};

use super::program::{File, LIMIT, Running, amibus};

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
{more}"#,
        sim.addr()
    )
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
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
