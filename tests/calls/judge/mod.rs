//! What must hold of every command, judged from what others than amibus have seen.
//!
//! | evidence | of whom |
//! |---|---|
//! | calls | Asterisk: its dialplan writes each call that it runs into a file, before anything else |
//! | sent | the wire: each Originate that was handed to Asterisk's socket, and when its answer went back |
//! | told | consumers of both buses, and the senders: each response |
//! | shown | consumers of both buses: the channels of which an event was published |
//! | deliveries | the senders: which command was published when |
//! | deaf | the senders: when the connection was broken over which replies come |
//! | faults | the test: when something was killed or cut, and when it was whole again |

mod rates;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

/// How long after its answer went back a fault may still have kept amibus from reading it, in microseconds.
const UNREAD_MICROS: u64 = 1_000_000;
/// How long a sender's connection may be dead before it notices, and a consumer behind, in microseconds.
const DEAF_MICROS: u64 = 3_000_000;
const SECOND_MICROS: u64 = 1_000_000;
/// Breaches that are told in words.
const TOLD_BREACHES_MAX: usize = 20;

/// Where a response was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the JetStream stream.
    Nats,
    /// In the Kafka topic.
    Kafka,
    /// By the sender of this delivery.
    Reply(u64),
}

/// A call that Asterisk ran.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) command: String,
    /// Its begin, microseconds since 1970.
    pub(crate) at: u64,
    /// Its end, where that was seen.
    pub(crate) until: Option<u64>,
}

/// An Originate on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) command: String,
    /// The Uniqueid that amibus chose for its channel.
    pub(crate) channel: String,
    /// When Asterisk's answer to it went back, microseconds since 1970.
    pub(crate) answered_at: Option<u64>,
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) place: Place,
    /// Its own id and the CRC-32 of its bytes.
    pub(crate) message: (String, u32),
    pub(crate) command: String,
    pub(crate) outcome: String,
    pub(crate) code: String,
    /// When it was read, microseconds since 1970.
    pub(crate) at: Option<u64>,
}

/// A command as it was published, once.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) number: u64,
    pub(crate) command: String,
    /// When it was first tried, microseconds since 1970.
    pub(crate) at: u64,
}

/// Something was not there, microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// A sender did not hear: NATS keeps no reply for a connection that broke.
#[derive(Clone, Debug)]
pub(crate) struct Deaf {
    /// The numbers of its deliveries.
    pub(crate) sender: Range<u64>,
    pub(crate) fault: Fault,
}

/// What a run may be held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demands {
    /// Asterisk lived all the time, and each call outlived each fault: what was executed is a call, and what is unknown is none.
    pub(crate) calls_outlive_faults: bool,
    /// The senders' way to the buses was whole: each delivery is answered.
    pub(crate) all_answered: bool,
    /// Several amibus are at work: one tells the outcome on the buses, in one message; another one may answer its own
    /// senders in messages of its own, with the same outcome.
    pub(crate) several: bool,
    /// They share no claims: each tells on the buses what it found, in a message of its own, with the same outcome.
    pub(crate) apart: bool,
}

/// All that was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) calls: Vec<Call>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) told: Vec<Told>,
    /// Uniqueids of channels.
    pub(crate) shown: BTreeSet<String>,
    pub(crate) deliveries: Vec<Delivery>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) deaf: Vec<Deaf>,
}

/// A promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Breach {
    /// Asterisk ran two calls for one command.
    DialledTwice,
    /// Two Originates of one command were on the wire.
    SentTwice,
    /// A command has two outcomes, or one in two messages.
    TwoOutcomes,
    /// A command has no outcome on a bus.
    NoOutcome,
    /// A sender was not answered.
    NotAnswered,
    /// `unknown`, though Asterisk ran the call and lived on.
    UnknownThoughRun,
    /// `unknown`, though events of the call were published.
    UnknownThoughShown,
    /// `unknown`, and no fault fell between sending and the answer.
    UnknownWithoutFault,
    /// `executed`, and no call.
    ExecutedWithoutCall,
    /// Said not to have been carried out, and it was on the wire.
    DeniedThoughSent,
    /// Something that nobody asked for.
    Unasked,
}

