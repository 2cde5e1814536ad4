//! Who waits, by the set of limits that apply: first come first served within a set, and heads by their arrival.
//!
//! A head that finds one of its limits full lets younger ones pass, so that one group's full limit holds up no other. Where
//! sets cross (one waits for A and B, others for A alone and for B alone) it might so be passed for ever: whenever A has
//! room B has none, and the other way round. So once each of its limits had room while it waited, it is *passed over*, and
//! for [`HELD_FOR`] in every two of these its limits are kept for it.
//!
//! A grant looks at one head a set. Sets that nobody waits for are forgotten.

use std::{collections::BTreeMap, time::Duration};

use super::{Set, members};

/// How long limits are kept for who was passed over, before others may pass for as long.
pub(super) const HELD_FOR: Duration = Duration::from_secs(30);

/// The place in line; the lower, the earlier it came. No two are the same.
pub(crate) type Ticket = u64;

/// Everybody who waits.
#[derive(Debug)]
pub(super) struct Queue<W> {
    classes: BTreeMap<Set, Class<W>>,
}

#[derive(Debug)]
struct Class<W> {
    waiting: BTreeMap<Ticket, W>,
    /// The limits that had room while the head had to wait for others.
    seen: Set,
    /// Since when limits are kept for the head.
    held: Option<Duration>,
}

impl<W> Default for Queue<W> {
    fn default() -> Self {
        Self { classes: BTreeMap::new() }
    }
}

impl<W> Queue<W> {
    pub(super) fn add(&mut self, set: Set, ticket: Ticket, who: W) {
        let class = self.classes.entry(set).or_insert_with(|| Class {
            waiting: BTreeMap::new(),
            seen: 0,
            held: None,
        });
        class.waiting.insert(ticket, who);
    }

    /// Answers whether it was waiting.
    pub(super) fn remove(&mut self, set: Set, ticket: Ticket) -> bool {
        let Some(class) = self.classes.get_mut(&set) else { return false };
        let is_head = class.waiting.first_key_value().is_some_and(|(first, _)| *first == ticket);
        let was_waiting = class.waiting.remove(&ticket).is_some();
        if is_head {
            (class.seen, class.held) = (0, None);
        }
        if class.waiting.is_empty() {
            self.classes.remove(&set);
        }
        was_waiting
    }

    /// The earliest who finds room in each of their limits. `free` are the limits that have some.
    pub(super) fn take(&mut self, free: Set, now: Duration) -> Option<(Set, W)> {
        let head = |(set, class): (&Set, &Class<W>)| Some((*class.waiting.first_key_value()?.0, *set));
        let mut heads: Vec<(Ticket, Set)> = self.classes.iter().filter_map(head).collect();
        heads.sort_unstable();
        let mut open = free;
        for (ticket, set) in heads {
            let class = self.classes.get_mut(&set)?;
            if set & !open == 0 {
                let who = class.waiting.remove(&ticket)?;
                (class.seen, class.held) = (0, None);
                if class.waiting.is_empty() {
                    self.classes.remove(&set);
                }
                return Some((set, who));
            }
            class.seen |= set & free;
            if class.seen == set && class.is_kept_for(now) {
                open &= !set;
            }
        }
        None
    }

    /// The sets that somebody waits for.
    pub(super) fn sets(&self) -> impl Iterator<Item = Set> {
        self.classes.keys().copied()
    }

    /// When it may go on though nothing else happened: limits are no longer kept for a head.
    pub(super) fn wake(&self, now: Duration) -> Option<Duration> {
        let ends = self.classes.values().filter_map(|class| Some(class.held? + HELD_FOR));
        ends.filter(|at| *at > now).min()
    }

    /// How many wait for this limit.
    pub(super) fn waiting(&self, limit: usize) -> usize {
        let about = |set: &Set| members(*set).any(|member| member == limit);
        self.classes.iter().filter(|(set, _)| about(set)).map(|(_, class)| class.waiting.len()).sum()
    }
}

impl<W> Class<W> {
    fn is_kept_for(&mut self, now: Duration) -> bool {
        let since = *self.held.get_or_insert(now);
        let held = now.saturating_sub(since);
        if held >= 2 * HELD_FOR {
            self.held = Some(now);
            return true;
        }
        held < HELD_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Set = 1;
    const B: Set = 2;
    const NOW: Duration = Duration::from_secs(100);

    fn queue(waiting: &[(Set, Ticket)]) -> Queue<Ticket> {
        let mut queue = Queue::default();
        for (set, ticket) in waiting {
            queue.add(*set, *ticket, *ticket);
        }
        queue
    }

    #[test]
    fn first_come_first_served_within_a_set_and_among_heads() {
        let mut queue = queue(&[(A, 5), (A, 2), (B, 3), (A | B, 1)]);
        let mut order = Vec::new();
        while let Some((_, who)) = queue.take(A | B, NOW) {
            order.push(who);
        }
        assert_eq!(order, [1, 2, 3, 5]);
        assert_eq!(queue.sets().count(), 0);
    }

    #[test]
    fn a_full_limit_holds_up_nobody_else() {
        let mut queue = queue(&[(A, 1), (A | B, 2), (B, 3), (B, 4)]);
        assert_eq!(queue.take(B, NOW), Some((B, 3)));
        assert_eq!(
            queue.take(B, NOW + 10 * HELD_FOR),
            Some((B, 4)),
            "A never had room: nobody was passed over"
        );
        assert_eq!(queue.take(B, NOW), None);
        assert_eq!((queue.waiting(0), queue.waiting(1)), (2, 1));
    }

    #[test]
    fn who_was_passed_over_is_kept_a_place_for_a_while() {
        let mut queue = queue(&[(A | B, 1), (A, 2), (B, 3), (A, 4), (B, 5)]);
        assert_eq!(queue.take(A, NOW), Some((A, 2)));
        assert_eq!(queue.take(B, NOW), None, "now both had room, one after the other");
        assert_eq!(queue.wake(NOW), Some(NOW + HELD_FOR));
        assert_eq!(queue.take(A, NOW), None);
        assert_eq!(queue.take(B, NOW + HELD_FOR), Some((B, 3)), "others in between");
        assert_eq!(queue.take(A, NOW + 2 * HELD_FOR), None, "and again");
        assert_eq!(queue.take(A | B, NOW + 2 * HELD_FOR), Some((A | B, 1)));
        assert_eq!(queue.take(A, NOW + 2 * HELD_FOR), Some((A, 4)));
    }

    #[test]
    fn who_leaves_is_gone_and_what_was_kept_with_them() {
        let mut queue = queue(&[(A | B, 1), (A, 2), (B, 3)]);
        assert_eq!(queue.take(A, NOW), Some((A, 2)));
        assert_eq!(queue.take(B, NOW), None);
        assert!(queue.remove(A | B, 1) && !queue.remove(A | B, 1));
        assert_eq!(queue.take(B, NOW), Some((B, 3)));
    }
}
