//! A session that a server, a clock and callers pull about: every action ends exactly once, every event comes
//! out exactly once, nothing panics, and a session that is over stays over.
//!
//! Input: a program, one byte an instruction, some followed by a length and bytes of the server. In
//! those, `@0` to `@7` stand for the ActionIDs of the last actions, so that lists can be answered.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use amibus_ami::{Action, ActionIds, Limits, LoginMethod, Output, Session, SessionConfig, SessionError};

const ACTIONS: [&str; 6] = ["Ping", "QueueStatus", "FAXStats", "Originate", "Command", "WaitEvent"];

#[derive(Default)]
struct Heard {
    ended: HashMap<u64, u32>,
    open: usize,
}

impl Heard {
    fn hear(&mut self, output: Output<'_>) {
        match output {
            Output::Reply { token, .. } | Output::Unanswered { token, .. } => {
                *self.ended.entry(token).or_default() += 1;
                self.open -= 1;
            }
            Output::Event(frame) | Output::Other(frame) | Output::Stray(frame) => {
                frame.headers().for_each(drop);
            }
            _ => {}
        }
    }
}

pub(crate) fn run(mut program: &[u8]) {
    let limits = Limits {
        frame_bytes: 4_096,
        list_items: 3,
        list_bytes: 600,
        pending_actions: 4,
        ..Limits::default()
    };
    let flags = next(&mut program);
    let config = SessionConfig {
        login: if flags & 1 == 0 { LoginMethod::Plain } else { LoginMethod::Md5 },
        limits: limits.clone(),
        ..SessionConfig::new("fuzz", "secret".into(), ActionIds::new([3; 16]))
    };
    let mut now = Instant::now();
    let mut session = Session::new(config, now).expect("a login that can be sent");
    let (mut heard, mut unread, mut ids, mut token) = (Heard::default(), Vec::new(), VecDeque::new(), 0);
    let mut result = Ok(());
    while !program.is_empty() && result.is_ok() {
        let instruction = next(&mut program);
        match instruction % 5 {
            0 | 1 => {
                let length = usize::from(next(&mut program));
                let (bytes, rest) = program.split_at(length.min(program.len()));
                program = rest;
                named(bytes, &ids, &mut unread);
                match session.input(&unread, now, &mut |output| heard.hear(output)) {
                    Ok(consumed) => drop(unread.drain(..consumed)),
                    Err(error) => result = Err(error),
                }
            }
            2 => {
                let action =
                    Action::new(ACTIONS[usize::from(instruction / 5) % ACTIONS.len()]).expect("a name");
                if let Ok(id) = session.send(&action, token, now) {
                    remember(&mut ids, id.as_str());
                    (heard.open, token) = (heard.open + 1, token + 1);
                    assert!(heard.open <= limits.pending_actions);
                }
            }
            3 => {
                if let Some(bytes) = session.next_transmit(now) {
                    let text = String::from_utf8(bytes).expect("text");
                    remember(
                        &mut ids,
                        text.lines().nth(1).and_then(|l| l.strip_prefix("ActionID: ")).expect("an id"),
                    );
                }
            }
            _ => {
                now += Duration::from_millis(u64::from(instruction) * 100);
                result = session.tick(now, &mut |output| heard.hear(output));
                let due = session.next_deadline();
                assert!(
                    result.is_err() || due.is_some_and(|due| due > now),
                    "a deadline that was served stays"
                );
            }
        }
    }
    if result.is_err() {
        assert_eq!(
            session.input(b"Event: X\r\n\r\n", now, &mut |_| panic!("over")),
            Err(SessionError::Closed)
        );
        assert!(session.next_deadline().is_none());
    }
    session.close(&unread, &mut |output| heard.hear(output));
    assert_eq!((heard.open, heard.ended.len() as u64), (0, token), "every action ends");
    assert!(heard.ended.values().all(|times| *times == 1), "and only once");
}

fn next(program: &mut &[u8]) -> u8 {
    let Some((first, rest)) = program.split_first() else { return 0 };
    *program = rest;
    *first
}

fn remember(ids: &mut VecDeque<String>, id: &str) {
    if !ids.iter().any(|known| known == id) {
        ids.push_front(id.to_owned());
        ids.truncate(8);
    }
}

fn named(bytes: &[u8], ids: &VecDeque<String>, out: &mut Vec<u8>) {
    let mut bytes = bytes.iter().peekable();
    while let Some(byte) = bytes.next() {
        let id = bytes
            .peek()
            .filter(|_| *byte == b'@')
            .and_then(|digit| ids.get(usize::from(digit.wrapping_sub(b'0'))));
        match id {
            Some(id) => {
                out.extend_from_slice(id.as_bytes());
                bytes.next();
            }
            None => out.push(*byte),
        }
    }
}
