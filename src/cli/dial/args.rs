//! The arguments of `amibus dial`.

use std::{path::PathBuf, time::Duration};

use encoding_rs::{Encoding, UTF_8};
use jiff::Timestamp;

use super::options::Options;
use crate::{
    cli::{Failure, bus},
    config::units,
};

/// How long from its beginning a batch may begin calls, where nothing else is said.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(24 * 3600);
const EXAMPLES: &str = "\
Examples:
  amibus dial numbers.csv --server pbx1 --channel 'PJSIP/{number}@trunk-a' --context survey --check
  amibus dial numbers.csv --server pbx1 --channel 'PJSIP/{number}@trunk-a' --context survey \\
      --caller-id 'Survey <100>' --timeout 30s --results results.csv
  amibus dial numbers.csv --server '{site}' --channel 'Local/{number}@out' --application Playback \\
      --data '{message}' --batch reminders-47 --id-column order --results results.jsonl

The first line of the file names its columns. An option may have {column} in it; each column is a channel variable
too, beside AMIBUS_BATCH, AMIBUS_ROW and AMIBUS_ID. How fast is dialled is decided by the [[command.pace]] of the amibus
that takes the commands, and what is allowed by its [[command.allow]].

Running it again does not repeat a call: rows with a result in --results are left out, and what became of the others
is told by amibus. Ctrl-C stops it: no new calls, those that are out are awaited; again, and it leaves at once.

Exit code 0 when every row has an outcome and none is `unknown` or `rejected`, else 1.";

/// Call the numbers of a CSV file, a call a row, through a bus that keeps commands
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The file, CSV; its first line names the columns
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    /// The server to call from
    #[arg(long, value_name = "NAME")]
    pub(super) server: String,
    /// What to call, e.g. 'PJSIP/{number}@trunk-a'
    #[arg(long, value_name = "CHANNEL")]
    pub(super) channel: String,
    /// Where an answered call goes: the context ...
    #[arg(long, required_unless_present = "application", conflicts_with = "application")]
    pub(super) context: Option<String>,
    /// ... the extension in it ...
    #[arg(long, default_value = "s", conflicts_with = "application")]
    pub(super) exten: String,
    /// ... and the priority
    #[arg(long, default_value = "1", conflicts_with = "application")]
    pub(super) priority: String,
    /// Or the application that an answered call runs; a rule of [[command.allow]] must name it
    #[arg(long, value_name = "NAME")]
    pub(super) application: Option<String>,
    /// What the application is given
    #[arg(long, requires = "application")]
    pub(super) data: Option<String>,
    /// The caller id to call with, e.g. 'Sales <100>'
    #[arg(long, value_name = "CALLERID")]
    pub(super) caller_id: Option<String>,
    /// How long a phone rings, e.g. 30s [default: Asterisk's, 30s]
    #[arg(long, value_name = "DURATION")]
    pub(super) timeout: Option<String>,
    /// The account code
    #[arg(long, value_name = "CODE")]
    pub(super) account: Option<String>,
    /// No call is begun later than this: an RFC 3339 time, or a duration from now [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub(super) deadline: Option<Timestamp>,
    /// The batch's name, the first part of all ids [default: from the file's content and the options]
    #[arg(long, value_name = "NAME")]
    pub(super) batch: Option<String>,
    /// The column that tells a row's id within the batch [default: the row's number]
    #[arg(long, value_name = "COLUMN")]
    pub(super) id_column: Option<String>,
    /// A column that is no channel variable; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub(super) ignore: Vec<String>,
    /// A column that may be a variable on which Asterisk itself acts, such as TRANSFER_CONTEXT; may be repeated
    #[arg(long, value_name = "COLUMN")]
    pub(super) allow_variable: Vec<String>,
    /// Characters that columns may put into what is dialled, besides letters, digits and + * # . _ -
    #[arg(long, value_name = "CHARACTERS", default_value = "")]
    pub(super) allow_characters: String,
    /// What stands between the values of a row
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = delimiter)]
    pub(super) delimiter: u8,
    /// The file's encoding, e.g. windows-1252
    #[arg(long, value_name = "LABEL", default_value = "utf-8", value_parser = encoding)]
    pub(super) encoding: &'static Encoding,
    /// Where results are kept, .csv or .jsonl; what it has is not dialled again [default: JSON lines to standard output]
    #[arg(long, value_name = "FILE")]
    pub(super) results: Option<PathBuf>,
    /// Publish again what the results file has as rejected
    #[arg(long, requires = "results")]
    pub(super) retry_rejected: bool,
    /// How many rows may be out at once: on the bus, or being called
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) ahead: u32,
    /// Do not read the server's events, which tell how far calls are
    #[arg(long)]
    pub(super) no_events: bool,
    /// Look at the whole file, show the first commands, and publish nothing
    #[arg(long)]
    pub(super) check: bool,
    #[command(flatten)]
    pub(super) bus: bus::BusArgs,
}

