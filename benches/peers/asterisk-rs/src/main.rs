//! AMI to NATS with asterisk-rs and async-nats: `asterisk-rs-nats PORT URL PREFIX`. `asterisk-rs-nats parse FILE MILLIS`
//! goes through a recording for so long, its events to JSON, and prints how many messages that were and the nanoseconds they took.

use std::{error::Error, fs, hint::black_box};

use asterisk_rs_ami::{AmiClient, AmiCodec, AmiEvent};
use asterisk_rs_core::event::EventReceive;
use bytes::BytesMut;
use tokio_util::codec::Decoder as _;

/// The default of 1,024 loses most of a burst.
const EVENTS_THAT_WAIT: usize = 1 << 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [word, file, millis] = words.as_slice()
        && word == "parse"
    {
        return parse(&fs::read(file)?, millis.parse()?);
    }
    let [port, url, prefix] = words.as_slice() else { return Err("PORT URL PREFIX".into()) };
    let bus = async_nats::connect(url).await?;
    let client = AmiClient::builder()
        .host("127.0.0.1")
        .port(port.parse()?)
        .credentials("amibus", "amibus")
        .event_capacity(EVENTS_THAT_WAIT)
        .build()
        .await?;
    let mut events = client.subscribe();
    println!("ready");
    loop {
        match events.recv().await {
            EventReceive::Event(event) => {
                let subject = format!("{prefix}.event.pbx1.{}", event.event_name());
                bus.publish(subject, serde_json::to_vec(&event)?.into()).await?;
            }
            EventReceive::Lagged(lost) => eprintln!("{lost} events were lost"),
            EventReceive::Closed => return Ok(()),
        }
    }
}

fn parse(recording: &[u8], millis: u64) -> Result<(), Box<dyn Error>> {
    once(recording)?;
    let (began, mut messages) = (thread_nanos()?, 0);
    loop {
        messages += black_box(once(recording)?);
        let nanos = thread_nanos()? - began;
        if nanos > millis * 1_000_000 {
            println!("{messages} {nanos}");
            return Ok(());
        }
    }
}

fn once(recording: &[u8]) -> Result<u64, Box<dyn Error>> {
    let (mut codec, mut unread, mut messages) = (AmiCodec::new(), BytesMut::from(recording), 0);
    while let Some(message) = codec.decode(&mut unread)? {
        messages += 1;
        if let Some(event) = AmiEvent::from_raw(&message) {
            black_box(serde_json::to_vec(&event)?);
        }
    }
    Ok(messages)
}

/// What this thread has had of a processor; Linux counts it on at every tick.
fn thread_nanos() -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?)
}
