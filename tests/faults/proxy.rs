//! A wire that can be cut: a TCP proxy on loopback, in the test process.
//!
//! Namespaces need root, interfaces and servers that listen there; this needs nothing and cuts at a byte. What it
//! cannot show is a SYN that nobody answers: while it holds everything back, connections are still opened by the kernel.

use std::fmt::Debug;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use amibus_services::Ports;

const CHUNK_BYTES: usize = 64 << 10;
const POLL: Duration = Duration::from_millis(10);

/// Hears what a wire carries.
pub(super) trait Tap: Debug + Send + Sync {
    /// These bytes are about to be handed over, to the server or from it, on the connection of this number.
    fn carries(&self, connection: u64, to_server: bool, bytes: &[u8]);
}

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It carries.
    Whole,
    /// It takes nothing and brings nothing; nobody is told.
    HalfOpen,
    /// Connections are closed, new ones are refused.
    Refused,
    /// The proxy is gone.
    Gone,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    target: Mutex<u16>,
    tap: Option<Arc<dyn Tap>>,
    connections: AtomicU64,
}

/// The wire to one port, whole until it is cut.
#[derive(Debug)]
pub(super) struct Proxy {
    shared: Arc<Shared>,
    ports: Ports,
}

impl Proxy {
    /// Listens on a port of its own; leads nowhere until [`Proxy::lead_to`].
    pub(super) fn start(tap: Option<Arc<dyn Tap>>) -> Self {
        let shared = Shared {
            state: Mutex::new(State::Whole),
            changed: Condvar::new(),
            target: Mutex::new(0),
            tap,
            connections: AtomicU64::new(0),
        };
        let this = Self { shared: Arc::new(shared), ports: Ports::take() };
        let (shared, port) = (Arc::clone(&this.shared), this.port());
        thread::spawn(move || door(&shared, port));
        this
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.ports.port(0)
    }

    /// Where it leads.
    pub(super) fn lead_to(&self, port: u16) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = port;
    }

    /// Carries again. Connections that were half-open go on where they were.
    pub(super) fn mend(&self) {
        self.shared.set(State::Whole);
    }

    /// Nothing goes through, and nobody is told.
    pub(super) fn half_open(&self) {
        self.shared.set(State::HalfOpen);
    }

    /// Closes all connections and the door.
    pub(super) fn refuse(&self) {
        self.shared.set(State::Refused);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.set(State::Gone);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.lock() = state;
        self.changed.notify_all();
    }

    /// Waits until the wire is not half-open, and tells what it is then.
    fn state(&self) -> State {
        let state = self.changed.wait_while(self.lock(), |state| *state == State::HalfOpen);
        *state.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes connections while the wire is not refused.
fn door(shared: &Arc<Shared>, port: u16) {
    let mut listener: Option<TcpListener> = None;
    loop {
        match *shared.lock() {
            State::Gone => return,
            State::Refused => listener = None,
            State::Whole | State::HalfOpen if listener.is_none() => {
                listener = TcpListener::bind(("127.0.0.1", port)).ok();
                if let Some(open) = &listener {
                    open.set_nonblocking(true).expect("a listener that does not block");
                }
            }
            State::Whole | State::HalfOpen => {}
        }
        match listener.as_ref().map(TcpListener::accept) {
            Some(Ok((client, _))) => {
                let shared = Arc::clone(shared);
                thread::spawn(move || carry(&shared, client));
            }
            _ => thread::sleep(POLL),
        }
    }
}

/// One connection, both ways.
fn carry(shared: &Arc<Shared>, client: TcpStream) {
    if shared.state() != State::Whole {
        return;
    }
    let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
    for stream in [&client, &server] {
        let ready = stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true));
        if ready.and_then(|()| stream.set_read_timeout(Some(POLL * 10))).is_err() {
            return;
        }
    }
    let (Ok(back_from), Ok(back_to)) = (server.try_clone(), client.try_clone()) else { return };
    let (other, number) = (Arc::clone(shared), shared.connections.fetch_add(1, Ordering::Relaxed));
    let back = thread::spawn(move || pump(&other, back_from, back_to, number, false));
    pump(shared, client, server, number, true);
    let _ = back.join();
}

fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream, number: u64, to_server: bool) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        if shared.state() != State::Whole {
            break;
        }
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => {
                // What came just before the cut stays in the wire.
                if shared.state() != State::Whole {
                    break;
                }
                if let Some(tap) = &shared.tap {
                    tap.carries(number, to_server, &chunk[..count]);
                }
                if to.write_all(&chunk[..count]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_wire_carries_holds_back_and_refuses() {
    let echo = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let target = echo.local_addr().expect("an address").port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = echo.accept() {
            thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = stream.read(&mut byte) {
                    let _ = stream.write_all(&byte);
                }
            });
        }
    });
    let proxy = Proxy::start(None);
    proxy.lead_to(target);
    let connect = || {
        let stream = (0..200).find_map(|_| {
            thread::sleep(POLL);
            TcpStream::connect(("127.0.0.1", proxy.port())).ok()
        });
        let stream = stream.expect("the proxy takes connections");
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        stream
    };
    let ask = |stream: &mut TcpStream| {
        let mut byte = [0];
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut byte).is_ok()
    };
    let mut stream = connect();
    assert!(ask(&mut stream), "whole");
    proxy.half_open();
    thread::sleep(POLL * 20);
    assert!(!ask(&mut stream), "half-open");
    proxy.mend();
    let mut late = [0];
    stream.read_exact(&mut late).expect("what was held back comes through");
    proxy.refuse();
    thread::sleep(POLL * 30);
    assert!(!ask(&mut stream), "closed");
    assert!(TcpStream::connect(("127.0.0.1", proxy.port())).is_err(), "refused");
    proxy.mend();
    assert!(ask(&mut connect()), "whole again");
}
