//! Asterisk and the brokers are killed and cut off while Originates flow over both buses.

use std::thread;
use std::time::Duration;

use amibus_services::Version;

use super::brokers::{Which, brokers};
use super::extent::{Chance, seconds, times};
use super::flow::Bus;
use super::judge::Demands;
use super::pbx::Pbx;
use super::rig::Rig;
use super::table::Row;

/// How long a call lasts, in seconds.
const CALL_SECONDS: u32 = 10;
/// Originates a second, over each bus.
const RATE: u32 = 10;
/// Seconds of flow for each time at least, of which the fault takes the most.
const FLOW_SECONDS_PER_TIME: usize = 9;
const PROGRESS: usize = 5;
/// What a fault leaves of a call's evidence, and of the senders' ways.
const ASTERISK_DIES: Demands =
    Demands { calls_outlive_faults: false, all_answered: true, several: false, apart: false };
const WIRE_IS_CUT: Demands =
    Demands { calls_outlive_faults: true, all_answered: true, several: false, apart: false };
const BROKER_DIES: Demands =
    Demands { calls_outlive_faults: true, all_answered: false, several: false, apart: false };

#[test]
fn asterisk_22_is_killed() {
    asterisk_is_killed(Version::V22);
}

#[test]
fn asterisk_16_is_killed() {
    asterisk_is_killed(Version::V16);
}

fn asterisk_is_killed(version: Version) {
    let name = format!("asterisk-{}", version.name());
    during(
        &name,
        &format!("kill -9 Asterisk {}", version.name()),
        version,
        ASTERISK_DIES,
        |rig, _, chance| {
            rig.pbx.asterisk.kill();
            thread::sleep(chance.pause(0, 500));
            rig.pbx.asterisk.restart();
        },
    );
}

#[test]
fn the_wire_to_asterisk_is_half_open() {
    let time = seconds(4, 8);
    let fault = format!("half-open cut from Asterisk 22 for {time:?}");
    during("half-open", &fault, Version::V22, WIRE_IS_CUT, move |rig, _, _| {
        rig.pbx.wire.half_open();
        thread::sleep(time);
        rig.pbx.wire.mend();
    });
}

#[test]
fn the_wire_to_asterisk_is_refused() {
    during("refused", "connections to Asterisk 22 reset", Version::V22, WIRE_IS_CUT, |rig, _, chance| {
        rig.pbx.wire.refuse();
        thread::sleep(chance.pause(0, 1_500));
        rig.pbx.wire.mend();
    });
}

#[test]
fn brokers_are_killed() {
    during(
        "brokers-die",
        "kill -9 nats-server and Kafka",
        Version::V22,
        BROKER_DIES,
        |rig, brokers, chance| {
            for which in [Which::Nats, Which::Kafka] {
                brokers.kill(which);
                thread::sleep(chance.pause(0, 500));
                brokers.restart(which);
                rig.wait_for_progress(PROGRESS);
            }
        },
    );
}

#[test]
fn brokers_are_cut_off() {
    let time = seconds(3, 8);
    let fault = format!("half-open cut from NATS and Kafka for {time:?} each");
    during("brokers-cut", &fault, Version::V22, BROKER_DIES, move |rig, brokers, _| {
        for which in [Which::Nats, Which::Kafka] {
            brokers.wire(which).half_open();
            thread::sleep(time);
            brokers.wire(which).mend();
            rig.wait_for_progress(PROGRESS);
        }
    });
}

/// Does it again and again while commands flow over both buses.
fn during(
    name: &str,
    fault: &str,
    version: Version,
    demands: Demands,
    what: impl Fn(&mut Rig, &mut super::brokers::Brokers, &mut Chance),
) {
    let mut brokers = brokers();
    let times = times(1, 30);
    let mut row = Row::begin(fault, times);
    let mut chance = Chance::new();
    row.note(format!("seed {}", chance.seed()));
    let mut rig = Rig::start(&brokers, name, Pbx::start(version), "");
    for bus in [Bus::JetStream, Bus::Kafka] {
        rig.send_until_ended(&brokers, bus, &format!("{name}-{}", bus.name()), CALL_SECONDS, RATE);
    }
    for _ in 0..times {
        rig.wait_for_progress(PROGRESS);
        thread::sleep(chance.pause(0, 1_000) + Duration::from_millis(200));
        rig.fault(|rig| what(rig, &mut brokers, &mut chance));
    }
    rig.end_flows(RATE as usize * FLOW_SECONDS_PER_TIME * times as usize);
    row.end(&rig.verdict(demands));
}
