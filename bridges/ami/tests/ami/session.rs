//! Login, life and death of a session, as transcripts in virtual time.

use amibus_ami::{
    ActionIds, EventMask, Limits, LoginError, LoginMethod, Retry, SendError, Session, SessionConfig,
    SessionError,
};

use crate::driver::{Driver, action, config};

const BANNER: &str = "Asterisk Call Manager/11.0.0\r\n";

fn login_answer(words: &str) -> SessionError {
    let mut driver = Driver::new(config());
    driver.receives(BANNER).unwrap();
    let id = driver.writes_one("Login");
    let error = driver
        .receives(format!("Response: Error\r\nActionID: {id}\r\nMessage: {words}\r\n\r\n"))
        .unwrap_err();
    assert_eq!(driver.receives("Event: Late\r\n\r\n"), Err(SessionError::Closed));
    assert_eq!(driver.session.next_deadline(), None);
    error
}

#[test]
fn a_plain_login() {
    let mut driver = Driver::new(config());
    assert_eq!(driver.writes(), "", "the banner comes first");
    driver.receives(BANNER).unwrap();
    let written = driver.writes();
    let id = written.lines().nth(1).unwrap().strip_prefix("ActionID: ").unwrap();
    assert_eq!(
        written,
        format!(
            "Action: Login\r\nActionID: {id}\r\nUsername: amibus\r\nSecret: s3cret\r\nEvents: on\r\n\r\n"
        )
    );
    assert!(!driver.session.is_ready());
    driver
        .receives(format!(
            "Response: Success\r\nActionID: {id}\r\n\r\nEvent: FullyBooted\r\nUptime: 3\r\n\r\n"
        ))
        .unwrap();
    assert_eq!(driver.said(), ["banner 11.0.0", "logged in", "booted", "event FullyBooted"]);
    assert!(driver.session.is_ready());
}

#[test]
fn an_md5_login_as_recorded() {
    let mut driver = Driver::new(SessionConfig {
        login: LoginMethod::Md5,
        event_mask: EventMask::classes(["call", "user"]).unwrap(),
        ..config()
    });
    driver.receives(BANNER).unwrap();
    let id = driver.writes_one("Challenge");
    driver.receives(format!("Response: Success\r\nActionID: {id}\r\nChallenge: 208787525\r\n\r\n")).unwrap();
    let login = driver.writes();
    // md5("208787525s3cret"), reckoned by md5sum.
    assert!(login.contains("\r\nKey: 9e132ad053e2314bbb19ce2fb9a0a725\r\n"), "{login}");
    assert!(
        login.contains("\r\nAuthType: MD5\r\n") && login.contains("\r\nEvents: call,user\r\n"),
        "{login}"
    );
    assert!(!login.contains("s3cret"));
}

#[test]
fn a_challenge_is_refused_while_asterisk_stops() {
    let mut driver = Driver::new(SessionConfig { login: LoginMethod::Md5, ..config() });
    driver.receives(BANNER).unwrap();
    let id = driver.writes_one("Challenge");
    let words = "Message: Asterisk is shutting down";
    let error = driver.receives(format!("Response: Error\r\nActionID: {id}\r\n{words}\r\n\r\n")).unwrap_err();
    assert_eq!(error, SessionError::Login(LoginError::ShuttingDown));
    assert_eq!(error.retry(), Retry::Soon);
}

#[test]
fn no_challenge_is_told_apart() {
    let mut driver = Driver::new(SessionConfig { login: LoginMethod::Md5, ..config() });
    driver.receives(BANNER).unwrap();
    let id = driver.writes_one("Challenge");
    let error =
        driver.receives(format!("Response: Error\r\nActionID: {id}\r\nMessage: Permission denied\r\n\r\n"));
    assert_eq!(error, Err(SessionError::Login(LoginError::NoChallenge("Permission denied".into()))));
}

#[test]
fn refusals_are_told_apart() {
    let refusals = [
        ("Authentication failed", LoginError::WrongSecret, Retry::Slowly),
        ("Login Already In Use", LoginError::AlreadyInUse, Retry::Soon),
        ("Asterisk is shutting down", LoginError::ShuttingDown, Retry::Soon),
        ("Permission denied", LoginError::Refused("Permission denied".into()), Retry::Slowly),
    ];
    for (words, expected, retry) in refusals {
        let error = login_answer(words);
        assert_eq!(error, SessionError::Login(expected));
        assert_eq!(error.retry(), retry);
    }
}

#[test]
fn a_refusal_without_action_id_counts_during_login() {
    let mut driver = Driver::new(config());
    driver.receives(BANNER).unwrap();
    let error = driver.receives("Response: Error\r\nMessage: Login Already In Use\r\n\r\n");
    assert_eq!(error, Err(SessionError::Login(LoginError::AlreadyInUse)));
}

#[test]
fn what_is_not_asterisk_is_named() {
    let error = Driver::new(config()).receives("SSH-2.0-OpenSSH_9.2\r\n").unwrap_err();
    assert_eq!(error, SessionError::NotAsterisk { line: "SSH-2.0-OpenSSH_9.2".into() });
    assert_eq!(error.retry(), Retry::Slowly);
}

