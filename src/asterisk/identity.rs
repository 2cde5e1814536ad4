//! Which Asterisk this is, and since when it runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amibus_ami::{Frame, Reply};

use crate::normalize::micros;

/// What is known of the server at the other end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// AMI's version, from the banner.
    pub(super) ami: String,
    /// Asterisk's version, from `CoreSettings`; not every user may ask for it.
    pub(super) version: Option<String>,
    /// When Asterisk was started, in its own words, from `CoreStatus`; not every user may ask for it.
    pub(super) boot: Option<String>,
    /// What its clock said, from `Ping`, which every user may ask.
    pub(super) clock: Option<SystemTime>,
}

impl Identity {
    /// Takes in the answer to `CoreSettings`, `CoreStatus` or `Ping`.
    pub(super) fn learn(&mut self, reply: &Reply) {
        let frame = reply.response.frame();
        if let Some(version) = text(&frame, "AsteriskVersion") {
            self.version = Some(release(&version).to_owned());
        }
        if let (Some(date), Some(time)) = (text(&frame, "CoreStartupDate"), text(&frame, "CoreStartupTime")) {
            self.boot = Some(format!("{date}T{time}"));
        }
        if frame.first("Ping").is_some()
            && let Some(micros) = frame.first("Timestamp").and_then(micros)
        {
            self.clock = UNIX_EPOCH.checked_add(Duration::from_micros(micros));
        }
    }

    /// Asterisk's version, or AMI's where Asterisk's is not to be had.
    pub(super) fn asterisk(&self) -> String {
        self.version.clone().unwrap_or_else(|| format!("AMI {}", self.ami))
    }
}

/// The version without what a distribution adds to it: `22.10.1+dfsg+~cs6.17.60671434-1` is `22.10.1`.
fn release(version: &str) -> &str {
    version.split(['+', '~']).next().unwrap_or(version)
}

fn text(frame: &Frame<'_>, name: &str) -> Option<String> {
    let value = std::str::from_utf8(frame.first(name)?).ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_asterisks_own() {
        assert_eq!(release("22.10.1+dfsg+~cs6.17.60671434-1"), "22.10.1");
        assert_eq!(release("16.28.0~dfsg-0+deb11u4"), "16.28.0");
        assert_eq!(release("certified/18.9-cert1"), "certified/18.9-cert1");
        let identity = Identity { ami: "11.0.0".to_owned(), ..Identity::default() };
        assert_eq!(identity.asterisk(), "AMI 11.0.0");
    }
}
