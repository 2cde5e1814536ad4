//! Commands of one partition that are about to be run, until a commit that says so is confirmed.
//!
//! A broker takes no commit of a member that the group has expelled, so what is confirmed was begun while the partition
//! was ours. All that wait are served by one commit.

use amibus_contract::Fault;
use tokio::sync::oneshot;

use crate::tracker::Tracker;

/// Where the answer to a begin goes.
type Waiter = oneshot::Sender<Result<(), Fault>>;

/// Those that wait. Bounded by the commands in work.
#[derive(Debug, Default)]
pub(crate) struct Begins {
    waiting: Vec<(i64, Waiter)>,
    /// Those whose begin is in the commit on its way.
    told: Vec<(i64, Waiter)>,
}

impl Begins {
    /// This command is to be begun.
    pub(crate) fn add(&mut self, offset: i64) -> oneshot::Receiver<Result<(), Fault>> {
        let (waiter, answer) = oneshot::channel();
        self.waiting.push((offset, waiter));
        answer
    }

    /// A commit is being written: it says that all of these are begun that a commit can tell of. Whoever does not wait any
    /// more has not run its command, and will not.
    pub(crate) fn write(&mut self, tracker: &mut Tracker) {
        let mut later = Vec::new();
        for (offset, waiter) in self.waiting.drain(..) {
            if waiter.is_closed() {
                tracker.unbegin(offset);
            } else if tracker.begin(offset) {
                self.told.push((offset, waiter));
            } else {
                later.push((offset, waiter));
            }
        }
        self.waiting = later;
    }

    /// How that commit went. Answers whether there is something to commit anew.
    pub(crate) fn committed(&mut self, kept: bool, tracker: &mut Tracker) -> bool {
        if !kept {
            // Nobody knows whether the broker has it. It is said again.
            self.told.append(&mut self.waiting);
            self.waiting = std::mem::take(&mut self.told);
            return !self.waiting.is_empty();
        }
        let mut anew = false;
        for (offset, waiter) in self.told.drain(..) {
            if waiter.send(Ok(())).is_err() {
                tracker.unbegin(offset);
                anew = true;
            }
        }
        anew
    }

    /// None of these can be begun here any more, and none is run: also one that asks once more, just before it would be.
    /// Answers whether there is something to commit anew.
    pub(crate) fn refuse(&mut self, fault: &Fault, tracker: Option<&mut Tracker>) -> bool {
        let mut refused = Vec::new();
        for (offset, waiter) in self.waiting.drain(..).chain(self.told.drain(..)) {
            let _ = waiter.send(Err(fault.clone()));
            refused.push(offset);
        }
        let Some(tracker) = tracker else { return false };
        refused.iter().filter(|offset| tracker.unbegin(**offset)).count() > 0
    }
}

#[cfg(test)]
mod tests {
    use amibus_contract::FaultKind;

    use super::*;
    use crate::marks::WINDOW;

    fn tracker() -> Tracker {
        let mut tracker = Tracker::resume(Some(0), "");
        for offset in [0, 1, WINDOW] {
            tracker.comes(offset);
        }
        tracker
    }

    #[test]
    fn a_begin_is_answered_by_the_commit_that_tells_it() {
        let (mut tracker, mut begins) = (tracker(), Begins::default());
        let mut first = begins.add(0);
        begins.write(&mut tracker);
        let mut second = begins.add(1);
        assert!(tracker.is_begun(0) && !tracker.is_begun(1));
        assert!(begins.committed(false, &mut tracker), "it is said again");
        assert!(first.try_recv().is_err());
        begins.write(&mut tracker);
        assert!(!begins.committed(true, &mut tracker));
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(Ok(())), Ok(Ok(()))));
        assert!(tracker.is_begun(0) && tracker.is_begun(1));
    }

    #[test]
    fn who_does_not_wait_any_more_has_begun_nothing() {
        let (mut tracker, mut begins) = (tracker(), Begins::default());
        drop(begins.add(0));
        begins.write(&mut tracker);
        assert!(!tracker.is_begun(0));
        let late = begins.add(0);
        begins.write(&mut tracker);
        drop(late);
        assert!(
            begins.committed(true, &mut tracker) && !tracker.is_begun(0),
            "the next commit takes it back"
        );
    }

    #[test]
    fn what_no_commit_can_tell_of_yet_waits_and_what_goes_is_refused() {
        let (mut tracker, mut begins) = (tracker(), Begins::default());
        let mut far = begins.add(WINDOW);
        begins.write(&mut tracker);
        assert!(!begins.committed(true, &mut tracker) && far.try_recv().is_err());
        tracker.finish(0);
        begins.write(&mut tracker);
        assert!(tracker.is_begun(WINDOW));
        assert!(
            begins.refuse(&Fault::new(FaultKind::Refused, "gone"), Some(&mut tracker)),
            "that is to be told"
        );
        assert!(matches!(far.try_recv(), Ok(Err(_))) && !tracker.is_begun(WINDOW), "it is not run");
    }

    #[test]
    fn who_asks_anew_is_begun_whatever_became_of_the_first_question() {
        let (mut tracker, mut begins) = (tracker(), Begins::default());
        let first = begins.add(0);
        begins.write(&mut tracker);
        drop(first);
        let mut second = begins.add(0);
        assert!(begins.committed(false, &mut tracker));
        begins.write(&mut tracker);
        assert!(tracker.is_begun(0), "the commit says so");
        begins.committed(true, &mut tracker);
        assert_eq!((second.try_recv(), tracker.is_begun(0)), (Ok(Ok(())), true));
    }
}