impl Args {
    /// No call is begun later than this.
    pub(super) fn until(&self) -> Result<Timestamp, Failure> {
        self.deadline.map_or_else(|| from_now(DEFAULT_DEADLINE).map_err(Failure::Usage), Ok)
    }

    /// What they say of every call.
    pub(super) fn options(&self) -> Options {
        Options {
            name: self.batch.clone(),
            id_column: self.id_column.clone(),
            server: self.server.clone(),
            channel: self.channel.clone(),
            context: self.context.clone(),
            exten: self.exten.clone(),
            priority: self.priority.clone(),
            application: self.application.clone(),
            data: self.data.clone(),
            caller_id: self.caller_id.clone(),
            account: self.account.clone(),
            timeout: self.timeout.clone(),
            allowed: self.allow_characters.clone(),
            ignored: self.ignore.clone(),
            allowed_variables: self.allow_variable.clone(),
            form: format!("{} {}", self.delimiter, self.encoding.name()),
        }
    }
}

fn deadline(text: &str) -> Result<Timestamp, String> {
    if let Ok(until) = text.parse() {
        return Ok(until);
    }
    let time = units::duration(text);
    from_now(time.map_err(|why| format!("neither an RFC 3339 time with its zone nor a duration: {why}"))?)
}

fn from_now(time: Duration) -> Result<Timestamp, String> {
    // Whole seconds: it is read by people.
    let seconds =
        Timestamp::now().as_second().saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    Timestamp::from_second(seconds).map_err(|error| error.to_string())
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'\\', b't'] => Ok(b'\t'),
        [one] if !one.is_ascii_alphanumeric() && !b"\"\r\n".contains(one) => Ok(*one),
        _ => Err("one character of ASCII, no letter, digit, quote or line break; \\t is a tab".to_owned()),
    }
}

fn encoding(label: &str) -> Result<&'static Encoding, String> {
    if label.eq_ignore_ascii_case(UTF_8.name()) {
        return Ok(UTF_8);
    }
    Encoding::for_label(label.as_bytes())
        .ok_or_else(|| format!("{label:?} is no encoding's label, e.g. windows-1252"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_their_own_kind() {
        assert_eq!((delimiter(";"), delimiter("\\t")), (Ok(b';'), Ok(b'\t')));
        assert!(["", "ab", "a", "\"", "ü"].iter().all(|text| delimiter(text).is_err()));
        assert_eq!(encoding("latin1").map(Encoding::name), Ok("windows-1252"));
        assert!(encoding("klingon").is_err());
        let until = deadline("2026-11-21T18:00:00Z").expect("a time");
        assert_eq!(until.to_string(), "2026-11-21T18:00:00Z");
        let left = deadline("2h").expect("a duration").as_second() - Timestamp::now().as_second();
        assert!((7190..=7200).contains(&left), "{left}");
        assert!(deadline("soon").is_err());
    }
}
