//! ActionIDs that nobody else can guess, none longer than Asterisk can echo.
//!
//! Layout: `amibus-<16 hex>-<counter>-<8 hex>`. The first hex digits are the process's own; the last
//! are drawn from the counter under a key. An ActionID of ours is seen by other users of the server
//! (`OriginateResponse`, `UserEvent`), and knowing one must not let anybody forge the next.
//! More than 60 bytes damage Asterisk's own output.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use md5::{Digest, Md5};

/// Bytes of an ActionID that Asterisk echoes undamaged.
pub const MAX_ACTION_ID_BYTES: usize = 60;

/// What all of them begin with.
pub(crate) const OWNER: &str = "amibus-";
const PREFIX_BYTES: usize = 8;
const TAG_BYTES: usize = 4;

/// One ActionID of ours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActionId(Arc<str>);

impl ActionId {
    /// The text for the wire, at most [`MAX_ACTION_ID_BYTES`] long.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ActionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Makes ActionIDs. Clones share one counter, so all sessions of a process can share one prefix.
#[derive(Clone)]
pub struct ActionIds {
    prefix: Arc<str>,
    key: [u8; PREFIX_BYTES],
    next: Arc<AtomicU64>,
}

impl ActionIds {
    /// `entropy` is random and drawn once in the life of the process.
    pub fn new(entropy: [u8; 16]) -> Self {
        let (public, secret) = entropy.split_at(PREFIX_BYTES);
        let mut key = [0; PREFIX_BYTES];
        key.copy_from_slice(secret);
        let prefix = format!("{OWNER}{}-", hex(public));
        Self { prefix: prefix.into(), key, next: Arc::new(AtomicU64::new(1)) }
    }

    /// The next one, never given before.
    pub fn next(&self) -> ActionId {
        self.numbered(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether this process made that ActionID, or could still make it.
    pub fn is_ours(&self, id: &[u8]) -> bool {
        let number = std::str::from_utf8(id)
            .ok()
            .and_then(|id| id.strip_prefix(&*self.prefix)?.split_once('-')?.0.parse().ok());
        number.is_some_and(|number| self.numbered(number).as_str().as_bytes() == id)
    }

    fn numbered(&self, number: u64) -> ActionId {
        let digest = Md5::new().chain_update(self.key).chain_update(number.to_be_bytes()).finalize();
        let tag = digest.get(..TAG_BYTES).unwrap_or_default();
        ActionId(format!("{}{number}-{}", self.prefix, hex(tag)).into())
    }
}

/// Leaves out the key.
impl fmt::Debug for ActionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActionIds({})", self.prefix)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
