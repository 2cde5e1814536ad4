//! Which subjects there are, and which subject covers which.

use amibus_contract::{Kind, Topic};
use async_nats::Subject;

/// The longest subject that a reply goes to, in bytes. The server closes a connection whose command line is longer than
/// its `max_control_line` (4096 bytes unless configured), and that connection carries the other commands too.
const MAX_REPLY_SUBJECT_BYTES: usize = 256;

/// The words after the prefix of everything that the events' stream keeps.
pub(crate) const KEPT: [&str; 5] = ["event", "link", "call", "response", "dead"];
/// Those without which publishing fails: `dead` only ever sets things aside.
const NEEDED: [&str; 4] = ["event", "link", "call", "response"];

/// The subject of a topic's messages, which shares the topic's memory.
pub(crate) fn of(topic: &Topic) -> Subject {
    Subject::from_utf8(topic.text().into_bytes()).unwrap_or_else(|_| topic.as_str().into())
}

/// The subjects of a stream for events that is made.
pub(crate) fn kept(prefix: &str) -> Vec<String> {
    KEPT.iter().map(|word| format!("{prefix}.{word}.>")).collect()
}

/// The subjects of a stream for commands that is made.
pub(crate) fn commands(prefix: &str) -> Vec<String> {
    vec![format!("{prefix}.command.>")]
}

/// The subject of one server's commands from a stream.
pub(crate) fn commands_of(prefix: &str, server: &str) -> String {
    format!("{prefix}.command.{server}.*")
}

/// The subject of one server's requests, which no stream of ours captures.
pub(crate) fn requests_of(prefix: &str, server: &str) -> String {
    format!("{prefix}.request.{server}.*")
}

/// The subject of messages of this kind, of one server or of all.
pub(crate) fn all_of(prefix: &str, kind: Kind, server: Option<&str>) -> String {
    format!("{prefix}.{}.{}.>", kind.as_str(), server.unwrap_or("*"))
}

/// Where a message that was refused for good is set aside: `<prefix>.dead.<kind>.<server>.<name>`.
pub(crate) fn dead(topic: &Topic) -> String {
    format!("{}.dead.{}.{}.{}", topic.prefix(), topic.kind().as_str(), topic.server(), topic.name())
}

/// The same for a command, by the subject that it came on. The action is whatever the sender wrote there: it is cut and
/// cleaned as a topic's name is, or our own line would become too long for the server.
pub(crate) fn dead_command(prefix: &str, subject: &str) -> String {
    let (server, action) = words(prefix, subject);
    match Topic::new(prefix, Kind::Command, server.unwrap_or_default(), action.unwrap_or_default()) {
        Ok(topic) => dead(&topic),
        Err(_) => format!("{prefix}.dead.{}._._", Kind::Command.as_str()),
    }
}

/// The server and the action in the subject of a command or request.
pub(crate) fn words<'a>(prefix: &str, subject: &'a str) -> (Option<&'a str>, Option<&'a str>) {
    let rest = subject.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.'));
    let mut words =
        rest.unwrap_or_default().splitn(3, '.').skip(1).map(|word| (!word.is_empty()).then_some(word));
    (words.next().flatten(), words.next().flatten())
}

/// The first needed subject that a stream with these `subjects` does not keep.
pub(crate) fn missing(subjects: &[String], prefix: &str) -> Option<String> {
    NEEDED
        .iter()
        .map(|word| format!("{prefix}.{word}.>"))
        .find(|needed| !subjects.iter().any(|subject| covers(subject, needed)))
}

/// Whether every subject that matches `narrow` matches `wide` too.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    let mut wide = wide.split('.');
    for token in narrow.split('.') {
        match wide.next() {
            Some(">") => return true,
            Some("*") if token != ">" => {}
            Some(same) if same == token => {}
            _ => return false,
        }
    }
    wide.next().is_none()
}

/// What a lane publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// One of its messages.
    Message,
    /// A dead letter of one.
    Dead,
}

/// What `subject` is among those that the lane of `server` publishes on: commands are not.
pub(crate) fn own(prefix: &str, server: &str, subject: &str) -> Option<Own> {
    let rest = subject.strip_prefix(prefix)?.strip_prefix('.')?;
    let (own, rest) = match rest.strip_prefix("dead.") {
        Some(rest) => (Own::Dead, rest),
        None => (Own::Message, rest),
    };
    let mut words = rest.split('.');
    let kind = words.next().filter(|word| NEEDED.contains(word));
    let (of, name, more) = (words.next(), words.next(), words.next());
    (kind.is_some() && of == Some(server) && name.is_some() && more.is_none()).then_some(own)
}

