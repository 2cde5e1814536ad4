//! Somebody else's parser, a program of its own: benches/peers/asterisk-rs, frames to JSON.

use std::{fs, io, path::PathBuf, process::Command, time::Duration};

/// Its own clock is that of the scheduler's ticks, some milliseconds each.
const SHARE_MIN: Duration = Duration::from_millis(200);

/// That program.
pub(crate) struct Peer {
    program: PathBuf,
}

impl Peer {
    /// How it stands in tables.
    pub(crate) const NAME: &str = "asterisk-rs";

    pub(crate) fn new(program: PathBuf) -> Self {
        Self { program }
    }

    /// Nanoseconds of its thread a message, over about `share`, its first way through the recording left out.
    pub(crate) fn nanos_a_message(&self, recording: &[u8], share: Duration) -> io::Result<f64> {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), recording)?;
        let millis = share.max(SHARE_MIN).as_millis().to_string();
        let output = Command::new(&self.program).arg("parse").arg(file.path()).arg(millis).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut words = text.split_whitespace().map_while(|word| word.parse::<f64>().ok());
        match (words.next(), words.next()) {
            (Some(messages), Some(nanos)) if messages > 0.0 => Ok(nanos / messages),
            _ => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
        }
    }
}
