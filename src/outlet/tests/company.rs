//! A lane that catches up beside other buses.

use super::*;

const BATCH: usize = 2 * CATCHING_UP_MESSAGES;

/// A lane of which nothing was published yet, with so many messages.
fn lane(dir: &Path, messages: usize, has_company: bool) -> Lane {
    let (writer, decoder) = (writer(), writer());
    let opened = spool::open(dir, Options::default(), &[BUS]).expect("opens");
    let spool = opened.start(Arc::new(move |body| decoder.read(body))).expect("threads");
    append(&spool, &writer, messages);
    let (_, is_held) = watch::channel(false);
    let metrics = Metrics::default();
    Lane {
        writer,
        spool,
        number: 0,
        bridge: Arc::new(Scripted { script: Arc::default(), is_held }),
        batch_messages: BATCH,
        batch_bytes: usize::MAX,
        budget: Budget::new(usize::MAX),
        has_company,
        metrics: metrics.lane("pbx1", BUS),
        bus_metrics: metrics.bus(BUS),
    }
}

#[test]
fn a_lane_that_catches_up_beside_other_buses_has_less_on_its_way() {
    for (messages, has_company, most) in
        [(BATCH, true, BATCH), (BATCH + 1, true, CATCHING_UP_MESSAGES), (BATCH + 1, false, BATCH)]
    {
        let dir = tempfile::tempdir().expect("a directory");
        let lane = lane(dir.path(), messages, has_company);
        assert_eq!(lane.most_messages(), most, "{messages} messages, company: {has_company}");
    }
}

#[test]
fn a_lane_with_few_on_its_way_anyway_keeps_its_own_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let lane = Lane { batch_messages: 7, ..lane(dir.path(), 8, true) };
    assert_eq!(lane.most_messages(), 7);
}
