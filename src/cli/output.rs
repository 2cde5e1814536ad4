//! Standard output: what was asked for, and nothing else.

use std::io::{self, Write};

use super::Failure;

/// Writes `bytes` and a newline, at once.
///
/// # Errors
/// [`Failure::Enough`] when the reader has gone.
pub(super) fn line(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Enough,
        _ => Failure::Failed(format!("cannot write to standard output: {error}")),
    })
}

/// Writes `text`, of one line or several, and ends its last line if it is not ended.
///
/// # Errors
/// As for [`line()`].
pub(super) fn text(text: &str) -> Result<(), Failure> {
    line(text.strip_suffix('\n').unwrap_or(text).as_bytes())
}

/// Writes JSON on one line, whatever line breaks it holds between its tokens.
///
/// # Errors
/// As for [`line()`].
pub(super) fn json(body: &[u8]) -> Result<(), Failure> {
    if body.contains(&b'\n')
        && let Ok(value) = serde_json::from_slice::<serde_json::Value>(body)
    {
        return line(value.to_string().as_bytes());
    }
    line(body)
}
