//! `amibus tail`: messages as they come, one JSON a line.

use amibus_contract::{Delivery, Kind};
use clap::ValueEnum;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::Deserialize;

use super::{Failure, Logging, bus, output};
use crate::config::LogFormat;

const EXAMPLES: &str = "\
Examples:
  amibus tail                                  events and links of all servers
  amibus tail --server pbx1 --event 'Dial*' --event Hangup
  amibus tail --kind response                  what became of commands
  amibus tail --bus nats --set url=nats://10.0.0.5:4222 --count 1
  amibus tail --kind event | jq -r '[.time, .data.Event, .data.Channel] | @tsv'";

/// Print messages from a bus as they come, one JSON (a CloudEvent) a line
///
/// Reads from now on, until interrupted. What was published before is not shown. A line on standard error tells when
/// it is subscribed: what is published from then on is shown.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only of this server
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Only of this kind; may be repeated [default: event and link]
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Vec<Which>,
    /// Only events whose name fits this glob, in any case; may be repeated
    #[arg(long, value_name = "GLOB")]
    event: Vec<String>,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    bus: bus::BusArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// AMI events.
    Event,
    /// What amibus can and cannot see.
    Link,
    /// What became of commands.
    Response,
}

impl Which {
    fn kind(self) -> Kind {
        match self {
            Self::Event => Kind::Event,
            Self::Link => Kind::Link,
            Self::Response => Kind::Response,
        }
    }
}

pub(super) fn run(args: &Args, logging: Logging) -> Result<(), Failure> {
    logging.start("warn,amibus::cli::tail=info", LogFormat::Auto);
    let globs = globs(&args.event)?;
    super::block_on(async { follow(args, &globs, &args.bus.find()?).await })
}

async fn follow(args: &Args, globs: &GlobSet, found: &bus::Found) -> Result<(), Failure> {
    let mut kinds: Vec<Kind> = args.kind.iter().map(|which| which.kind()).collect();
    if kinds.is_empty() {
        kinds.push(Kind::Event);
        if globs.is_empty() {
            kinds.push(Kind::Link);
        }
    }
    let mut client = found.client().await?;
    let feed = client.subscribe(&found.prefix, &kinds, args.server.as_deref()).await;
    let failed = |fault| Failure::Failed(format!("cannot read from {}: {fault}", found.bus.name));
    let mut feed = feed.map_err(failed)?;
    tracing::info!(bus = found.bus.name, "subscribed");
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(delivery) = feed.next().await.map_err(failed)? else { break };
        if is_wanted(&delivery, globs) {
            output::json(&delivery.body)?;
            left -= 1;
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
}

/// A CloudEvent's type ends with the event's name on every bus, also where the topic does not tell it.
fn is_wanted(delivery: &Delivery, globs: &GlobSet) -> bool {
    if globs.is_empty() {
        return true;
    }
    let Ok(Body { kind }) = serde_json::from_slice(&delivery.body) else { return false };
    match kind.rsplit_once(".event.") {
        Some((_, name)) => globs.is_match(name),
        // A link or a response was asked for by --kind, and has no event's name.
        None => true,
    }
}

fn globs(texts: &[String]) -> Result<GlobSet, Failure> {
    let wrong = |error: &globset::Error| Failure::Usage(format!("--event: {error}"));
    let mut globs = GlobSetBuilder::new();
    for text in texts {
        globs.add(GlobBuilder::new(text).case_insensitive(true).build().map_err(|error| wrong(&error))?);
    }
    globs.build().map_err(|error| wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_name_decides() {
        let delivery = |kind: &str| Delivery {
            topic: "ami.event".into(),
            key: None,
            headers: Vec::new(),
            body: format!(r#"{{"type":"{kind}"}}"#).into(),
        };
        let globs = globs(&["dial*".to_owned()]).expect("valid");
        assert!(is_wanted(&delivery("ami.event.DialBegin"), &globs));
        assert!(!is_wanted(&delivery("ami.event.Hangup"), &globs));
        assert!(is_wanted(&delivery("ami.link.up"), &globs));
    }
}
