//! Where messages begin and end in a stream that the engine writes.

use super::{COMMAND, GREETING_BYTES, LONG, MORE};

/// Follows a stream of ZMTP bytes, cut anywhere, and knows the places between two messages: only there may a frame
/// of ours be put in.
#[derive(Debug)]
pub(crate) struct Scanner {
    state: State,
    in_message: bool,
    ready: bool,
    messages: u64,
}

#[derive(Debug)]
enum State {
    Greeting { left: usize },
    Flags,
    Length { flags: u8, left: u8, value: u64 },
    Body { flags: u8, left: u64 },
}

impl Scanner {
    /// At the start of a connection.
    pub(crate) fn new() -> Self {
        Self { state: State::Greeting { left: GREETING_BYTES }, in_message: false, ready: false, messages: 0 }
    }

    /// How many whole messages (not commands) have passed.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether the stream now stands after the handshake and between two messages.
    pub(crate) fn between(&self) -> bool {
        self.ready && !self.in_message && matches!(self.state, State::Flags)
    }

    /// Follows `bytes`; answers the last place among them that is between two messages, counted from their start.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        let mut between = None;
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = rest.get(taken..).unwrap_or_default();
            if self.between() {
                between = Some(bytes.len() - rest.len());
            }
        }
        between
    }

    /// Takes as many bytes as belong to the same part; answers how many, at least one of what there is.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes.first().copied().unwrap_or_default();
        match &mut self.state {
            State::Greeting { left } => {
                let taken = (*left).min(bytes.len());
                *left -= taken;
                if *left == 0 {
                    self.state = State::Flags;
                }
                taken
            }
            State::Flags => match head(bytes) {
                Some((length, taken)) => {
                    self.body(byte, length);
                    taken
                }
                None => {
                    let left = if byte & LONG == 0 { 1 } else { 8 };
                    self.state = State::Length { flags: byte, left, value: 0 };
                    1
                }
            },
            State::Length { flags, left, value } => {
                *value = *value << 8 | u64::from(byte);
                *left -= 1;
                if *left == 0 {
                    let (flags, bytes) = (*flags, *value);
                    self.body(flags, bytes);
                }
                1
            }
            State::Body { flags, left } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let (flags, left) = (*flags, *left - taken as u64);
                self.body(flags, left);
                taken
            }
        }
    }

    /// So many bytes of a frame's body are left.
    fn body(&mut self, flags: u8, left: u64) {
        if left > 0 {
            self.state = State::Body { flags, left };
            return;
        }
        self.state = State::Flags;
        if flags & COMMAND != 0 {
            self.ready = true;
        } else {
            self.in_message = flags & MORE != 0;
            self.messages += u64::from(!self.in_message);
        }
    }
}

/// The length of the body of the frame that begins here, and how many bytes say so; none where not all of them are there.
fn head(bytes: &[u8]) -> Option<(u64, usize)> {
    let (flags, rest) = bytes.split_first()?;
    match flags & LONG {
        0 => Some((u64::from(*rest.first()?), 2)),
        _ => Some((u64::from_be_bytes(*rest.first_chunk()?), 9)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{super::*, *};

    /// A stream, and the places in it between two messages.
    fn stream() -> (Vec<u8>, Vec<usize>) {
        let mut out = BytesMut::from(&greeting()[..]);
        out.extend_from_slice(&Ready { socket: "XPUB".into() }.frame(b"x"));
        let mut places = vec![out.len()];
        for size in [0, 3, 255, 256, 1000] {
            out.extend_from_slice(&message([&b"topic"[..], &vec![1; size]]));
            places.push(out.len());
            put_frame(&mut out, 0, &vec![2; size]);
            places.push(out.len());
        }
        (out.to_vec(), places)
    }

    #[test]
    fn any_way_of_cutting_finds_the_same_places() {
        let (bytes, places) = stream();
        for step in (1..=10).chain([64, 65, 300, bytes.len()]) {
            let mut scanner = Scanner::new();
            let mut at = 0;
            for chunk in bytes.chunks(step) {
                let last = places.iter().copied().filter(|p| (at + 1..=at + chunk.len()).contains(p)).max();
                assert_eq!(scanner.feed(chunk).map(|p| p + at), last, "step {step} at {at}");
                at += chunk.len();
                assert_eq!(scanner.between(), places.contains(&at), "step {step} at {at}");
            }
            assert_eq!(scanner.messages(), 10);
        }
    }
}
