use std::time::{Duration, Instant};

use amibus_sim::{SimOptions, User};
use md5::{Digest, Md5};

use crate::client::{Client, header, logged_in, start};

#[tokio::test]
async fn plain_login_is_accepted_and_says_fully_booted() {
    let sim = start(SimOptions::default()).await;
    let mut client = Client::connect(&sim).await;
    let accepted = client.ask("Action: Login\nUsername: amibus\nSecret: amibus\nActionID: a").await;
    assert_eq!(accepted, "Response: Success\nActionID: a\nMessage: Authentication accepted\n");
    let booted = client.message().await;
    assert!(booted.starts_with("Event: FullyBooted\nPrivilege: system,all\nUptime: "), "{booted}");
    assert!(!booted.contains("Timestamp"), "FullyBooted carries none");
    let auth = client.message().await;
    assert_eq!(header(&auth, "AccountID"), "amibus");
    assert_eq!(sim.sessions(), 1);
}

#[tokio::test]
async fn md5_login_takes_the_challenge() {
    let sim = start(SimOptions::default()).await;
    let mut client = Client::connect(&sim).await;
    assert_eq!(
        client.ask("Action: Challenge\nAuthType: SHA256\nActionID: c0").await,
        "Response: Error\nActionID: c0\nMessage: Must specify AuthType\n"
    );
    let answer = client.ask("Action: Challenge\nAuthType: MD5\nActionID: c1").await;
    let digest = Md5::digest(format!("{}amibus", header(&answer, "Challenge")));
    let key: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let login = format!("Action: Login\nAuthType: MD5\nUsername: amibus\nKey: {key}\nEvents: off");
    assert_eq!(client.ask(&login).await, "Response: Success\nMessage: Authentication accepted\n");
    assert_eq!(client.ask(&login).await, "Response: Success\nMessage: Already authenticated\n");
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_user_look_the_same() {
    let sim = start(SimOptions::default()).await;
    for who in ["Username: amibus\nSecret: wrong", "Username: nobody\nSecret: amibus"] {
        let mut client = Client::connect(&sim).await;
        let began = Instant::now();
        let refused = client.ask(&format!("Action: Login\n{who}\nActionID: l1")).await;
        assert!(began.elapsed() >= Duration::from_secs(1), "Asterisk pauses a second");
        assert_eq!(refused, "Response: Error\nActionID: l1\nMessage: Authentication failed\n");
        assert!(client.rest().await.is_empty());
    }
    assert_eq!(sim.stats().failed_logins, 2);
}

#[tokio::test]
async fn nothing_else_is_allowed_before_login() {
    let sim = start(SimOptions::default()).await;
    let mut client = Client::connect(&sim).await;
    assert_eq!(
        client.ask("Action: Ping\nActionID: pre").await,
        "Response: Error\nActionID: pre\nMessage: Permission denied\n"
    );
}

#[tokio::test]
async fn a_second_login_is_refused_where_one_is_allowed() {
    let sim = start(SimOptions { allow_multiple: false, ..SimOptions::default() }).await;
    let _first = logged_in(&sim, "off").await;
    let mut second = Client::connect(&sim).await;
    assert_eq!(
        second.ask("Action: Login\nUsername: amibus\nSecret: amibus").await,
        "Response: Error\nMessage: Login Already In Use\n"
    );
    assert!(second.rest().await.is_empty());
}

#[tokio::test]
async fn a_user_sees_and_does_only_what_the_classes_allow() {
    let users = vec![User::new("amibus", "amibus").read("call").write("none")];
    let sim = start(SimOptions { users, ..SimOptions::default() }).await;
    let mut client = Client::connect(&sim).await;
    client.ask("Action: Login\nUsername: amibus\nSecret: amibus").await;
    assert_eq!(
        client.ask("Action: Originate\nChannel: Local/1@a").await,
        "Response: Error\nMessage: Permission denied\n",
        "and no FullyBooted before it, which needs read=system"
    );
    assert!(client.ask("Action: Ping").await.contains("Ping: Pong"), "which needs no class");
    let commands = client.ask("Action: ListCommands").await;
    assert!(commands.contains("\nPing: Simulated.  (Priv: <none>)\n") && !commands.contains("\nOriginate: "));
    let mut other = Client::connect(&sim).await;
    other.ask("Action: Login\nUsername: amibus\nSecret: amibus").await;
    assert!(client.is_silent(Duration::from_millis(50)).await, "SuccessfulAuth is of class security");
}

#[tokio::test]
async fn logoff_says_goodbye_and_closes() {
    let sim = start(SimOptions::default()).await;
    let mut client = logged_in(&sim, "off").await;
    assert_eq!(
        client.ask("Action: Logoff\nActionID: q").await,
        "Response: Goodbye\nActionID: q\nMessage: Thanks for all the fish.\n"
    );
    assert!(client.rest().await.is_empty());
}
