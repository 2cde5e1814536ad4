//! What an event session sees becomes messages in the server's spool.
//!
//! Never waits: filter, encode, append. Link messages are made here too, so that they stand in the sequence where the
//! link changed.

use std::{sync::Arc, time::SystemTime};

use amibus_ami::{ActionIds, Frame, OwnedFrame};
use amibus_contract::Message;
use tracing::{info, warn};

use crate::{
    asterisk::{DownReason, EventSink, Up},
    command::{finals::Finals, pace::Pacer},
    filter::Filter,
    health::{Health, ServerState},
    link::{self, Gap},
    metrics::ServerMetrics,
    normalize::{sequence_number, timestamp_micros},
    seen::Seen,
    spool::Spool,
    writer::{Origin, Writer},
};

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
    /// Who counts calls.
    pub pacer: Option<Arc<Pacer>>,
    /// How our own ActionIDs are recognised.
    pub action_ids: ActionIds,
    /// What is counted.
    pub metrics: ServerMetrics,
    /// What `/ready` shows.
    pub health: Arc<Health>,
    /// What was seen so far.
    pub seen: Seen,
}

impl Intake {
    fn append(&self, make: impl FnOnce(&Writer, u64) -> Message) {
        self.spool.append(|sequence| make(&self.writer, sequence));
    }

    /// Tells what was not seen.
    fn announce(&mut self, gap: &Gap) {
        let (server, missed) = (self.writer.server(), gap.missed);
        match gap.range {
            Some((first, last)) => info!(server, gap.reason, missed, first, last, "events were not seen"),
            None => info!(server, gap.reason, "what happened meanwhile was not seen"),
        }
        self.metrics.gaps(gap.reason).inc();
        if let Some(pacer) = &self.pacer {
            pacer.missed();
        }
        self.append(|writer, sequence| link::gap(writer, sequence, gap));
        if self.seen.begins_to_miss_many() {
            warn!(
                server,
                "SequenceNumbers are missing again and again, and are announced as gaps: the AMI user does not see \
                 every event, or amibus cannot keep up. Give the user read = all and no eventfilter in manager.conf, or \
                 set sequence_numbers = \"some\" for this server"
            );
        }
    }

    fn announce_all(&mut self, gaps: Vec<Gap>) {
        for gap in gaps {
            self.announce(&gap);
        }
    }

    fn publish(&mut self, frame: Frame<'_>, received: SystemTime) {
        let number = sequence_number(&frame);
        let given = timestamp_micros(&frame);
        let gaps = self.seen.event(number, given, received);
        self.announce_all(gaps);
        if self.seen.begins_the_last_numbers() {
            warn!(
                server = self.writer.server(),
                "Asterisk has almost used up its SequenceNumbers, which end at 2147483647. From then on gaps have no count, \
                 no event counts as skipped, and the ids of events are amibus's own, until Asterisk is started anew"
            );
        }
        if !self.filter.keep(self.writer.server(), &frame) {
            self.spool.leave_out();
            return;
        }
        let number = number.filter(|number| self.seen.lend(*number));
        let origin = Origin { received, given, boot: self.seen.boot(), number };
        self.spool.append_read(|sequence| self.writer.event(frame, sequence, &origin));
    }
}

impl EventSink for Intake {
    fn up(&mut self, up: Up) {
        let now = SystemTime::now();
        let missing = self.seen.settle(now);
        self.announce_all(missing);
        let connected = self.seen.connected(up.boot.as_deref(), up.clock, now);
        self.append(|writer, sequence| {
            link::up(writer, sequence, &up.version, up.boot.as_deref(), connected.resumed)
        });
        if let Some(gap) = connected.gap {
            self.announce(&gap);
        }
        if let Some(pacer) = &self.pacer {
            pacer.missed();
        }
        if connected.again {
            self.metrics.reconnects.inc();
        }
        self.metrics.link_up.set(1);
        self.health.set_server(self.writer.server(), ServerState::Up { asterisk: Some(up.version) });
    }

    fn event(&mut self, frame: Frame<'_>, received: SystemTime) {
        // Before any filter: whoever waits for it does not care what is published.
        self.finals.seen(&frame, |id| self.action_ids.is_ours(id));
        if let Some(pacer) = &self.pacer {
            pacer.seen(&frame, |id| self.action_ids.is_ours(id));
        }
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
        // No more numbers come that could tell more.
        let mut missing = self.seen.settle(SystemTime::now());
        missing.extend(self.seen.give_up());
        self.announce_all(missing);
        let (words, seen) = (reason.to_string(), self.seen.last());
        self.append(|writer, sequence| link::down(writer, sequence, &words, seen));
        self.metrics.link_up.set(0);
        self.health.set_server(self.writer.server(), ServerState::Down { reason: words });
    }

    fn read(&mut self, bytes: usize) {
        self.metrics.bytes_read.inc_by(bytes as u64);
    }

    fn is_behind(&self) -> bool {
        self.spool.is_behind()
    }

    fn is_waiting(&self) -> bool {
        self.seen.is_waiting()
    }

    fn tick(&mut self) {
        let missing = self.seen.due(SystemTime::now());
        self.announce_all(missing);
    }
}
