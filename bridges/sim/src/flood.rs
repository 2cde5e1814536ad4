//! Load: numbered UserEvents in large prebuilt writes, as the dialplan loop of a lab writes them one by one.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use crate::classes::USER;
use crate::clock;
use crate::event;
use crate::world::World;

/// Events that share one write and one timestamp.
const BATCH_EVENTS_MAX: u64 = 512;
/// How long to wait when ahead of the rate: the timer's own step.
const TICK: Duration = Duration::from_millis(1);
/// Padding an event at most.
pub(crate) const PAD_BYTES_MAX: usize = 32 << 10;

/// What to flood with.
#[derive(Debug, Clone)]
pub struct Flood {
    /// `Tag` header: tells floods apart.
    pub tag: String,
    /// Events a second; 0 is as fast as the readers allow.
    pub events_per_second: u64,
    /// Events in all; `Seq` counts them from 0.
    pub total: u64,
    /// How many calls (Linkedids) they belong to, in turn; at least one.
    pub calls: u64,
    /// Length of the `Pad` header, at most 32 KiB. 64 gives the 512 bytes an event of the lab's flood.
    pub pad_bytes: usize,
}

impl Default for Flood {
    fn default() -> Self {
        Self { tag: "flood".to_owned(), events_per_second: 0, total: 100_000, calls: 1, pad_bytes: 64 }
    }
}

/// What a flood came to.
#[derive(Debug, Clone, Copy)]
pub struct Flooded {
    /// Events queued to every session that wanted them.
    pub events: u64,
    /// From the first to the last.
    pub took: Duration,
}

impl Flooded {
    /// Events a second.
    #[allow(clippy::cast_precision_loss)]
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// One event of a flood, as it was sent.
#[derive(Debug, Clone, Copy)]
pub struct Numbered {
    /// Its SequenceNumber; meaningless where events are not numbered.
    pub sequence: u64,
    /// Its Timestamp, in microseconds since 1970.
    pub at_micros: u64,
}

/// Publishes the whole flood. A reader that is merely slower than the rate slows it down; one that does not read
/// is dropped by its write timeout, and the flood goes on.
pub(crate) async fn run(world: &World, flood: &Flood, mut told: impl FnMut(Numbered)) -> Flooded {
    let start = Instant::now();
    let calls = calls(world, flood);
    let mut sent = 0;
    while sent < flood.total {
        let allowed = match flood.events_per_second {
            0 => flood.total,
            rate => due(start.elapsed(), rate).min(flood.total),
        };
        if allowed <= sent {
            sleep(TICK).await;
            continue;
        }
        world.running().await;
        world.room().await;
        let batch = (allowed - sent).min(BATCH_EVENTS_MAX);
        let Numbered { sequence, at_micros } = publish(world, flood, &calls, sent, batch);
        (0..batch).for_each(|n| told(Numbered { sequence: sequence + n, at_micros }));
        sent += batch;
        tokio::task::yield_now().await;
    }
    Flooded { events: sent, took: start.elapsed() }
}

fn due(elapsed: Duration, rate: u64) -> u64 {
    u64::try_from(elapsed.as_micros().saturating_mul(u128::from(rate)) / 1_000_000).unwrap_or(u64::MAX)
}

/// Events whose numbers follow each other; tells the first of them.
fn publish(world: &World, flood: &Flood, calls: &[Vec<u8>], first: u64, count: u64) -> Numbered {
    let pad = "0123456789abcdef".repeat(flood.pad_bytes.min(PAD_BYTES_MAX) / 16);
    let tail = format!("\r\nPad: {pad}\r\n\r\n");
    let head = b"Event: UserEvent\r\nPrivilege: user,all\r\n";
    let mut state = world.lock();
    let told = Numbered { sequence: state.sequence, at_micros: state.now_micros() };
    let timestamp = format!("Timestamp: {}\r\n", clock::timestamp(told.at_micros));
    let mut out = Vec::with_capacity(640 * usize::try_from(count).unwrap_or(0));
    for index in first..first + count {
        out.extend_from_slice(head);
        if world.options.timestamp {
            out.extend_from_slice(timestamp.as_bytes());
        }
        if world.options.sequence_numbers {
            out.extend_from_slice(b"SequenceNumber: ");
            push_number(&mut out, state.take_sequence(1));
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(event::origin("UserEvent").as_bytes());
        }
        let call = usize::try_from(index % flood.calls.max(1)).ok().and_then(|call| calls.get(call));
        out.extend_from_slice(call.map_or(&[][..], Vec::as_slice));
        push_number(&mut out, index);
        out.extend_from_slice(tail.as_bytes());
    }
    state.stats.events += count;
    state.spread(&Bytes::from(out), USER);
    told
}

/// Per call the lines between the stamps and the number.
fn calls(world: &World, flood: &Flood) -> Vec<Vec<u8>> {
    let mut state = world.lock();
    (0..flood.calls.max(1))
        .map(|_| {
            let number = state.fresh_channel_number();
            let (linkedid, uniqueid) = (state.fresh_uniqueid(), state.fresh_uniqueid());
            format!(
                "Channel: Local/flood@load-{number};2\r\nChannelState: 6\r\nChannelStateDesc: Up\r\n\
                 CallerIDNum: <unknown>\r\nCallerIDName: <unknown>\r\nConnectedLineNum: <unknown>\r\n\
                 ConnectedLineName: <unknown>\r\nLanguage: en\r\nAccountCode: \r\nContext: load\r\n\
                 Exten: flood\r\nPriority: 4\r\nUniqueid: {uniqueid}\r\nLinkedid: {linkedid}\r\n\
                 UserEvent: Flood\r\nTag: {}\r\nSeq: ",
                flood.tag
            )
            .into_bytes()
        })
        .collect()
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let start = out.len();
    loop {
        out.push(b'0' + u8::try_from(number % 10).unwrap_or(0));
        number /= 10;
        if number == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}
