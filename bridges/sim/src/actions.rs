//! What is answered to each action, and who may send it.

use std::sync::Arc;

use crate::classes::{self, CALL, COMMAND, ORIGINATE, REPORTING, SYSTEM, USER};
use crate::clock;
use crate::reply::Reply;
use crate::session::Session;
use crate::wire::Action;
use crate::world::{World, is_up};
use crate::{channel_actions, lists, login, originate};

/// Every action known here with the classes of which a user needs one; 0 is open to all.
const ACTIONS: &[(&str, u32)] = &[
    ("BridgeList", 0),
    ("Challenge", 0),
    ("Command", COMMAND),
    ("CoreSettings", SYSTEM | REPORTING),
    ("CoreShowChannels", SYSTEM | REPORTING),
    ("CoreStatus", SYSTEM | REPORTING),
    ("Events", 0),
    ("Getvar", CALL | REPORTING),
    ("Hangup", SYSTEM | CALL),
    ("ListCommands", 0),
    ("Login", 0),
    ("Logoff", 0),
    ("Originate", ORIGINATE),
    ("Ping", 0),
    ("QueueStatus", 0),
    ("QueueSummary", 0),
    ("Setvar", CALL),
    ("UserEvent", USER),
];

/// Answers one action. Returns when the session may go on to the next one.
pub(crate) async fn handle(world: &Arc<World>, session: &Arc<Session>, action: &Action) {
    let reply = match admit(world, session, action) {
        Err(refusal) => refusal.end(),
        Ok("Login") => return login::login(world, session, action).await,
        Ok("Originate") => return originate::originate(world, session, action).await,
        Ok("Hangup") => return channel_actions::hangup(world, session, action),
        Ok("UserEvent") => return channel_actions::user_event(world, session, action),
        Ok("Setvar") => return channel_actions::set_variable(world, session, action),
        Ok("Logoff") => {
            let goodbye = Reply::new("Goodbye", action).line("Message", "Thanks for all the fish.").end();
            session.respond(world.encode(goodbye));
            return session.outbox.finish();
        }
        Ok(name) => answer(world, session, action, name),
    };
    session.respond(world.encode(reply));
}

fn answer(world: &World, session: &Session, action: &Action, name: &str) -> Vec<u8> {
    match name {
        "Challenge" => login::challenge(session, action),
        "Ping" => {
            let now = clock::timestamp(clock::now_micros());
            Reply::new("Success", action).line("Ping", "Pong").line("Timestamp", &now).end()
        }
        "Events" => events(world, session, action),
        "Command" => command(world, action),
        "CoreStatus" => lists::core_status(world, action),
        "CoreSettings" => lists::core_settings(world, action),
        "CoreShowChannels" => lists::channels(world, action),
        "BridgeList" => lists::bridges(world, action),
        "QueueStatus" => lists::queue_status(world, action),
        "QueueSummary" => lists::queue_summary(action),
        "Getvar" => channel_actions::get_variable(world, action),
        _ => list_commands(session, action),
    }
}

/// The action's name as it is known here, or the answer that refuses it. The order of the checks is Asterisk's
/// (`process_message` in main/manager.c).
fn admit(world: &World, session: &Session, action: &Action) -> Result<&'static str, Reply> {
    if let Some(words) = action.spoiled {
        return Err(Reply::error(action, words));
    }
    let Some(asked) = action.text("Action") else {
        return Err(Reply::error(action, "Missing action in request"));
    };
    if is_up(&world.stopping) {
        return Err(Reply::error(action, "Asterisk is shutting down"));
    }
    let known = ACTIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(&asked));
    let before_login = matches!(known, Some(("Login" | "Challenge" | "Logoff", _)));
    if session.user().is_none() && !before_login {
        return Err(Reply::error(action, "Permission denied"));
    }
    match known {
        Some((name, classes)) if session.may(*classes) => Ok(name),
        Some(_) => Err(Reply::error(action, "Permission denied")),
        None => {
            let words = "Use Action: ListCommands to show available commands.";
            Err(Reply::error(action, &format!("Invalid/unknown command: {asked}. {words}")))
        }
    }
}

fn list_commands(session: &Session, action: &Action) -> Vec<u8> {
    let allowed = ACTIONS.iter().filter(|(_, classes)| session.may(*classes));
    let line = |reply: Reply, name: &str, needed: u32| {
        reply.line(name, &format!("Simulated.  (Priv: {})", classes::names(needed)))
    };
    allowed.fold(Reply::new("Success", action), |reply, (name, needed)| line(reply, name, *needed)).end()
}

fn events(world: &World, session: &Session, action: &Action) -> Vec<u8> {
    let Some(words) = action.text("EventMask") else {
        return Reply::error(action, "Invalid event mask").end();
    };
    let mask = classes::of_mask(&words);
    session.set_mask(mask);
    if mask != 0 {
        world.audience.send_modify(|count| *count += 1);
    }
    Reply::new("Success", action).line("Events", if mask == 0 { "Off" } else { "On" }).end()
}

fn command(world: &World, action: &Action) -> Vec<u8> {
    let Some(asked) = action.text("Command") else {
        return Reply::error(action, "No command provided").end();
    };
    let output = match asked.trim() {
        "core show version" => vec![format!("Asterisk {} (simulated)", world.options.asterisk_version)],
        "core show channels" => lists::cli_channels(world),
        unknown => {
            let words = format!(
                "No such command '{unknown}' (type 'core show help {unknown}' for other possible commands)"
            );
            return Reply::error(action, "Command output follows").line("Output", &words).end();
        }
    };
    output
        .iter()
        .fold(Reply::success(action, "Command output follows"), |reply, line| reply.line("Output", line))
        .end()
}
