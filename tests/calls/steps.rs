//! kill -9 of amibus at each step of a command's way, and the outcome that the step must have.

use std::thread;
use std::time::{Duration, Instant};

use amibus_services::Version;

use super::brokers::{Brokers, brokers};
use super::extent::{is_long, times};
use super::flow::{Bus, originates};
use super::judge::Demands;
use super::pbx::Pbx;
use super::rig::{APART, PATIENCE, Rig, wait};
use super::table::Row;

/// How long a call lasts, in seconds: longer than amibus needs to start and to look for it.
const CALL_SECONDS: u32 = 10;

/// How long Asterisk may take from its answer to the call.
const CALL_WITHIN: Duration = Duration::from_secs(10);

/// What becomes of an Originate from a durable bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// `executed`, one call.
    Called,
    /// `unknown`, no call.
    NotCalled,
    /// `executed` with one call, or `unknown` with none: the socket is closed behind the last byte, and it is for the
    /// network whether Asterisk still gets it.
    Either,
}

/// amibus dies just behind the step. The table of `docs/calls.md`.
const STEPS: [(&str, End); 11] = [
    ("taken", End::Called),
    ("claimed", End::Called),
    ("paced", End::Called),
    ("shared_claimed", End::Called),
    ("sending_recorded", End::NotCalled),
    ("written", End::Either),
    ("answered", End::Called),
    ("outcome_recorded", End::Called),
    ("published", End::Called),
    ("replied", End::Called),
    ("acknowledged", End::Called),
];

#[test]
fn amibus_ends_at_each_step() {
    if cfg!(not(any(debug_assertions, feature = "failpoints"))) {
        panic!("a release build needs --features failpoints");
    }
    let brokers = brokers();
    let times = times(1, 20);
    let mut rig = Rig::start(&brokers, "steps", Pbx::start(Version::V22), "");
    let buses = if is_long() { vec![Bus::JetStream, Bus::Kafka] } else { vec![Bus::JetStream] };
    for bus in buses {
        let mut row =
            Row::begin(&format!("kill -9 amibus at each step, commands from {}", bus.name()), times);
        let mut either = [0, 0];
        for time in 0..times {
            for (step, end) in STEPS {
                let called =
                    ends_at(&mut rig, &brokers, bus, step, end, &format!("{step}-{}-{time}", bus.name()));
                if end == End::Either {
                    either[usize::from(called)] += 1;
                }
            }
        }
        row.note(format!("at `written`: {} called, {} not", either[1], either[0]));
        row.end(&rig.verdict(Demands {
            calls_outlive_faults: true,
            all_answered: true,
            several: false,
            apart: false,
        }));
    }
}

/// Where Kafka alone keeps what was begun, nobody can tell whether what was begun was sent.
#[test]
fn amibus_ends_between_begin_and_sending() {
    if cfg!(not(any(debug_assertions, feature = "failpoints"))) {
        panic!("a release build needs --features failpoints");
    }
    let brokers = brokers();
    let times = times(1, 20);
    let mut rig = Rig::start(&brokers, "begin", Pbx::start(Version::V22), APART);
    let row = Row::begin("kill -9 amibus before and after a begin is kept by Kafka", times);
    for time in 0..times {
        for (step, end) in [("paced", End::Called), ("shared_claimed", End::NotCalled)] {
            ends_at(&mut rig, &brokers, Bus::Kafka, step, end, &format!("begin-{step}-{time}"));
        }
    }
    row.end(&rig.verdict(Demands {
        calls_outlive_faults: true,
        all_answered: true,
        several: false,
        apart: false,
    }));
}

/// Whether it was called.
fn ends_at(rig: &mut Rig, brokers: &Brokers, bus: Bus, step: &str, end: End, name: &str) -> bool {
    // In order, so that nothing of the step before comes again.
    rig.amibus.stop();
    rig.start_amibus(Some(step));
    let told = rig.told();
    rig.send(brokers, bus, &originates(name, 1, CALL_SECONDS), 1);
    rig.wait_for_the_end(step);
    rig.start_amibus(None);
    wait(&format!("the outcome after {step}"), PATIENCE, || rig.told() > told);
    // What was not acknowledged is delivered again, and answered again.
    let replies = if step == "replied" { 2 } else { 1 };
    wait(&format!("the reply after {step}"), PATIENCE, || rig.last_replies() >= replies);
    let id = format!("{name}-0");
    let expected: &[(&str, usize)] = match end {
        End::Called => &[("executed", 1)],
        End::NotCalled => &[("unknown", 0)],
        End::Either => &[("executed", 1), ("unknown", 0)],
    };
    // Asterisk answers before it calls.
    let deadline = Instant::now() + CALL_WITHIN;
    loop {
        let evidence = rig.evidence();
        let told = evidence.told.iter().find(|told| told.command == id);
        let outcome = told.map_or("none", |told| &*told.outcome);
        let calls = evidence.calls.iter().filter(|call| call.command == id).count();
        if expected.contains(&(outcome, calls)) {
            rig.dismiss_last();
            return calls > 0;
        }
        assert!(
            Instant::now() < deadline,
            "after the end at {step}: {outcome} and {calls} calls, not {end:?}\n{}",
            rig.amibus.log_tail()
        );
        thread::sleep(Duration::from_millis(50));
    }
}
