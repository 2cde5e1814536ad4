//! What a person sees meanwhile and in the end, on standard error: a bar on a terminal, lines otherwise.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    counts::{Rate, spoken, time_left},
    state::State,
};
use crate::command::Outcome;

/// How often a line is written where standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// How many ids of unknown outcome are named.
const MAX_IDS_TOLD: usize = 20;
const BAR: &str = "{bar:24} {pos}/{len} {wide_msg}";

/// What is shown.
pub(super) struct View {
    bar: Option<ProgressBar>,
    begun: Instant,
    /// How many had ended when this run began.
    before: usize,
    shown: Option<Instant>,
    rate: Rate,
}

impl View {
    pub(super) fn new(state: &State) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(state.len() as u64), ProgressDrawTarget::stderr());
            bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let mut rate = Rate::default();
        rate.note(Instant::now(), state.counts.ended());
        Self { bar, begun: Instant::now(), before: state.counts.ended(), shown: None, rate }
    }

    /// Shows where the batch stands; to be called several times a second.
    pub(super) fn show(&mut self, state: &State) {
        let (now, ended) = (Instant::now(), state.counts.ended());
        self.rate.note(now, ended);
        if let Some(bar) = &self.bar {
            bar.set_position(ended as u64);
            bar.set_message(self.words(state, now));
            bar.tick();
        } else if self.shown.is_none_or(|at| now.duration_since(at) >= LINE_EVERY) {
            self.shown = Some(now);
            say(&format!("{ended} of {} ended: {}", state.len(), self.words(state, now)));
        }
    }

    /// Says something that stays.
    pub(super) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Ends the bar, and tells what became of the batch.
    pub(super) fn end(&mut self, state: &State) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        say(&summary(state, self.begun.elapsed(), self.before));
    }

    fn words(&self, state: &State, now: Instant) -> String {
        let counts = &state.counts;
        let (queued, dialling, ringing) = state.stages();
        let mut text = format!(
            "{queued} queued, {dialling} dialling, {ringing} ringing, {} answered, {} failed",
            counts.answered(),
            counts.failed()
        );
        let rate = self.rate.a_second(now, counts.ended());
        if let Some(rate) = rate {
            text += &format!(", {rate:.1} a second");
        }
        if let Some(left) = time_left(state.len() - counts.ended(), rate) {
            text += &format!(", {} left", spoken(left));
        }
        if state.stopping { text + "; stopping" } else { text }
    }
}

/// What became of the batch, without a newline at the end.
fn summary(state: &State, took: Duration, before: usize) -> String {
    let counts = &state.counts;
    let here = counts.ended().saturating_sub(before);
    let rate = here as f64 / took.as_secs_f64().max(f64::EPSILON);
    let mut text = format!(
        "batch {}: {} of {} rows have ended, {here} of them in {} ({rate:.1} a second)",
        state.batch.name,
        counts.ended(),
        state.len(),
        spoken(took)
    );
    let (outcomes, results) = counts.words();
    for (what, words) in [("outcomes", outcomes), ("calls", results)] {
        if !words.is_empty() {
            text += &format!("\n{what}: {words}");
        }
    }
    let unknown = counts.of(Outcome::Unknown);
    if unknown > 0 {
        let ids: Vec<_> = state.ids_with(Outcome::Unknown).take(MAX_IDS_TOLD).collect();
        let more = unknown - ids.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        text += &format!("\nunknown, see amibus commands show ID: {}{more}", ids.join(" "));
    }
    text
}

/// Whoever closed standard error does not want to know.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::{
        super::{outcome::Line, state::example},
        *,
    };

    #[test]
    fn the_summary_names_what_a_person_has_to_look_into() {
        let mut state = example(30, 30);
        let line = |row: u64, outcome: &str, result: Option<&str>| Line {
            row,
            number: format!("{row}00"),
            id: format!("b-{row}"),
            outcome: outcome.to_owned(),
            result: result.map(str::to_owned),
            ..Line::default()
        };
        for row in 1..=22 {
            state.resume(&line(row, "unknown", None), false).expect("ours");
        }
        for (row, result) in [(23, "answered"), (24, "answered"), (25, "busy")] {
            state.resume(&line(row, "executed", Some(result)), false).expect("ours");
        }
        let text = summary(&state, Duration::from_secs(10), 5);
        let expected = "batch b: 25 of 30 rows have ended, 20 of them in 10s (2.0 a second)\n\
                        outcomes: 3 executed, 22 unknown\ncalls: 2 answered, 1 busy\n\
                        unknown, see amibus commands show ID: b-1 b-2 ";
        assert!(text.starts_with(expected) && text.ends_with("b-20 and 2 more"), "{text}");
    }
}
