//! What the Python programs stored: `outcomes.py` and `flow.py` have the format.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::judge::{Delivery, Evidence, Fault, Place, Told};

/// Where the consumers read, in their order.
pub(super) const PLACES: [Place; 2] = [Place::Nats, Place::Kafka];

/// What a sender has published and what it was answered. Deliveries are counted from `first` on; answers the next.
pub(super) fn flow(file: &Path, first: u64) -> (Vec<Delivery>, Vec<Told>, u64) {
    let (mut deliveries, mut replies) = (Vec::new(), Vec::new());
    for line in lines(file) {
        let words: Vec<&str> = line.split('\t').collect();
        match words[..] {
            ["P", number, command, at] => {
                let number = first + number_of(number, &line);
                deliveries.push(Delivery { number, command: command.to_owned(), at: number_of(at, &line) });
            }
            ["A", number, id, crc, command, outcome, code, at] => {
                let place = Place::Reply(first + number_of(number, &line));
                let message = (id.to_owned(), number_of(crc, &line) as u32);
                let (command, outcome, code) = (command.to_owned(), outcome.to_owned(), code.to_owned());
                replies.push(Told { place, message, command, outcome, code, at: Some(number_of(at, &line)) });
            }
            ["D" | "C", _] => {}
            _ => panic!("not a line of a sender: {line:?}"),
        }
    }
    let next = deliveries.iter().map(|delivery| delivery.number + 1).max().unwrap_or(first);
    (deliveries, replies, next)
}

/// When a sender heard no replies, for its connection was broken.
pub(super) fn deaf(file: &Path) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    for line in lines(file) {
        match line.split_once('\t') {
            Some(("D", at)) => faults.push(Fault { from: number_of(at, &line), until: u64::MAX }),
            Some(("C", at)) => {
                if let Some(last) = faults.last_mut() {
                    last.until = number_of(at, &line);
                }
            }
            _ => {}
        }
    }
    faults
}

/// Adds what a consumer has read.
pub(super) fn consumer(file: &Path, place: Place, evidence: &mut Evidence) {
    for line in lines(file) {
        let words: Vec<&str> = line.split('\t').collect();
        match words[..] {
            ["R", _, id, crc, command, outcome, code, at] => evidence.told.push(Told {
                place,
                message: (id.to_owned(), number_of(crc, &line) as u32),
                command: command.to_owned(),
                outcome: outcome.to_owned(),
                code: code.to_owned(),
                at: Some(number_of(at, &line)),
            }),
            ["E", _, unique] => {
                // The far end of a Local channel has the same and `;2`.
                let channel = unique.split_once(';').map_or(unique, |(channel, _)| channel);
                evidence.shown.insert(channel.to_owned());
            }
            _ => panic!("not a line of a consumer: {line:?}"),
        }
    }
}

/// How many commands have an outcome here.
pub(super) fn told_commands(file: &Path) -> usize {
    let lines = lines(file);
    let commands =
        lines.iter().filter(|line| line.starts_with("R\t")).filter_map(|line| line.split('\t').nth(4));
    commands.collect::<BTreeSet<_>>().len()
}

/// All whole lines so far.
fn lines(file: &Path) -> Vec<String> {
    let mut text = String::from_utf8(fs::read(file).unwrap_or_default()).expect("a store is UTF-8");
    text.truncate(text.rfind('\n').map_or(0, |at| at + 1));
    text.lines().map(str::to_owned).collect()
}

fn number_of(word: &str, line: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word:?} in {line:?}"))
}
