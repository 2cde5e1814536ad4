//! Where a message begins and ends in the bytes of a connection.
//!
//! Layout (`main/manager.c`): one banner line; then messages, each made of lines that end in CRLF and
//! closed by an empty line. Some messages are followed by an empty line more. A lone CR or LF ends
//! nothing. Before Asterisk 14 (AMI 3) the output of `Command` was raw text closed by
//! `--END COMMAND--`; that form is looked for only behind a banner that old, since a value that
//! contains an empty line could otherwise forge its beginning and hide everything after it.
//!
//! Invariants: the decoder never holds a byte; any way of cutting the bytes gives the same messages
//! and the same error; no byte is searched twice for the same end, except the few that an end could
//! straddle.

use memchr::memmem::{self, Finder};
use thiserror::Error;

use crate::frame::{END_COMMAND, Frame};
use crate::limits::Limits;

const CRLF: &[u8] = b"\r\n";
const END: &[u8] = b"\r\n\r\n";
/// What of [`END`] is searched: `\r\n` ends every line, while these stand in hardly any other place.
const WITHIN_END: &[u8] = b"\n\r";
const FOLLOWS: &[u8] = b"Response: Follows\r\n";
const FOLLOWS_END: &[u8] = b"--END COMMAND--\r\n\r\n";
/// The words that every banner begins with.
pub const BANNER: &[u8] = b"Asterisk Call Manager/";
/// The first AMI major version (Asterisk 14) that sends command output as `Output:` headers.
const FIRST_AMI_WITHOUT_FOLLOWS: u32 = 3;

/// What stands at the front of the unread bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'b> {
    /// The first line of the connection.
    Banner {
        /// The line without its CRLF.
        line: &'b [u8],
        /// Bytes to remove from the front of the buffer.
        consumed: usize,
    },
    /// A whole message.
    Frame {
        /// The message, borrowed from the buffer.
        frame: Frame<'b>,
        /// Bytes to remove from the front of the buffer.
        consumed: usize,
    },
    /// Nothing whole yet: read more, and remove nothing.
    Incomplete,
}

/// The bytes are beyond a limit. The connection cannot go on: its next message cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A message longer than [`Limits::frame_bytes`].
    #[error("message of more than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// A message with more lines than [`Limits::frame_headers`].
    #[error("message of more than {limit} header lines")]
    TooManyHeaders {
        /// The limit, in lines.
        limit: usize,
    },
    /// No line end within [`Limits::banner_bytes`]: this is not AMI.
    #[error("no banner line within {limit} bytes")]
    BannerTooLong {
        /// The limit, in bytes.
        limit: usize,
    },
    /// More empty lines in a row than [`Limits::empty_lines`].
    #[error("more than {limit} empty lines in a row")]
    TooManyEmptyLines {
        /// The limit, in lines.
        limit: usize,
    },
}

/// What is left when a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail<'b> {
    /// The connection ended between two messages.
    Clean,
    /// It ended within a message, of which this much came.
    Cut(&'b [u8]),
}

/// Finds messages in a growing buffer. It holds how far it has looked, never the bytes.
#[derive(Clone, Debug)]
pub struct Decoder {
    limits: Limits,
    within_end: Finder<'static>,
    follows_end: Finder<'static>,
    banner_seen: bool,
    may_follow: bool,
    /// Bytes of empty lines at the front of the buffer.
    start: usize,
    /// Bytes behind `start` that were searched without finding an end.
    searched: usize,
    empty_lines: u64,
}

