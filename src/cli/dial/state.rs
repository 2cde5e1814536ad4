//! Where each row of a batch stands: what is published next, what is out, and what has ended. It knows no bus.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use amibus_contract::Fault;

use super::{
    batch::Batch,
    counts::Counts,
    outcome::{Brief, Line, Response, plain},
};
use crate::command::{Outcome, response::channel_id};

/// How many rows are asked for again at once.
const ASKED_AT_ONCE: usize = 32;

/// What is known of a call that is out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// On the bus, or on its way there.
    Queued,
    /// Asterisk has made its channel.
    Dialling,
    Ringing,
}

/// A batch under way.
pub(super) struct State {
    pub(super) batch: Batch,
    pub(super) counts: Counts,
    ids: HashMap<String, usize>,
    ended: Vec<Option<Brief>>,
    /// Published and not ended.
    out: BTreeMap<usize, Stage>,
    /// The channels of those, as amibus chooses them.
    channels: HashMap<String, usize>,
    /// To be published once more, so that a response that was missed comes again.
    again: BTreeSet<usize>,
    /// Rows that were asked for again, because their response may have been missed.
    asked: BTreeSet<usize>,
    /// Rows whose turn to be asked for again comes when one of those has ended.
    doubtful: BTreeSet<usize>,
    next: usize,
    ahead: usize,
    /// Nothing new is published.
    pub(super) stopping: bool,
}

impl State {
    /// Nothing is published yet; at most `ahead` rows will be out at once.
    pub(super) fn new(batch: Batch, ahead: usize) -> Self {
        let (ids, ended) = (batch.ids(), vec![None; batch.len()]);
        Self {
            batch,
            ids,
            ended,
            ahead,
            counts: Counts::default(),
            out: BTreeMap::new(),
            channels: HashMap::new(),
            again: BTreeSet::new(),
            asked: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            next: 0,
            stopping: false,
        }
    }

    /// Takes a result of an earlier run. With `retry_rejected`, what was rejected is published again.
    ///
    /// # Errors
    /// Where it is a result of another batch.
    pub(super) fn resume(&mut self, line: &Line, retry_rejected: bool) -> Result<(), String> {
        let Some(index) = self.ids.get(&line.id).copied() else {
            return Err(format!(
                "{:?} is a result of another batch than {}: name another --results file, or the batch with --batch",
                line.id, self.batch.name
            ));
        };
        if plain(self.batch.number(index)) != line.number || self.batch.row(index) != line.row {
            return Err(format!(
                "row {} was {} when {} was dialled, and is row {} with {} now: the file has changed, so name another \
                 --batch and --results",
                line.row,
                line.number,
                line.id,
                self.batch.row(index),
                plain(self.batch.number(index))
            ));
        }
        let Some(brief) = line.brief() else { return Err(format!("{:?} is no outcome", line.outcome)) };
        if retry_rejected && brief.outcome == Outcome::Rejected {
            return Ok(());
        }
        self.end(index, brief);
        Ok(())
    }

    /// Whether [`State::next`] has a row.
    pub(super) fn has_next(&mut self) -> bool {
        while self.ended.get(self.next).is_some_and(Option::is_some) {
            self.next += 1;
        }
        let room = !self.stopping && self.out.len() < self.ahead && self.next < self.ended.len();
        !self.again.is_empty() || room
    }

    /// The row to publish now; it is out from now on. Those that are asked for again go first.
    pub(super) fn next(&mut self) -> Option<usize> {
        if !self.has_next() {
            return None;
        }
        let index = self.again.pop_first().unwrap_or(self.next);
        if index == self.next {
            self.next += 1;
        }
        if let Ok(call) = self.batch.call(index) {
            self.channels.insert(channel_id(&call.server, &call.id), index);
        }
        self.out.entry(index).or_insert(Stage::Queued);
        Some(index)
    }

    /// Takes a response; answers the result to be written, where it is news of a row of ours. What is told to all
    /// (`to_us` is not set) and was rejected is not: nothing was recorded, so it may be what another sender of the same id
    /// was told, and what we are told comes to us as well.
    pub(super) fn response(&mut self, body: &[u8], to_us: bool, seen: String) -> Option<Line> {
        let response = Response::read(body)?;
        let index = self.ids.get(&response.id).copied()?;
        let line = response.result(&self.batch, index, seen);
        let brief = line.brief()?;
        if brief.outcome == Outcome::Rejected && !to_us {
            return None;
        }
        match self.ended.get(index).copied().flatten() {
            // It was rejected before anything was recorded, and another delivery of it was carried out.
            Some(before) if before.outcome == Outcome::Rejected && brief.outcome != Outcome::Rejected => {}
            Some(_) => return None,
            None => {}
        }
        self.end(index, brief);
        Some(line)
    }

