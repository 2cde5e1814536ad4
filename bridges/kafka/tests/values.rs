//! Values as the root crate would give them.

use std::collections::BTreeMap;

use amibus_contract::{Context, Plug, Problem, SharedBridge, Value, Values};
use amibus_kafka::Kafka;

/// Values for a broker in the clear, taking commands.
pub(crate) fn values(brokers: &str) -> Values {
    Values::default()
        .with("brokers", text(brokers))
        .with("commands", Value::Flag(true))
        .with("group", text("amibus"))
}

pub(crate) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

/// Settings of librdkafka to pass through.
pub(crate) fn extra(pairs: &[(&str, &str)]) -> Value {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Value::Map(pairs.collect::<BTreeMap<_, _>>())
}

pub(crate) fn open(values: &Values, prefix: &str) -> SharedBridge {
    try_open(values, prefix).unwrap_or_else(|problems| panic!("{problems:?}"))
}

pub(crate) fn try_open(values: &Values, prefix: &str) -> Result<SharedBridge, Vec<Problem>> {
    Kafka::open(
        values,
        &Context { prefix: prefix.to_owned(), instance: "amibus-test".to_owned(), ..Context::default() },
    )
}
