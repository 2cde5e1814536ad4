//! The command line: one file a subcommand.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | well |
//! | 1 | failed |
//! | 2 | wrong usage |
//! | 78 | wrong configuration |
//!
//! What was asked for goes to standard output, and everything else to standard error. A reader of standard output
//! that has seen enough ends the program quietly.

mod bus;
mod check;
mod commands;
mod completions;
#[cfg(feature = "zeromq")]
mod demo;
mod dial;
mod output;
mod place;
mod run;
mod schema;
mod send;
mod signals;
mod spool;
mod tail;

use std::{
    future::Future, io::Write as _, num::NonZeroUsize, process::ExitCode, sync::mpsc::sync_channel, thread,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    config::{ConfigErrors, LogFormat},
    logging,
};

/// Exit code of a wrong configuration (`EX_CONFIG` of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;
/// Exit code of a wrong usage, as clap has it.
pub const EXIT_USAGE: u8 = 2;

/// How long writing why it ended may keep the program from ending.
const COMPLAINT_LIMIT: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  amibus demo                          see it work; needs nothing
  amibus check -c amibus.toml          what is wrong with a configuration, and what it means
  amibus check -c amibus.toml --connect   try every server and bus
  amibus run -c amibus.toml            bridge, until SIGTERM
  amibus tail --kind event --event 'Dial*' | jq .data
  amibus send Ping --server pbx1
  amibus dial numbers.csv --server pbx1 --channel 'PJSIP/{number}@trunk-a' --context survey --check
  amibus commands list --outcome unknown   what only a person can decide

Exit codes: 0 well, 1 failed, 2 wrong usage, 78 wrong configuration.";

/// Bridges Asterisk (AMI) to ZeroMQ, NATS and Kafka, and commands back.
#[derive(Debug, Parser)]
#[command(name = "amibus", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    /// More log lines on standard error: -v debug, -vv trace. RUST_LOG goes before it.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// How log lines on standard error look.
    #[arg(long, value_enum, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    #[cfg(feature = "zeromq")]
    Demo(demo::Args),
    Tail(tail::Args),
    Send(send::Args),
    Dial(Box<dial::Args>),
    Schema(schema::Args),
    Commands(commands::Args),
    Spool(spool::Args),
    Completions(completions::Args),
}

/// Why a subcommand ended badly.
#[derive(Debug)]
enum Failure {
    /// The configuration is wrong.
    Config(ConfigErrors),
    /// The arguments are wrong in a way that the parser cannot see.
    Usage(String),
    /// It did not work out.
    Failed(String),
    /// It was reported already.
    Reported,
    /// Whoever read standard output has seen enough.
    Enough,
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

/// What is asked of the log on the command line.
#[derive(Clone, Copy, Debug)]
struct Logging {
    verbose: u8,
    format: Option<LogFormat>,
}

impl Logging {
    /// Starts it; `level` and `format` are what holds where the command line says nothing.
    fn start(self, level: &str, format: LogFormat) {
        logging::start(self.level(level), self.format.unwrap_or(format));
    }

    /// As [`Logging::start`], and nobody waits for whoever reads standard error.
    fn start_lossy(self, level: &str, format: LogFormat) -> logging::Log {
        logging::start_lossy(self.level(level), self.format.unwrap_or(format))
    }

    fn level(self, level: &str) -> &str {
        match self.verbose {
            0 => level,
            1 => "debug",
            _ => "trace",
        }
    }
}

/// The whole program: reads the arguments, does what they say, answers the exit code.
pub fn main() -> ExitCode {
    // An error means that a provider is installed already, which is then the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let format = cli.log_format.map(|format| match format {
        Format::Auto => LogFormat::Auto,
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    });
    let logging = Logging { verbose: cli.verbose, format };
    let result = match cli.command {
        Command::Run(args) => run::run(&args, logging),
        Command::Check(args) => check::run(&args, logging),
        #[cfg(feature = "zeromq")]
        Command::Demo(args) => demo::run(&args, logging),
        Command::Tail(args) => tail::run(&args, logging),
        Command::Send(args) => send::run(&args, logging),
        Command::Dial(args) => dial::run(&args, logging),
        Command::Schema(args) => schema::run(&args),
        Command::Commands(args) => commands::run(&args),
        Command::Spool(args) => spool::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    match result {
        Ok(()) | Err(Failure::Enough) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::FAILURE,
        Err(Failure::Config(errors)) => {
            complain(&errors.to_string());
            ExitCode::from(EXIT_CONFIG)
        }
        Err(Failure::Usage(message)) => {
            complain(&format!("error: {message}"));
            ExitCode::from(EXIT_USAGE)
        }
        Err(Failure::Failed(message)) => {
            complain(&format!("error: {message}"));
            ExitCode::FAILURE
        }
    }
}

/// Where standard error is closed or not read, nobody wants to know.
fn complain(message: &str) {
    let (written, done) = sync_channel(1);
    let line = format!("{message}\n");
    let thread = thread::Builder::new().spawn(move || {
        let _ = std::io::stderr().write_all(line.as_bytes());
        let _ = written.try_send(());
    });
    if thread.is_ok() {
        let _ = done.recv_timeout(COMPLAINT_LIMIT);
    }
}

/// Runs `work` to its end on an async runtime.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    block_on_by(&mut tokio::runtime::Builder::new_multi_thread(), work)
}

/// Runs `work` to its end on an async runtime with so many threads.
fn block_on_threads<T>(
    threads: NonZeroUsize,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    block_on_by(tokio::runtime::Builder::new_multi_thread().worker_threads(threads.get()), work)
}

fn block_on_by<T>(
    builder: &mut tokio::runtime::Builder,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(work);
    // What still runs by then is a thread that nobody waits for.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
