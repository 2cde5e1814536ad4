//! What Asterisk says of its live channels (`CoreShowChannels`).

use std::time::{Duration, Instant};

use amibus_ami::{Action, Reply};

use crate::asterisk::{ActionFailure, Actions};

/// Asterisk's answer.
pub(super) enum Listed {
    /// One item a channel.
    These(Reply),
    /// It does not say, in these words.
    Refused(String),
    /// It could not be asked, or did not answer in time.
    NotAsked,
}

/// Asks Asterisk for its live channels.
pub(super) async fn list(actions: &Actions, within: Duration) -> Listed {
    let Ok(action) = Action::new("CoreShowChannels") else { return Listed::NotAsked };
    match actions.run(action, Instant::now() + within).await {
        Ok(reply) if reply.complete.is_some() => Listed::These(reply),
        Ok(reply) => {
            let words = reply.response.frame().first("Message").unwrap_or_default().to_vec();
            Listed::Refused(String::from_utf8_lossy(&words).trim().to_owned())
        }
        Err(failure @ ActionFailure::TooLarge { .. }) => Listed::Refused(failure.to_string()),
        Err(_) => Listed::NotAsked,
    }
}
