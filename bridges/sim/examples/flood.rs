//! Measures how fast a flood reaches plain readers: `cargo run -p amibus-sim --example flood -- [EVENTS] [READERS]`.
#![expect(clippy::print_stdout, reason = "it is what the program is for")]

use std::time::{Duration, Instant};

use amibus_sim::{Sim, SimOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const READ_BYTES: usize = 1 << 20;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1).map_while(|argument| argument.parse::<u64>().ok());
    let events = arguments.next().unwrap_or(1_000_000);
    let readers = arguments.next().unwrap_or(1);
    let options =
        SimOptions { sequence_numbers: true, write_timeout: Duration::from_secs(5), ..SimOptions::default() };
    let sim = Sim::start(options).await?;
    let mut tasks = Vec::new();
    for _ in 0..readers {
        let mut stream = TcpStream::connect(sim.addr()).await?;
        stream
            .write_all(b"Action: Login\r\nUsername: amibus\r\nSecret: amibus\r\nEvents: user\r\n\r\n")
            .await?;
        tasks.push(tokio::spawn(read_all(stream, format!("Seq: {}\r\n", events - 1))));
    }
    while sim.sessions() < tasks.len() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let start = Instant::now();
    let flooded = sim.flood(0, events).await;
    let mut bytes = 0;
    for task in tasks {
        bytes += task.await.map_err(std::io::Error::other)??;
    }
    println!(
        "{events} events to {readers} readers: queued {:.0} a second, read in {:.2} s, {} MB",
        flooded.rate(),
        start.elapsed().as_secs_f64(),
        bytes >> 20
    );
    Ok(())
}

async fn read_all(mut stream: TcpStream, last: String) -> std::io::Result<usize> {
    let mut buffer = vec![0; READ_BYTES];
    let mut tail: Vec<u8> = Vec::new();
    let mut bytes = 0;
    loop {
        let count = stream.read(&mut buffer).await?;
        bytes += count;
        let fresh = buffer.get(..count).unwrap_or_default();
        let kept = tail.len().saturating_sub(last.len());
        tail.drain(..kept);
        tail.extend_from_slice(fresh.get(count.saturating_sub(256)..).unwrap_or_default());
        if count == 0 || tail.windows(last.len()).any(|window| window == last.as_bytes()) {
            return Ok(bytes);
        }
    }
}
