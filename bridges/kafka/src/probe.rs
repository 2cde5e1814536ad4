//! What the cluster is like, for `amibus check --connect`. Nothing is written or made.

use std::sync::Arc;

use amibus_contract::{Fault, FaultKind, Kind};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};

use crate::{
    clients, faults,
    front::unusable,
    health::Listener,
    hub::Hub,
    letters,
    topics::{Shape, ask, blocking},
};

/// Room for the headers beside a message of `max_message_bytes`, in bytes, in a batch of one.
const BATCH_OVERHEAD_BYTES: u64 = 1_000;

/// Looks at the cluster, the topics and the group; a line each.
pub(crate) async fn probe(hub: &Arc<Hub>) -> Result<Vec<String>, Fault> {
    let mut lines = vec![cluster(hub).await?];
    for kind in Kind::ALL {
        let topic = format!("{}.{}", hub.settings.prefix, kind.as_str());
        let needed = matches!(kind, Kind::Event | Kind::Link | Kind::Response)
            || (kind == Kind::Command && hub.settings.commands);
        match hub.topics.look(&hub.front, &topic).await? {
            Some(shape) => lines.push(topic_line(hub, &topic, &shape).await),
            None if !needed => {}
            None if hub.settings.create_topics => lines.push(format!(
                "topic {topic}: not there yet; it will be made with {} partitions, replication {}",
                hub.settings.partitions, hub.settings.replication
            )),
            None => return Err(hub.topics.remedy(&[topic])),
        }
    }
    if hub.settings.commands {
        lines.extend(group(hub).await?);
    }
    lines.push("not tried: permission to write (it would leave a record)".into());
    Ok(lines)
}

async fn cluster(hub: &Arc<Hub>) -> Result<String, Fault> {
    let generation = hub.front.lease()?;
    let (health, limit) = (hub.health.clone(), hub.settings.connect_timeout);
    let asked = blocking(move || {
        // The topic is of no interest: an answer names the brokers, too.
        let client = generation.client("ami");
        let metadata = ask(&health, limit, "the cluster", |time| client.fetch_metadata(Some("ami"), time))?;
        let id = client.fetch_cluster_id(limit).unwrap_or_else(|| "unknown".into());
        let brokers: Vec<String> =
            metadata.brokers().iter().map(|broker| format!("{}:{}", broker.host(), broker.port())).collect();
        Ok::<_, Fault>(format!("cluster {id}, {} broker(s): {}", brokers.len(), brokers.join(", ")))
    });
    asked.await?
}

async fn topic_line(hub: &Hub, topic: &str, shape: &Shape) -> String {
    let mut line =
        format!("topic {topic}: {} partition(s), replication {}", shape.partitions.len(), shape.replicas);
    if shape.in_sync < shape.replicas {
        line.push_str(&format!("; warning: only {} replica(s) in sync", shape.in_sync));
    }
    if shape.replicas < 2 {
        line.push_str("; warning: a broker's disk holds the only copy");
    }
    let (least, largest) = match configuration(hub, topic).await {
        Ok(found) => found,
        Err(fault) => {
            line.push_str(&format!("; its configuration cannot be read ({fault})"));
            return line;
        }
    };
    line.push_str(&format!(", min.insync.replicas {least}"));
    if shape.replicas > 1 && least < 2 {
        line.push_str("; warning: a message counts as stored when one broker has it");
    }
    if largest < hub.settings.max_message_bytes.saturating_add(BATCH_OVERHEAD_BYTES) {
        let ours = hub.settings.max_message_bytes;
        line.push_str(&format!(
            "; warning: the topic's max.message.bytes is {largest}: set max_message_bytes ({ours}) at least \
             {BATCH_OVERHEAD_BYTES} below that"
        ));
    }
    line
}

/// `min.insync.replicas` and `max.message.bytes` of a topic.
async fn configuration(hub: &Hub, topic: &str) -> Result<(u64, u64), Fault> {
    let listener = Listener(hub.health.clone());
    let admin = AdminClient::from_config_and_context(&clients::common(&hub.settings), listener)
        .map_err(|error| unusable(&error))?;
    let options = AdminOptions::new().request_timeout(Some(hub.settings.connect_timeout));
    let described = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
    tokio::task::spawn_blocking(move || drop(admin));
    let mut described = described.map_err(|error| faults::of(&error, topic))?;
    let resource = described.pop().ok_or_else(|| Fault::new(FaultKind::Missing, "no configuration came"))?;
    let resource = resource.map_err(|code: RDKafkaErrorCode| faults::of_code(code, topic))?;
    let number = |name: &str, default| {
        let value = resource.get(name).and_then(|entry| entry.value.as_deref());
        value.and_then(|value| value.parse().ok()).unwrap_or(default)
    };
    Ok((number("min.insync.replicas", 1), number("max.message.bytes", u64::MAX)))
}

/// Whether we may read as the group, where it stands, and whether the dead-letter topic is there.
async fn group(hub: &Arc<Hub>) -> Result<Vec<String>, Fault> {
    let topic = format!("{}.{}", hub.settings.prefix, Kind::Command.as_str());
    let dead = letters::topic_for(&topic);
    let mut lines = Vec::new();
    if hub.topics.look(&hub.front, &dead).await?.is_none() {
        let what =
            if hub.settings.create_topics { "it will be made when first needed" } else { "warning: make it" };
        lines.push(format!("topic {dead}: not there yet; {what}"));
    }
    let Some(shape) = hub.topics.look(&hub.front, &topic).await? else { return Ok(lines) };
    let (settings, listener) = (hub.settings.clone(), Listener(hub.health.clone()));
    let asked = blocking(move || {
        let consumer: BaseConsumer<Listener> =
            BaseConsumer::from_config_and_context(&clients::member(&settings), listener)
                .map_err(|error| unusable(&error))?;
        let mut list = TopicPartitionList::new();
        for partition in &shape.partitions {
            list.add_partition(&topic, *partition);
        }
        let found = consumer
            .committed_offsets(list, settings.connect_timeout)
            .map_err(|error| faults::of(&error, &format!("the group {}", settings.group)))?;
        let started =
            found.elements().iter().filter(|element| matches!(element.offset(), Offset::Offset(_))).count();
        Ok::<_, Fault>(format!(
            "group {}: readable, with positions in {started} of {} partition(s) of {topic}",
            settings.group,
            shape.partitions.len()
        ))
    });
    lines.push(asked.await??);
    Ok(lines)
}