#[test]
fn a_silent_server_is_left() {
    let mut driver = Driver::new(config());
    driver.waits(14).unwrap();
    assert_eq!(driver.waits(1), Err(SessionError::LoginTimeout { waiting_for: "banner" }));
    let mut driver = Driver::new(config());
    driver.receives(BANNER).unwrap();
    assert_eq!(driver.waits(15), Err(SessionError::LoginTimeout { waiting_for: "answer to the login" }));
}

#[test]
fn a_username_that_would_split_the_login_is_refused() {
    let config = SessionConfig::new("me\r\nEvents: off", "s".into(), ActionIds::new([0; 16]));
    assert!(Session::new(config, std::time::Instant::now()).is_err());
}

#[test]
fn secrets_are_not_printed() {
    let mut driver = Driver::new(config());
    driver.receives(BANNER).unwrap();
    for printed in [format!("{:?}", driver.session), format!("{:?}", config())] {
        assert!(!printed.contains("s3cret"), "{printed}");
    }
}

#[test]
fn an_idle_session_pings_and_lives_on_the_answer() {
    let mut driver = Driver::ready(config());
    driver.waits(9).unwrap();
    assert_eq!(driver.writes(), "");
    driver.waits(1).unwrap();
    let id = driver.writes_one("Ping");
    driver.waits(4).unwrap();
    driver.receives(format!("Response: Success\r\nActionID: {id}\r\nPing: Pong\r\n\r\n")).unwrap();
    driver.waits(9).unwrap();
    assert_eq!(driver.writes(), "");
    assert!(driver.said().is_empty(), "nobody asked for that answer");
    driver.waits(1).unwrap();
    driver.writes_one("Ping");
}

#[test]
fn a_half_open_connection_is_found() {
    let mut driver = Driver::ready(config());
    let dead = driver.waits(60).unwrap_err();
    let SessionError::Dead { silent, waited } = &dead else { panic!("{dead}") };
    assert_eq!((silent.as_secs(), waited.as_secs()), (15, 5));
    assert_eq!(dead.retry(), Retry::Soon);
}

#[test]
fn any_byte_after_a_ping_is_life() {
    let mut driver = Driver::ready(config());
    driver.waits(12).unwrap();
    driver.receives("Event: Hang").unwrap();
    driver.waits(8).unwrap();
    driver.receives("up\r\n\r\n").unwrap();
    assert_eq!(driver.said(), ["event Hangup"]);
}

#[test]
fn silence_while_an_action_runs_is_not_death() {
    let mut driver = Driver::ready(config());
    driver.sends("Reload", 1);
    driver.waits(29).unwrap();
    assert!(matches!(driver.waits(1), Err(SessionError::Dead { .. })));
}

#[test]
fn while_a_ping_is_overdue_no_action_is_taken() {
    let mut driver = Driver::ready(config());
    driver.sends("Reload", 1);
    driver.waits(10).unwrap();
    driver.writes_one("Ping");
    driver.waits(4).unwrap();
    driver.queues("CoreStatus", 2).unwrap();
    driver.waits(1).unwrap();
    assert_eq!(driver.queues("CoreStatus", 3), Err(SendError::Silent));
    driver.receives("Event: Reload\r\n\r\n").unwrap();
    driver.queues("CoreStatus", 3).unwrap();
}

#[test]
fn an_action_is_not_written_after_its_deadline() {
    let mut driver = Driver::ready(config());
    let deadline = driver.now + std::time::Duration::from_secs(2);
    driver.session.send_until(&action("Originate"), 1, deadline).unwrap();
    driver
        .session
        .send_until(&action("CoreStatus"), 2, deadline + std::time::Duration::from_secs(2))
        .unwrap();
    // Before the driver comes to wake the session, it comes to write.
    driver.now = deadline;
    driver.writes_one("CoreStatus");
    driver.ticks().unwrap();
    assert_eq!(driver.said(), ["1 timed out, written false, response false"]);
}

#[test]
fn an_action_that_may_be_answered_later_than_written_is_not_written_late() {
    let mut driver = Driver::ready(config());
    let (soon, later) = (std::time::Duration::from_secs(2), std::time::Duration::from_secs(20));
    let start = driver.now;
    driver.session.send_within(&action("Originate"), 1, start + soon, start + later).unwrap();
    driver.session.send_within(&action("CoreStatus"), 2, start + soon, start + later).unwrap();
    driver.now = start + soon / 2;
    driver.writes_one("Originate");
    driver.now = start + soon;
    assert_eq!(driver.session.next_deadline(), Some(start + soon), "it is told when it is too late");
    driver.ticks().unwrap();
    assert_eq!(driver.said(), ["2 timed out, written false, response false"]);
    assert_eq!(driver.session.next_transmit(driver.now), None);
    driver.now = start + later;
    driver.ticks().unwrap();
    assert_eq!(driver.said(), ["1 timed out, written true, response false"]);
}

