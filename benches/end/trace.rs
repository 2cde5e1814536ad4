//! What a consumer saw of stamped events: when each was sent and when it came.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, BufWriter, Read as _, Write as _},
    ops::Range,
    path::Path,
};

use memchr::memmem;

use crate::{
    consume::Sink,
    pace::now_micros,
    traffic::{STAMP_KEY, stamp},
};

/// One event; moments are microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Where order is kept: a partition, or a server.
    pub(crate) place: i32,
    pub(crate) sent: u64,
    pub(crate) came: u64,
}

/// Keeps the arrivals of `count` events that are sent after it was made.
pub(crate) struct Tracer {
    count: usize,
    since: u64,
    arrivals: Vec<Arrival>,
    /// The moments at which they were sent, of which no two are the same.
    seen: HashSet<u64>,
    finder: memmem::Finder<'static>,
}

impl Tracer {
    pub(crate) fn new(count: u64) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (arrivals, seen) =
            (Vec::with_capacity(count.min(1 << 24)), HashSet::with_capacity(count.min(1 << 24)));
        Self { count, since: now_micros(), arrivals, seen, finder: memmem::Finder::new(STAMP_KEY) }
    }

    /// Writes all arrivals into a file.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(file)?);
        for one in &self.arrivals {
            out.write_all(&one.place.to_le_bytes())?;
            out.write_all(&one.sent.to_le_bytes())?;
            out.write_all(&one.came.to_le_bytes())?;
        }
        out.flush()
    }
}

impl Sink for Tracer {
    fn take(&mut self, place: i32, body: &[u8], _: usize) -> bool {
        let came = now_micros();
        if let Some(sent) = stamp(&self.finder, body).filter(|sent| *sent >= self.since) {
            self.arrivals.push(Arrival { place, sent, came });
            self.seen.insert(sent);
        }
        self.seen.len() >= self.count
    }
}

/// All arrivals of a run, in the order in which they came.
pub(crate) struct Trace {
    pub(crate) arrivals: Vec<Arrival>,
}

impl Trace {
    /// Reads what [`Tracer::write`] wrote.
    pub(crate) fn read(file: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(file)?.read_to_end(&mut bytes)?;
        let arrivals = bytes.as_chunks::<20>().0.iter().filter_map(|chunk| {
            let (place, rest) = chunk.split_first_chunk::<4>()?;
            let (sent, came) = rest.split_first_chunk::<8>()?;
            Some(Arrival {
                place: i32::from_le_bytes(*place),
                sent: u64::from_le_bytes(*sent),
                came: u64::from_le_bytes(*came.first_chunk::<8>()?),
            })
        });
        Ok(Self { arrivals: arrivals.collect() })
    }

    /// Without what had come before in its place, and how much that was: a broker that is killed has stored what it could not
    /// confirm, and is offered it again.
    pub(crate) fn without_repeats(mut self) -> (Self, usize) {
        let (mut seen, all) = (HashSet::with_capacity(self.arrivals.len()), self.arrivals.len());
        self.arrivals.retain(|one| seen.insert((one.place, one.sent)));
        let repeats = all - self.arrivals.len();
        (self, repeats)
    }

    /// Whether all that was sent came, once and in order.
    pub(crate) fn check(&self, count: u64, sum: u64) -> io::Result<()> {
        let void = |what: String| Err(io::Error::other(what));
        if self.arrivals.len() as u64 != count {
            return void(format!("{} of {count} came", self.arrivals.len()));
        }
        let mut last = HashMap::new();
        for one in &self.arrivals {
            if last.insert(one.place, one.sent).is_some_and(|before| before >= one.sent) {
                return void(format!("the event of {} came twice, or late", one.sent));
            }
        }
        let came = self.arrivals.iter().fold(0_u64, |sum, one| sum.wrapping_add(one.sent));
        if came == sum { Ok(()) } else { void("other events came than were sent".to_owned()) }
    }

    /// How many came in the place where most did: of the same events, the same number.
    pub(crate) fn most_in_one_place(&self) -> u64 {
        let mut places = HashMap::new();
        self.arrivals.iter().for_each(|one| *places.entry(one.place).or_default() += 1);
        places.into_values().max().unwrap_or(0)
    }

    /// Milliseconds from sending to arriving at these parts of all that were sent in `within`, least first.
    pub(crate) fn latency<const N: usize>(&self, within: Range<u64>, parts: [f64; N]) -> [f64; N] {
        let mut waits: Vec<u64> = self
            .arrivals
            .iter()
            .filter(|one| within.contains(&one.sent))
            .map(|one| one.came.saturating_sub(one.sent))
            .collect();
        waits.sort_unstable();
        parts.map(|part| {
            let at = (waits.len() as f64 * part) as usize;
            waits.get(at.min(waits.len().saturating_sub(1))).map_or(f64::NAN, |micros| *micros as f64 / 1e3)
        })
    }
}
