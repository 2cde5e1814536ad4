//! Replies with event lists, their exceptions and their limits.

use amibus_ami::{Limits, SessionConfig};

use crate::driver::{Driver, config};

fn limited(list_items: usize, list_bytes: usize) -> Driver {
    let limits = Limits { list_items, list_bytes, ..Limits::default() };
    Driver::ready(SessionConfig { limits, ..config() })
}

impl Driver {
    fn starts(&mut self, id: &str, marker: &str) {
        self.receives(format!(
            "Response: Success\r\nActionID: {id}\r\n{marker}Message: x will follow\r\n\r\n"
        ))
        .unwrap();
    }

    fn event(&mut self, name: &str, headers: &str) {
        self.receives(format!("Event: {name}\r\n{headers}\r\n\r\n")).unwrap();
    }
}

#[test]
fn a_list_is_one_reply_and_other_events_pass_it() {
    let mut driver = Driver::ready(config());
    let id = driver.sends("QueueStatus", 5);
    driver.starts(&id, "EventList: start\r\n");
    driver.event("QueueParams", &format!("ActionID: {id}"));
    driver.event("Hangup", "Cause: 16");
    driver.event("QueueMember", &format!("actionid: {id}"));
    driver.event("QueueStatusComplete", &format!("ActionID: {id}\r\nEventList: Complete\r\nListItems: 2"));
    assert_eq!(driver.said(), ["event Hangup", "5 Success, 2 items, QueueStatusComplete"]);
    let reply = driver.replies[0].1.as_ref().unwrap();
    assert!(reply.items[0].frame().is_event("QueueParams"));
    assert!(reply.items[1].frame().is_event("QueueMember"));
}

#[test]
fn two_lists_do_not_mix() {
    let mut driver = Driver::ready(config());
    let (first, second) = (driver.sends("QueueStatus", 1), driver.sends("CoreShowChannels", 2));
    driver.starts(&first, "EventList: start\r\n");
    driver.starts(&second, "EventList: start\r\n");
    driver.event("CoreShowChannel", &format!("ActionID: {second}"));
    driver.event("AnyEnd", &format!("ActionID: {second}\r\nEventList: Complete"));
    driver.event("AnyEnd", &format!("ActionID: {first}\r\nEventList: Complete"));
    assert_eq!(driver.said(), ["2 Success, 1 items, AnyEnd", "1 Success, 0 items, AnyEnd"]);
}

#[test]
fn the_mark_is_read_in_any_case() {
    let mut driver = Driver::ready(config());
    let id = driver.sends("FAXSessions", 1);
    driver.starts(&id, "EventList: Start\r\n");
    driver.event("FAXSessionsComplete", &format!("ActionID: {id}\r\neventlist: COMPLETE"));
    assert_eq!(driver.said(), ["1 Success, 0 items, FAXSessionsComplete"]);
}

#[test]
fn actions_that_announce_events_in_words() {
    for (action, item, last) in [
        ("FAXStats", None, "FAXStats"),
        ("WaitEvent", None, "WaitEventComplete"),
        ("Status", Some("Status"), "StatusComplete"),
        ("ParkedCalls", Some("ParkedCall"), "ParkedCallsComplete"),
    ] {
        let mut driver = Driver::ready(config());
        let id = driver.sends(action, 1);
        driver.starts(&id, "");
        if let Some(item) = item {
            driver.event(item, &format!("ActionID: {id}"));
        }
        driver.event("Newexten", "Priority: 1");
        assert_eq!(driver.said(), ["event Newexten"]);
        driver.event(last, &format!("ActionID: {id}"));
        let items = usize::from(item.is_some());
        assert_eq!(driver.said(), [format!("1 Success, {items} items, {last}")]);
    }
}

#[test]
fn hangup_is_a_list_only_where_the_response_says_so() {
    let mut driver = Driver::ready(config());
    let (one, many) = (driver.sends("Hangup", 1), driver.sends("Hangup", 2));
    driver
        .receives(format!("Response: Success\r\nActionID: {one}\r\nMessage: Channel Hungup\r\n\r\n"))
        .unwrap();
    assert_eq!(driver.said(), ["1 Success, 0 items, no list"]);
    driver.starts(&many, "EventList: start\r\n");
    driver.event("ChannelHungup", &format!("ActionID: {many}"));
    driver.event("ChannelsHungupListComplete", &format!("EventList: Complete\r\nActionID: {many}"));
    assert_eq!(driver.said(), ["2 Success, 1 items, ChannelsHungupListComplete"]);
}

