//! Whole recorded sessions through [`Session`]: its own actions in place of the recorded ones, and the recorded
//! answers with its ActionIDs in place of the recorded ones.
//!
//! [`Session`]: amibus_ami::Session

use std::collections::{BTreeMap, VecDeque};

use amibus_ami::{Action, Kind};
use amibus_services::corpus::{Recording, recording};

use crate::driver::{Driver, action, config};
use crate::stream::read_whole;

/// The actions of a recording: name, fields (ActionID excluded), and ActionID.
fn actions(recording: &Recording) -> Vec<(Action, Option<String>)> {
    let text = String::from_utf8_lossy(&recording.c2s);
    let messages = text.split("\r\n\r\n").filter(|message| !message.trim().is_empty());
    let parse = |message: &str| {
        let mut headers = message.lines().map(|line| line.split_once(':').unwrap());
        let mut built = action(headers.next().unwrap().1.trim());
        let mut id = None;
        for (name, value) in headers {
            match name {
                "ActionID" => id = Some(value.trim().to_owned()),
                _ => built = built.header(name, value.trim()).unwrap(),
            }
        }
        (built, id)
    };
    let actions: Vec<_> = messages.map(parse).collect();
    let sent: u64 = recording.notes.tally("actions_sent").values().sum();
    assert_eq!(actions.len() as u64, sent, "{}", recording.name);
    actions
}

/// What the server sent, with the first ActionID of each message renamed. Of an ActionID that was used
/// again, each response takes the next, and events that of the last response.
fn renamed(recording: &Recording, mut ids: BTreeMap<Vec<u8>, VecDeque<String>>) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut current = BTreeMap::new();
    for frame in read_whole(&recording.s2c).frames(&recording.s2c) {
        let recorded = frame.first("ActionID").unwrap_or_default();
        if frame.kind() == Kind::Response
            && let Some(next) = ids.get_mut(recorded).and_then(VecDeque::pop_front)
        {
            current.insert(recorded.to_vec(), next);
        }
        let mut id = current.get(recorded);
        for header in frame.headers() {
            match id.take_if(|_| header.is("ActionID")) {
                Some(id) => stream.extend_from_slice(format!("ActionID: {id}").as_bytes()),
                None => header.write_line(&mut stream),
            }
            stream.extend_from_slice(b"\r\n");
        }
        stream.extend_from_slice(b"\r\n");
    }
    stream
}

/// Plays a recording and checks that each action is answered once and nothing of the server is lost.
fn replay(name: &str) -> Driver {
    let recording = recording(name);
    let mut driver = Driver::ready(config());
    let mut ids = BTreeMap::<_, VecDeque<_>>::new();
    let mut sent = 0;
    for (token, (action, id)) in actions(&recording).into_iter().enumerate() {
        if let Some(id) = id.filter(|_| action.name() != "Login") {
            let ours = driver.session.send(&action, token as u64, driver.now).unwrap();
            ids.entry(id.into_bytes()).or_default().push_back(ours.as_str().to_owned());
            sent += 1;
        }
    }
    driver.writes();
    let stream = renamed(&recording, ids);
    driver.receives(&stream).unwrap();
    driver.ends();

    let answered: Vec<u64> = driver.replies.iter().map(|(token, _)| *token).collect();
    assert_eq!(answered.len(), sent, "{name}");
    assert!(answered.is_sorted(), "{name}: Asterisk answers in order");
    let replies = || driver.replies.iter().map(|(_, reply)| reply.as_ref().unwrap());
    let in_lists: usize = replies().map(|r| r.items.len() + usize::from(r.complete.is_some())).sum();
    let said = driver.said();
    let count = |word: &str| said.iter().filter(|line| line.starts_with(word)).count();
    let total =
        |kind| read_whole(&recording.s2c).frames(&recording.s2c).iter().filter(|f| f.kind() == kind).count();
    assert_eq!(count("event ") + in_lists, total(Kind::Event), "{name}");
    assert_eq!(count("stray ") + sent, total(Kind::Response), "{name}");
    assert_eq!(count("unanswered"), 0, "{name}");
    driver
}

#[test]
fn every_list_action() {
    let recording = recording("lists-22");
    let driver = replay("lists-22");
    let actions = actions(&recording);
    let mut lists = 0;
    for (token, reply) in &driver.replies {
        let reply = reply.as_ref().unwrap();
        let name = actions[*token as usize].0.name();
        let Some(complete) = reply.complete.as_ref() else {
            assert!(reply.items.is_empty(), "{name}");
            continue;
        };
        lists += 1;
        let announced =
            complete.frame().first("ListItems").map(|n| std::str::from_utf8(n).unwrap().parse().unwrap());
        if let Some(announced) = announced {
            assert_eq!(reply.items.len(), announced, "{name}");
        } else {
            assert_eq!(name, "FAXStats");
        }
    }
    // 30 marked lists were recorded, two of them without an ActionID; FAXStats is not marked.
    assert_eq!(lists, 29);
}

#[test]
fn two_hundred_actions_in_one_write() {
    replay("pipelined-22");
}

#[test]
fn command_output() {
    let driver = replay("command-22");
    let outputs: Vec<usize> =
        driver.replies.iter().map(|(_, r)| r.as_ref().unwrap().response.frame().output().count()).collect();
    assert!(outputs.iter().any(|lines| *lines > 100), "{outputs:?}");
    let failed = driver
        .replies
        .iter()
        .map(|(_, r)| r.as_ref().unwrap().response.frame())
        .find(|response| response.name() == b"Error" && response.output().next().is_some());
    assert!(failed.is_some(), "a failed CLI command is an Error with output");
}

#[test]
fn calls_queues_and_conferences() {
    for name in [
        "queue-answered-22",
        "confbridge-22",
        "originate-answer-22",
        "originate-causes-16",
        "park-timeout-16",
    ] {
        replay(name);
    }
}
