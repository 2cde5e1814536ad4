//! `amibus send`: a command through a bus, and its response.

use std::time::Duration;

use amibus_contract::FaultKind;
use clap::ValueEnum;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Failure, Logging, bus, output};
use crate::config::{LogFormat, units};

const EXAMPLES: &str = "\
Examples:
  amibus send Ping --server pbx1
  amibus send Originate --server pbx1 --wait final \\
      Channel=PJSIP/100 Context=sales Exten=200 Priority=1 Variable.ORDER=8812
  amibus send QueueStatus Queue=sales --server pbx1 | jq '.data.events[]'
  amibus send Hangup Channel=PJSIP/100-0000002a --server pbx1 --deadline 5s

A field that is given twice is a header that repeats. Sending again with the same --id does not run the command
again: it shows what became of it.

What is allowed is decided by the [[command.allow]] rules of the amibus that receives it.
Exit code 0 when the outcome is `executed`, 1 for any other and when no response came in time.";

/// Send a command through a bus, print its response (a CloudEvent in JSON)
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The AMI action, e.g. Originate
    action: String,
    /// Its headers; Variable.NAME=VALUE sets a channel variable
    #[arg(value_name = "KEY=VALUE")]
    fields: Vec<String>,
    /// The server to carry it out
    #[arg(long, value_name = "NAME")]
    server: String,
    /// The command's id [default: a new one]
    #[arg(long)]
    id: Option<String>,
    /// Not to be sent to Asterisk later than this from now, e.g. 10s [default: as --timeout]
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    deadline: Option<Duration>,
    /// What to wait for
    #[arg(long, value_enum, default_value = "response")]
    wait: Wait,
    /// How long to wait for the response
    #[arg(long, value_name = "DURATION", value_parser = some_time, default_value = "60s")]
    timeout: Duration,
    #[command(flatten)]
    bus: bus::BusArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wait {
    /// Asterisk's own answer, with the list that it announces.
    Response,
    /// For Originate: what became of the call.
    Final,
}

pub(super) fn run(args: &Args, logging: Logging) -> Result<(), Failure> {
    logging.start("warn", LogFormat::Auto);
    let id = match &args.id {
        Some(id) => id.clone(),
        None => new_id()?,
    };
    let body = command(args, &id, Timestamp::now())?.to_string();
    let response = super::block_on(async {
        let found = args.bus.find()?;
        let mut client = found.client().await?;
        let response =
            client.request(&found.prefix, &args.server, &args.action, &id, body.into(), args.timeout);
        response.await.map_err(|fault| match fault.kind {
            FaultKind::TimedOut => Failure::Failed(format!(
                "no response through {} within {}: the command {id} may have run all the same, or nobody takes \
                 commands for {} there",
                found.bus.name,
                units::show_duration(args.timeout),
                args.server
            )),
            _ => Failure::Failed(format!("cannot send through {}: {fault}", found.bus.name)),
        })
    })?;
    output::json(&response)?;
    if is_executed(&response) { Ok(()) } else { Err(Failure::Reported) }
}

fn some_time(text: &str) -> Result<Duration, String> {
    match units::duration(text)? {
        Duration::ZERO => Err("must be longer than nothing".to_owned()),
        time => Ok(time),
    }
}

fn command(args: &Args, id: &str, now: Timestamp) -> Result<Value, Failure> {
    let deadline = args.deadline.unwrap_or(args.timeout);
    let until = now.checked_add(deadline).map_err(|error| Failure::Usage(format!("--deadline: {error}")))?;
    let wait = if args.wait == Wait::Final { "final" } else { "response" };
    Ok(json!({
        "id": id,
        "server": args.server,
        "action": args.action,
        "deadline": until.to_string(),
        "wait": wait,
        "fields": fields(&args.fields)?,
    }))
}

fn fields(pairs: &[String]) -> Result<Map<String, Value>, Failure> {
    let mut fields = Map::new();
    for pair in pairs {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(Failure::Usage(format!(
                "a field is KEY=VALUE, e.g. Channel=PJSIP/100; got {pair:?}"
            )));
        };
        match name.split_once('.') {
            Some((table, variable)) => {
                let table = fields.entry(table).or_insert_with(|| json!({}));
                let Some(table) = table.as_object_mut() else {
                    return Err(Failure::Usage(format!(
                        "{pair:?}: {name} is given with and without a name after a dot"
                    )));
                };
                table.insert(variable.to_owned(), json!(value));
            }
            None => match fields.get_mut(name) {
                None => {
                    fields.insert(name.to_owned(), json!(value));
                }
                Some(Value::Array(values)) => values.push(json!(value)),
                Some(first) => *first = json!([first.take(), value]),
            },
        }
    }
    Ok(fields)
}

#[derive(Deserialize)]
struct Response {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    outcome: String,
}

fn is_executed(response: &[u8]) -> bool {
    serde_json::from_slice::<Response>(response).is_ok_and(|response| response.data.outcome == "executed")
}

fn new_id() -> Result<String, Failure> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|error| Failure::Failed(format!("no randomness: {error}")))?;
    Ok(format!("cli-{:016x}", u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn fields_become_json() {
        let fields =
            fields(&pairs(&["Channel=PJSIP/100", "Variable.A=b=c", "Variable.N=1", "X=1", "X=2", "X=3"]));
        let expected =
            json!({"Channel": "PJSIP/100", "Variable": {"A": "b=c", "N": "1"}, "X": ["1", "2", "3"]});
        assert_eq!(Value::Object(fields.expect("valid")), expected);
    }

    #[test]
    fn what_is_no_pair_is_wrong_usage() {
        assert!(matches!(fields(&pairs(&["Channel"])), Err(Failure::Usage(_))));
        assert!(matches!(fields(&pairs(&["Variable=A", "Variable.B=1"])), Err(Failure::Usage(_))));
    }

    #[test]
    fn only_executed_is_well() {
        assert!(is_executed(br#"{"data":{"outcome":"executed"}}"#));
        assert!(!is_executed(br#"{"data":{"outcome":"unknown"}}"#) && !is_executed(b"?"));
    }
}
