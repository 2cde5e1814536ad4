//! `amibus commands`: what the journal of commands says.

use clap::ValueEnum;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Failure, output, place::Place};
use crate::{
    command::{
        error::Outcome,
        look::{Entry, Look, LookError, MAX_LISTED, Wanted},
    },
    daemon::JOURNAL_FILE,
};

const EXAMPLES: &str = "\
Examples:
  amibus commands list                           the newest 50, newest first
  amibus commands list --outcome unknown         those that a person has to look into
  amibus commands list --state sending --json    those in work, one JSON a line
  amibus commands show order-8812                one of them, with its response";

/// Look at the commands that were taken, and what became of them; amibus may run
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The newest commands, newest first
    List {
        #[command(flatten)]
        journal: Journal,
        /// Of one server
        #[arg(long, value_name = "NAME")]
        server: Option<String>,
        /// Of one action
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// In one state
        #[arg(long, value_enum, value_name = "STATE")]
        state: Option<State>,
        /// With one outcome: executed, refused, rejected, expired or unknown
        #[arg(long, value_parser = outcome, value_name = "OUTCOME")]
        outcome: Option<Outcome>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50,
              value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_LISTED)))]
        limit: u32,
    },
    /// One command, with its response
    Show {
        #[command(flatten)]
        journal: Journal,
        /// Its id
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Journal {
    #[command(flatten)]
    place: Place,
    /// JSON, one command a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    /// Taken, and nothing was sent yet.
    Claimed,
    /// Sent, or just about to be; its outcome is not known yet.
    Sending,
    /// Ended in an outcome.
    Done,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Sending => "sending",
            Self::Done => "done",
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.what {
        What::List { journal, server, action, state, outcome, limit } => {
            let wanted = Wanted {
                server: server.clone(),
                action: action.clone(),
                state: state.map(|state| state.as_str().to_owned()),
                outcome: outcome.map(|outcome| outcome.as_str().to_owned()),
                limit: *limit,
            };
            let mut written = Ok(());
            journal.look()?.list(&wanted, |entry| {
                written = if journal.json { as_json(&entry) } else { output::text(&line(&entry)) };
                written.is_ok()
            })?;
            written
        }
        What::Show { journal, id } => {
            let Some(entry) = journal.look()?.show(id)? else {
                return Err(Failure::Failed(format!("the journal has no command {id:?}")));
            };
            if journal.json { as_json(&entry) } else { output::text(&whole(&entry)) }
        }
    }
}

impl Journal {
    fn look(&self) -> Result<Look, Failure> {
        Ok(Look::open(&self.place.dir()?.join(JOURNAL_FILE))?)
    }
}

impl From<LookError> for Failure {
    fn from(error: LookError) -> Self {
        Self::Failed(error.to_string())
    }
}

fn outcome(word: &str) -> Result<Outcome, String> {
    Outcome::parse(word).ok_or_else(|| format!("one of {}", Outcome::ALL.map(Outcome::as_str).join(", ")))
}

/// Ids, names and answers come from outside: what would disturb a terminal is shown escaped.
fn plain(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

fn time(millis: i64) -> String {
    Timestamp::from_millisecond(millis).map_or_else(|_| millis.to_string(), |at| format!("{at:.3}"))
}

fn line(entry: &Entry) -> String {
    let became = entry.outcome.as_deref().unwrap_or(&entry.state);
    let code = entry.value().pointer("/error/code").and_then(Value::as_str).map(|code| format!(" ({code})"));
    format!(
        "{}  {became:<8}{}  {} {}  {}{}",
        time(entry.claimed_at),
        code.unwrap_or_default(),
        plain(&entry.server),
        plain(&entry.action),
        plain(&entry.id),
        entry.sender.as_ref().map(|sender| format!("  from {}", plain(sender))).unwrap_or_default()
    )
}

fn whole(entry: &Entry) -> String {
    let mut out = format!(
        "id        {}\nserver    {}\naction    {}\nsender    {}\nstate     {}\noutcome   {}\nclaimed   {}\n",
        plain(&entry.id),
        plain(&entry.server),
        plain(&entry.action),
        entry.sender.as_deref().map_or("-".to_owned(), plain),
        entry.state,
        entry.outcome.as_deref().unwrap_or("-"),
        time(entry.claimed_at)
    );
    for (name, at) in [("sent", entry.sent_at), ("done", entry.done_at)] {
        out += &format!("{name:<10}{}\n", at.map_or("-".to_owned(), time));
    }
    match entry.value() {
        Value::Null => out,
        value => {
            let lines: Vec<String> = format!("{value:#}").lines().map(plain).collect();
            out + &format!("response  {}\n", lines.join("\n"))
        }
    }
}

fn as_json(entry: &Entry) -> Result<(), Failure> {
    let object = json!({
        "id": entry.id, "server": entry.server, "action": entry.action, "sender": entry.sender,
        "state": entry.state, "outcome": entry.outcome, "claimed": time(entry.claimed_at),
        "sent": entry.sent_at.map(time), "done": entry.done_at.map(time), "response": entry.value(),
    });
    output::text(&object.to_string())
}

impl Entry {
    /// The response's `data`; null where there is none.
    fn value(&self) -> Value {
        self.response.as_deref().and_then(|data| serde_json::from_slice(data).ok()).unwrap_or_default()
    }
}
