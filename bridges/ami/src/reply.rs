//! What becomes of an action: its response, with the event list that the response announced.

use thiserror::Error;

use crate::frame::{Frame, OwnedFrame};
use crate::limits::{ITEM_OVERHEAD_BYTES, Limits};

/// The whole answer to one action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The response itself, whatever its status.
    pub response: OwnedFrame,
    /// The events of its list, in order, without the last.
    pub items: Vec<OwnedFrame>,
    /// The event that ended the list; `None` where there was no list.
    pub complete: Option<OwnedFrame>,
}

impl Reply {
    pub(crate) fn single(response: &Frame<'_>) -> Self {
        Self { response: response.to_owned(), items: Vec::new(), complete: None }
    }

    /// Whether one event more, which makes it `bytes` in all, is too much; the session's other lists take
    /// `others` bytes.
    pub(crate) fn broken_by(
        &self,
        ends: bool,
        bytes: usize,
        others: usize,
        limits: &Limits,
    ) -> Option<ReplyError> {
        if !ends && self.items.len() >= limits.list_items {
            let limit = limits.list_items;
            return Some(ReplyError::ListTooLong { limit, response: self.response.clone() });
        }
        let all = others
            .saturating_add(bytes)
            .saturating_add(self.items.len().saturating_add(1).saturating_mul(ITEM_OVERHEAD_BYTES));
        let passed = [(bytes, limits.list_bytes), (all, limits.lists_bytes)];
        let (_, limit) = passed.into_iter().find(|(bytes, limit)| bytes > limit)?;
        Some(ReplyError::ListTooLarge { limit, response: self.response.clone() })
    }
}

/// Why there is no whole reply. The session goes on; what still comes for the action is swallowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// Its deadline passed. Where `written` is false Asterisk never saw it, and it may be sent again.
    #[error("no whole answer in time")]
    TimedOut {
        /// Whether its bytes had been handed out to be written.
        written: bool,
        /// The response, where only the end of its list is missing.
        response: Option<OwnedFrame>,
    },
    /// Its list has more events than [`Limits::list_items`].
    #[error("event list of more than {limit} events")]
    ListTooLong {
        /// The limit, in events.
        limit: usize,
        /// What Asterisk answered: the action was carried out.
        response: OwnedFrame,
    },
    /// Its list has more bytes than [`Limits::list_bytes`], or all lists of the session together have more than
    /// [`Limits::lists_bytes`].
    #[error("event list of more than {limit} bytes")]
    ListTooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// What Asterisk answered: the action was carried out.
        response: OwnedFrame,
    },
}
