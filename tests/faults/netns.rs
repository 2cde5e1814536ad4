//! The network between amibus and everything else: three namespaces, and a router in the middle that can be cut.
//!
//! ```text
//! amibus 10.77.0.1 --- router --- 10.77.0.6 brokers, Asterisk, consumers, the test itself
//! ```
//!
//! None has a name, and none outlives its processes: whatever happens to a run, nothing is left. The test starts itself
//! again in its namespace ([`done_inside`]); servers go on listening on loopback there, and packets to its address
//! are led to them. Needs root or user namespaces, iproute2 and iptables.

use std::env;
use std::fmt::Display;
use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use amibus_services::Program;

use super::brokers::turn;

const INSIDE: &str = "AMIBUS_TEST_FAULTS_INSIDE";
/// Where the test and all servers are.
const FAR: &str = "10.77.0.6";
/// Where amibus is.
const NEAR: &str = "10.77.0.1";
/// BBR, a machine's default here and there, takes the waiting of a busy machine's programs for the network's, and lets
/// four small packets through at a time.
const CONGESTION: &str = "echo reno >/proc/sys/net/ipv4/tcp_congestion_control";
const START_SECONDS: u64 = 10;

/// Runs the test of this name in a namespace of its own, and says so; or says no, where it is there already.
///
/// # Panics
/// Where it failed there.
pub(super) fn done_inside(test: &str) -> bool {
    if is_inside() {
        return false;
    }
    let _turn = turn();
    let root = fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("\nUid:\t0\t"));
    let ended = Command::new("unshare")
        .args(if root { ["-n"].as_slice() } else { ["-r", "-n"].as_slice() })
        .args(["setpriv", "--pdeathsig", "KILL"])
        .arg(env::current_exe().expect("the program of the tests"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .expect("the program unshare");
    let said = String::from_utf8_lossy(&ended.stdout);
    // What it said belongs to what this test says.
    std::io::stderr().write_all(said.as_bytes()).expect("standard error");
    assert!(
        ended.status.success() && said.contains("test result: ok. 1 passed"),
        "{test} failed in its network namespace: {}",
        ended.status
    );
    true
}

fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// The address at which amibus listens.
pub(super) fn amibus_host() -> &'static str {
    if is_inside() { NEAR } else { "127.0.0.1" }
}

/// The address at which amibus finds a port of ours.
pub(super) fn address(port: impl Display) -> String {
    let host = if is_inside() { FAR } else { "127.0.0.1" };
    format!("{host}:{port}")
}

/// The way between the namespace of amibus and ours.
#[derive(Debug)]
pub(super) struct Way {
    near: Program,
    router: Program,
}

impl Way {
    /// Lays it, where the test runs in a namespace of its own.
    pub(super) fn lay() -> Option<Self> {
        is_inside().then(|| {
            let this = Self { near: namespace(), router: namespace() };
            let (near, router) = (this.near.pid().unwrap_or(0), this.router.pid().unwrap_or(0));
            here(&format!(
                "ip link set lo up
                 ip link add far type veth peer name far0 netns {router}
                 ip addr add {FAR}/30 dev far
                 ip link set far up
                 ip route add 10.77.0.0/30 via 10.77.0.5
                 echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
                 {CONGESTION}
                 for chain in PREROUTING OUTPUT; do
                   iptables -t nat -A $chain -d {FAR} -p tcp -j DNAT --to-destination 127.0.0.1
                 done"
            ));
            this.on_router(&format!(
                "ip link add near0 type veth peer name near netns {near}
                 ip addr add 10.77.0.5/30 dev far0
                 ip addr add 10.77.0.2/30 dev near0
                 ip link set far0 up
                 ip link set near0 up
                 echo 1 >/proc/sys/net/ipv4/ip_forward"
            ));
            within(
                &this.near,
                &format!(
                    "ip addr add {NEAR}/30 dev near
                     ip link set near up
                     ip link set lo up
                     {CONGESTION}
                     ip route add default via 10.77.0.2"
                ),
            );
            this
        })
    }

    /// The words that start a program in amibus's namespace.
    pub(super) fn enter(&self) -> Vec<String> {
        let pid = self.near.pid().expect("the namespace of amibus").to_string();
        ["nsenter", "-t", &pid, "-n"].map(str::to_owned).to_vec()
    }

    /// Packets to and from this port of ours vanish.
    pub(super) fn half_open(&self, port: u16) {
        self.block(port, "DROP");
    }

    /// Packets to and from this port of ours are answered with a reset.
    pub(super) fn refuse(&self, port: u16) {
        self.block(port, "REJECT --reject-with tcp-reset");
    }

    /// Nothing stands in the way.
    pub(super) fn mend(&self) {
        self.on_router("iptables -F FORWARD");
    }

    fn block(&self, port: u16, verdict: &str) {
        self.on_router(&format!(
            "iptables -F FORWARD
             iptables -A FORWARD -p tcp --dport {port} -j {verdict}
             iptables -A FORWARD -p tcp --sport {port} -j {verdict}"
        ));
    }

    fn on_router(&self, script: &str) {
        within(&self.router, script);
    }
}

/// A network namespace that lives as long as the program that does nothing in it.
fn namespace() -> Program {
    let mut program = Program::prepare("netns");
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    let own = network("self");
    program.start(
        ["unshare", "-n", "sleep", "infinity"].map(str::to_owned).to_vec(),
        START_SECONDS,
        |process| {
            let other = process.pid().and_then(|pid| network(&pid.to_string()));
            other.is_some() && other != own
        },
    );
    program
}

fn here(script: &str) {
    run(Command::new("sh").args(["-ec", script]));
}

fn within(namespace: &Program, script: &str) {
    let pid = namespace.pid().expect("a namespace").to_string();
    run(Command::new("nsenter").args(["-t", &pid, "-n", "sh", "-ec", script]));
}

fn run(command: &mut Command) {
    let output = command.output().expect("the programs sh and nsenter");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "network namespaces need root, iproute2 and iptables (tests/services/install netns): {command:?}: {errors}"
    );
}
