//! `amibus demo`: the whole of amibus at work, with nothing installed and nothing configured.
//!
//! A simulated Asterisk plays recorded calls; the real bridge reads it and publishes to ZeroMQ on loopback; a subscriber
//! of its own prints the calls; an Originate goes in through the bus. What is shown went over real sockets.

mod line;
mod stage;

use std::time::Duration;

use amibus_contract::Kind;
use amibus_sim::{Recording, Sim};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Failure, Logging, output};
use crate::config::LogFormat;
use stage::{SERVER, Stage};

/// How much faster than recorded the shown call is played.
const PACE: f64 = 2.5;
/// How long the demo may take where it ends by itself.
const LIMIT: Duration = Duration::from_secs(60);
/// How long an originated call may take from the command to its end.
const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long the bus may be quiet while something that was played was not seen yet.
const LATE: Duration = Duration::from_secs(10);
/// The id of the command.
const ORDER: &str = "demo-1";

const EXAMPLES: &str = "\
Examples:
  amibus demo            some seconds; ends by itself
  amibus demo --all      every event, not only those of the calls' course
  amibus demo --keep     goes on until interrupted, so that other programs can join in";

/// See it work: a simulated Asterisk, the bridge, ZeroMQ on loopback, a subscriber, and one call
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Go on playing calls until interrupted
    #[arg(long)]
    keep: bool,
    /// Print every event
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &Args, logging: Logging) -> Result<(), Failure> {
    logging.start("warn", LogFormat::Auto);
    super::block_on(async {
        if args.keep {
            return show(args).await;
        }
        let shown = timeout(LIMIT, show(args)).await;
        shown.unwrap_or_else(|_| Err(Failure::Failed("the demo did not end by itself".to_owned())))
    })
}

async fn show(args: &Args) -> Result<(), Failure> {
    let mut stage = Stage::set().await?;
    let shown = acts(&mut stage, args).await;
    stage.leave().await;
    shown
}

async fn acts(stage: &mut Stage, args: &Args) -> Result<(), Failure> {
    output::text(&format!(
        "A simulated Asterisk listens on {} (AMI); amibus reads it and publishes to ZeroMQ:\n\
         events on {}, commands on {}\n\n",
        stage.sim.addr(),
        stage.publish,
        stage.commands
    ))?;
    stage.feed(&[Kind::Event, Kind::Link]).await?;
    stage.link_up().await?;
    output::text("A recorded call, as a subscriber sees it:")?;
    let call = Recording::named("dial-basic-22").ok_or_else(|| failed("the recorded call is not there"))?;
    let seen =
        watch_while(stage, args.all, |sim| Box::pin(async move { sim.play(&call, PACE).await })).await?;
    output::text(&format!("{seen} events came over the bus.\n\n"))?;
    originate(stage, args.all).await?;
    if args.keep { keep(stage, args.all).await } else { Ok(()) }
}

/// Prints what comes while `play` plays, until all of it was seen; answers how many events that were.
async fn watch_while<'s>(
    stage: &'s mut Stage,
    all: bool,
    play: impl FnOnce(&'s Sim) -> amibus_contract::BoxFuture<'s, u64>,
) -> Result<u64, Failure> {
    let Stage { sim, feed, .. } = stage;
    let Some(feed) = feed.as_mut() else { return Err(failed("nobody subscribed")) };
    let mut playing = play(sim);
    let mut total = None;
    let mut seen = 0;
    loop {
        tokio::select! {
            played = &mut playing, if total.is_none() => total = Some(played),
            body = feed.next() => {
                let body = body.map_err(|fault| failed(&fault.to_string()))?;
                let Some(delivery) = body else { return Ok(seen) };
                let event = serde_json::from_slice(&delivery.body).unwrap_or(Value::Null);
                seen += u64::from(line::is_event(&event));
                print(&event, all)?;
            }
            () = tokio::time::sleep(LATE), if total.is_some() => return Ok(seen),
        }
        if total.is_some_and(|total| seen >= total) {
            return Ok(seen);
        }
    }
}

/// Sends an Originate through the bus, and prints its response and the call that comes of it.
async fn originate(stage: &mut Stage, all: bool) -> Result<(), Failure> {
    let command = json!({
        "id": ORDER, "server": SERVER, "action": "Originate", "wait": "final",
        "fields": {
            "Channel": "PJSIP/100", "Context": "sales", "Exten": "200", "Priority": 1,
            "CallerID": "Sales <100>", "Variable": { "ORDER": "8812" },
        },
    });
    output::text(&format!("A command, sent through the bus:\n{command:#}\n\nThe call that comes of it:"))?;
    let mut client = stage.client().await?;
    let asked = tokio::spawn(async move {
        client
            .request(stage::PREFIX, SERVER, "Originate", ORDER, command.to_string().into(), CALL_LIMIT)
            .await
    });
    let response = {
        let feed = stage.feed.as_mut().ok_or_else(|| failed("nobody subscribed"))?;
        let course = async {
            loop {
                let delivery = feed.next().await.map_err(|fault| failed(&fault.to_string()))?;
                let Some(delivery) = delivery else { return Err(failed("the bus was closed")) };
                let event = serde_json::from_slice(&delivery.body).unwrap_or(Value::Null);
                print(&event, all)?;
                if line::ends_call(&event) && asked.is_finished() {
                    return Ok(());
                }
            }
        };
        let ended = timeout(CALL_LIMIT, course).await;
        ended.unwrap_or_else(|_| Err(failed("the originated call did not end")))?;
        asked.await.map_err(|error| failed(&error.to_string()))?
    };
    let response = response.map_err(|fault| failed(&format!("the command has no response: {fault}")))?;
    let response: Value = serde_json::from_slice(&response).map_err(|error| failed(&error.to_string()))?;
    output::text(&format!("\nIts response:\n{response:#}\n\n"))?;
    if response.pointer("/data/outcome").and_then(Value::as_str) == Some("executed") {
        return Ok(());
    }
    Err(failed("the command was not executed"))
}

/// Plays calls until interrupted.
async fn keep(stage: &mut Stage, all: bool) -> Result<(), Failure> {
    output::text(&format!(
        "Calls go on until you interrupt this. Meanwhile, elsewhere:\n\
         \x20 amibus tail --bus zeromq --set publish={0}\n\
         \x20 amibus send Originate --server {SERVER} --wait final Channel=PJSIP/200 Context=sales Exten=100 Priority=1 \
         --bus zeromq --set publish={0} --set commands={1}\n\
         \x20 curl http://{2}/metrics\n\n",
        stage.publish, stage.commands, stage.http
    ))?;
    let calls = Recording::embedded();
    let playing = watch_while(stage, all, |sim| {
        Box::pin(async move {
            loop {
                for call in &calls {
                    sim.play(call, 1.0).await;
                }
            }
        })
    });
    tokio::select! {
        seen = playing => seen.map(drop),
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(|error| failed(&error.to_string())),
    }
}

fn print(event: &Value, all: bool) -> Result<(), Failure> {
    match line::readable(event, all) {
        Some(text) => output::text(&text),
        None => Ok(()),
    }
}

fn failed(message: &str) -> Failure {
    Failure::Failed(message.to_owned())
}
