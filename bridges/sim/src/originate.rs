//! Originate: checked and answered here, carried out by [`crate::call`].
//!
//! What the dialled target says decides what becomes of the call: `busy`, `congestion`, `noanswer` or `fail` in
//! the Channel, otherwise it is answered. An Exten with `nope` in it does not exist.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;

use crate::call;
use crate::reply::Reply;
use crate::session::Session;
use crate::wire::Action;
use crate::world::World;

/// The longest ChannelId (`AST_MAX_PUBLIC_UNIQUEID`).
const CHANNEL_ID_BYTES_MAX: usize = 149;
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Calls at once; a further one fails with Reason 0.
pub(crate) const CALLS_MAX: usize = 10_000;

/// An Originate that was answered by Success, as the server saw it.
#[derive(Debug, Clone)]
pub struct Originated {
    /// The action's ActionID.
    pub action_id: String,
    /// The dialled `Channel`.
    pub channel: String,
    /// The `ChannelId` that the action asked for.
    pub channel_id: Option<String>,
    /// The Uniqueid of the (first) channel; of a call that was not dialled, the one that it would have had.
    pub uniqueid: String,
    /// Variables in their order, several in one header taken apart.
    pub variables: Vec<(String, String)>,
    /// Whether it said `Async: true`.
    pub asynchronous: bool,
    /// False when the ChannelId belonged to a live channel: queued, but nothing was dialled.
    pub dialled: bool,
    /// When it was accepted.
    pub at: SystemTime,
}

/// A checked Originate.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) action_id: String,
    pub(crate) channel: String,
    pub(crate) then: Then,
    pub(crate) timeout: Duration,
    pub(crate) asynchronous: bool,
    pub(crate) channel_id: Option<String>,
    pub(crate) other_channel_id: Option<String>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) caller_name: String,
    pub(crate) caller_number: String,
    pub(crate) account: String,
}

/// What the answered channel does.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    Application { name: String, data: String },
    Dialplan { context: String, exten: String },
}

/// Answers an Originate and starts its call. A synchronous one blocks the session until the call is answered
/// or has failed: responses and events alike.
pub(crate) async fn originate(world: &Arc<World>, session: &Session, action: &Action) {
    let order = match check(action) {
        Ok(order) => order,
        Err(words) => return session.respond(world.encode(Reply::error(action, &words).end())),
    };
    let asynchronous = order.asynchronous;
    if asynchronous {
        session.respond(world.encode(Reply::success(action, "Originate successfully queued").end()));
    } else {
        session.outbox.hold();
    }
    let (answered, was_answered) = oneshot::channel();
    call::start(world, order, answered);
    if !asynchronous {
        let reply = match was_answered.await {
            Ok(true) => Reply::success(action, "Originate successfully queued"),
            _ => Reply::error(action, "Originate failed"),
        };
        session.outbox.release(world.encode(reply.end()));
    }
}

fn check(action: &Action) -> Result<Order, String> {
    let text = |name: &str| action.text(name).map(std::borrow::Cow::into_owned);
    let channel = text("Channel").ok_or("Channel not specified")?;
    if !channel.contains('/') {
        return Err("Invalid channel".to_owned());
    }
    let timeout = match text("Timeout") {
        None => TIMEOUT_DEFAULT,
        Some(millis) => Duration::from_millis(millis.trim().parse().map_err(|_| "Invalid timeout")?),
    };
    for name in ["ChannelId", "OtherChannelId"] {
        if text(name).is_some_and(|id| id.len() > CHANNEL_ID_BYTES_MAX) {
            // Asterisk's own words end in a line feed, and so the response has an extra empty line.
            return Err(format!("Uniqueid length exceeds maximum of {CHANNEL_ID_BYTES_MAX}\n"));
        }
    }
    let (caller_name, caller_number) = caller(&text("CallerID").unwrap_or_default());
    Ok(Order {
        action_id: text("ActionID").unwrap_or_default(),
        then: then(action)?,
        timeout,
        asynchronous: action.text("Async").is_some_and(|word| is_true(&word)),
        channel_id: text("ChannelId"),
        other_channel_id: text("OtherChannelId"),
        variables: action.all("Variable").flat_map(|value| variables(&value)).collect(),
        caller_name,
        caller_number,
        account: text("Account").unwrap_or_default(),
        channel,
    })
}

fn then(action: &Action) -> Result<Then, String> {
    if let Some(name) = action.text("Application") {
        let data = action.text("Data").unwrap_or_default().into_owned();
        return Ok(Then::Application { name: name.into_owned(), data });
    }
    match (action.text("Context"), action.text("Exten"), action.text("Priority")) {
        (Some(context), Some(exten), Some(_)) if !exten.contains("nope") => {
            Ok(Then::Dialplan { context: context.into_owned(), exten: exten.into_owned() })
        }
        (Some(_), Some(_), Some(_)) => Err("Extension does not exist.".to_owned()),
        _ => Err("Originate with 'Exten' requires 'Context' and 'Priority'".to_owned()),
    }
}

/// Name and number of `"Name" <number>`.
fn caller(text: &str) -> (String, String) {
    match text.rsplit_once('<') {
        Some((name, number)) => {
            let name = name.trim().trim_matches('"').replace('\\', "");
            (name, number.trim_end().trim_end_matches('>').to_owned())
        }
        None if text.bytes().all(|byte| byte.is_ascii_digit()) => (String::new(), text.to_owned()),
        None => (text.trim().trim_matches('"').to_owned(), String::new()),
    }
}

/// The variables of one header: split at commas, which quotes or a backslash protect.
fn variables(header: &str) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut letters = header.chars();
    while let Some(letter) = letters.next() {
        match (letter, parts.last_mut()) {
            ('"', _) => quoted = !quoted,
            (',', _) if !quoted => parts.push(String::new()),
            ('\\', Some(part)) => part.extend(letters.next()),
            (_, Some(part)) => part.push(letter),
            (_, None) => {}
        }
    }
    let pair = |part: String| {
        let (name, value) = part.split_once('=').unwrap_or((&part, ""));
        (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    parts.into_iter().filter_map(pair).collect()
}

fn is_true(word: &str) -> bool {
    ["yes", "true", "y", "t", "1", "on"].iter().any(|yes| word.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_split_unless_protected() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(variables("EQ=a=b,TWO=2"), [pair("EQ", "a=b"), pair("TWO", "2")]);
        assert_eq!(variables("Q=\"x,y\""), [pair("Q", "x,y")]);
        assert_eq!(variables("B=x\\,y"), [pair("B", "x,y")]);
    }

    #[test]
    fn caller_ids_come_apart() {
        let pair = |name: &str, number: &str| (name.to_owned(), number.to_owned());
        assert_eq!(caller("\"Jürgen: the boss\" <4711>"), pair("Jürgen: the boss", "4711"));
        assert_eq!(caller("Sales <100>"), pair("Sales", "100"));
        assert_eq!(caller("100"), pair("", "100"));
    }
}
