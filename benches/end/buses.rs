//! The buses: their servers, what amibus is told of them, and what both publishers find there.

use std::{io, time::Duration};

use amibus_services::{Kafka, Nats, NatsOptions, Program};
use async_nats::jetstream::{self, stream};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

/// The first server's name in every topic; the others have higher numbers.
pub(crate) const SERVER: &str = "pbx1";
const SERVER_BEGINS: &str = "pbx";
/// Partitions of Kafka's topic, as amibus makes it.
pub(crate) const PARTITIONS: i32 = 6;
/// How many messages await their acknowledgement at most: amibus's `max_in_flight`.
pub(crate) const MAX_IN_FLIGHT: usize = 512;
/// A consumer that falls behind is waited for, not cut off.
pub(crate) const PATIENT_NATS: &str = "max_pending: 2GB\nwrite_deadline: \"60s\"";
/// amibus's `duplicate_window`.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A bus and the way it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    Nats,
    JetStream,
    Kafka,
    ZeroMq,
}

impl Bus {
    pub(crate) const ALL: [Self; 4] = [Self::Nats, Self::JetStream, Self::Kafka, Self::ZeroMq];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::JetStream => "jetstream",
            Self::Kafka => "kafka",
            Self::ZeroMq => "zeromq",
        }
    }

    pub(crate) fn of(name: &str) -> io::Result<Self> {
        let found = Self::ALL.into_iter().find(|bus| bus.name() == name);
        found.ok_or_else(|| io::Error::other(format!("{name}: no such bus")))
    }
}

/// A bus's server, running.
pub(crate) enum Server {
    Nats(Nats),
    Kafka(Kafka),
    None,
}

impl Server {
    pub(crate) fn start(bus: Bus) -> Self {
        let nats =
            |jetstream| Self::Nats(Nats::start(&NatsOptions { jetstream, config: PATIENT_NATS.to_owned() }));
        match bus {
            Bus::Nats => nats(false),
            Bus::JetStream => nats(true),
            Bus::Kafka => Self::Kafka(Kafka::plain()),
            Bus::ZeroMq => Self::None,
        }
    }

    /// Its address; without a server, that of whoever publishes on `port`.
    pub(crate) fn address(&self, port: u16) -> String {
        match self {
            Self::Nats(nats) => nats.url(),
            Self::Kafka(kafka) => kafka.brokers(),
            Self::None => format!("tcp://127.0.0.1:{port}"),
        }
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match self {
            Self::Nats(nats) => nats.pid(),
            Self::Kafka(kafka) => kafka.pid(),
            Self::None => None,
        }
    }
}

/// What amibus is told of a bus.
pub(crate) fn section(bus: Bus, address: &str, prefix: &str) -> String {
    match bus {
        Bus::Nats => format!("[bus.nats]\nurl = \"{address}\"\n"),
        Bus::JetStream => {
            format!("[bus.nats]\nurl = \"{address}\"\nstream = \"{}\"\n", stream_of(prefix))
        }
        Bus::Kafka => format!("[bus.kafka]\nbrokers = \"{address}\"\npartitions = {PARTITIONS}\n"),
        Bus::ZeroMq => format!("[bus.zeromq]\npublish = \"{address}\"\n"),
    }
}

/// The configuration of amibus, with a server for each of these ports and its spool in its own directory; its first port is
/// where it tells that it is ready.
pub(crate) fn configuration(amibus: &Program, prefix: &str, servers: &[u64], sections: &str) -> String {
    let mut text = format!("prefix = \"{prefix}\"\n");
    for (at, port) in (1..).zip(servers) {
        text += &format!(
            "[[server]]\nname = \"{SERVER_BEGINS}{at}\"\nurl = \"ami://127.0.0.1:{port}\"\nusername = \"amibus\"\n\
             secret = \"amibus\"\n",
        );
    }
    text += sections;
    text += &format!(
        "[spool]\ndir = \"{}\"\n[http]\nlisten = \"127.0.0.1:{}\"\n[log]\nlevel = \"warn\"\n",
        amibus.directory().join("spool").display(),
        amibus.port(0),
    );
    text
}

pub(crate) fn stream_of(prefix: &str) -> String {
    prefix.to_uppercase()
}

/// Makes the stream or the topic of one run, as amibus would make it.
pub(crate) async fn prepare(bus: Bus, address: &str, prefix: &str) -> io::Result<()> {
    match bus {
        Bus::Nats | Bus::ZeroMq => Ok(()),
        Bus::JetStream => {
            let client = async_nats::connect(address).await.map_err(io::Error::other)?;
            let config = stream::Config {
                name: stream_of(prefix),
                subjects: ["event", "link", "call", "response", "dead"]
                    .map(|kind| format!("{prefix}.{kind}.>"))
                    .into(),
                storage: stream::StorageType::File,
                duplicate_window: DUPLICATE_WINDOW,
                allow_direct: true,
                ..stream::Config::default()
            };
            jetstream::new(client).create_stream(config).await.map_err(io::Error::other)?;
            Ok(())
        }
        Bus::Kafka => {
            let admin: AdminClient<DefaultClientContext> =
                ClientConfig::new().set("bootstrap.servers", address).create().map_err(io::Error::other)?;
            let topics = ["event", "link"].map(|kind| format!("{prefix}.{kind}"));
            let topics: Vec<NewTopic<'_>> = topics
                .iter()
                .map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)))
                .collect();
            let made = admin.create_topics(&topics, &AdminOptions::new()).await.map_err(io::Error::other)?;
            made.into_iter()
                .try_for_each(|one| one.map(|_| ()).map_err(|(_, code)| io::Error::other(code.to_string())))
        }
    }
}

/// Throws away what a run has stored.
pub(crate) async fn clear(bus: Bus, address: &str, prefix: &str) -> io::Result<()> {
    match bus {
        Bus::Nats | Bus::ZeroMq => Ok(()),
        Bus::JetStream => {
            let client = async_nats::connect(address).await.map_err(io::Error::other)?;
            jetstream::new(client).delete_stream(stream_of(prefix)).await.map_err(io::Error::other)?;
            Ok(())
        }
        Bus::Kafka => {
            let admin: AdminClient<DefaultClientContext> =
                ClientConfig::new().set("bootstrap.servers", address).create().map_err(io::Error::other)?;
            let names = ["event", "link"].map(|kind| format!("{prefix}.{kind}"));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            admin.delete_topics(&names, &AdminOptions::new()).await.map_err(io::Error::other)?;
            Ok(())
        }
    }
}
