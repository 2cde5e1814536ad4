//! Somebody who asks for the metrics all the time, and adds up each answer.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::identity::{self, Lane};

/// How often.
const EVERY: Duration = Duration::from_millis(25);
/// For something that must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// Scrapes that are kept.
const MAX_KEPT: usize = 100_000;

/// One scrape that added up.
#[derive(Clone, Debug)]
pub(super) struct Scrape {
    pub(super) at: Instant,
    pub(super) lanes: Vec<Lane>,
    /// By bus, the age of the oldest waiting message in seconds.
    pub(super) oldest: Vec<(String, f64)>,
}

#[derive(Default)]
struct Kept {
    scrapes: Vec<Scrape>,
    wrong: Vec<String>,
}

/// Scrapes until it is dropped.
pub(super) struct Scraper {
    kept: Arc<Mutex<Kept>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Scraper {
    /// Begins with `port`. Whoever does not answer is asked again.
    pub(super) fn start(port: u16) -> Self {
        let (kept, stop) = (Arc::<Mutex<Kept>>::default(), Arc::<AtomicBool>::default());
        let (into, stopped) = (Arc::clone(&kept), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if let Some((200, text)) = get(port, "/metrics") {
                    let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                    match identity::check(&text) {
                        Err(wrong) => kept.wrong.push(wrong),
                        Ok(lanes) if kept.scrapes.len() < MAX_KEPT => {
                            let oldest = oldest(&text);
                            kept.scrapes.push(Scrape { at: Instant::now(), lanes, oldest });
                        }
                        Ok(_) => {}
                    }
                }
                thread::sleep(EVERY);
            }
        });
        Self { kept, stop, thread: Some(thread) }
    }

    /// Waits for a scrape with such lanes.
    ///
    /// # Panics
    /// Where none comes in time.
    pub(super) fn until(&self, what: &str, found: impl Fn(&[Lane]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.scrapes().iter().any(|scrape| found(&scrape.lanes)) {
            assert!(Instant::now() < deadline, "no scrape with {what}");
            thread::sleep(EVERY);
        }
    }

    /// All scrapes so far.
    ///
    /// # Panics
    /// Where one did not add up.
    pub(super) fn scrapes(&self) -> Vec<Scrape> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (wrong, of) = (kept.wrong.len(), kept.wrong.len() + kept.scrapes.len());
        assert!(kept.wrong.is_empty(), "{wrong} of {of} scrapes do not add up; the first: {}", kept.wrong[0]);
        kept.scrapes.clone()
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn oldest(text: &str) -> Vec<(String, f64)> {
    let samples = text.lines().filter_map(|line| line.strip_prefix("amibus_oldest_waiting_seconds{"));
    let bus_and_age = |sample: &str| {
        let (labels, value) = sample.split_once("} ")?;
        let bus = labels.split("bus=\"").nth(1)?.split('"').next()?;
        Some((bus.to_owned(), value.parse().ok()?))
    };
    samples.filter_map(bus_and_age).collect()
}

/// `GET path`: status and body. `None` while nobody listens.
pub(super) fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    // A process that is killed in the middle of an answer leaves half of it.
    let whole = path != "/metrics" || body.ends_with("# EOF\n");
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned())).filter(|_| whole)
}
