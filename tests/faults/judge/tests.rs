//! The judge on doctored stores: each breach is found, and what is allowed is not one.

use super::{Bus, Message, Run, Sent, Verdict, judge};

const BASE: u64 = 100;
const START: u64 = 1_000_000_000;
const STEP: u64 = 100_000;
const COUNT: u64 = 40;

/// One run of numbered events, 0.1 s apart, and what a perfect consumer stores of it: sequences from 11.
fn perfect() -> (Vec<Run>, Vec<String>) {
    let events = (0..COUNT).map(|n| Sent { number: Some(BASE + n), at_micros: START + n * STEP }).collect();
    let up = "L\t0\t10\tlog:10\t1\tpbx\tup\tboot-1".to_owned();
    (vec![Run { tag: "a".into(), events }], std::iter::once(up).chain((0..COUNT).map(event)).collect())
}

fn event(n: u64) -> String {
    let (sequence, number, key) = (11 + n, BASE + n, n % 4);
    format!("E\t{n}\t{sequence}\tpbx:boot:{number}\t{number}\tcall-{key}\ta\t{n}\t{number}\t500")
}

fn gap(sequence: u64, words: &str) -> String {
    format!("G\t0\t{sequence}\tlog:{sequence}-{words}\t7\tpbx\t{}", words.replace(' ', "\t"))
}

fn verdict(bus: Bus, doctor: impl FnOnce(&mut Vec<Run>, &mut Vec<String>)) -> Verdict {
    let (mut runs, mut lines) = perfect();
    doctor(&mut runs, &mut lines);
    let messages: Vec<Message> = lines.iter().map(|line| Message::parse(line)).collect();
    judge(bus, &runs, &messages)
}

fn both(doctor: impl Fn(&mut Vec<Run>, &mut Vec<String>)) -> [Verdict; 2] {
    [Bus::JetStream, Bus::Kafka].map(|bus| verdict(bus, &doctor))
}

#[test]
fn perfection_is_clean() {
    for verdict in both(|_, _| {}) {
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.sent, verdict.seen, verdict.announced, verdict.repeats), (COUNT, COUNT, 0, 0));
    }
}

#[test]
fn a_lost_number_is_found_wherever_it_stands() {
    for line in [1, 20, COUNT as usize] {
        for verdict in both(|_, lines| drop(lines.remove(line))) {
            assert_eq!((verdict.lost, verdict.breaches, verdict.seen), (1, 0, COUNT - 1), "{verdict:?}");
        }
    }
}

#[test]
fn a_reorder_is_found() {
    let [jetstream, kafka] = both(|_, lines| lines.swap(20, 24));
    assert!(jetstream.breaches > 0 && kafka.breaches > 0, "{jetstream:?} {kafka:?}");
    let [jetstream, kafka] = both(|_, lines| lines.swap(20, 21));
    assert!(jetstream.breaches > 0 && kafka.is_clean(), "other keys: only the stream has one order");
}

#[test]
fn a_damaged_stretch_that_was_on_the_bus_before_is_no_reorder() {
    // It ends at number 15, and number 39 was the last.
    for verdict in both(|_, lines| lines.push(gap(26, "damaged 21 26 - - -"))) {
        assert!(verdict.is_clean(), "{verdict:?}");
    }
    let [jetstream, _] = both(|_, lines| {
        lines.remove(14);
        lines.push(gap(26, "damaged 21 26 - - -"));
    });
    assert_eq!((jetstream.lost, jetstream.breaches), (0, 1), "it is told of too late: {jetstream:?}");
    let [jetstream, _] = both(|_, lines| lines.push(gap(26, "dropped 21 26 - - -")));
    assert_eq!(jetstream.breaches, 1, "what was on the bus was not dropped: {jetstream:?}");
}

#[test]
fn source_order_is_demanded_too() {
    let [jetstream, kafka] = both(|_, lines| {
        // Sequences ascend, but the numbers were given to the wrong events.
        lines[20] = event(19).replace("\ta\t19\t119", "\ta\t23\t123");
        lines[24] = event(23).replace("\ta\t23\t123", "\ta\t19\t119");
    });
    assert!(jetstream.breaches > 0 && kafka.breaches > 0, "{jetstream:?} {kafka:?}");
}

#[test]
fn a_repeat_is_allowed_in_kafka_with_the_same_id_only() {
    let [jetstream, kafka] = both(|_, lines| lines.extend((30..COUNT).map(event)));
    assert_eq!((kafka.is_clean(), kafka.repeats), (true, 10), "{kafka:?}");
    assert_eq!(jetstream.breaches, 10, "{jetstream:?}");
    for verdict in both(|_, lines| lines.push(event(39).replace("pbx:boot:139", "log:77"))) {
        assert!(verdict.breaches > 0, "another id: {verdict:?}");
    }
    for verdict in both(|_, lines| lines.push(event(39).replace("\t139\tcall", "\t1\tcall"))) {
        assert!(verdict.breaches > 0, "the same id with other bytes: {verdict:?}");
    }
}

