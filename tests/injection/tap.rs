//! A wire to Asterisk that keeps every byte a client sent, connection by connection.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

const CHUNK_BYTES: usize = 64 << 10;

/// What clients sent, a connection each, in the order of connecting.
type Sent = Arc<Mutex<Vec<Vec<u8>>>>;

/// A proxy on a port of its own; it carries until the test process ends.
pub(super) struct Tap {
    port: u16,
    sent: Sent,
}

impl Tap {
    /// Leads to `target` on loopback.
    pub(super) fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let sent = Sent::default();
        let all = Arc::clone(&sent);
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                let index = {
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push(Vec::new());
                    all.len() - 1
                };
                let (Ok(back_from), Ok(back_to)) = (server.try_clone(), client.try_clone()) else { continue };
                let kept = Arc::clone(&all);
                thread::spawn(move || pump(client, server, |bytes| keep(&kept, index, bytes)));
                thread::spawn(move || pump(back_from, back_to, |_| {}));
            }
        });
        Self { port, sent }
    }

    /// Where it listens.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Everything that was sent so far.
    pub(super) fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn keep(sent: &Sent, connection: usize, bytes: &[u8]) {
    sent.lock().unwrap_or_else(PoisonError::into_inner)[connection].extend_from_slice(bytes);
}

/// Bytes are kept before they are carried on: what Asterisk acted upon was kept.
fn pump(mut from: TcpStream, mut to: TcpStream, keep: impl Fn(&[u8])) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        keep(&chunk[..count]);
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
