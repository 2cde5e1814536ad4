//! Everything at once, and the numbers hold.

use std::{thread, time::Duration};

use super::{
    identity::Lane,
    rig::{NATS_MAX_PAYLOAD_BYTES, Rig},
    scraper::Scraper,
};

const EVENTS_PER_SECOND: u64 = 2_000;
/// Fewer would not have looked.
const LEAST_SCRAPES: usize = 50;
/// Every second event of a flood.
const FILTER: &str = "[[filter]]\nfields.Seq = [\"*[02468]\"]\ndo = \"drop\"\n";

#[test]
fn at_every_scrape_each_event_is_somewhere() {
    let mut rig = Rig::start("1MiB", FILTER);
    let scraper = Scraper::start(rig.amibus.port(0));
    let flooding = rig.flood(EVENTS_PER_SECOND);
    rig.wait("events flow", |lanes| lanes.iter().all(|lane| lane.published > 1_000));

    for _ in 0..3 {
        let poison = "x".repeat(2 * NATS_MAX_PAYLOAD_BYTES);
        rig.sim.emit(format!(
            "Event: UserEvent\r\nPrivilege: user,all\r\nUserEvent: Poison\r\nPad: {poison}\r\n\r\n"
        ));
    }
    rig.wait("the poison is set aside, on NATS alone", |[nats, zeromq]| {
        nats.dead_lettered == 3 && zeromq.dead_lettered == 0
    });

    rig.nats.kill();
    rig.wait("the small spool drops", |[nats, _]| nats.dropped > 0);
    let before = rig.wait("the other bus goes on", |[_, zeromq]| zeromq.waiting == 0);
    scraper.until("a drop", |lanes| lanes.iter().any(|lane| lane.dropped > 0));
    rig.kill_amibus();
    rig.wait("NATS has its backlog again", |[nats, _]| nats.recovered > 0 && nats.waiting > 0);
    rig.nats.restart();
    rig.wait("the backlog is gone", |[nats, _]| nats.waiting < EVENTS_PER_SECOND / 4);
    rig.wait("events flow again", |lanes| lanes.iter().all(|lane| lane.published > 2_000));
    rig.kill_amibus();
    rig.wait("events flow again", |lanes| lanes.iter().all(|lane| lane.published > 1_000));
    drop(flooding);

    let scrapes = scraper.scrapes();
    assert!(scrapes.len() > LEAST_SCRAPES, "{} scrapes", scrapes.len());
    type Term = fn(&Lane) -> u64;
    let terms: [(&str, Term); 8] = [
        ("read", |lane| lane.read),
        ("own", |lane| lane.own),
        ("recovered", |lane| lane.recovered),
        ("filtered", |lane| lane.filtered),
        ("published", |lane| lane.published),
        ("dead_lettered", |lane| lane.dead_lettered),
        ("dropped", |lane| lane.dropped),
        ("waiting", |lane| lane.waiting),
    ];
    for (name, term) in terms {
        let seen = scrapes.iter().flat_map(|scrape| &scrape.lanes).any(|lane| term(lane) > 0);
        assert!(seen, "{name} was never more than nothing");
    }
    assert!(before[0].published > 0 && before[1].dropped == 0, "{before:?}");
    each_number_means_what_it_says(&rig);
    scraper.scrapes();
}

/// A sum holds too where all its terms are wrong together.
fn each_number_means_what_it_says(rig: &Rig) {
    let quiet = rig.wait("everything is done", |lanes| lanes.iter().all(|lane| lane.waiting == 0));
    thread::sleep(Duration::from_millis(500));
    let before = rig.wait("everything is still done", |lanes| lanes.iter().all(|lane| lane.waiting == 0));
    assert!(before[0].read >= quiet[0].read);
    rig.send(1_000, EVENTS_PER_SECOND);
    let after = rig.wait("a thousand more", |lanes| {
        lanes.iter().zip(&before).all(|(now, before)| now.read >= before.read + 1_000 && now.waiting == 0)
    });
    for (before, after) in before.iter().zip(&after) {
        let grown = |term: fn(&Lane) -> u64| term(after) - term(before);
        assert_eq!(grown(|lane| lane.read), 1_000);
        assert_eq!(grown(|lane| lane.filtered), 500);
        assert_eq!(grown(|lane| lane.published), 500, "{}", after.bus);
        assert_eq!(grown(|lane| lane.own + lane.dropped + lane.dead_lettered + lane.recovered), 0);
    }
}