#[test]
fn an_id_that_is_given_twice_is_found() {
    for verdict in both(|_, lines| lines[20] = event(19).replace("pbx:boot:119", "pbx:boot:118")) {
        assert!(verdict.breaches > 0 && verdict.lost == 1, "{verdict:?}");
    }
}

#[test]
fn what_the_source_never_sent_is_found() {
    for verdict in both(|_, lines| lines.push(event(COUNT))) {
        assert_eq!(verdict.breaches, 1, "{verdict:?}");
    }
    for verdict in both(|_, lines| lines[20] = event(19).replace("\ta\t19\t119", "\ta\t19\t120")) {
        assert_eq!(verdict.breaches, 1, "another SequenceNumber: {verdict:?}");
    }
}

/// Takes `count` events from number `first` on away.
fn lose(lines: &mut Vec<String>, first: usize, count: usize) {
    lines.drain(first + 1..first + 1 + count);
}

/// Sequences after number 10 move up by one, so that a message has room there.
fn shifted(n: u64) -> String {
    event(n).replace(&format!("\t{}\tpbx", 11 + n), &format!("\t{}\tpbx", 11 + n - 5))
}

/// Numbers 10 to 15 never reached the log: what follows them stands right after number 9, but for a gap message.
fn unread(lines: &mut Vec<String>, words: &str) {
    lines.truncate(11);
    lines.push(gap(21, words));
    lines.extend((16..COUNT).map(shifted));
}

#[test]
fn a_gap_with_numbers_covers_just_these() {
    for verdict in both(|_, lines| unread(lines, "disconnected 110 115 - - -")) {
        assert!(verdict.is_clean() && verdict.announced == 6, "{verdict:?}");
    }
    for words in ["disconnected 110 114 - - -", "disconnected 111 115 - - -"] {
        for verdict in both(|_, lines| unread(lines, words)) {
            assert_eq!((verdict.lost, verdict.announced), (1, 5), "{words}: {verdict:?}");
        }
    }
    for verdict in both(|_, lines| unread(lines, "disconnected 109 115 - - -")) {
        assert_eq!(verdict.claimed_but_seen, 1, "{verdict:?}");
    }
}

#[test]
fn a_gap_of_another_life_of_asterisk_covers_nothing() {
    for verdict in both(|_, lines| {
        unread(lines, "disconnected 1 2 - - -");
        lines.push("L\t0\t60\tlog:60\t1\tpbx\tup\tboot-2".into());
        lines.push(gap(61, "disconnected 110 115 - - -"));
    }) {
        assert_eq!(verdict.lost, 6, "{verdict:?}");
    }
}

#[test]
fn a_gap_without_numbers_covers_by_place_and_time() {
    let (from, until) = (START + 9 * STEP, START + 16 * STEP);
    for verdict in both(|_, lines| unread(lines, &format!("disconnected - - {from} {until} -"))) {
        assert!(verdict.is_clean() && verdict.announced == 6, "{verdict:?}");
    }
    let late = START + 30 * STEP;
    for verdict in both(|_, lines| unread(lines, &format!("disconnected - - {late} {late} -"))) {
        assert_eq!(verdict.lost, 6, "another time: {verdict:?}");
    }
    for verdict in both(|_, lines| {
        lose(lines, 10, 6);
        lines.push(gap(200, &format!("disconnected - - {from} {until} -")));
    }) {
        assert_eq!(verdict.lost, 6, "another place: {verdict:?}");
    }
}

#[test]
fn what_the_log_lost_is_counted_in_its_own_numbers() {
    let lost = |words: &'static str| {
        both(move |_, lines| {
            lose(lines, 10, 6);
            lines.insert(11, gap(26, words));
        })
    };
    let [jetstream, kafka] = lost("dropped 21 26 - - kafka");
    assert!(kafka.is_clean() && kafka.announced == 6 && kafka.dropped_gaps == 1, "{kafka:?}");
    assert_eq!(jetstream.lost, 6, "a gap of another bus: {jetstream:?}");
    for verdict in lost("damaged 21 26 - - -") {
        // It takes a number of its own, so it cannot stand for that one.
        assert_eq!((verdict.lost, verdict.announced), (1, 5), "{verdict:?}");
    }
    let [_, kafka] = lost("dropped 21 25 - - kafka");
    assert_eq!((kafka.lost, kafka.announced), (1, 5), "{kafka:?}");
    let (from, until) = (START + 10 * STEP, START + 15 * STEP);
    for (words, expected) in [
        (format!("damaged 22 26 {from} {until} kafka"), (0, 1)),
        (format!("damaged 22 26 {until} {until} kafka"), (0, 1)),
        (format!("damaged 22 26 {} {} kafka", until + 20 * STEP, until + 21 * STEP), (1, 0)),
    ] {
        let verdict = verdict(Bus::Kafka, |_, lines| {
            lose(lines, 10, 6);
            lines.insert(11, gap(26, &words));
        });
        assert_eq!((verdict.lost, verdict.by_time), expected, "{words}: {verdict:?}");
    }
}
