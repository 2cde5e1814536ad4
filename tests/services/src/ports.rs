//! Free ports on loopback that no other test takes, in this process or in another one.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

use crate::cache;

/// Below the ports that Linux gives to outgoing connections, so that none of those can be in the way.
const FIRST_PORT: u16 = 15_008;
const BLOCK_PORTS: u16 = 32;
const BLOCKS: u16 = 500;

static NEXT_BLOCK: AtomicU16 = AtomicU16::new(0);

/// A block of neighbouring ports, taken for as long as this value lives.
#[derive(Debug)]
pub struct Ports {
    first: u16,
    _lock: File,
}

impl Ports {
    /// Takes a block that nobody else holds and that nothing listens on.
    ///
    /// # Panics
    /// Where none is left.
    #[must_use]
    pub fn take() -> Self {
        let locks = cache::directory().join("ports");
        fs::create_dir_all(&locks).unwrap_or_else(|error| panic!("{}: {error}", locks.display()));
        let start = (std::process::id() % u32::from(BLOCKS)) as u16;
        for _ in 0..BLOCKS {
            let block = (start + NEXT_BLOCK.fetch_add(1, Ordering::Relaxed) % BLOCKS) % BLOCKS;
            let lock = File::create(locks.join(block.to_string())).expect("a lock file for ports");
            let first = FIRST_PORT + block * BLOCK_PORTS;
            if lock.try_lock().is_ok() && (first..first + BLOCK_PORTS).all(is_free) {
                return Self { first, _lock: lock };
            }
        }
        panic!("no {BLOCK_PORTS} neighbouring ports are free on loopback");
    }

    /// The port at `index`.
    ///
    /// # Panics
    /// Where the block has no such port.
    #[must_use]
    pub fn port(&self, index: u16) -> u16 {
        assert!(index < BLOCK_PORTS, "a block has {BLOCK_PORTS} ports");
        self.first + index
    }
}

/// A port that a client saw closing keeps lingering for a while; a server with `SO_REUSEADDR` can have it, and so
/// can the standard library's listener.
fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap_while_they_live() {
        let blocks: Vec<Ports> = (0..20).map(|_| Ports::take()).collect();
        let mut firsts: Vec<u16> = blocks.iter().map(|block| block.port(0)).collect();
        firsts.sort_unstable();
        assert!(firsts.windows(2).all(|pair| pair[1] - pair[0] >= BLOCK_PORTS));
    }
}
