//! Help, schemas, completions, wrong usage: what needs neither file nor network.

use super::program::run;

#[test]
fn help_teaches_by_examples() {
    let ended = run(&["--help"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for word in
        ["run", "check", "demo", "tail", "send", "dial", "schema", "completions", "Exit codes: 0 well"]
    {
        assert!(ended.out.contains(word), "{word} is not in\n{}", ended.out);
    }
    for command in ["check", "demo", "tail", "send", "dial", "schema"] {
        let ended = run(&[command, "--help"]);
        assert_eq!(ended.code, Some(0), "{command}: {ended:?}");
        assert!(ended.out.contains("Examples:\n"), "{command}:\n{}", ended.out);
    }
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [
        &["rum"][..],
        &["run", "--nothing"],
        &["send", "Ping"],
        &["tail", "--set", "url=x"],
        &["tail", "--event", "[", "--bus", "zeromq", "--set", "publish=tcp://127.0.0.1:1"],
        &["send", "Ping", "--server", "pbx1", "Channel"],
        &["send", "Ping", "--server", "pbx1", "--timeout", "soon"],
        &["send", "Ping", "--server", "pbx1", "--timeout", "0s"],
        &["send", "Ping", "--server", "pbx1", "--deadline", "0ms"],
        &["dial", "numbers.csv", "--server", "pbx1", "--channel", "{number}"],
        &[
            "dial",
            "numbers.csv",
            "--server",
            "pbx1",
            "--channel",
            "{number}",
            "--context",
            "a",
            "--ahead",
            "0",
        ],
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {ended:?}");
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{arguments:?}: {ended:?}");
    }
}

#[test]
fn schemas_are_json() {
    for which in ["event", "link", "command", "response", "config"] {
        let ended = run(&["schema", which]);
        let schema: serde_json::Value = serde_json::from_str(&ended.out).expect(which);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{which}");
    }
    let all: serde_json::Value = serde_json::from_str(&run(&["schema"]).out).expect("JSON");
    assert!(all["event"].is_object() && all["response"].is_object());
}

#[test]
fn completions_know_the_subcommands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = run(&["completions", shell]);
        assert_eq!(ended.code, Some(0), "{shell}");
        assert!(ended.out.contains("completions") && ended.out.contains("log-format"), "{shell}");
        assert!(ended.out.contains("allow-characters"), "{shell}");
    }
}
