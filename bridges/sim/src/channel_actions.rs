//! Hangup, Setvar, Getvar and UserEvent.

use crate::event::{Event, push_line};
use crate::reply::Reply;
use crate::session::Session;
use crate::wire::Action;
use crate::world::World;

/// Variables kept; a further one is refused.
pub(crate) const VARIABLES_MAX: usize = 100_000;
const CAUSE_NORMAL_CLEARING: u16 = 16;

/// Ends the whole call that the channel belongs to: every channel of its Linkedid and their bridges.
pub(crate) fn hangup(world: &World, session: &Session, action: &Action) {
    let respond = |reply: Reply| session.respond(world.encode(reply.end()));
    let Some(name) = action.text("Channel") else {
        return respond(Reply::error(action, "No channel specified"));
    };
    let cause = action.text("Cause").and_then(|text| text.parse().ok()).unwrap_or(CAUSE_NORMAL_CLEARING);
    let found = world.lock().floor.find(&name).map(|channel| channel.linkedid.clone());
    let Some(linkedid) = found else { return respond(Reply::error(action, "No such channel")) };
    respond(Reply::success(action, "Channel Hungup"));
    end_call(world, &linkedid, cause);
}

/// Hangs up what is left of a call and lets the rest of its script go unplayed.
pub(crate) fn end_call(world: &World, linkedid: &str, cause: u16) {
    let mut events = Vec::new();
    {
        let mut state = world.lock();
        state.floor.end(linkedid);
        let mine = state.floor.channels().into_iter().filter(|channel| channel.linkedid == linkedid);
        let mut hangups = Vec::new();
        for channel in mine {
            let mut request = Event::new("HangupRequest", "call,all").lines(&channel.snapshot);
            push_line(&mut request.body, "Cause", &cause.to_string());
            events.push(request);
            hangups.push(channel.hangup(cause, cause_text(cause)));
        }
        let bridges = state.floor.bridges_of(linkedid);
        events.extend(bridges.iter().map(|(_, lines)| Event::new("BridgeDestroy", "call,all").lines(lines)));
        events.append(&mut hangups);
    }
    events.iter().for_each(|event| world.publish(event));
}

/// `Cause-txt` (`ast_cause2str` in main/channel.c).
pub(crate) fn cause_text(cause: u16) -> &'static str {
    match cause {
        1 => "Unallocated (unassigned) number",
        16 => "Normal Clearing",
        17 => "User busy",
        18 => "No user responding",
        19 => "User alerting, no answer",
        21 => "Call Rejected",
        34 => "Circuit/channel congestion",
        38 => "Network out of order",
        _ => "Unknown",
    }
}

pub(crate) fn get_variable(world: &World, action: &Action) -> Vec<u8> {
    let Some(variable) = action.text("Variable") else {
        return Reply::error(action, "No variable specified").end();
    };
    let state = world.lock();
    let channel = match action.text("Channel") {
        None => String::new(),
        Some(name) => match state.floor.find(&name) {
            Some(channel) => channel.name.clone(),
            None => return Reply::error(action, "No such channel").end(),
        },
    };
    let value = state.variables.get(&(channel, variable.to_string())).map(String::as_str).unwrap_or_default();
    Reply::new("Success", action).line("Variable", &variable).line("Value", value).end()
}

pub(crate) fn set_variable(world: &World, session: &Session, action: &Action) {
    let respond = |reply: Reply| session.respond(world.encode(reply.end()));
    let Some(variable) = action.text("Variable") else {
        return respond(Reply::error(action, "No variable specified"));
    };
    let value = action.text("Value").unwrap_or_default();
    let mut snapshot = b"Channel: none\r\nUniqueid: none\r\n".to_vec();
    let mut channel = String::new();
    {
        let mut state = world.lock();
        if let Some(name) = action.text("Channel") {
            let Some(found) = state.floor.find(&name) else {
                return respond(Reply::error(action, "No such channel"));
            };
            snapshot.clone_from(&found.snapshot);
            channel.clone_from(&found.name);
        }
        if state.variables.len() >= VARIABLES_MAX {
            return respond(Reply::error(action, "No memory for variable"));
        }
        state.variables.insert((channel, variable.to_string()), value.to_string());
    }
    respond(Reply::success(action, "Variable Set"));
    let event = Event::new("VarSet", "dialplan,all").lines(&snapshot);
    world.publish(&event.line("Variable", &variable).line("Value", &value));
}

/// Sends the action's own headers to everybody, its ActionID too, raw.
pub(crate) fn user_event(world: &World, session: &Session, action: &Action) {
    let name = action.text("UserEvent").unwrap_or_default();
    session.respond(world.encode(Reply::success(action, "Event Sent").end()));
    let mut event = Event::new("UserEvent", "user,all").line("UserEvent", &name);
    for (header, value) in action.headers() {
        if !header.eq_ignore_ascii_case("Action") && !header.eq_ignore_ascii_case("UserEvent") {
            event.body.extend_from_slice(header.as_bytes());
            event.body.extend_from_slice(b": ");
            event.body.extend_from_slice(value);
            event.body.extend_from_slice(b"\r\n");
        }
    }
    world.publish(&event);
}