#[test]
fn actions_sent_to_a_dead_connection_do_not_keep_it_alive() {
    let mut driver = Driver::ready(config());
    driver.waits(10).unwrap();
    driver.writes_one("Ping");
    for token in 0..4 {
        driver.sends("CoreStatus", token);
        driver.waits(1).unwrap();
    }
    assert!(matches!(driver.waits(1), Err(SessionError::Dead { .. })));
}

#[test]
fn actions_are_refused_before_the_login_and_beyond_the_limit() {
    let limits = Limits { pending_actions: 2, ..Limits::default() };
    let mut driver = Driver::new(SessionConfig { limits: limits.clone(), ..config() });
    assert_eq!(driver.queues("Ping", 1), Err(SendError::NotLoggedIn));
    let mut driver = Driver::ready(SessionConfig { limits, ..config() });
    let first = driver.sends("CoreStatus", 1);
    driver.sends("CoreStatus", 2);
    assert_eq!(driver.queues("CoreStatus", 3), Err(SendError::TooManyPending { limit: 2 }));
    driver.receives(format!("Response: Success\r\nActionID: {first}\r\n\r\n")).unwrap();
    driver.sends("CoreStatus", 3);
}

#[test]
fn a_late_action_is_given_up_and_its_answer_swallowed() {
    let mut driver = Driver::ready(config());
    let id = driver
        .session
        .send_until(&action("QueueStatus"), 7, driver.now + std::time::Duration::from_secs(2))
        .unwrap();
    driver.writes();
    driver.waits(3).unwrap();
    assert_eq!(driver.said(), ["7 timed out, written true, response false"]);
    driver.receives(format!("Response: Success\r\nActionID: {id}\r\nEventList: start\r\n\r\n")).unwrap();
    driver.receives(format!("Event: QueueParams\r\nActionID: {id}\r\n\r\nEvent: Hangup\r\n\r\n")).unwrap();
    driver.receives(format!("Event: Done\r\nEventList: Complete\r\nActionID: {id}\r\n\r\n")).unwrap();
    assert_eq!(driver.said(), ["event Hangup"]);
    driver.receives(format!("Event: Again\r\nActionID: {id}\r\n\r\n")).unwrap();
    assert!(driver.said().is_empty(), "what comes behind the end is swallowed too");
}

#[test]
fn a_late_action_that_was_never_written_never_will_be() {
    let mut driver = Driver::ready(config());
    driver
        .session
        .send_until(&action("QueueStatus"), 7, driver.now + std::time::Duration::from_secs(2))
        .unwrap();
    driver.waits(3).unwrap();
    assert_eq!(driver.said(), ["7 timed out, written false, response false"]);
    assert_eq!(driver.writes(), "");
}

#[test]
fn the_end_accounts_for_every_action() {
    let mut driver = Driver::ready(config());
    driver.sends("Originate", 1);
    driver.sends("CoreStatus", 2);
    driver.queues("Hangup", 3).unwrap();
    driver.receives("Event: Newchannel\r\nChan").unwrap();
    assert_eq!(driver.ends(), Some(b"Event: Newchannel\r\nChan".to_vec()));
    assert_eq!(
        driver.said(),
        ["event Newchannel", "1 unanswered, written", "2 unanswered, written", "3 unanswered, never written"]
            [1..]
    );
    assert_eq!(driver.ends(), Some(b"Event: Newchannel\r\nChan".to_vec()));
    assert!(driver.said().is_empty(), "nothing is reported twice");
    assert_eq!(driver.queues("Ping", 4), Err(SendError::Closed));
}

#[test]
fn a_message_beyond_the_limit_ends_the_session_after_what_came_before_it() {
    let limits = Limits { frame_bytes: 200, ..Limits::default() };
    let mut driver = Driver::ready(SessionConfig { limits, ..config() });
    driver.sends("CoreStatus", 1);
    let error =
        driver.receives(format!("Event: Before\r\n\r\nEvent: {}\r\n\r\n", "x".repeat(300))).unwrap_err();
    assert!(matches!(error, SessionError::Frame(_)));
    assert_eq!(error.retry(), Retry::Soon);
    driver.ends();
    assert_eq!(driver.said(), ["event Before", "1 unanswered, written"]);
}

#[test]
fn a_logoff_is_answered_quietly() {
    let mut driver = Driver::ready(config());
    driver.session.logoff(driver.now);
    let id = driver.writes_one("Logoff");
    driver.receives(format!("Response: Goodbye\r\nActionID: {id}\r\n\r\n")).unwrap();
    assert_eq!(driver.ends(), None);
    assert!(driver.said().is_empty());
}

#[test]
fn unknown_event_classes_cannot_be_asked_for() {
    assert!(EventMask::classes(["call", "cdr"]).is_ok());
    assert_eq!(EventMask::classes(["call", "cal"]).unwrap_err().0, "cal");
    assert!(EventMask::classes([]).is_err());
}
