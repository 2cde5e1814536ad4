//! What an event session sees becomes messages in the server's spool.
//!
//! Never waits: filter, encode, append. Link messages are made here too, so that they stand in the sequence where the
//! link changed.

use std::{sync::Arc, time::SystemTime};

use amibus_ami::{ActionIds, Frame, OwnedFrame};
use amibus_contract::Message;
use tracing::{debug, info};

use crate::{
    asterisk::{DownReason, EventSink, Up},
    command::finals::Finals,
    filter::Filter,
    health::{Health, ServerState},
    link::{self, Gap},
    metrics::ServerMetrics,
    normalize::{Numbers, sequence_number},
    spool::Spool,
    writer::{Origin, Writer},
};

/// Events without a number after which a gap is announced without its extent: Asterisk gives no numbers any more.
/// The answers to our own actions have none, and there are few of these.
const UNNUMBERED_MAX: u32 = 32;

/// The intake of one server.
pub struct Intake {
    /// How its messages are written.
    pub writer: Arc<Writer>,
    /// Where they go.
    pub spool: Arc<Spool>,
    /// Which events go on.
    pub filter: Arc<Filter>,
    /// Who waits for an OriginateResponse.
    pub finals: Arc<Finals>,
    /// How our own ActionIDs are recognised.
    pub action_ids: ActionIds,
    /// What is counted.
    pub metrics: ServerMetrics,
    /// What `/ready` shows.
    pub health: Arc<Health>,
    /// What was seen so far.
    pub seen: Seen,
}

/// What was seen of a server, for telling what was not.
#[derive(Clone, Debug)]
pub struct Seen {
    boot: Option<String>,
    /// Which numbers of this boot an id was made of.
    numbers: Numbers,
    /// The greatest SequenceNumber of this boot.
    highest: Option<u32>,
    /// When something was last received; `None` before the first session ever.
    last: Option<SystemTime>,
    /// Set from a reconnect until it is known what was missed.
    open_gap: Option<OpenGap>,
}

/// A gap whose extent the next numbered event will tell.
#[derive(Clone, Copy, Debug)]
struct OpenGap {
    /// When something was last seen.
    from: SystemTime,
    /// How many events without a number came since.
    unnumbered: u32,
}

impl Seen {
    /// `last` is when a process before this one last saw something: what came since is a gap.
    pub fn since(last: Option<SystemTime>) -> Self {
        Self { boot: None, numbers: Numbers::new(None), highest: None, last, open_gap: None }
    }
}

impl Intake {
    fn append(&self, make: impl FnOnce(&Writer, u64) -> Message) {
        self.spool.append(|sequence| make(&self.writer, sequence));
    }

    /// Tells what was missed while no session saw this server.
    fn announce_gap(&self, missed: Option<(u64, u64)>, from: SystemTime) {
        let gap = Gap { reason: "disconnected", missed, from, until: SystemTime::now() };
        info!(server = self.writer.server(), ?missed, "what happened while disconnected was not seen");
        self.metrics.gaps(gap.reason).inc();
        self.append(|writer, sequence| link::gap(writer, sequence, &gap));
    }

    /// The first number after a reconnect to the same Asterisk tells how much was missed. Events without a number
    /// (answers to our own actions) do not tell.
    fn close_gap(&mut self, number: u32) {
        let Some(OpenGap { from, .. }) = self.seen.open_gap.take() else { return };
        match self.seen.highest.map(|last| u64::from(last) + 1) {
            Some(next) if next == u64::from(number) => {
                debug!(server = self.writer.server(), "nothing was missed while disconnected");
            }
            Some(next) if next < u64::from(number) => {
                self.announce_gap(Some((next, u64::from(number) - 1)), from);
            }
            _ => self.announce_gap(None, from),
        }
    }

    /// Announces an open gap without its extent.
    fn give_up_gap(&mut self) {
        if let Some(OpenGap { from, .. }) = self.seen.open_gap.take() {
            self.announce_gap(None, from);
        }
    }

    fn publish(&mut self, frame: Frame<'_>, received: SystemTime) {
        self.seen.last = Some(received);
        let number = sequence_number(&frame);
        if let Some(number) = number {
            self.close_gap(number);
            self.seen.highest = self.seen.highest.max(Some(number));
        } else if let Some(open) = &mut self.seen.open_gap {
            open.unnumbered += 1;
            if open.unnumbered > UNNUMBERED_MAX {
                self.give_up_gap();
            }
        }
        if !self.filter.keep(self.writer.server(), &frame) {
            self.spool.leave_out();
            return;
        }
        // Lent only with a boot beside it: without one, nothing tells two lives of Asterisk apart.
        let boot = self.seen.boot.as_deref();
        let number = number.filter(|number| boot.is_some() && self.seen.numbers.lend(*number));
        let origin = Origin { received, boot, number };
        self.spool.append_read(|sequence| self.writer.event(frame, sequence, &origin));
    }
}

impl EventSink for Intake {
    fn up(&mut self, up: Up) {
        let now = SystemTime::now();
        let was_up_before = self.seen.last.replace(now);
        let same_life = up.resumed && up.boot.is_some();
        self.append(|writer, sequence| {
            link::up(writer, sequence, &up.version, up.boot.as_deref(), up.resumed)
        });
        if let Some(from) = was_up_before {
            if same_life && self.seen.highest.is_some() {
                self.seen.open_gap = Some(OpenGap { from, unnumbered: 0 });
            } else {
                self.announce_gap(None, from);
            }
            self.metrics.reconnects.inc();
        }
        if !same_life {
            (self.seen.numbers, self.seen.highest) = (Numbers::new(None), None);
        }
        self.seen.boot.clone_from(&up.boot);
        self.metrics.link_up.set(1);
        self.health.set_server(self.writer.server(), ServerState::Up { asterisk: Some(up.version) });
    }

    fn event(&mut self, frame: Frame<'_>, received: SystemTime) {
        // Before any filter: whoever waits for it does not care what is published.
        self.finals.seen(&frame, |id| self.action_ids.is_ours(id));
        self.publish(frame, received);
    }

    fn other(&mut self, frame: Frame<'_>, received: SystemTime) {
        self.publish(frame, received);
    }

    fn snapshot(&mut self, list: &str, items: Vec<OwnedFrame>) {
        let items: Vec<Vec<u8>> = items.iter().map(|item| self.writer.data(item.frame())).collect();
        self.append(|writer, sequence| link::snapshot(writer, sequence, list, &items));
    }

    fn down(&mut self, reason: &DownReason) {
        // No numbered event came to tell its extent.
        self.give_up_gap();
        let words = reason.to_string();
        self.append(|writer, sequence| link::down(writer, sequence, &words));
        self.metrics.link_up.set(0);
        self.health.set_server(self.writer.server(), ServerState::Down { reason: words });
    }

    fn read(&mut self, bytes: usize) {
        self.metrics.bytes_read.inc_by(bytes as u64);
    }
}