    /// The bus will never take this row; answers the result to be written.
    pub(super) fn refused(&mut self, index: usize, fault: &Fault, seen: String) -> Option<Line> {
        if self.ended.get(index).copied().flatten().is_some() {
            return None;
        }
        let id = self.batch.call(index).ok()?.id;
        let line = Line {
            row: self.batch.row(index),
            number: plain(self.batch.number(index)),
            id,
            outcome: Outcome::Rejected.as_str().to_owned(),
            seen: Some(seen),
            code: Some(fault.kind.as_str().to_owned()),
            message: Some(plain(&fault.message)),
            ..Line::default()
        };
        self.end(index, line.brief()?);
        Some(line)
    }

    /// Asterisk has said something of a channel.
    pub(super) fn seen(&mut self, channel: &str, stage: Stage) {
        if let Some(known) = self.channels.get(channel).and_then(|index| self.out.get_mut(index)) {
            *known = stage.max(*known);
        }
    }

    /// Responses may have been missed: what is out now is asked for again, a few rows at once and the next ones as those
    /// end. Most end by themselves meanwhile, and the bus is not flooded each time it comes back.
    pub(super) fn missed(&mut self) {
        self.doubtful.extend(self.out.keys().filter(|row| !self.asked.contains(row)));
        self.ask(ASKED_AT_ONCE);
    }

    /// Nothing has come for long: the row that has been out for longest is asked for again. When its response comes, the
    /// others are, for theirs may have been missed too.
    pub(super) fn ask_oldest(&mut self) {
        self.asked.clear();
        self.doubtful.extend(self.out.keys());
        self.ask(1);
    }

    fn ask(&mut self, at_once: usize) {
        while self.asked.len() < at_once
            && let Some(row) = self.doubtful.pop_first()
        {
            self.asked.insert(row);
            self.again.insert(row);
        }
    }

    /// How many rows are out, in each stage: queued, dialling, ringing.
    pub(super) fn stages(&self) -> (usize, usize, usize) {
        let of = |stage| self.out.values().filter(|known| **known == stage).count();
        (of(Stage::Queued), of(Stage::Dialling), of(Stage::Ringing))
    }

    pub(super) fn out(&self) -> usize {
        self.out.len()
    }

    pub(super) fn len(&self) -> usize {
        self.ended.len()
    }

    /// Whether every row has ended, or nothing more is to be awaited.
    pub(super) fn is_over(&self) -> bool {
        self.counts.ended() == self.ended.len() || (self.stopping && self.out.is_empty())
    }

    /// The ids of rows that ended so.
    pub(super) fn ids_with(&self, outcome: Outcome) -> impl Iterator<Item = String> {
        let ended = self.ended.iter().enumerate();
        let wanted = ended.filter(move |(_, brief)| brief.is_some_and(|brief| brief.outcome == outcome));
        wanted.filter_map(|(index, _)| Some(self.batch.call(index).ok()?.id))
    }

    fn end(&mut self, index: usize, brief: Brief) {
        let Some(ended) = self.ended.get_mut(index) else { return };
        if let Some(before) = ended.replace(brief) {
            self.counts.remove(before);
        }
        self.counts.add(brief);
        self.again.remove(&index);
        if self.out.remove(&index).is_some()
            && let Ok(call) = self.batch.call(index)
        {
            self.channels.remove(&channel_id(&call.server, &call.id));
        }
        self.doubtful.remove(&index);
        if self.asked.remove(&index) {
            self.ask(ASKED_AT_ONCE);
        }
    }
}

/// A batch `b` of so many rows, numbered 100, 200 and so on.
#[cfg(test)]
pub(super) fn example(rows: usize, ahead: usize) -> State {
    use super::{
        options::Options,
        table::{Faults, Form, Table},
    };
    let numbers: Vec<_> = (1..=rows).map(|row| format!("{row}00\n")).collect();
    let form = Form { delimiter: b',', encoding: encoding_rs::UTF_8 };
    let text = format!("number\n{}", numbers.concat()).into_bytes();
    let table = Table::parse(text, form, &mut Faults::default()).expect("right");
    let options = Options {
        name: Some("b".to_owned()),
        server: "pbx1".to_owned(),
        channel: "PJSIP/{number}".to_owned(),
        ..Options::default()
    };
    State::new(Batch::new(&options, table).expect("right"), ahead)
}

#[cfg(test)]
mod tests {
    use amibus_contract::FaultKind;

    use super::{example as state, *};

