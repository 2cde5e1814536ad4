//! kill -9 of amibus at random moments while Originates flow.

use std::thread;

use amibus_services::Version;

use super::brokers::brokers;
use super::extent::{Chance, is_long, times};
use super::flow::Bus;
use super::judge::Demands;
use super::pbx::Pbx;
use super::rig::{Rig, ZEROMQ};
use super::table::Row;

/// How long a call lasts, in seconds: two starts of amibus and more.
const CALL_SECONDS: u32 = 10;
/// In half of the rounds amibus dies again before it has found its feet, in milliseconds.
const EARLY_MILLIS: u64 = 300;
/// In the others it dies amid its work.
const LATE_MILLIS: u64 = 1_200;
/// Outcomes that show that it works.
const PROGRESS: usize = 3;

#[test]
fn amibus_is_killed_while_jetstream_commands_flow() {
    killed(Bus::JetStream);
}

#[test]
fn amibus_is_killed_while_kafka_commands_flow() {
    killed(Bus::Kafka);
}

#[test]
fn amibus_is_killed_while_nats_requests_flow() {
    killed(Bus::Nats);
}

#[test]
fn amibus_is_killed_while_zeromq_requests_flow() {
    killed(Bus::ZeroMq);
}

fn killed(bus: Bus) {
    let brokers = brokers();
    let times = times(5, 200);
    let mut row = Row::begin(&format!("kill -9 amibus, commands from {}", bus.name()), times);
    let mut chance = Chance::new();
    row.note(format!("seed {}", chance.seed()));
    let more = if bus == Bus::ZeroMq { ZEROMQ } else { "" };
    let mut rig = Rig::start(&brokers, &format!("killed-{}", bus.name()), Pbx::start(Version::V22), more);
    let (least, rate) = if is_long() { (5_000, 25) } else { (200, 20) };
    rig.send_until_ended(&brokers, bus, "call", CALL_SECONDS, rate);
    for round in 0..times {
        if round % 2 == 0 {
            rig.wait_for_progress(PROGRESS);
            thread::sleep(chance.pause(0, LATE_MILLIS));
        } else {
            thread::sleep(chance.pause(0, EARLY_MILLIS));
        }
        rig.kill_amibus();
    }
    rig.end_flows(least);
    row.end(&rig.verdict(Demands {
        calls_outlive_faults: true,
        all_answered: true,
        several: false,
        apart: false,
    }));
}
