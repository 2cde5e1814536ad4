//! How Asterisk tells what an AMI user may do and see.
//!
//! Measured on 22.10.1 and 16.28.0: `ListCommands` lists just the actions that the user may run, each with the classes
//! of which one is enough, `(Priv: system,call,all)`; an action of one class alone therefore proves that class. What a
//! user may *read* is told by no action (`Events` answers `On` to a user with `read = none`), only by the CLI
//! command `manager show user`, which needs the class `command`; without that, what arrives is all there is to go by:
//! `FullyBooted` proves `system`, the `SuccessfulAuth` of a login proves `security`.

use std::collections::{BTreeMap, BTreeSet};

use amibus_ami::Frame;

/// The classes whose events an amibus usually wants, with what is in them.
pub const READ_CLASSES: [(&str, &str); 12] = [
    ("system", "FullyBooted, Shutdown, Reload, peers and contacts"),
    ("call", "channels, dials, bridges, hangups, queues"),
    ("agent", "agents and queue members"),
    ("user", "UserEvent"),
    ("dtmf", "digits"),
    ("reporting", "RTCP, JitterBufStats"),
    ("cdr", "call detail records"),
    ("dialplan", "Newexten, VarSet"),
    ("agi", "AGI"),
    ("cc", "call completion"),
    ("aoc", "advice of charge"),
    ("security", "logins and what was refused"),
];

/// The actions that a user may run, each with the classes of which one is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions(BTreeMap<String, Vec<String>>);

impl Actions {
    /// Reads the response to `ListCommands`.
    pub fn read(response: &Frame<'_>) -> Self {
        let mut actions = BTreeMap::new();
        for header in response.headers() {
            let value = String::from_utf8_lossy(header.value).into_owned();
            let Some((_, classes)) = value.rsplit_once("(Priv: ") else { continue };
            let classes = classes.trim_end_matches(')').split(',').map(str::to_owned);
            let name = String::from_utf8_lossy(header.name).into_owned();
            actions.insert(name, classes.filter(|class| class != "all").collect());
        }
        Self(actions)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether the user may run this one.
    pub fn has(&self, action: &str) -> bool {
        self.0.keys().any(|name| name.eq_ignore_ascii_case(action))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The classes that the user may write, as far as they are proved.
    pub fn write_classes(&self) -> BTreeSet<&str> {
        let single = |classes: &Vec<String>| classes.len() == 1;
        let proved = self.0.values().filter(|classes| single(classes)).flatten();
        proved.map(String::as_str).filter(|class| *class != "<none>").collect()
    }
}

/// The classes that the user may read, from the output of `manager show user NAME`.
pub fn read_classes(output: &[String]) -> Option<BTreeSet<String>> {
    let classes = setting(output, "read perm")?;
    Some(classes.split(',').map(|class| class.trim().to_owned()).filter(|class| !class.is_empty()).collect())
}

/// A line `name: value` of a CLI command's output.
pub fn setting<'a>(output: &'a [String], name: &str) -> Option<&'a str> {
    output.iter().find_map(|line| {
        let (given, value) = line.split_once(':')?;
        given.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &[u8] = b"Response: Success\r\nActionID: x\r\n\
        AGI: Add an AGI command (now).  (Priv: agi,all)\r\n\
        BridgeKick: Kick a channel from a bridge.  (Priv: <none>)\r\n\
        CoreSettings: Show PBX core settings.  (Priv: system,reporting,all)\r\n\r\n";

    #[test]
    fn listed_actions_prove_classes() {
        let actions = Actions::read(&Frame::parse(LISTED));
        assert_eq!(actions.names().collect::<Vec<_>>(), ["AGI", "BridgeKick", "CoreSettings"]);
        assert!(actions.has("bridgekick") && !actions.has("Originate"));
        assert_eq!(actions.write_classes().into_iter().collect::<Vec<_>>(), ["agi"]);
    }

    #[test]
    fn the_cli_tells_what_is_read() {
        let output: Vec<String> =
            ["", "          username: bridge", "         read perm: system,call", " Debug:   Yes "]
                .map(str::to_owned)
                .to_vec();
        let classes = read_classes(&output).expect("told");
        assert_eq!(classes.into_iter().collect::<Vec<_>>(), ["call", "system"]);
        assert_eq!(setting(&output, "debug"), Some("Yes"));
        assert_eq!(setting(&output, "Timestamp events"), None);
    }
}