    fn response(id: &str, outcome: &str) -> Vec<u8> {
        format!(
            r#"{{"correlationid":"{id}","time":"t","data":{{"action":"Originate","outcome":"{outcome}",
                "call":{{"result":"answered","reason":4,"uniqueid":"u"}},"error":null}}}}"#
        )
        .into_bytes()
    }

    fn all(state: &mut State) -> Vec<usize> {
        std::iter::from_fn(|| state.next()).collect()
    }

    #[test]
    fn rows_go_out_in_order_and_no_further_ahead_than_told() {
        let mut state = state(5, 2);
        assert_eq!(all(&mut state), [0, 1]);
        let line = state.response(&response("b-2", "executed"), true, "now".into()).expect("news");
        assert_eq!((line.row, line.number.as_str(), line.outcome.as_str()), (2, "200", "executed"));
        assert_eq!(state.response(&response("b-2", "executed"), true, "now".into()), None, "told once");
        assert_eq!(
            state.response(&response("c-2", "executed"), true, "now".into()),
            None,
            "not of this batch"
        );
        assert_eq!(all(&mut state), [2]);
        assert_eq!((state.out(), state.counts.ended(), state.is_over()), (2, 1, false));
        for id in ["b-1", "b-3", "b-4", "b-5"] {
            state
                .response(&response(id, "executed"), true, "now".into())
                .expect("even of one that is not out yet");
        }
        assert!(state.is_over() && all(&mut state).is_empty());
    }

    #[test]
    fn what_may_have_been_missed_is_asked_for_again_also_while_stopping() {
        let mut state = state(5, 3);
        all(&mut state);
        state.response(&response("b-2", "executed"), true, "now".into());
        state.stopping = true;
        assert!(all(&mut state).is_empty() && !state.is_over());
        state.missed();
        assert_eq!(all(&mut state), [0, 2]);
        state.ask_oldest();
        assert_eq!(all(&mut state), [0]);
        state.response(&response("b-1", "unknown"), true, "now".into());
        assert_eq!(all(&mut state), [2], "what was missed once may have been missed twice");
        state.response(&response("b-3", "expired"), true, "now".into());
        assert!(state.is_over());
        assert_eq!(state.ids_with(Outcome::Unknown).collect::<Vec<_>>(), ["b-1"]);
    }

    #[test]
    fn a_bus_that_comes_back_is_not_flooded() {
        let rows = ASKED_AT_ONCE * 3;
        let mut state = state(rows, rows);
        assert_eq!(all(&mut state).len(), rows);
        state.missed();
        assert_eq!(all(&mut state), (0..ASKED_AT_ONCE).collect::<Vec<_>>());
        state.missed();
        assert!(all(&mut state).is_empty(), "those are still on their way");
        // One that was not asked for ends by itself, and is not asked for any more; one that was makes room.
        let next = format!("b-{}", ASKED_AT_ONCE + 1);
        state.response(&response(&next, "executed"), true, "now".into());
        assert!(all(&mut state).is_empty());
        state.response(&response("b-1", "executed"), true, "now".into());
        assert_eq!(all(&mut state), [ASKED_AT_ONCE + 1]);
    }

    #[test]
    fn what_another_sender_is_told_is_not_taken() {
        let mut state = state(1, 1);
        all(&mut state);
        assert!(state.response(&response("b-1", "rejected"), false, "now".into()).is_none(), "told to all");
        assert!(state.response(&response("c-1", "executed"), true, "now".into()).is_none(), "another batch");
        assert!(state.response(&response("b-1", "executed"), false, "now".into()).is_some(), "recorded");
    }

    #[test]
    fn a_resumed_batch_leaves_out_what_has_ended() {
        let mut first = state(4, 9);
        all(&mut first);
        let done = first.response(&response("b-1", "executed"), true, "now".into()).expect("news");
        let fault = Fault::new(FaultKind::TooLarge, "too\nlarge");
        let rejected = first.refused(2, &fault, "now".into()).expect("known");
        assert_eq!(
            (rejected.code.as_deref(), rejected.message.as_deref()),
            (Some("too_large"), Some("too large"))
        );
        for (retry, expected) in [(false, vec![1, 3]), (true, vec![1, 2, 3])] {
            let mut state = state(4, 9);
            state.resume(&done, retry).expect("ours");
            state.resume(&rejected, retry).expect("ours");
            assert_eq!(all(&mut state), expected);
        }
        let mut state = state(4, 9);
        let other = Line { id: "c-1".to_owned(), ..done.clone() };
        assert!(state.resume(&other, false).expect_err("refused").contains("another batch than b"));
        let changed = Line { number: "999".to_owned(), ..done };
        assert!(state.resume(&changed, false).expect_err("refused").contains("the file has changed"));
    }

    #[test]
    fn what_was_carried_out_after_all_counts_more_than_a_rejection() {
        let mut state = state(1, 1);
        all(&mut state);
        state.response(&response("b-1", "rejected"), true, "now".into()).expect("news");
        assert!(state.is_over());
        assert!(state.response(&response("b-1", "executed"), true, "now".into()).is_some());
        assert!(state.response(&response("b-1", "rejected"), true, "now".into()).is_none());
        assert_eq!((state.counts.ended(), state.counts.of(Outcome::Executed)), (1, 1));
    }

    #[test]
    fn stages_come_from_the_channels() {
        let mut state = state(3, 3);
        all(&mut state);
        state.seen(&channel_id("pbx1", "b-2"), Stage::Ringing);
        state.seen(&channel_id("pbx1", "b-2"), Stage::Dialling);
        state.seen(&channel_id("pbx1", "b-3"), Stage::Dialling);
        state.seen("amibus-other", Stage::Ringing);
        assert_eq!(state.stages(), (1, 1, 1));
    }
}
