//! A real Kafka broker: one KRaft node that is broker and controller.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use crate::cache;
use crate::process::Process;
use crate::tls::Certificates;

/// Beside much else a JVM takes its time.
const READY_SECONDS: u64 = 240;

const PLAINTEXT: u16 = 0;
const CONTROLLER: u16 = 1;
const SASL: u16 = 2;
const SSL: u16 = 3;
const SASL_SSL: u16 = 4;

/// The user of the SASL listeners.
pub const KAFKA_USER: &str = "amibus";
/// That user's password.
pub const KAFKA_PASSWORD: &str = "amibus-pass";

/// What differs between the Kafka brokers of the tests.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Whether there are listeners that want [`KAFKA_USER`], by `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl: bool,
    /// Whether there are listeners with TLS. A client certificate is asked for, not demanded.
    pub tls: bool,
    /// More lines of `server.properties`; they win. `@PORT@` stands for the port in the clear, without a user.
    pub properties: String,
}

/// One broker, killed when dropped. Its other operations are those of [`Process`].
#[derive(Debug)]
pub struct Kafka {
    process: Process,
    certificates: Option<Certificates>,
}

impl Kafka {
    /// Starts one and waits until its metadata names it.
    ///
    /// # Panics
    /// Where it is not installed or does not start.
    #[must_use]
    pub fn start(options: &KafkaOptions) -> Self {
        let jars = cache::installed("kafka/libs", "kafka");
        let mut process = Process::prepare("kafka");
        let certificates = options.tls.then(|| Certificates::make(&process.directory().join("tls")));
        let properties = properties(&process, options, certificates.as_ref());
        fs::write(process.directory().join("server.properties"), properties).expect("server.properties");
        process.set_env("CLASSPATH", &format!("{}/*", jars.display()));
        let script = format!(
            "run() {{ exec java -Xmx384m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.awt.headless=true \
             -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \"$@\"; }}\n\
             [ -e data/meta.properties ] || (run kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ \
             -c server.properties {scram} >format.log 2>&1) || {{ cat format.log; exit 1; }}\n\
             run kafka.Kafka server.properties",
            scram = ["256", "512"].map(scram_user).join(" "),
        );
        let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
        process.start(command, READY_SECONDS, answers);
        Self { process, certificates }
    }

    /// In the clear, without a user.
    #[must_use]
    pub fn plain() -> Self {
        Self::start(&KafkaOptions::default())
    }

    /// The bootstrap address in the clear, without a user: `127.0.0.1:PORT`.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.address(PLAINTEXT)
    }

    /// The bootstrap address for `SASL_PLAINTEXT`.
    #[must_use]
    pub fn sasl_brokers(&self) -> String {
        self.address(SASL)
    }

    /// The bootstrap address for `SSL`.
    #[must_use]
    pub fn tls_brokers(&self) -> String {
        self.address(SSL)
    }

    /// The bootstrap address for `SASL_SSL`, where the options say both.
    #[must_use]
    pub fn sasl_tls_brokers(&self) -> String {
        self.address(SASL_SSL)
    }

    /// What signed the broker's certificate and a client's.
    ///
    /// # Panics
    /// Where the broker has no TLS.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("KafkaOptions::tls")
    }

    /// The certificate of the authority.
    ///
    /// # Panics
    /// Where the broker has no TLS.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.certificates().ca_file()
    }

    /// Starts it again on the same ports and data, and waits until its metadata names it.
    pub fn restart(&mut self) {
        self.process.restart(READY_SECONDS, answers);
    }

    fn address(&self, index: u16) -> String {
        format!("127.0.0.1:{}", self.process.port(index))
    }
}

fn scram_user(bits: &str) -> String {
    format!("--add-scram 'SCRAM-SHA-{bits}=[name={KAFKA_USER},password={KAFKA_PASSWORD}]'")
}

/// The session is short because a killed broker is let in again only when its last session has run out.
fn properties(process: &Process, options: &KafkaOptions, certificates: Option<&Certificates>) -> String {
    let mut listeners = vec![("PLAINTEXT", PLAINTEXT), ("CONTROLLER", CONTROLLER)];
    if options.sasl {
        listeners.push(("SASL_PLAINTEXT", SASL));
    }
    if options.tls {
        listeners.push(("SSL", SSL));
    }
    if options.sasl && options.tls {
        listeners.push(("SASL_SSL", SASL_SSL));
    }
    let listeners: Vec<String> = listeners
        .iter()
        .map(|(name, index)| format!("{name}://127.0.0.1:{}", process.port(*index)))
        .collect();
    let mut text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\nlisteners={listeners}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,\
         SASL_PLAINTEXT:SASL_PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL\n\
         inter.broker.listener.name=PLAINTEXT\nlog.dirs={data}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n\
         broker.session.timeout.ms=4000\nbroker.heartbeat.interval.ms=500\n\
         log.cleaner.dedupe.buffer.size=4194304\nnum.io.threads=4\nnum.network.threads=2\n",
        controller = process.port(CONTROLLER),
        listeners = listeners.join(","),
        data = process.directory().join("data").display(),
    );
    if options.sasl {
        text.push_str(&sasl_properties());
    }
    if let Some(certificates) = certificates {
        text.push_str(&tls_properties(process, certificates));
    }
    text.push_str(&options.properties.replace("@PORT@", &process.port(PLAINTEXT).to_string()));
    text.push('\n');
    text
}

fn sasl_properties() -> String {
    let mut text = String::from("sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n");
    for listener in ["sasl_plaintext", "sasl_ssl"] {
        let prefix = format!("listener.name.{listener}");
        text.push_str(&format!(
            "{prefix}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_{KAFKA_USER}=\"{KAFKA_PASSWORD}\";\n"
        ));
        for bits in ["256", "512"] {
            text.push_str(&format!(
                "{prefix}.scram-sha-{bits}.sasl.jaas.config=\
                 org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
            ));
        }
    }
    text
}

/// Kafka reads a certificate and its key from one PEM file.
fn tls_properties(process: &Process, certificates: &Certificates) -> String {
    let store = process.directory().join("tls/keystore.pem");
    let mut pem = fs::read(certificates.server_key_file()).expect("the server's key");
    pem.extend(fs::read(certificates.server_file()).expect("the server's certificate"));
    fs::write(&store, pem).expect("the keystore");
    format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
         ssl.client.auth=requested\n",
        store.display(),
        certificates.ca_file().display()
    )
}

/// Metadata (version 4) for no topics: its list of brokers is empty until the broker is unfenced.
fn answers(process: &Process) -> bool {
    const REQUEST: &[u8] = b"\0\0\0\x0f\0\x03\0\x04\0\0\0\x01\xff\xff\0\0\0\0\0";
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", process.port(PLAINTEXT))) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    // Length, correlation id, throttle time, number of brokers: four bytes each.
    let mut head = [0; 16];
    stream.write_all(REQUEST).is_ok() && stream.read_exact(&mut head).is_ok() && head[12..] == [0, 0, 0, 1]
}

impl Deref for Kafka {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Kafka {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
