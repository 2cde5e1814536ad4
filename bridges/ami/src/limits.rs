//! The bound of everything that a server, or a caller, could make grow.

/// Bytes of one message, its end excluded. Asterisk 16 was seen to send 60 KB.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// Header lines of one message. A long `Command` output has thousands.
pub const MAX_FRAME_HEADERS: usize = 65_536;
/// Bytes of the first line of a connection, its CRLF excluded.
pub const MAX_BANNER_BYTES: usize = 256;
/// Empty lines in a row between two messages. Asterisk sends one.
pub const MAX_EMPTY_LINES: usize = 4_096;
/// Events of one event list, its end excluded.
pub const MAX_LIST_ITEMS: usize = 100_000;
/// Bytes of one event list, its response and its end included.
pub const MAX_LIST_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that all event lists of a session may take together while they are gathered.
pub const MAX_LISTS_BYTES: usize = 128 * 1024 * 1024;
/// What an item of a list is reckoned to take besides its bytes.
pub const ITEM_OVERHEAD_BYTES: usize = 32;
/// Actions of a session that are sent or waiting to be, and not answered in full.
pub const MAX_PENDING_ACTIONS: usize = 1_024;

/// What one session will hold before it refuses more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, its end excluded.
    pub frame_bytes: usize,
    /// Header lines of one message.
    pub frame_headers: usize,
    /// Bytes of the banner line.
    pub banner_bytes: usize,
    /// Empty lines in a row between two messages.
    pub empty_lines: usize,
    /// Events of one event list, its end excluded.
    pub list_items: usize,
    /// Bytes of one event list, its response and its end included.
    pub list_bytes: usize,
    /// Bytes of all event lists that are being gathered, [`ITEM_OVERHEAD_BYTES`] for each item included.
    pub lists_bytes: usize,
    /// Actions sent, or waiting to be, and not yet answered in full.
    pub pending_actions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes: MAX_FRAME_BYTES,
            frame_headers: MAX_FRAME_HEADERS,
            banner_bytes: MAX_BANNER_BYTES,
            empty_lines: MAX_EMPTY_LINES,
            list_items: MAX_LIST_ITEMS,
            list_bytes: MAX_LIST_BYTES,
            lists_bytes: MAX_LISTS_BYTES,
            pending_actions: MAX_PENDING_ACTIONS,
        }
    }
}
