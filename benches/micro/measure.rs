//! The contenders in turn, round after round.

use std::{hint::black_box, io, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use crate::{common::spread::Spread, contenders::Contender, peer::Peer};

const ROUNDS: u32 = 11;

/// What one recording came to.
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Nanoseconds a message, by contender and round.
    nanos: Vec<(Contender, Vec<f64>)>,
    /// The same of somebody else's program, by round.
    peer: Vec<f64>,
}

impl Measured {
    fn rounds(&self, contender: Contender) -> &[f64] {
        let found = self.nanos.iter().find(|(one, _)| *one == contender);
        found.map_or(&[], |(_, rounds)| rounds)
    }

    /// Nanoseconds a message.
    pub(crate) fn nanos(&self, contender: Contender) -> Spread {
        Spread::of(self.rounds(contender).iter().copied())
    }

    /// How many times as fast `contender` is as `other`, round by round.
    pub(crate) fn ratio(&self, contender: Contender, other: Contender) -> Spread {
        let pairs = self.rounds(contender).iter().zip(self.rounds(other));
        Spread::of(pairs.map(|(ours, theirs)| theirs / ours))
    }

    /// Nanoseconds a message of somebody else's program, and how many times as fast [`Contender::Event`] is.
    pub(crate) fn peer(&self) -> Option<(Spread, Spread)> {
        let pairs = self.rounds(Contender::Event).iter().zip(&self.peer);
        let ratio = pairs.map(|(ours, theirs)| theirs / ours);
        (!self.peer.is_empty()).then(|| (Spread::of(self.peer.iter().copied()), Spread::of(ratio)))
    }
}

/// Measures all contenders on one recording, for about `total`.
pub(crate) fn recording(
    name: &'static str,
    bytes: &[u8],
    total: Duration,
    peer: Option<&Peer>,
) -> io::Result<Measured> {
    let messages = Contender::ALL.first().map_or(0, |contender| contender.run(bytes).0);
    let contenders = Contender::ALL.len() as u32;
    let share = total / (ROUNDS * contenders);
    let times: Vec<u32> = Contender::ALL.iter().map(|contender| times(*contender, bytes, share)).collect();
    let mut nanos: Vec<(Contender, Vec<f64>)> = Contender::ALL.map(|one| (one, Vec::new())).into();
    let mut peers = Vec::new();
    for round in 0..ROUNDS as usize {
        for turn in 0..nanos.len() {
            // Nobody always follows the same one.
            let at = (turn + round) % nanos.len();
            let (Some((contender, found)), Some(times)) = (nanos.get_mut(at), times.get(at)) else {
                continue;
            };
            let took = time(*contender, bytes, *times);
            found.push(took.as_nanos() as f64 / f64::from(*times) / messages as f64);
        }
        if let Some(peer) = peer {
            peers.push(peer.nanos_a_message(bytes, share)?);
        }
    }
    Ok(Measured { name, messages, bytes: bytes.len() as u64, nanos, peer: peers })
}

/// How often a contender goes through a recording within `share`.
fn times(contender: Contender, bytes: &[u8], share: Duration) -> u32 {
    let once =
        (0..3).map(|_| time(contender, bytes, 1)).min().unwrap_or_default().max(Duration::from_nanos(1));
    u32::try_from(share.as_nanos() / once.as_nanos()).unwrap_or(u32::MAX).max(1)
}

fn time(contender: Contender, bytes: &[u8], times: u32) -> Duration {
    let began = thread_time();
    for _ in 0..times {
        black_box(contender.run(black_box(bytes)));
    }
    thread_time().saturating_sub(began)
}

/// What this thread has had of a processor so far.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