#[test]
fn an_empty_list_may_be_an_error() {
    let mut driver = Driver::ready(config());
    let id = driver.sends("PJSIPShowContacts", 1);
    driver
        .receives(format!("Response: Error\r\nActionID: {id}\r\nMessage: No Contacts found\n\r\n\r\n"))
        .unwrap();
    assert_eq!(driver.said(), ["1 Error, 0 items, no list"]);
}

#[test]
fn queue_rule_leaves_an_empty_line() {
    let mut driver = Driver::ready(config());
    let (first, second) = (driver.sends("QueueRule", 1), driver.sends("Ping", 2));
    driver.receives(format!("Response: Success\r\nActionID: {first}\r\n\r\n\r\n")).unwrap();
    driver.receives(format!("Response: Success\r\nActionID: {second}\r\nPing: Pong\r\n\r\n")).unwrap();
    assert_eq!(driver.said(), ["1 Success, 0 items, no list", "2 Success, 0 items, no list"]);
    assert_eq!(driver.session.empty_lines(), 1);
}

#[test]
fn a_list_beyond_a_limit_fails_alone() {
    for mut driver in [limited(2, 100_000), limited(100, 300)] {
        let id = driver.sends("QueueStatus", 1);
        let after = driver.sends("Ping", 2);
        driver.starts(&id, "EventList: start\r\n");
        for _ in 0..5 {
            driver.event("QueueMember", &format!("ActionID: {id}"));
        }
        driver.event("QueueStatusComplete", &format!("ActionID: {id}\r\nEventList: Complete"));
        driver.receives(format!("Response: Success\r\nActionID: {after}\r\n\r\n")).unwrap();
        let said = driver.said();
        assert!(said[0].starts_with("1 event list of more than"), "{said:?}");
        assert_eq!(said[1..], ["2 Success, 0 items, no list"]);
    }
}

#[test]
fn a_list_may_be_as_long_as_the_limit() {
    let mut driver = limited(2, 100_000);
    let id = driver.sends("QueueStatus", 1);
    driver.starts(&id, "EventList: start\r\n");
    driver.event("QueueMember", &format!("ActionID: {id}"));
    driver.event("QueueMember", &format!("ActionID: {id}"));
    driver.event("QueueStatusComplete", &format!("ActionID: {id}\r\nEventList: Complete"));
    assert_eq!(driver.said(), ["1 Success, 2 items, QueueStatusComplete"]);
}

#[test]
fn a_mark_inside_an_item_ends_nothing() {
    let forged = "Variable: EVIL=a\r\nEventList: Complete\r\nListItems: 0";
    for item in ["Status", "UnheardOf", "UnheardOfComplete"] {
        let mut driver = Driver::ready(config());
        let id = driver.sends("Status", 1);
        driver.starts(&id, "EventList: start\r\n");
        driver.event(item, &format!("Privilege: Call\r\nChannel: Local/1\r\n{forged}\r\nActionID: {id}"));
        driver.event(item, &format!("Privilege: Call\r\nChannel: Local/2\r\nActionID: {id}"));
        // Even where it stands in front: it is an item's name.
        driver.event(item, &format!("ActionID: {id}\r\nEventList: Complete\r\nChannel: Local/3"));
        assert!(driver.said().is_empty(), "{item}");
        driver.event("StatusComplete", &format!("ActionID: {id}\r\nEventList: Complete\r\nListItems: 3"));
        assert_eq!(driver.said(), ["1 Success, 3 items, StatusComplete"]);
    }
}

#[test]
fn a_last_event_of_another_name_has_to_count_right() {
    for (count, expected) in [("1", vec!["1 Success, 1 items, TheEnd"]), ("5", vec![])] {
        let mut driver = Driver::ready(config());
        let id = driver.sends("Anything", 1);
        driver.starts(&id, "EventList: start\r\n");
        driver.event("Thing", &format!("ActionID: {id}"));
        driver.event("TheEnd", &format!("EventList: Complete\r\nListItems: {count}\r\nActionID: {id}"));
        assert_eq!(driver.said(), expected);
    }
}

