//! The role of many Asterisks: they send events at a steady rate, each stamped with its moment, and are lost and come back.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use amibus_services::Ports;
use amibus_sim::{Sim, SimOptions};
use futures_util::future::try_join_all;

use crate::{
    child::{say, told},
    pace::Pacer,
    traffic::Traffic,
};

/// As Asterisk's `writetimeout`: a session whose write waits so long is dropped, and what it misses shows.
const WRITE_TIMEOUT: Duration = Duration::from_millis(100);
/// A block of ports has so many.
const PORTS_A_BLOCK: u16 = 32;
const LOOK: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);
const DRIP_SECONDS: u64 = 60;
/// Until all must be there, or back.
const BACK: Duration = Duration::from_secs(60);

/// `sims COUNT RECORDING`: says `ports N N ...`; then does what it is told:
///
/// - `full`: says `full` once somebody is logged in at each of them.
/// - `pour RATE SECONDS`: says `poured EVENTS SUM DROPPED BEHIND`, the sum of the stamps, the sessions dropped because a write
///   had to wait too long, and how many microseconds the pace was late at most.
/// - `dropped`: says `dropped SESSIONS` anew, for the last events are written after all were given to be written.
/// - `drip RATE`: the same for a minute; says nothing.
/// - `lose`: every connection is closed, and every port refuses; says `lost`.
/// - `back`: the ports open; once all are logged in again, says `back MILLIS MOST TRIES`: how long it took, the most logins
///   within a second, and the most connections that one server got.
pub(crate) async fn run(count: u16, recording: &str) -> io::Result<()> {
    let blocks: Vec<Ports> = (0..count.div_ceil(PORTS_A_BLOCK)).map(|_| Ports::take()).collect();
    let mut sims = Vec::new();
    for at in 0..count {
        let port =
            blocks.get(usize::from(at / PORTS_A_BLOCK)).map_or(0, |block| block.port(at % PORTS_A_BLOCK));
        let options = SimOptions { port, write_timeout: WRITE_TIMEOUT, ..SimOptions::default() };
        sims.push(Sim::start(options).await?);
    }
    let (sims, traffic) = (Arc::new(sims), Arc::new(Traffic::of(recording)?));
    let ports: Vec<String> = sims.iter().map(|sim| sim.addr().port().to_string()).collect();
    say(&format!("ports {}", ports.join(" ")))?;
    loop {
        let line = tokio::task::spawn_blocking(told).await.map_err(io::Error::other)??;
        let number = |word: &str| word.parse::<u64>().map_err(io::Error::other);
        match *line.split_whitespace().collect::<Vec<_>>() {
            ["pour", rate, seconds] => {
                let (rate, seconds) = (number(rate)?, number(seconds)?);
                let (sims, traffic) = (Arc::clone(&sims), Arc::clone(&traffic));
                let pouring = move || pour(&sims, &traffic, Pacer::new(rate), rate * seconds);
                say(&tokio::task::spawn_blocking(pouring).await.map_err(io::Error::other)?)?;
            }
            ["drip", rate] => {
                let (rate, sims, traffic) = (number(rate)?, Arc::clone(&sims), Arc::clone(&traffic));
                let count = rate * DRIP_SECONDS;
                tokio::task::spawn_blocking(move || pour(&sims, &traffic, Pacer::new(rate), count));
            }
            ["full"] => {
                full(&sims).await?;
                say("full")?;
            }
            ["dropped"] => say(&format!("dropped {}", dropped(&sims)))?,
            ["lose"] => {
                try_join_all(sims.iter().map(Sim::refuse)).await?;
                sims.iter().for_each(Sim::drop_sessions);
                say("lost")?;
            }
            ["back"] => say(&back(&sims).await?)?,
            _ => return Err(io::Error::other(format!("{line}: no such order"))),
        }
    }
}

/// Each grain goes to one server, the next one to the next.
fn pour(sims: &[Sim], traffic: &Traffic, mut pacer: Pacer, count: u64) -> String {
    let grain = pacer.grain();
    let mut chunk = Vec::new();
    for (first, sim) in (0..count).step_by(usize::try_from(grain).unwrap_or(1)).zip(sims.iter().cycle()) {
        pacer.wait();
        for index in first..(first + grain).min(count) {
            traffic.write(index, pacer.stamp(), &mut chunk);
        }
        sim.emit(std::mem::take(&mut chunk));
    }
    format!("poured {count} {} {} {}", pacer.sum, dropped(sims), pacer.behind.as_micros())
}

fn dropped(sims: &[Sim]) -> u64 {
    sims.iter().map(|sim| sim.stats().slow_sessions_dropped).sum()
}

async fn full(sims: &[Sim]) -> io::Result<()> {
    let began = Instant::now();
    let without =
        |sims: &[Sim]| sims.iter().filter(|sim| sim.sessions() == 0 || sim.stats().logins == 0).count();
    while without(sims) > 0 {
        if began.elapsed() > BACK {
            return Err(io::Error::other(format!("nobody is logged in at {} servers", without(sims))));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn back(sims: &[Sim]) -> io::Result<String> {
    let logins = |sims: &[Sim]| sims.iter().map(|sim| sim.stats().logins).sum::<u64>();
    let tries: Vec<u64> = sims.iter().map(|sim| sim.stats().connections).collect();
    let began = Instant::now();
    try_join_all(sims.iter().map(Sim::accept)).await?;
    let (mut most, mut looks) = (0, VecDeque::new());
    loop {
        let now = Instant::now();
        let count = logins(sims);
        looks.push_back((now, count));
        while looks.front().is_some_and(|(at, _)| now - *at > SECOND) {
            looks.pop_front();
        }
        most = most.max(count - looks.front().map_or(count, |(_, before)| *before));
        if sims.iter().all(|sim| sim.sessions() > 0) {
            break;
        }
        if began.elapsed() > BACK {
            let back = sims.iter().filter(|sim| sim.sessions() > 0).count();
            return Err(io::Error::other(format!("only {back} servers were back after {BACK:?}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    let took = began.elapsed().as_millis();
    let tries = sims.iter().zip(tries).map(|(sim, before)| sim.stats().connections - before).max();
    Ok(format!("back {took} {most} {}", tries.unwrap_or(0)))
}