/// The judgement.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) commands: usize,
    pub(crate) calls: usize,
    /// The most calls that lived at one moment.
    pub(crate) at_once: usize,
    /// The most calls that began within a second.
    pub(crate) a_second: usize,
    /// Commands by outcome.
    pub(crate) outcomes: BTreeMap<String, usize>,
    /// The same message once more on the same bus.
    pub(crate) repeats: usize,
    /// Deliveries whose reply came while their sender did not hear.
    pub(crate) unheard: usize,
    /// Commands that were not executed, by outcome and error code.
    pub(crate) codes: BTreeMap<String, usize>,
    pub(crate) breaches: BTreeMap<Breach, usize>,
    /// Some of them in words.
    pub(crate) told: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.breaches.is_empty()
    }

    pub(crate) fn of(&self, outcome: &str) -> usize {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }

    fn breach(&mut self, breach: Breach, words: impl fmt::Display) {
        *self.breaches.entry(breach).or_default() += 1;
        if self.told.len() < TOLD_BREACHES_MAX {
            self.told.push(format!("{breach:?}: {words}"));
        }
    }
}

/// What was seen of one command.
#[derive(Default)]
struct Case<'a> {
    deliveries: Vec<&'a Delivery>,
    calls: Vec<&'a Call>,
    sent: Vec<&'a Sent>,
    told: Vec<&'a Told>,
}

/// Judges all commands that were published.
pub(crate) fn judge(evidence: &Evidence, demands: Demands) -> Verdict {
    let mut cases: BTreeMap<&str, Case<'_>> = BTreeMap::new();
    for delivery in &evidence.deliveries {
        cases.entry(&delivery.command).or_default().deliveries.push(delivery);
    }
    for call in &evidence.calls {
        cases.entry(&call.command).or_default().calls.push(call);
    }
    for sent in &evidence.sent {
        cases.entry(&sent.command).or_default().sent.push(sent);
    }
    for told in &evidence.told {
        cases.entry(&told.command).or_default().told.push(told);
    }
    let mut verdict = Verdict {
        commands: cases.len(),
        calls: evidence.calls.len(),
        at_once: rates::at_once(&evidence.calls),
        a_second: rates::within(&evidence.calls, SECOND_MICROS),
        ..Verdict::default()
    };
    for (command, case) in &cases {
        if case.deliveries.is_empty() {
            verdict.breach(Breach::Unasked, command);
        }
        calls(&mut verdict, command, case);
        if demands.all_answered {
            answers(&mut verdict, command, case, &evidence.deaf);
        }
        if let Some(outcome) = outcome(&mut verdict, command, case, demands) {
            matches(&mut verdict, command, case, outcome, evidence, demands);
        }
    }
    verdict
}

fn calls(verdict: &mut Verdict, command: &str, case: &Case<'_>) {
    if case.calls.len() > 1 {
        verdict.breach(Breach::DialledTwice, format!("{command}: {:?}", case.calls));
    }
    if case.sent.len() > 1 {
        verdict.breach(Breach::SentTwice, format!("{command}: {:?}", case.sent));
    }
}

/// The one outcome of a command, which everybody was told in one and the same message.
fn outcome<'a>(verdict: &mut Verdict, command: &str, case: &Case<'a>, demands: Demands) -> Option<&'a Told> {
    let as_one = |told: &&&Told| !demands.several || !matches!(told.place, Place::Reply(_));
    let messages: BTreeSet<&(String, u32)> =
        case.told.iter().filter(as_one).map(|told| &told.message).collect();
    let outcomes: BTreeSet<&str> = case.told.iter().map(|told| &*told.outcome).collect();
    if (messages.len() > 1 && !demands.apart) || outcomes.len() > 1 {
        verdict.breach(Breach::TwoOutcomes, format!("{command}: {:?}", case.told));
    }
    for place in [Place::Nats, Place::Kafka] {
        let times = case.told.iter().filter(|told| told.place == place).count();
        verdict.repeats += times.saturating_sub(1);
        if times == 0 {
            verdict.breach(Breach::NoOutcome, format!("{command} on {place:?}"));
        }
    }
    let first = case.told.first().copied()?;
    *verdict.outcomes.entry(first.outcome.clone()).or_default() += 1;
    Some(first)
}

