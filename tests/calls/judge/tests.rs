//! The judge on doctored evidence: each breach is found, and what is allowed is not one.

use super::{Breach, Call, Deaf, Delivery, Demands, Evidence, Fault, Place, Sent, Told, judge};

const COMMANDS: u64 = 10;
const SECOND: u64 = 1_000_000;
const ALL: Demands = Demands { calls_outlive_faults: true, all_answered: true, several: false, apart: false };

fn told(n: u64, place: Place) -> Told {
    Told {
        place,
        message: (format!("log:{n}"), 7),
        command: format!("c-{n}"),
        outcome: "executed".into(),
        code: "-".into(),
        at: Some(n * SECOND + 300_000),
    }
}

/// Ten commands a second apart, all executed, and told to everybody. A fault from 4.9 s to 5.4 s.
fn perfect() -> Evidence {
    let mut evidence = Evidence::default();
    for n in 1..=COMMANDS {
        let (command, at) = (format!("c-{n}"), n * SECOND);
        evidence.deliveries.push(Delivery { number: n, command: command.clone(), at });
        evidence.calls.push(Call { command: command.clone(), at: at + 100_000, until: None });
        let channel = format!("amibus-{n}");
        evidence.shown.insert(channel.clone());
        evidence.sent.push(Sent { command, channel, answered_at: Some(at + 200_000) });
        evidence.told.extend([Place::Nats, Place::Kafka, Place::Reply(n)].map(|place| told(n, place)));
    }
    evidence.faults.push(Fault { from: 5 * SECOND - 100_000, until: 5 * SECOND + 400_000 });
    evidence
}

fn breaches(demands: Demands, doctor: impl FnOnce(&mut Evidence)) -> Vec<(Breach, usize)> {
    let mut evidence = perfect();
    doctor(&mut evidence);
    let verdict = judge(&evidence, demands);
    assert_eq!(verdict.told.len(), verdict.breaches.values().sum::<usize>(), "{verdict:?}");
    verdict.breaches.into_iter().collect()
}

/// As it is where amibus was killed just after it recorded that it sends: nothing was sent.
fn unknown(evidence: &mut Evidence, n: u64) {
    let command = format!("c-{n}");
    evidence.calls.retain(|call| call.command != command);
    evidence.sent.retain(|sent| sent.command != command);
    evidence.shown.remove(&format!("amibus-{n}"));
    say(evidence, n, "unknown");
}

fn say(evidence: &mut Evidence, n: u64, outcome: &str) {
    let of = |told: &&mut Told| told.command == format!("c-{n}");
    evidence.told.iter_mut().filter(of).for_each(|told| outcome.clone_into(&mut told.outcome));
}

#[test]
fn perfection_is_clean() {
    let verdict = judge(&perfect(), ALL);
    assert!(verdict.is_clean(), "{verdict:?}");
    assert_eq!((verdict.commands, verdict.calls, verdict.of("executed"), verdict.repeats), (10, 10, 10, 0));
}

#[test]
fn two_calls_of_one_command_are_found() {
    let twice = breaches(ALL, |e| e.calls.push(e.calls[3].clone()));
    assert_eq!(twice, [(Breach::DialledTwice, 1)]);
    // Asterisk refuses a second channel of the same Uniqueid while the first lives; sending it is a breach all the same.
    assert_eq!(breaches(ALL, |e| e.sent.push(e.sent[3].clone())), [(Breach::SentTwice, 1)]);
}

#[test]
fn a_second_outcome_is_found_on_a_bus_and_in_a_reply() {
    for at in [0, 1, 2] {
        let other = breaches(ALL, |e| {
            e.told[at].message = ("log:99".into(), 7);
            e.told[at].outcome = "refused".into();
        });
        assert!(other.contains(&(Breach::TwoOutcomes, 1)), "{other:?}");
        let bytes = breaches(ALL, |e| e.told[at].message.1 = 8);
        assert_eq!(bytes, [(Breach::TwoOutcomes, 1)]);
        // Of several, whoever tells it tells it once; whoever answers says the same.
        let several = breaches(Demands { several: true, ..ALL }, |e| e.told[at].message.1 = 8);
        let is_reply = matches!(perfect().told[at].place, Place::Reply(_));
        assert_eq!(several.is_empty(), is_reply, "{several:?}");
        let other = breaches(Demands { several: true, ..ALL }, |e| e.told[at].outcome = "refused".into());
        assert!(other.contains(&(Breach::TwoOutcomes, 1)), "{other:?}");
    }
    let mut evidence = perfect();
    evidence.told.push(evidence.told[1].clone());
    let verdict = judge(&evidence, ALL);
    assert!(verdict.is_clean() && verdict.repeats == 1, "the same message again is none: {verdict:?}");
}