#[test]
fn what_comes_behind_the_end_is_swallowed_until_the_deadline() {
    let mut driver = Driver::ready(config());
    let id = driver.sends("Status", 1);
    driver.starts(&id, "EventList: start\r\n");
    driver.event("StatusComplete", &format!("ActionID: {id}\r\nEventList: Complete\r\nListItems: 0"));
    driver.event("Status", &format!("ActionID: {id}"));
    driver.event("OriginateResponse", &format!("ActionID: {id}"));
    assert_eq!(driver.said(), ["1 Success, 0 items, StatusComplete", "event OriginateResponse"]);
    for _ in 0..6 {
        driver.waits(5).unwrap();
        driver.event("Newexten", "X: 1");
    }
    driver.said();
    driver.event("Status", &format!("ActionID: {id}"));
    assert_eq!(driver.said(), ["event Status"], "it is forgotten at the action's deadline");
}

#[test]
fn the_lists_of_a_session_are_bounded_together() {
    let limits = Limits { lists_bytes: 900, ..Limits::default() };
    let mut driver = Driver::ready(SessionConfig { limits, ..config() });
    let (first, second) = (driver.sends("QueueStatus", 1), driver.sends("CoreShowChannels", 2));
    driver.starts(&first, "EventList: start\r\n");
    driver.starts(&second, "EventList: start\r\n");
    let (padding, more) = ("x".repeat(150), "x".repeat(500));
    driver.event("QueueMember", &format!("ActionID: {first}\r\nPad: {padding}"));
    assert!(driver.said().is_empty());
    driver.event("CoreShowChannel", &format!("ActionID: {second}\r\nPad: {more}"));
    assert_eq!(driver.said(), ["2 event list of more than 900 bytes"]);
    // What the broken one took is free again.
    driver.event("QueueMember", &format!("ActionID: {first}\r\nPad: {padding}"));
    driver.event("AnyComplete", &format!("ActionID: {first}\r\nEventList: Complete"));
    driver.event("AnyComplete", &format!("ActionID: {second}\r\nEventList: Complete"));
    assert_eq!(driver.said(), ["1 Success, 2 items, AnyComplete"]);
}

#[test]
fn a_list_that_does_not_end_is_given_up_with_its_response() {
    let mut driver = Driver::ready(config());
    let id = driver.sends("QueueStatus", 1);
    driver.starts(&id, "EventList: start\r\n");
    for _ in 0..7 {
        driver.event("Newexten", "X: 1");
        driver.waits(5).unwrap();
    }
    let said = driver.said();
    assert!(said.contains(&"1 timed out, written true, response true".to_owned()), "{said:?}");
    driver.event("QueueMember", &format!("ActionID: {id}"));
    assert!(driver.said().is_empty(), "its remaining items are swallowed");
}

#[test]
fn tombstones_are_bounded() {
    let limits = Limits { pending_actions: 2, ..Limits::default() };
    let mut driver = Driver::ready(SessionConfig { limits, ..config() });
    let mut ids = Vec::new();
    for token in 0..3 {
        ids.push(driver.sends("CoreStatus", token));
        driver.waits(9).unwrap();
        driver.event("Alive", "X: 1");
        driver.waits(9).unwrap();
        driver.event("Alive", "X: 1");
        driver.waits(9).unwrap();
        driver.event("Alive", "X: 1");
        driver.waits(9).unwrap();
        driver.event("Alive", "X: 1");
    }
    driver.said();
    for id in &ids {
        driver.receives(format!("Response: Success\r\nActionID: {id}\r\n\r\n")).unwrap();
    }
    assert_eq!(driver.said(), ["stray Success"], "the oldest is forgotten, the others are swallowed");
}

#[test]
fn a_response_that_nobody_asked_for_is_stray() {
    let mut driver = Driver::ready(config());
    driver.receives("Response: Error\r\nMessage: Missing action in request\r\n\r\n").unwrap();
    driver.receives("Response: Success\r\nActionID: somebody-else\r\n\r\n").unwrap();
    driver.receives("Response: Success\r\nActionID: \r\n\r\n").unwrap();
    assert_eq!(driver.said(), ["stray Error", "stray Success", "stray Success"]);
}