impl Decoder {
    /// For a connection from its first byte: the banner comes first.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            within_end: Finder::new(WITHIN_END),
            follows_end: Finder::new(FOLLOWS_END),
            banner_seen: false,
            may_follow: true,
            start: 0,
            searched: 0,
            empty_lines: 0,
        }
    }

    /// For bytes that begin with a message, as behind HTTP.
    pub fn without_banner(limits: Limits) -> Self {
        Self { banner_seen: true, may_follow: false, ..Self::new(limits) }
    }

    /// Looks at `buffer`, everything unread so far. The caller removes `consumed` bytes from its
    /// front and calls again, or, on [`Decoded::Incomplete`], appends to it and calls again.
    ///
    /// # Errors
    /// A limit is passed. The same call gives the same error: the connection is over.
    #[inline]
    pub fn decode<'b>(&mut self, buffer: &'b [u8]) -> Result<Decoded<'b>, FrameError> {
        if !self.banner_seen {
            return self.decode_banner(buffer);
        }
        let Some(body) = self.skip_empty_lines(buffer)? else { return Ok(Decoded::Incomplete) };
        let follows = self.may_follow && starts_with(body, FOLLOWS);
        let (needle_bytes, kept) = match follows {
            true => (FOLLOWS_END.len(), END_COMMAND.len()),
            false => (END.len(), 0),
        };
        let limit = self.limits.frame_bytes;
        let window = body.get(..limit.saturating_add(END.len())).unwrap_or(body);
        let from = self.searched.saturating_sub(needle_bytes - 1);
        let found = window.get(from..).and_then(|unsearched| match follows {
            true => self.follows_end.find(unsearched),
            false => self.find_end(unsearched),
        });
        let Some(raw) = found.and_then(|at| window.get(..from + at + kept)) else {
            self.searched = window.len();
            let full = body.len() >= limit.saturating_add(END.len());
            return if full { Err(FrameError::TooLarge { limit }) } else { Ok(Decoded::Incomplete) };
        };
        self.check_headers(raw)?;
        let consumed = self.start + raw.len() + END.len();
        (self.start, self.searched) = (0, 0);
        Ok(Decoded::Frame { frame: Frame::parse(raw), consumed })
    }

    /// What is left of `buffer` now that nothing more will come. Call [`decode`](Self::decode) until
    /// it says incomplete before.
    pub fn finish<'b>(&mut self, buffer: &'b [u8]) -> Tail<'b> {
        match self.skip_empty_lines(buffer) {
            Ok(None) => Tail::Clean,
            Ok(Some([])) => Tail::Clean,
            Ok(Some(rest)) => Tail::Cut(rest),
            Err(_) => Tail::Cut(buffer),
        }
    }

    /// Empty lines that stood between messages so far.
    pub fn empty_lines(&self) -> u64 {
        self.empty_lines
    }

    fn decode_banner<'b>(&mut self, buffer: &'b [u8]) -> Result<Decoded<'b>, FrameError> {
        let limit = self.limits.banner_bytes;
        let window = buffer.get(..limit.saturating_add(CRLF.len())).unwrap_or(buffer);
        let from = self.searched.saturating_sub(CRLF.len() - 1);
        let found = window.get(from..).and_then(|unsearched| memmem::find(unsearched, CRLF));
        let Some(line) = found.and_then(|at| window.get(..from + at)) else {
            self.searched = window.len();
            let full = buffer.len() >= limit.saturating_add(CRLF.len());
            return if full { Err(FrameError::BannerTooLong { limit }) } else { Ok(Decoded::Incomplete) };
        };
        self.banner_seen = true;
        self.searched = 0;
        self.may_follow = major_version(line).is_some_and(|major| major < FIRST_AMI_WITHOUT_FOLLOWS);
        Ok(Decoded::Banner { line, consumed: line.len() + CRLF.len() })
    }

    /// The bytes behind the empty lines at the front; nothing if the caller's buffer has shrunk.
    #[inline]
    fn skip_empty_lines<'b>(&mut self, buffer: &'b [u8]) -> Result<Option<&'b [u8]>, FrameError> {
        let Some(mut body) = buffer.get(self.start..) else { return Ok(None) };
        while let Some(rest) = body.strip_prefix(CRLF) {
            if self.start / CRLF.len() >= self.limits.empty_lines {
                return Err(FrameError::TooManyEmptyLines { limit: self.limits.empty_lines });
            }
            body = rest;
            self.start += CRLF.len();
            self.searched = 0;
            self.empty_lines += 1;
        }
        Ok(Some(body))
    }

    /// Where the first [`END`] begins.
    #[inline]
    fn find_end(&self, text: &[u8]) -> Option<usize> {
        let mut from = 0;
        loop {
            let at = from + self.within_end.find(text.get(from..)?)?;
            if let Some(start) = at.checked_sub(1)
                && text.get(start..start + END.len()) == Some(END)
            {
                return Some(start);
            }
            from = at + 1;
        }
    }

    /// Counts lines only where there could be too many.
    #[inline]
    fn check_headers(&self, raw: &[u8]) -> Result<(), FrameError> {
        let limit = self.limits.frame_headers;
        if raw.len() / CRLF.len() < limit {
            return Ok(());
        }
        match memmem::find_iter(raw, CRLF).nth(limit.saturating_sub(1)) {
            Some(_) => Err(FrameError::TooManyHeaders { limit }),
            None => Ok(()),
        }
    }
}

/// The number before the first dot of a banner's version.
fn major_version(banner: &[u8]) -> Option<u32> {
    let version = std::str::from_utf8(banner.strip_prefix(BANNER)?).ok()?;
    version.split('.').next()?.parse().ok()
}

#[inline]
fn starts_with(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
}