#[test]
fn a_missing_outcome_is_found_on_each_bus_and_for_each_delivery() {
    assert_eq!(breaches(ALL, |e| drop(e.told.remove(0))), [(Breach::NoOutcome, 1)]);
    assert_eq!(breaches(ALL, |e| drop(e.told.remove(1))), [(Breach::NoOutcome, 1)]);
    assert_eq!(breaches(ALL, |e| drop(e.told.remove(2))), [(Breach::NotAnswered, 1)]);
    let more = |e: &mut Evidence| e.deliveries.push(Delivery { number: 77, ..e.deliveries[0].clone() });
    assert_eq!(breaches(ALL, more), [(Breach::NotAnswered, 1)]);
    assert_eq!(breaches(Demands { all_answered: false, ..ALL }, more), []);
}

#[test]
fn an_answer_is_not_demanded_while_its_sender_does_not_hear() {
    let cut = |sender, from, until| {
        move |e: &mut Evidence| {
            e.told.retain(|told| told.place != Place::Reply(5));
            e.deaf.push(Deaf { sender, fault: Fault { from: from * SECOND, until: until * SECOND } });
        }
    };
    assert_eq!(breaches(ALL, cut(1..11, 5, 6)), []);
    assert_eq!(breaches(ALL, cut(1..11, 9, 10)), [(Breach::NotAnswered, 1)], "it heard then");
    assert_eq!(breaches(ALL, cut(6..11, 5, 6)), [(Breach::NotAnswered, 1)], "another sender");
}

#[test]
fn unknown_needs_a_fault_between_sending_and_the_answer() {
    assert_eq!(breaches(ALL, |e| unknown(e, 5)), []);
    // Before it nothing was asked yet, after it the outcome was long told.
    assert_eq!(breaches(ALL, |e| unknown(e, 7)), [(Breach::UnknownWithoutFault, 1)]);
    assert_eq!(breaches(ALL, |e| unknown(e, 3)), [(Breach::UnknownWithoutFault, 1)]);
    let answered = breaches(Demands { calls_outlive_faults: false, ..ALL }, |e| {
        let sent = Sent { answered_at: Some(3 * SECOND), ..e.sent[4].clone() };
        unknown(e, 5);
        e.sent.push(sent);
        e.deliveries[4].at = 2 * SECOND;
    });
    assert_eq!(answered, [(Breach::UnknownWithoutFault, 1)], "answered two seconds before");
}

#[test]
fn unknown_is_no_excuse_for_a_call_that_is_there() {
    let ran = breaches(ALL, |e| {
        let call = e.calls[4].clone();
        unknown(e, 5);
        e.calls.push(call);
    });
    assert_eq!(ran, [(Breach::UnknownThoughRun, 1)]);
    let shown = |e: &mut Evidence| {
        let sent = e.sent[4].clone();
        unknown(e, 5);
        e.shown.insert(sent.channel.clone());
        e.sent.push(sent);
    };
    assert_eq!(breaches(ALL, shown), [(Breach::UnknownThoughShown, 1)]);
}

#[test]
fn what_is_said_is_held_against_what_was_done() {
    let none = |e: &mut Evidence| drop(e.calls.remove(2));
    assert_eq!(breaches(ALL, none), [(Breach::ExecutedWithoutCall, 1)]);
    assert_eq!(breaches(Demands { calls_outlive_faults: false, ..ALL }, none), []);
    for outcome in ["rejected", "expired", "refused"] {
        assert_eq!(breaches(ALL, |e| say(e, 3, outcome)), [(Breach::DeniedThoughSent, 1)]);
    }
    let unasked = breaches(ALL, |e| e.calls.push(Call { command: "c-99".into(), at: 1, until: None }));
    assert!(unasked.contains(&(Breach::Unasked, 1)), "{unasked:?}");
}
