//! `amibus dial`: a call a row of a file, through a bus that keeps commands.
//!
//! | module | idea |
//! |---|---|
//! | [`args`], [`options`] | what is asked for |
//! | [`table`] | the file: rows and columns |
//! | [`template`] | options with columns in them, and what a column may put there |
//! | [`variables`] | columns as channel variables |
//! | [`batch`] | which call each row is, under which id |
//! | [`state`] | what is out, what has ended, what is next; knows no bus |
//! | [`outcome`], [`results`] | what became of a row, and the file where it is kept |
//! | [`counts`], [`view`], [`watch`] | how far the batch is, and showing it |
//! | [`tasks`], [`flow`] | publishing and listening |

mod args;
mod batch;
mod counts;
mod flow;
mod options;
mod outcome;
mod results;
mod state;
mod table;
mod tasks;
mod template;
mod variables;
mod view;
mod watch;

use jiff::Timestamp;

pub(super) use self::args::Args;
use self::{
    batch::{Batch, Wrong},
    flow::Flow,
    results::Results,
    state::State,
    table::{Faults, Form, Table},
    view::View,
};
use super::{Failure, Logging, output};
use crate::{command::Outcome, config::LogFormat};

/// How many rows `--check` shows.
const ROWS_SHOWN: usize = 3;

pub(super) fn run(args: &Args, logging: Logging) -> Result<(), Failure> {
    logging.start("warn", LogFormat::Auto);
    let until = args.until()?;
    let batch = batch(args, until)?;
    if args.check {
        return show(&batch, until);
    }
    let mut state = State::new(batch, usize::try_from(args.ahead).unwrap_or(usize::MAX));
    let mut results =
        Results::open(args.results.as_deref(), |line| state.resume(&line, args.retry_rejected))?;
    let found = if state.is_over() { None } else { Some(args.bus.find_keeping()?) };
    let mut view = View::new(&state);
    if state.counts.ended() > 0 {
        let (ended, all) = (state.counts.ended(), state.len());
        view.say(&format!("resuming batch {}: {ended} of {all} rows have a result", state.batch.name));
    }
    let end = found.map_or(Ok(()), |found| {
        let (state, results, view) = (&mut state, &mut results, &mut view);
        let mut flow = Flow { state, results, view, deadline: until };
        super::block_on(async { flow.run(&found, !args.no_events).await })
    });
    let written = results.sync();
    view.end(&state);
    told_how_to_resume(args, &state, &view);
    match end {
        // Nobody reads the results any more, and the exit code is for whoever waits for it.
        Ok(()) | Err(Failure::Enough) => written?,
        Err(failure) => return Err(failure),
    }
    let counts = &state.counts;
    let is_well = counts.ended() == state.len()
        && counts.of(Outcome::Unknown) == 0
        && counts.of(Outcome::Rejected) == 0;
    if is_well { Ok(()) } else { Err(Failure::Reported) }
}

/// The batch, every row of it looked at.
fn batch(args: &Args, until: Timestamp) -> Result<Batch, Failure> {
    let file = args.file.display();
    let wrong = |why: String| Failure::Failed(format!("{file}: {why}"));
    let bytes = table::bytes(&args.file).map_err(Failure::Failed)?;
    let form = Form { delimiter: args.delimiter, encoding: args.encoding };
    let mut faults = Faults::default();
    let table = Table::parse(bytes, form, &mut faults).map_err(wrong)?;
    let batch = Batch::new(&args.options(), table).map_err(|why| match why {
        Wrong::Option(why) => Failure::Usage(why),
        Wrong::File(why) => wrong(why),
    })?;
    if faults.is_empty() {
        batch.check(until, &mut faults);
    }
    if faults.is_empty() {
        return Ok(batch);
    }
    Err(wrong(format!("nothing was dialled, for there are rows to mend:\n{}", faults.to_string().trim_end())))
}

/// What would be published.
fn show(batch: &Batch, until: Timestamp) -> Result<(), Failure> {
    for index in 0..batch.len().min(ROWS_SHOWN) {
        if let Ok(call) = batch.call(index) {
            output::json(&call.body(until))?;
        }
    }
    let more = batch.len().saturating_sub(ROWS_SHOWN);
    let more = if more > 0 { format!(", of which {more} are not shown") } else { String::new() };
    let repeated = match batch.repeated_numbers() {
        0 => String::new(),
        count => format!("\n{count} rows have a number that an earlier row has"),
    };
    output::text(&format!(
        "batch {}: {} calls{more}; none is begun after {until}; nothing was published{repeated}",
        batch.name,
        batch.len()
    ))
}

fn told_how_to_resume(args: &Args, state: &State, view: &View) {
    let left = state.len() - state.counts.ended();
    if left == 0 {
        return;
    }
    let mut text = format!("{left} rows have no result");
    if state.out() > 0 {
        text += &format!("; {} of them were published and are dialled all the same", state.out());
    }
    text += match args.results {
        Some(_) => ". To go on, run the same command again: no call is repeated",
        None => ". To go on, run the same command again: no call is repeated, and all results are told again",
    };
    view.say(&text);
}
