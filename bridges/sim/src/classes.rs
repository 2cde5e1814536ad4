//! Privilege classes as bits, and the words that choose them (`perms` in main/manager.c).

/// Every class at once.
pub(crate) const ALL: u32 = u32::MAX;
/// `system`: FullyBooted and Shutdown.
pub(crate) const SYSTEM: u32 = 1;
/// `call`.
pub(crate) const CALL: u32 = 1 << 1;
/// `command`.
pub(crate) const COMMAND: u32 = 1 << 4;
/// `user`.
pub(crate) const USER: u32 = 1 << 6;
/// `reporting`.
pub(crate) const REPORTING: u32 = 1 << 9;
/// `originate`.
pub(crate) const ORIGINATE: u32 = 1 << 12;

const NAMES: &[(&str, u32)] = &[
    ("system", SYSTEM),
    ("call", CALL),
    ("log", 1 << 2),
    ("verbose", 1 << 3),
    ("command", COMMAND),
    ("agent", 1 << 5),
    ("user", USER),
    ("config", 1 << 7),
    ("dtmf", 1 << 8),
    ("reporting", REPORTING),
    ("cdr", 1 << 10),
    ("dialplan", 1 << 11),
    ("originate", ORIGINATE),
    ("agi", 1 << 13),
    ("hookresponse", 1 << 14),
    ("cc", 1 << 15),
    ("aoc", 1 << 16),
    ("test", 1 << 17),
    ("security", 1 << 18),
    ("message", 1 << 30),
];

/// The classes of an event's `Privilege` line. `all` is in every such line and chooses nothing.
pub(crate) fn of_privilege(line: &str) -> u32 {
    of_names(line)
}

/// The classes that an `EventMask`, an `Events` header or a `read=` setting chooses: a switch word or a list of
/// class names. What is neither chooses nothing, and Asterisk answers `Success` to it all the same.
pub(crate) fn of_mask(words: &str) -> u32 {
    match words.trim().to_ascii_lowercase().as_str() {
        "on" | "yes" | "true" | "all" | "1" | "-1" => ALL,
        "off" | "no" | "false" | "none" | "0" | "" => 0,
        list if list.split(',').any(|word| word.trim() == "all") => ALL,
        list => of_names(list),
    }
}

/// The names of classes as `ListCommands` shows them: `call,reporting,all`, or `<none>`.
pub(crate) fn names(mask: u32) -> String {
    let mut names: Vec<&str> =
        NAMES.iter().filter(|(_, bit)| mask & bit != 0).map(|(name, _)| *name).collect();
    if names.is_empty() {
        return "<none>".to_owned();
    }
    names.push("all");
    names.join(",")
}

fn of_names(list: &str) -> u32 {
    list.split(',')
        .filter_map(|word| NAMES.iter().find(|(name, _)| word.trim().eq_ignore_ascii_case(name)))
        .fold(0, |mask, (_, bit)| mask | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_choose_classes() {
        assert_eq!(of_mask("on"), ALL);
        assert_eq!(of_mask("off"), 0);
        assert_eq!(of_mask("call, system"), CALL | SYSTEM);
        assert_eq!(of_mask("nonsense"), 0);
        assert_eq!(of_privilege("call,all"), CALL);
    }
}
