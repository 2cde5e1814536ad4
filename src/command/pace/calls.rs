//! The calls that are counted: each from its grant until its end is known.
//!
//! | the end | how it is known |
//! |---|---|
//! | its channel hung up | `Hangup` with the ChannelId that amibus chose as its `Uniqueid` |
//! | it never had a channel | `OriginateResponse` with `Response: Failure`, and no `Newchannel` within [`FAILED_SETTLES`]: Asterisk sends these events by different ways, in any order (`main/manager.c`, `fast_originate`; `main/manager_channels.c`) |
//! | it was not sent, or Asterisk refused it | whoever sent it says so |
//! | its end was not seen | Asterisk does not list it any more ([`Calls::compare`]) |
//! | nothing of all this | it is older than `longest_call` |

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use super::Set;

/// How long after the `OriginateResponse` of a failed call its `Newchannel` may come.
pub(super) const FAILED_SETTLES: Duration = Duration::from_millis(500);
/// How long after Asterisk's Success a call may be missing in the list of channels: they are made a moment later.
pub(super) const LISTED_WITHIN: Duration = Duration::from_secs(10);
/// The most calls of one server that are counted; beyond, no more are granted.
pub(super) const MAX_CALLS: usize = 100_000;

/// A call that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// By which limits.
    pub(super) set: Set,
    /// Whether it was written to Asterisk, or may have been.
    pub(super) written: bool,
    /// Where it stands, and since when.
    stage: Stage,
    at: Duration,
    granted: Duration,
    /// How old it was when it was granted: it is a former process's.
    older: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Somebody is about to send it.
    Granted,
    /// Asterisk has it, or may have it.
    Sent,
    /// It failed; it may yet turn out to have a channel.
    Failed,
    /// It has a channel.
    Live,
}

/// The counted calls of one server, by ChannelId.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: HashMap<String, Call>,
    /// Those that failed, in order.
    failed: VecDeque<(Duration, String)>,
    /// What ended since Asterisk was asked for its channels.
    ended: Option<HashSet<String>>,
}

impl Calls {
    /// How many are counted.
    pub(super) fn count(&self) -> usize {
        self.calls.len()
    }

    /// Whether this one is counted.
    pub(super) fn has(&self, channel: &str) -> bool {
        self.calls.contains_key(channel)
    }

    /// Counts a call that somebody is about to send.
    pub(super) fn grant(&mut self, channel: String, set: Set, now: Duration) {
        let call =
            Call { set, written: false, stage: Stage::Granted, at: now, granted: now, older: Duration::ZERO };
        self.calls.insert(channel, call);
    }

    /// It is being written. Answers its limits, the first time.
    pub(super) fn write(&mut self, channel: &str) -> Option<Set> {
        let call = self.calls.get_mut(channel).filter(|call| !call.written)?;
        call.written = true;
        Some(call.set)
    }

    /// Asterisk has it, or may have it.
    pub(super) fn sent(&mut self, channel: &str, now: Duration) {
        if let Some(call) = self.calls.get_mut(channel).filter(|call| call.stage == Stage::Granted) {
            (call.stage, call.at) = (Stage::Sent, now);
        }
    }

    /// Its channel was made.
    pub(super) fn appeared(&mut self, channel: &str, now: Duration) {
        if let Some(call) = self.calls.get_mut(channel) {
            (call.stage, call.at) = (Stage::Live, now);
        }
    }

    /// It failed: unless it has a channel, whose hangup then counts, it ends in a moment.
    pub(super) fn failed(&mut self, channel: &str, now: Duration) {
        if let Some(call) = self.calls.get_mut(channel).filter(|call| call.stage != Stage::Live) {
            (call.stage, call.at) = (Stage::Failed, now);
            self.failed.push_back((now, channel.to_owned()));
        }
    }

    /// Its channel hung up, or it has none for certain.
    pub(super) fn end(&mut self, channel: &str) -> Option<Call> {
        if let Some(ended) = &mut self.ended {
            ended.insert(channel.to_owned());
        }
        self.calls.remove(channel)
    }

    /// The calls that failed and turned out to have no channel.
    pub(super) fn settled(&mut self, now: Duration) -> Vec<Call> {
        let mut gone = Vec::new();
        while let Some((at, channel)) = self.failed.front() {
            if *at + FAILED_SETTLES > now {
                break;
            }
            if self.calls.get(channel).is_some_and(|call| call.stage == Stage::Failed && call.at == *at) {
                gone.extend(self.calls.remove(channel));
            }
            self.failed.pop_front();
        }
        gone
    }

    /// When [`Calls::settled`] has something to say.
    pub(super) fn settles(&self) -> Option<Duration> {
        self.failed.front().map(|(at, _)| *at + FAILED_SETTLES)
    }

    /// From now on, what ends is kept in mind: Asterisk's list of channels may have it still.
    pub(super) fn ask(&mut self) {
        self.ended = Some(HashSet::new());
    }

    /// Asterisk lists these channels, asked at `asked`. Answers the calls that are over, and whether others that are not in
    /// the list are too young to tell.
    pub(super) fn compare(&mut self, live: &HashSet<String>, asked: Duration) -> (Vec<Call>, bool) {
        let (mut over, mut young) = (Vec::new(), false);
        self.calls.retain(|channel, call| {
            if call.stage == Stage::Granted || live.contains(channel) {
                return true;
            }
            if call.at + LISTED_WITHIN > asked {
                young = true;
                return true;
            }
            over.push(call.clone());
            false
        });
        (over, young)
    }

    /// A channel in that list is a call of a former process.
    pub(super) fn find(&mut self, channel: &str, set: Set, older: Duration, now: Duration) -> bool {
        let ended = self.ended.as_ref().is_some_and(|ended| ended.contains(channel));
        if ended || self.has(channel) || set == 0 {
            return false;
        }
        let call = Call { set, written: true, stage: Stage::Live, at: now, granted: now, older };
        self.calls.insert(channel.to_owned(), call);
        true
    }

    /// The list has been dealt with.
    pub(super) fn asked(&mut self) {
        self.ended = None;
    }

    /// Calls whose end was never seen are no longer counted by a limit that says so. `limits` has, by limit, how long a call
    /// may take. Answers what each limit lets go.
    pub(super) fn expire(&mut self, longest: &[Duration], now: Duration) -> Vec<Set> {
        let mut gone = Vec::new();
        self.calls.retain(|_, call| {
            let age = now.saturating_sub(call.granted) + call.older;
            let over = super::members(call.set)
                .filter(|limit| longest.get(*limit).is_none_or(|longest| age >= *longest))
                .fold(0, |set, limit| set | (1 << limit));
            if over == 0 || call.stage == Stage::Granted {
                return true;
            }
            gone.push(over);
            call.set &= !over;
            call.set != 0
        });
        gone
    }
}
