//! `amibus check`: what is wrong with a configuration, what it means, and whether it works out there.

use std::path::PathBuf;

use tokio::time::timeout;

use super::{Failure, Logging, bus::DEFAULT_FILE, output};
use crate::{
    asterisk,
    check::{Finding, pace, rules, server},
    command::policy::{NEVER, Rule},
    config::{Bus, Config, LogFormat, Server, units},
    daemon,
};

/// How long a bus may take to be tried.
const PROBE_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  amibus check -c amibus.toml            every error at once, with file, line and column; else what it means
  amibus check -c amibus.toml --connect  also log in to every server and try every bus

--connect also tells what the AMI user cannot see or do, and how far each bus's promise reaches.
Exit codes: 0 well, 1 something could not be reached, 78 wrong configuration.";

/// Check a configuration, and tell what it means
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_FILE)]
    config: PathBuf,
    /// Try every server and every bus
    #[arg(long)]
    connect: bool,
}

pub(super) fn run(args: &Args, logging: Logging) -> Result<(), Failure> {
    logging.start("off", LogFormat::Auto);
    super::block_on(async {
        let config = Config::load(&args.config)?;
        say(&format!("{}: right", args.config.display()))?;
        understood(&config)?;
        if args.connect { connect(&config).await } else { Ok(()) }
    })
}

fn understood(config: &Config) -> Result<(), Failure> {
    say(&format!("topics     {}.event.<server>.<Event>, as {}", config.prefix, config.instance))?;
    for server in &config.servers {
        say(&format!("server     {}", about_server(server)))?;
    }
    for (index, filter) in config.filters.iter().enumerate() {
        say(&format!("filter #{} {}", index + 1, rules::filtered(filter)))?;
    }
    for bus in &config.buses {
        say(&format!("bus        {}", about_bus(bus)))?;
    }
    let held = units::show_size(config.spool.max_bytes);
    say(&format!("held       up to {held} of each server's events on disk, for buses that are away"))?;
    say(&format!("threads    {} for messages (worker_threads)", config.worker_threads))?;
    match config.http.listen {
        Some(address) => say(&format!("http       http://{address}/ready /live /metrics /version"))?,
        None => say("http       nothing listens (http.listen)")?,
    }
    commands(config)
}

fn about_server(server: &Server) -> String {
    let tls = match &server.tls {
        Some(tls) if tls.client.is_some() => ", TLS with a client certificate",
        Some(_) => ", TLS",
        None => "",
    };
    let snapshot = if server.snapshot.is_empty() { "nothing".to_owned() } else { server.snapshot.join(", ") };
    format!("{} at {} as {}{tls}; snapshot of {snapshot}", server.name, server.url(), server.username)
}

fn about_bus(bus: &Bus) -> String {
    let required = if bus.required { "needed for /ready" } else { "not needed for /ready" };
    let commands = if bus.takes_commands() { "takes commands" } else { "takes no commands" };
    format!("{}: {}; {commands}; {required}", bus.name, bus.bridge.promise())
}

fn commands(config: &Config) -> Result<(), Failure> {
    let taking = config.buses.iter().any(Bus::takes_commands);
    let allow = &config.command.allow;
    match (taking, allow.is_empty()) {
        (false, true) => say("commands   none: no bus takes any")?,
        (false, false) => warning("there are [[command.allow]] rules, and no bus takes commands")?,
        (true, true) => {
            warning("commands are taken, and every one is rejected: there is no [[command.allow]] rule")?
        }
        (true, false) => {}
    }
    if taking {
        claims(config)?;
    }
    if taking && !allow.is_empty() {
        say(&format!("commands   journal in {}; allowed:", config.spool.dir.display()))?;
    }
    for (index, rule) in allow.iter().enumerate() {
        say(&format!("  #{} {}", index + 1, rules::allowed(rule)))?;
        for line in rules::refused(rule) {
            say(&format!("     {line}"))?;
        }
    }
    if !allow.is_empty() {
        say(&format!("  never {}", NEVER.join(", ")))?;
    }
    for limit in &config.command.pace {
        say(&format!("pace       {}", pace::limited(limit)))?;
    }
    for (index, rule) in allow.iter().enumerate() {
        for text in rules::warnings(index + 1, rule) {
            warning(&text)?;
        }
    }
    Ok(())
}

/// Whether several amibus may take the same commands.
fn claims(config: &Config) -> Result<(), Failure> {
    if let Some(bus) = config.buses.iter().find(|bus| bus.bridge.claims().is_some()) {
        let silent = config.command.claim_takeover;
        return say(&format!(
            "claims     shared with every amibus on this {} (claims_bucket); one that is silent for {silent:?} counts as gone",
            bus.name
        ));
    }
    match config.buses.iter().find(|bus| bus.takes_commands() && bus.bridge.keeps_commands()) {
        Some(bus) if bus.name == "kafka" => say(
            "claims     not shared: where several amibus take commands from this kafka, it keeps what they begun; what a \
             sender puts there twice may run twice (bus.nats.claims_bucket)",
        ),
        Some(bus) => say(&format!(
            "claims     not shared: where several amibus take commands from this {}, one that is delivered to two of them \
             may run twice (bus.nats.claims_bucket)",
            bus.name
        )),
        None => Ok(()),
    }
}

fn warning(text: &str) -> Result<(), Failure> {
    say(&format!("warning: {text}"))
}

async fn connect(config: &Config) -> Result<(), Failure> {
    let ids = asterisk::action_ids();
    let mut failed = 0;
    for one in &config.servers {
        let rules: Vec<Rule> =
            config.command.allow.iter().filter(|rule| concerns(rule, &one.name)).cloned().collect();
        let findings = server::server(daemon::settings(one, &ids), &rules).await;
        failed += tell(&format!("server {}", one.name), &findings)?;
    }
    for bus in &config.buses {
        let findings = match timeout(PROBE_LIMIT, bus.bridge.probe()).await {
            Err(_) => vec![Finding::Failed(format!("no answer within {} s", PROBE_LIMIT.as_secs()))],
            Ok(Err(fault)) => vec![Finding::Failed(fault.to_string())],
            Ok(Ok(lines)) => lines.into_iter().map(Finding::Fine).collect(),
        };
        failed += tell(&format!("bus {}", bus.name), &findings)?;
        bus.bridge.close(std::time::Duration::from_secs(1)).await;
    }
    match failed {
        0 => Ok(()),
        1 => Err(Failure::Failed("1 thing does not work".to_owned())),
        many => Err(Failure::Failed(format!("{many} things do not work"))),
    }
}

fn concerns(rule: &Rule, server: &str) -> bool {
    let fits =
        |text: &String| globset::Glob::new(text).is_ok_and(|glob| glob.compile_matcher().is_match(server));
    rule.servers.is_empty() || rule.servers.iter().any(fits)
}

/// Prints. What is found decides the exit code, whether or not somebody reads on.
fn say(text: &str) -> Result<(), Failure> {
    match output::text(text) {
        Err(Failure::Enough) => Ok(()),
        said => said,
    }
}

/// Prints findings; answers how many are failures.
fn tell(about: &str, findings: &[Finding]) -> Result<usize, Failure> {
    for finding in findings {
        match finding {
            Finding::Fine(text) => say(&format!("{about}: {text}"))?,
            Finding::Warning(text) => say(&format!("{about}: warning: {text}"))?,
            Finding::Failed(text) => say(&format!("{about}: FAILED: {text}"))?,
        }
    }
    Ok(findings.iter().filter(|finding| finding.is_failed()).count())
}