/// Whether a reply may go to `subject`: a command must not make us write to JetStream's own interface, to our own
/// topics or to a pattern.
pub(crate) fn may_reply_to(prefix: &str, subject: &str) -> bool {
    let ours = subject.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let plain = subject.split('.').all(|token| !token.is_empty() && token != "*" && token != ">");
    subject.len() <= MAX_REPLY_SUBJECT_BYTES
        && plain
        && !ours
        && !subject.starts_with('$')
        && !subject.contains(|c: char| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_covers_what_it_matches() {
        for (wide, narrow) in [
            (">", "ami.event.>"),
            ("ami.>", "ami.event.>"),
            ("ami.event.>", "ami.event.>"),
            ("*.event.>", "ami.event.>"),
            ("ami.*.>", "ami.event.>"),
            ("ami.command.*.*", "ami.command.pbx1.*"),
        ] {
            assert!(covers(wide, narrow), "{wide} {narrow}");
        }
        for (wide, narrow) in [
            ("ami.event.*", "ami.event.>"),
            ("ami.event.pbx1.>", "ami.event.>"),
            ("ami.event", "ami.event.>"),
            ("ami.event.>", "ami.event"),
            ("ami.event.x", "ami.event.*"),
            ("am.>", "ami.event.>"),
        ] {
            assert!(!covers(wide, narrow), "{wide} {narrow}");
        }
    }

    #[test]
    fn what_a_stream_lacks_is_named() {
        assert_eq!(missing(&kept("ami"), "ami"), None);
        assert_eq!(
            missing(&["ami.event.>".into(), "ami.link.>".into()], "ami"),
            Some("ami.call.>".to_owned())
        );
        assert_eq!(missing(&kept("other"), "ami"), Some("ami.event.>".to_owned()));
    }

    #[test]
    fn a_lane_knows_its_own_subjects() {
        assert_eq!(own("a.b", "pbx1", "a.b.event.pbx1.Hangup"), Some(Own::Message));
        assert_eq!(own("a.b", "pbx1", "a.b.dead.link.pbx1.gap"), Some(Own::Dead));
        for other in [
            "a.b.command.pbx1.Ping",
            "a.b.dead.command.pbx1.Ping",
            "a.b.event.pbx10.Hangup",
            "a.b.event.pbx1",
            "a.b.event.pbx1.x.y",
            "a.bevent.pbx1.x",
        ] {
            assert_eq!(own("a.b", "pbx1", other), None, "{other}");
        }
        assert_eq!(own("a.b", "event", "a.b.dead.event.pbx1.Hangup"), None, "a server of that name");
    }

    #[test]
    fn a_command_subject_gives_its_words() {
        assert_eq!(words("a.b", "a.b.command.pbx1.Originate"), (Some("pbx1"), Some("Originate")));
        assert_eq!(words("ami", "ami.request.pbx1.Queue.Add"), (Some("pbx1"), Some("Queue.Add")));
        assert_eq!(words("ami", "ami.command.pbx1"), (Some("pbx1"), None));
        assert_eq!(words("ami", "other.command.pbx1.X"), (None, None));
    }

    #[test]
    fn a_command_is_set_aside_under_a_subject_that_is_short_and_plain() {
        let of = |subject: &str| dead_command("a.b", subject);
        assert_eq!(of("a.b.command.pbx1.Ping"), "a.b.dead.command.pbx1.Ping");
        assert_eq!(of("a.b.command.pbx1.Pi\u{e4}\tng.x"), "a.b.dead.command.pbx1.Pi__ng_x");
        let long = "A".repeat(4000);
        assert_eq!(of(&format!("a.b.command.pbx1.{long}")).len(), "a.b.dead.command.pbx1.".len() + 128);
        assert_eq!(of("elsewhere"), "a.b.dead.command._._");
    }

    #[test]
    fn replies_go_to_inboxes_and_not_to_the_server_s_own_subjects() {
        assert!(may_reply_to("ami", "_INBOX.abc.1") && may_reply_to("ami", "answers.app1"));
        for bad in
            ["$JS.API.STREAM.DELETE.AMI", "ami.command.pbx1.Hangup", "ami", "a.*", "a.>", "a..b", "a b", ""]
        {
            assert!(!may_reply_to("ami", bad), "{bad}");
        }
        let longest = "r".repeat(MAX_REPLY_SUBJECT_BYTES);
        assert!(may_reply_to("ami", &longest) && !may_reply_to("ami", &format!("{longest}r")));
    }
}
