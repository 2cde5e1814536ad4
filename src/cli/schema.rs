//! `amibus schema`.

use clap::ValueEnum;

use super::{Failure, output};
use crate::{config::reference, schema};

const EXAMPLES: &str = "\
Examples:
  amibus schema event > event.schema.json
  amibus schema config > amibus.schema.json
  amibus schema reference                  every key of the configuration, in Markdown";

/// Print the schema of a kind of message, or of the configuration
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Of what; all kinds of messages as one JSON object if left out
    #[arg(value_enum)]
    which: Option<Which>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// `ami.event.*`: a JSON Schema.
    Event,
    /// `ami.link.*`: a JSON Schema.
    Link,
    /// `ami.command.*`: a JSON Schema.
    Command,
    /// `ami.response.*`: a JSON Schema.
    Response,
    /// The configuration: a JSON Schema.
    Config,
    /// The configuration: a reference in Markdown.
    Reference,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let name = match args.which {
        Some(Which::Event) => "event",
        Some(Which::Link) => "link",
        Some(Which::Command) => "command",
        Some(Which::Response) => "response",
        Some(Which::Config) => return output::text(&format!("{:#}", reference::json_schema())),
        Some(Which::Reference) => return output::text(&reference::markdown()),
        None => return all(),
    };
    match schema::find(name) {
        Some(schema) => output::text(schema.text),
        None => Err(Failure::Failed(format!("there is no schema of {name}"))),
    }
}

fn all() -> Result<(), Failure> {
    let mut object = serde_json::Map::new();
    for schema in schema::ALL {
        let value = serde_json::from_str(schema.text);
        let value =
            value.map_err(|error| Failure::Failed(format!("the schema of {}: {error}", schema.name)))?;
        object.insert(schema.name.to_owned(), value);
    }
    output::text(&format!("{:#}", serde_json::Value::Object(object)))
}
