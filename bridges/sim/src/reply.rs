//! Responses and lists, as one block each: nothing can come between the items of a list.

use crate::event::push_line;
use crate::wire::Action;

/// A response being written, and the list items after it.
#[derive(Debug)]
pub(crate) struct Reply {
    out: Vec<u8>,
    action_id: Vec<u8>,
    items: usize,
}

impl Reply {
    /// `Response: <kind>` and the action's own ActionID, byte for byte.
    pub(crate) fn new(kind: &str, action: &Action) -> Self {
        let mut reply = Self {
            out: Vec::new(),
            action_id: action.bytes("ActionID").unwrap_or_default().to_vec(),
            items: 0,
        };
        push_line(&mut reply.out, "Response", kind);
        reply.push_action_id();
        reply
    }

    pub(crate) fn success(action: &Action, message: &str) -> Self {
        Self::new("Success", action).line("Message", message)
    }

    pub(crate) fn error(action: &Action, message: &str) -> Self {
        Self::new("Error", action).line("Message", message)
    }

    /// A response that announces a list.
    pub(crate) fn list(action: &Action, message: &str) -> Self {
        Self::new("Success", action).line("EventList", "start").line("Message", message).end_block()
    }

    pub(crate) fn line(mut self, name: &str, value: &str) -> Self {
        push_line(&mut self.out, name, value);
        self
    }

    /// A list item: its event name, its ActionID and its lines.
    pub(crate) fn item(mut self, event: &str, lines: &[u8]) -> Self {
        push_line(&mut self.out, "Event", event);
        self.push_action_id();
        self.out.extend_from_slice(lines);
        self.items += 1;
        self.end_block()
    }

    /// A list item whose ActionID comes last, as app_queue writes it.
    pub(crate) fn queue_item(mut self, event: &str, lines: &[(&str, &str)]) -> Self {
        push_line(&mut self.out, "Event", event);
        for (name, value) in lines {
            push_line(&mut self.out, name, value);
        }
        self.push_action_id();
        self.items += 1;
        self.end_block()
    }

    /// The end of the list, with the number of its items.
    pub(crate) fn complete(mut self, event: &str) -> Vec<u8> {
        push_line(&mut self.out, "Event", event);
        self.push_action_id();
        push_line(&mut self.out, "EventList", "Complete");
        push_line(&mut self.out, "ListItems", &self.items.to_string());
        self.end_block().out
    }

    /// The response with the empty line that ends it.
    pub(crate) fn end(self) -> Vec<u8> {
        self.end_block().out
    }

    fn end_block(mut self) -> Self {
        self.out.extend_from_slice(b"\r\n");
        self
    }

    fn push_action_id(&mut self) {
        if !self.action_id.is_empty() {
            self.out.extend_from_slice(b"ActionID: ");
            self.out.extend_from_slice(&self.action_id);
            self.out.extend_from_slice(b"\r\n");
        }
    }
}
