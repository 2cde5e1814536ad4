//! What a consumer keeps: that every event came, once, and in order.

use std::collections::HashMap;

use memchr::memmem;

use crate::{
    consume::Sink,
    traffic::{STAMP_KEY, number},
};

/// Counts the events 0 to `count`; messages that are no events are passed over.
pub(crate) struct Tally {
    count: u64,
    came: u64,
    /// The number that came last in each place where order is kept, and how many came there.
    places: HashMap<i32, (u64, u64)>,
    seen: Vec<u64>,
    bytes: u64,
    wrong: Option<String>,
    finder: memmem::Finder<'static>,
}

impl Tally {
    pub(crate) fn new(count: u64) -> Self {
        let words = usize::try_from(count / 64 + 1).unwrap_or(0);
        let (places, seen) = (HashMap::new(), vec![0; words]);
        Self { count, came: 0, places, seen, bytes: 0, wrong: None, finder: memmem::Finder::new(STAMP_KEY) }
    }

    /// `whole BYTES MOST`, the most that came in one place, or what was wrong.
    pub(crate) fn verdict(&self) -> String {
        let most = self.places.values().map(|(_, came)| *came).max().unwrap_or(0);
        match &self.wrong {
            None if self.came == self.count => format!("whole {} {most}", self.bytes),
            None => format!("void: {} of {} came", self.came, self.count),
            Some(wrong) => format!("void: {wrong}"),
        }
    }
}

impl Sink for Tally {
    fn take(&mut self, place: i32, body: &[u8], bytes: usize) -> bool {
        let Some(number) = number(&self.finder, body) else { return false };
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        let (last, came) = self.places.entry(place).or_insert((number, 0));
        let before = std::mem::replace(last, number);
        *came += 1;
        let wrong = match self.seen.get_mut(word) {
            Some(seen) if *seen & bit == 0 && number < self.count => {
                *seen |= bit;
                (before > number).then_some("came late")
            }
            Some(_) => Some("came twice, or is none of these"),
            None => Some("is none of these"),
        };
        if let (Some(wrong), None) = (wrong, &self.wrong) {
            self.wrong = Some(format!("event {number} {wrong}"));
        }
        self.came += 1;
        self.bytes += bytes as u64;
        self.came >= self.count
    }
}
