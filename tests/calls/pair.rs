//! Two amibus beside each other while commands flow: one of them is killed again and again, in turn, or stopped for longer
//! than its bus waits for it.

use std::thread;

use amibus_services::Version;

use super::brokers::Brokers;
use super::extent::{Chance, is_long};
use super::flow::Bus;
use super::pbx::Pbx;
use super::rig::Rig;
use super::table::Row;

/// Between two faults, in milliseconds.
const BETWEEN_MILLIS: (u64, u64) = (200, 2_000);
/// The first of so many rounds one is stopped and not killed: so it happens in the short form, too.
const STOP_EVERY: u32 = 5;
const PROGRESS: usize = 3;

/// What is done to them.
pub(super) struct Pair {
    /// For the table.
    pub(super) fault: &'static str,
    pub(super) kills: u32,
    /// The first word of all their topics and ids.
    pub(super) name: &'static str,
    pub(super) bus: Bus,
    /// Added to their configuration.
    pub(super) more: &'static str,
    /// How long a call lasts.
    pub(super) call_seconds: u32,
    /// Commands a second.
    pub(super) rate: u32,
    /// The long form's commands, at least.
    pub(super) long_commands: usize,
    /// How long the one that was killed is away.
    pub(super) away_millis: (u64, u64),
    /// How long one is stopped.
    pub(super) stopped_millis: (u64, u64),
    /// The step at which one of them ends first, with a command that the other one is to find begun.
    pub(super) begun_at: Option<&'static str>,
}

impl Pair {
    /// Does it, and ends the flow after that.
    pub(super) fn run(&self, brokers: &Brokers) -> (Rig, Row) {
        let mut row = Row::begin(self.fault, self.kills);
        let mut chance = Chance::new();
        row.note(format!("seed {}", chance.seed()));
        let mut rig = Rig::start(brokers, self.name, Pbx::start(Version::V22), self.more);
        rig.start_second(brokers, self.more);
        if let Some(step) = self.begun_at {
            rig.let_second_end_at(step);
        }
        rig.send_until_ended(brokers, self.bus, self.name, self.call_seconds, self.rate);
        if self.begun_at.is_some() {
            rig.wait_until_begun_is_found();
        }
        let (mut kills, mut stops) = (0, 0);
        while kills < self.kills {
            rig.wait_for_progress(PROGRESS);
            thread::sleep(chance.pause(BETWEEN_MILLIS.0, BETWEEN_MILLIS.1));
            if (kills + stops) % STOP_EVERY == 0 {
                stops += 1;
                rig.stop_one(stops % 2 == 0, chance.pause(self.stopped_millis.0, self.stopped_millis.1));
            } else {
                kills += 1;
                rig.kill_one(kills % 2 == 0, chance.pause(self.away_millis.0, self.away_millis.1));
            }
        }
        rig.end_flows(if is_long() { self.long_commands } else { 0 });
        row.note(format!("{stops} times one was stopped beside that"));
        (rig, row)
    }
}