/// Each delivery is answered, unless its sender did not hear when the outcome was told.
fn answers(verdict: &mut Verdict, command: &str, case: &Case<'_>, deaf: &[Deaf]) {
    let told_on_a_bus = || case.told.iter().filter(|told| !matches!(told.place, Place::Reply(_)));
    for delivery in &case.deliveries {
        let unheard = |at: u64| {
            deaf.iter().any(|deaf| {
                let from = deaf.fault.from.saturating_sub(DEAF_MICROS);
                let until = deaf.fault.until.saturating_add(DEAF_MICROS);
                deaf.sender.contains(&delivery.number) && (from..=until).contains(&at)
            })
        };
        if case.told.iter().any(|told| told.place == Place::Reply(delivery.number)) {
            continue;
        }
        if told_on_a_bus().filter_map(|told| told.at).any(unheard) {
            verdict.unheard += 1;
        } else {
            verdict.breach(Breach::NotAnswered, format!("{command}: {delivery:?}"));
        }
    }
}

/// Whether the outcome is true.
fn matches(
    verdict: &mut Verdict,
    command: &str,
    case: &Case<'_>,
    told: &Told,
    evidence: &Evidence,
    demands: Demands,
) {
    let ran = !case.calls.is_empty();
    if told.outcome != "executed" {
        *verdict.codes.entry(format!("{} {}", told.outcome, told.code)).or_default() += 1;
    }
    match told.outcome.as_str() {
        "executed" if demands.calls_outlive_faults && !ran => {
            verdict.breach(Breach::ExecutedWithoutCall, format!("{command}: {told:?} {:?}", case.sent));
        }
        "executed" => {}
        "unknown" => {
            if demands.calls_outlive_faults && ran {
                let faults: Vec<&Fault> =
                    evidence.faults.iter().filter(|fault| overlaps(fault, case)).collect();
                let words = format!("{command}: {told:?} {:?} beside {faults:?}", case.calls);
                verdict.breach(Breach::UnknownThoughRun, words);
            }
            if case.sent.iter().any(|sent| evidence.shown.contains(&sent.channel)) {
                verdict.breach(Breach::UnknownThoughShown, format!("{command}: {told:?}"));
            }
            if !evidence.faults.iter().any(|fault| may_hide(fault, case)) {
                verdict.breach(Breach::UnknownWithoutFault, format!("{command}: {told:?} {:?}", case.sent));
            }
        }
        _ if ran || case.sent.iter().any(|sent| sent.answered_at.is_none()) => {
            verdict.breach(Breach::DeniedThoughSent, format!("{command}: {told:?}"));
        }
        _ => {}
    }
}

/// Whether a fault fell into the life of a call.
fn overlaps(fault: &Fault, case: &Case<'_>) -> bool {
    case.calls.iter().any(|call| call.at <= fault.until && call.until.is_none_or(|until| fault.from <= until))
}

/// Whether a fault fell between sending a command and its answer, as far as can be told from outside: the command was
/// there before it was over, its outcome was not told before it began, and the answer had not gone back long before.
fn may_hide(fault: &Fault, case: &Case<'_>) -> bool {
    let published = case.deliveries.iter().any(|delivery| delivery.at <= fault.until);
    let told_before = case.told.iter().any(|told| told.at.is_some_and(|at| at < fault.from));
    let answered_before = case
        .sent
        .iter()
        .any(|sent| sent.answered_at.is_some_and(|at| at.saturating_add(UNREAD_MICROS) < fault.from));
    published && !told_before && !answered_before
}
