//! Login, plain and by MD5 challenge (`authenticate` in main/manager.c).

use std::sync::PoisonError;
use std::time::Duration;

use md5::{Digest, Md5};

use crate::classes;
use crate::clock;
use crate::event::{Event, push_line};
use crate::options::User;
use crate::reply::Reply;
use crate::session::Session;
use crate::wire::Action;
use crate::world::World;

/// Asterisk's pause before it says that a login failed.
const LOGIN_FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Hands out a challenge for an MD5 login.
pub(crate) fn challenge(session: &Session, action: &Action) -> Vec<u8> {
    if !action.text("AuthType").is_some_and(|kind| kind.eq_ignore_ascii_case("MD5")) {
        return Reply::error(action, "Must specify AuthType").end();
    }
    let seed = md5_hex(format!("{} {}", clock::now_micros(), session.id).as_bytes());
    let digits: String = seed.bytes().take(9).map(|byte| char::from(b'0' + byte % 10)).collect();
    *session.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(digits.clone());
    Reply::new("Success", action).line("Challenge", &digits).end()
}

/// Logs in, or pauses, refuses and closes.
pub(crate) async fn login(world: &World, session: &Session, action: &Action) {
    if session.user().is_some() {
        session.respond(world.encode(Reply::success(action, "Already authenticated").end()));
        return;
    }
    let Some(user) = authenticate(world, session, action) else {
        world.lock().stats.failed_logins += 1;
        tokio::time::sleep(LOGIN_FAILURE_PAUSE).await;
        return refuse(world, session, action, "Authentication failed");
    };
    let taken = |other: &Session| other.id != session.id && other.user().as_deref() == Some(&user.name);
    if !world.options.allow_multiple && world.lock().sessions.iter().any(|other| taken(other)) {
        return refuse(world, session, action, "Login Already In Use");
    }
    let mask = action.text("Events").map_or(classes::ALL, |words| classes::of_mask(&words));
    let mut accepted = Reply::success(action, "Authentication accepted").end();
    if mask & user.read & classes::SYSTEM != 0 {
        accepted.append(&mut fully_booted(world));
    }
    session.respond(world.encode(accepted));
    session.log_in(&user.name, user.read, user.write, mask);
    world.lock().stats.logins += 1;
    world.publish(&successful_auth(session, &user.name, action.text("Key").is_none()));
    if session.wants(classes::ALL) {
        world.audience.send_modify(|count| *count += 1);
    }
}

fn refuse(world: &World, session: &Session, action: &Action, words: &str) {
    session.respond(world.encode(Reply::error(action, words).end()));
    session.outbox.finish();
}

fn authenticate<'world>(world: &'world World, session: &Session, action: &Action) -> Option<&'world User> {
    let name = action.text("Username")?;
    let user = world.options.users.iter().find(|user| user.name == name)?;
    let good = if action.text("AuthType").is_some_and(|kind| kind.eq_ignore_ascii_case("MD5")) {
        let challenge = session.challenge.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        action.text("Key")?.eq_ignore_ascii_case(&md5_hex(format!("{challenge}{}", user.secret).as_bytes()))
    } else {
        action.bytes("Secret")? == user.secret.as_bytes()
    };
    good.then_some(user)
}

/// Written to one session by itself, so it has neither Timestamp nor SequenceNumber.
fn fully_booted(world: &World) -> Vec<u8> {
    let uptime = (clock::now_micros() / 1_000_000).saturating_sub(world.lock().booted_at_second).to_string();
    let mut out = Vec::new();
    for (name, value) in [
        ("Event", "FullyBooted"),
        ("Privilege", "system,all"),
        ("Uptime", &uptime),
        ("LastReload", &uptime),
        ("Status", "Fully Booted"),
    ] {
        push_line(&mut out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn successful_auth(session: &Session, user: &str, plain: bool) -> Event {
    let micros = clock::now_micros();
    let (date, time) = clock::date_and_time(micros / 1_000_000);
    let moment = format!("{date}T{time}.{:03}+0000", micros / 1000 % 1000);
    Event::new("SuccessfulAuth", "security,all")
        .line("EventTV", &moment)
        .line("Severity", "Informational")
        .line("Service", "AMI")
        .line("EventVersion", "1")
        .line("AccountID", user)
        .line("SessionID", &format!("{:#x}", session.id))
        .line("LocalAddress", "IPV4/TCP/127.0.0.1/0")
        .line("RemoteAddress", &format!("IPV4/TCP/{}/{}", session.peer.ip(), session.peer.port()))
        .line("UsingPassword", if plain { "1" } else { "0" })
        .line("SessionTV", &moment)
}

fn md5_hex(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().fold(String::with_capacity(32), |hex, byte| hex + &format!("{byte:02x}"))
}
