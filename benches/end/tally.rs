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
    /// The number that is next in each place where order is kept.
    last: HashMap<i32, u64>,
    seen: Vec<u64>,
    bytes: u64,
    wrong: Option<String>,
    finder: memmem::Finder<'static>,
}

impl Tally {
    pub(crate) fn new(count: u64) -> Self {
        let words = usize::try_from(count / 64 + 1).unwrap_or(0);
        let (last, seen) = (HashMap::new(), vec![0; words]);
        Self { count, came: 0, last, seen, bytes: 0, wrong: None, finder: memmem::Finder::new(STAMP_KEY) }
    }

    /// `whole BYTES`, or what was wrong.
    pub(crate) fn verdict(&self) -> String {
        match &self.wrong {
            None if self.came == self.count => format!("whole {}", self.bytes),
            None => format!("void: {} of {} came", self.came, self.count),
            Some(wrong) => format!("void: {wrong}"),
        }
    }
}

impl Sink for Tally {
    fn take(&mut self, place: i32, body: &[u8], bytes: usize) -> bool {
        let Some(number) = number(&self.finder, body) else { return false };
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        let before = self.last.insert(place, number);
        let wrong = match self.seen.get_mut(word) {
            Some(seen) if *seen & bit == 0 && number < self.count => {
                *seen |= bit;
                before.is_some_and(|before| before > number).then_some("came late")
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
