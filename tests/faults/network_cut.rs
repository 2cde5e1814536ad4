//! The network itself is cut, packet by packet, between namespaces: half-open to each side, and refused.

use std::thread;
use std::time::Duration;

use super::brokers::{Which, brokers};
use super::consumer::all;
use super::extent::{RATE, seconds, times};
use super::flood::Simulated;
use super::netns;
use super::rig::{CATCHING_UP, Rig};
use super::table::Row;
use super::wire::Wire;

/// Between two cuts.
const PAUSE: Duration = Duration::from_secs(1);

#[test]
fn the_network_is_cut() {
    if netns::done_inside("network_cut::the_network_is_cut") {
        return;
    }
    let brokers = brokers();
    let (times, half_open, refused) = (times(1, 3), seconds(6, 60), seconds(3, 60));
    let mut row = Row::begin("network cut in turn to NATS, Kafka and Asterisk", times);
    let source = Simulated::start();
    let to_source = Wire::start(brokers.way.as_ref());
    to_source.lead_to(source.port());
    let mut rig = Rig::start(&brokers, "network", &source.source(), None);
    let flooding = source.flood(RATE);
    let wires = [brokers.wire(Which::Nats), brokers.wire(Which::Kafka), &to_source];
    for wire in wires.into_iter().cycle().take(wires.len() * times as usize) {
        for (cut, time) in [(Wire::half_open as fn(&Wire), half_open), (Wire::refuse, refused)] {
            rig.wait_until_current(CATCHING_UP);
            thread::sleep(PAUSE);
            cut(wire);
            thread::sleep(time);
            wire.mend();
            rig.wait_for_progress();
        }
    }
    flooding.end();
    rig.settle(CATCHING_UP, || source.mark());
    let verdicts = rig.verdicts(|seen| source.runs(all(seen)));
    row.note(format!("{half_open:?} half-open, {refused:?} refused"));
    row.end(&verdicts);
}
