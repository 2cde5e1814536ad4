//! What can be set on a simulated Asterisk.

use std::time::Duration;

use crate::classes;
use crate::recording::Recording;

/// Recorded pace times this is the slowest that can be asked for.
pub(crate) const SPEED_MIN: f64 = 0.01;
/// Recorded pace times this is the fastest; beyond it, pace is lost in the timer's millisecond anyway.
pub(crate) const SPEED_MAX: f64 = 100_000.0;

/// A manager user (one section of manager.conf).
#[derive(Debug, Clone)]
pub struct User {
    /// `Username`.
    pub name: String,
    /// `Secret`, also the one behind an MD5 `Key`.
    pub secret: String,
    /// Classes of events this user receives.
    pub(crate) read: u32,
    /// Classes of actions this user may send.
    pub(crate) write: u32,
}

impl User {
    /// A user with `read=all` and `write=all`.
    pub fn new(name: &str, secret: &str) -> Self {
        Self { name: name.to_owned(), secret: secret.to_owned(), read: classes::ALL, write: classes::ALL }
    }

    /// Restricts which events the user receives, as `read=` does: `"system,call"`, `"all"`, `"none"`.
    #[must_use]
    pub fn read(mut self, classes: &str) -> Self {
        self.read = classes::of_mask(classes);
        self
    }

    /// Restricts which actions the user may send, as `write=` does.
    #[must_use]
    pub fn write(mut self, classes: &str) -> Self {
        self.write = classes::of_mask(classes);
        self
    }
}

/// Everything that can be set. Start from [`SimOptions::default`] and change fields.
#[derive(Debug, Clone)]
pub struct SimOptions {
    /// The TCP port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Who may log in.
    pub users: Vec<User>,
    /// The version in the banner line: `11.0.0` is Asterisk 22, `5.0.4` is Asterisk 16.
    pub version_banner: String,
    /// The version that `CoreSettings` and `core show version` tell.
    pub asterisk_version: String,
    /// Recordings played side by side from the first login that wants events.
    pub play: Vec<Recording>,
    /// Recorded pace times this (0.01 to 100,000).
    pub speed: f64,
    /// Starts each recording again when it has ended.
    pub loop_play: bool,
    /// Pause between two rounds of one recording, at recorded pace.
    pub loop_pause: Duration,
    /// Gives each round fresh Timestamps, Uniqueids, Linkedids, channel numbers, bridge and call ids, consistent
    /// within the round. Without it the recorded bytes are played as they are.
    pub rebase_time: bool,
    /// `debug=on`: a global `SequenceNumber` on every event, from 0 at each boot, and `File`, `Line`, `Func`.
    pub sequence_numbers: bool,
    /// `timestampevents=yes`.
    pub timestamp: bool,
    /// Writes Latin-1 instead of UTF-8; what Latin-1 lacks becomes `?`.
    pub latin1: bool,
    /// `allowmultiplelogin`.
    pub allow_multiple: bool,
    /// `channelvars=`: names whose values appear as `ChanVariable` on the channels of originated calls.
    pub channel_variables: Vec<String>,
    /// Pause before each action is handled.
    pub latency: Duration,
    /// `writetimeout`: a write that makes no progress for this long ends the session in the middle of an event.
    pub write_timeout: Duration,
    /// How long an originated call rings before it is answered, busy or congested.
    pub ring: Duration,
    /// How long an answered originated call lasts.
    pub talk: Duration,
    /// Writes at most this many bytes at a time; 1 cuts every line apart.
    pub write_chunk_bytes: Option<usize>,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            port: 0,
            users: vec![User::new("amibus", "amibus")],
            version_banner: "11.0.0".to_owned(),
            asterisk_version: "22.10.1".to_owned(),
            play: Vec::new(),
            speed: 1.0,
            loop_play: false,
            loop_pause: Duration::from_secs(1),
            rebase_time: true,
            sequence_numbers: false,
            timestamp: true,
            latin1: false,
            allow_multiple: true,
            channel_variables: Vec::new(),
            latency: Duration::ZERO,
            write_timeout: Duration::from_millis(100),
            ring: Duration::from_millis(50),
            talk: Duration::from_millis(500),
            write_chunk_bytes: None,
        }
    }
}

impl SimOptions {
    /// What `amibus demo` shows: the embedded calls again and again at recorded pace, numbered events, and
    /// originated calls that ring and talk for a human moment.
    pub fn demo() -> Self {
        Self {
            play: Recording::embedded(),
            loop_play: true,
            sequence_numbers: true,
            ring: Duration::from_secs(1),
            talk: Duration::from_secs(2),
            ..Self::default()
        }
    }

    /// The speed within its limits; what is no number plays at recorded pace.
    pub(crate) fn pace(&self) -> f64 {
        clamp_speed(self.speed)
    }
}

/// A speed within its limits.
pub(crate) fn clamp_speed(speed: f64) -> f64 {
    if speed.is_finite() { speed.clamp(SPEED_MIN, SPEED_MAX) } else { 1.0 }
}
