//! The calls that are part of the program, so that `amibus demo` needs no file.
//!
//! Recorded on Asterisk 22.10.1: two Dial calls, a queue call, an originated call. Left out are what a lab
//! build says about itself (TestEvent) and what does not belong to the calls (PJSIP peers).

use crate::recording::Recording;

const CALLS: &[(&str, &[u8])] = &[
    ("dial-basic-22", include_bytes!("../recordings/dial-basic-22.s2c")),
    ("queue-answered-22", include_bytes!("../recordings/queue-answered-22.s2c")),
    ("originate-answer-22", include_bytes!("../recordings/originate-answer-22.s2c")),
];

impl Recording {
    /// Every embedded call.
    pub fn embedded() -> Vec<Self> {
        CALLS.iter().filter_map(|(name, bytes)| Self::from_bytes(name, bytes).ok()).collect()
    }

    /// One embedded call by its name: `dial-basic-22`, `queue-answered-22` or `originate-answer-22`.
    pub fn named(name: &str) -> Option<Self> {
        let (name, bytes) = CALLS.iter().find(|(known, _)| *known == name)?;
        Self::from_bytes(name, bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_call_can_be_played() {
        let lengths: Vec<usize> = Recording::embedded().iter().map(Recording::len).collect();
        assert_eq!(lengths, [171, 163, 40]);
    }
}
