//! The pass beside the way that every message can go.

use std::{collections::BTreeMap, sync::LazyLock};

use amibus_ami::{Decoded, Decoder, Frame, Limits};
use amibus_services::corpus::{corpus_names, recording};
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{MAX_BYTES, MAX_OTHERS, MAX_VARIABLES, Memo, again::MAX_AGAIN};
use crate::normalize::{data, lines::Lines};

/// Whether the pass took the message; fails where its result is another than that of the obvious way.
pub(super) fn takes(memo: &mut Memo, raw: &[u8]) -> Result<bool, TestCaseError> {
    let frame = Frame::parse(raw);
    let lines = Lines::of(frame);
    let mut expected = Vec::new();
    data::write(&lines, encoding_rs::UTF_8, &mut expected);
    let Some((ids, data)) = memo.read(frame, encoding_rs::UTF_8) else { return Ok(false) };
    let said = raw.escape_ascii().to_string();
    prop_assert_eq!(String::from_utf8_lossy(data), String::from_utf8_lossy(&expected), "{}", said);
    prop_assert_eq!(ids, lines.ids, "{}", said);
    Ok(true)
}

/// Every message of every recording, by the recording's name.
pub(super) static RECORDED: LazyLock<BTreeMap<String, Vec<Vec<u8>>>> =
    LazyLock::new(|| corpus_names().into_iter().map(|name| (name.clone(), messages_of(&name))).collect());

fn messages_of(name: &str) -> Vec<Vec<u8>> {
    let recording = recording(name);
    let mut decoder = match recording.notes.is_ami() {
        true => Decoder::new(Limits::default()),
        false => Decoder::without_banner(Limits::default()),
    };
    let (mut unread, mut messages) = (&*recording.s2c, Vec::new());
    loop {
        let used = match decoder.decode(unread).expect("within the limits") {
            Decoded::Incomplete => return messages,
            Decoded::Banner { consumed, .. } => consumed,
            Decoded::Frame { frame, consumed } => {
                messages.push(frame.raw().to_vec());
                consumed
            }
        };
        unread = &unread[used..];
    }
}

#[test]
fn recordings_are_usual() {
    // One memo for all of them: what it keeps of one must not show in another.
    let mut memo = Memo::new();
    for (name, messages) in &*RECORDED {
        let takes = |raw: &Vec<u8>| takes(&mut memo, raw).unwrap_or_else(|error| panic!("{name}: {error}"));
        let usual = messages.iter().map(takes).filter(|taken| *taken).count();
        let usual_percent = match &**name {
            "load500-22" => 99,
            "lists-22" => 100,
            "userevents-16" => 97,
            _ => continue,
        };
        assert!(usual * 100 >= messages.len() * usual_percent, "{name}: {usual} of {}", messages.len());
    }
}

#[test]
fn what_is_long_fits() {
    let mut memo = Memo::new();
    let mut usual = |raw: &[u8]| takes(&mut memo, raw).unwrap_or_else(|error| panic!("{error}"));
    for bytes in [MAX_BYTES - 16, MAX_BYTES - 3, MAX_BYTES - 2, MAX_BYTES, 2 * MAX_BYTES] {
        for fill in [&b"x"[..], b"\x01", b"\"", b"\xE9"] {
            let raw: Vec<u8> =
                b"Event: X\r\nMine: ".iter().chain(fill.iter().cycle()).take(bytes).copied().collect();
            assert_eq!(usual(&raw), bytes + 2 < MAX_BYTES, "{bytes} bytes");
        }
    }
    for (names, few) in [(MAX_OTHERS, true), (MAX_OTHERS + 1, false)] {
        let lines: String = (0..names).map(|name| format!("\r\nN{name}: {name}")).collect();
        assert_eq!(usual(format!("Event: X{lines}").as_bytes()), few, "{names} names");
        assert!(!usual(format!("Event: X{lines}\r\nN7: again").as_bytes()));
    }
    for (variables, few) in [(MAX_VARIABLES, true), (MAX_VARIABLES + 1, false)] {
        let lines: String = (0..variables).map(|name| format!("\r\nChanVariable: {name}=1")).collect();
        assert_eq!(usual(format!("Event: X{lines}").as_bytes()), few, "{variables} variables");
    }
}

#[test]
fn what_is_unusual_is_left() {
    let mut memo = Memo::new();
    for (lines, usual) in [
        ("Event: X", true),
        ("Event: X\nChanVariable: A=1\nChanVariable: B=\\\"2\\\"\nExten: 1", true),
        ("Event: X\nChanVariable: A=1\nChanVariable: B=\"2\"\nExten: 1", false),
        ("Event: X\nChanVariable: A=1\nChanVariable: A=2", false),
        ("Event: X\nChanVariable: A=1\nExten: 1\nChanVariable: B=2", false),
        ("Event: X\nChanVariable: A", false),
        ("Event: X\nMine: 1\nYours: 2", true),
        ("Event: X\nMine: 1\nMine: 2", false),
        ("Event: X\nState: 1\nState: 2\nState: 3\nExten: 1", true),
        ("Event: X\nState: 1\nExten: 1\nMine: 2\nState: 2\nExtension: 1\nState: ", true),
        ("Event: X\nState: 1\nExten: 1\nState: 2\nExten: 2\nEvent: X\nState: 3", true),
        ("Event: X\nPrivilege: a,b\nExten: 1\nPrivilege: c\nPrivilege: ", true),
        ("Event: VarSet\nValue: a\nExten: 1\nValue: b", true),
        ("Event: VarSet\nValue: a\\n\nExten: 1\nValue: b", false),
        ("Event: X\nState: a \"b\"\nExten: 1\nState: 2", false),
        ("Event: X\nUniqueid: 1\nExten: 1\nUniqueid: 2", false),
        ("Event: X\nChannelState: 1\nChannelState: 2\nExten: 1\nChannelState: 03", true),
        ("Event: X\nChannelState: 03\nExten: 1\nChannelState: 2", true),
        ("Event: VarSet\nVariable: a\nValue: b\\n\nExten: 1", true),
        ("Event: UserEvent\nUserEvent: x\nCallerIDName: it\nMine: 1", true),
        ("Event: UserEvent\nCallerIDName: a\\n\nUserEvent: x", true),
        ("Event: UserEvent\nUserEvent: x\nCallerIDName: a\\n", true),
        ("Event: UserEvent\nUserEvent: x\nChanVariable: A=a\\n", false),
        ("Event: VarSet\nValue: a\nValue: it's", false),
        ("Event: X\nExten:1", false),
        ("Event: X\nno colon", false),
        ("Event: X\n", false),
        ("Event: X\n$order: 1", false),
        ("Event: X\nCallerIDName: a \\\"b\\\" \u{e4}", true),
        ("Event: X\nCallerIDName: it's\nExten: 1", true),
        ("Event: X\nCallerIDName: it's\nConnectedLineName: \\x\nExten: 1", false),
        ("Event: X\nCallerIDName: it's\nCallerIDName: a", false),
        ("Event: X\nCallerIDName: it's\nState: 1\nState: 2", false),
        ("Event: X\nState: 1\nCallerIDName: it's\nExten: 1\nState: 2", false),
        ("Event: X\nState: 1\nExten: 1\nState: 2\nCallerIDName: it's", true),
        ("event: X", false),
        ("Response: Success\nMessage: x", true),
        ("Response: Success\nEvent: OriginateResponse", false),
        ("Response: Follows\nPrivilege: Command\nx: y--END COMMAND--", false),
        ("Variable: 1", false),
        ("", false),
    ] {
        let raw = lines.replace('\n', "\r\n");
        let taken = takes(&mut memo, raw.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(taken, usual, "{lines}");
    }
}

#[test]
fn one_value_may_have_its_bytes_beside_it() {
    let mut memo = Memo::new();
    for charset in [encoding_rs::UTF_8, encoding_rs::WINDOWS_1252, encoding_rs::SHIFT_JIS] {
        for (raw, usual) in [
            (&b"Event: X\r\nState: caf\xE9 \"\x82\xA0\"\r\nExten: 1"[..], true),
            (b"Event: X\r\nMine: caf\xE9\r\nExten: 1\r\nUniqueid: 1", true),
            (b"Event: X\r\nState: 1\r\nExten: 1\r\nState: 2\r\nUniqueid: \xE9", true),
            (b"Event: AsyncAGIStart\r\nEnv: %E9%\x01", true),
            (b"Event: AsyncAGIStart\r\nEnv: %E9\r\nChannel: a", true),
            (b"Event: caf\xE9\r\nChannelState: \xE9", false),
            (b"Event: X\r\nChannelState: \xE9", true),
            (b"Response: Success\r\nMessage: \xE9", true),
            (b"Event: X\r\nPrivilege: \xE9", false),
            (b"Event: X\r\nChanVariable: A=\xE9", false),
            (b"Event: X\r\nMine: \xE9\r\nMine: 2", false),
        ] {
            let frame = Frame::parse(raw);
            let lines = Lines::of(frame);
            let mut expected = Vec::new();
            data::write(&lines, charset, &mut expected);
            let read = memo.read(frame, charset);
            let said = raw.escape_ascii();
            assert_eq!(read.is_some(), usual, "{said}");
            if let Some((ids, data)) = read {
                assert_eq!(String::from_utf8_lossy(data), String::from_utf8_lossy(&expected), "{said}");
                assert_eq!(ids, lines.ids, "{said}");
            }
        }
    }
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        8 => prop::sample::select(&[
            "Event", "Privilege", "Timestamp", "Channel", "ChannelStateDesc", "LocalOneConnectedLineNum", "Exten",
            "Cause", "Priority", "CallerIDName", "ChanVariable", "DestChanVariable", "Variable", "Value", "UserEvent",
            "Env", "Uniqueid", "Linkedid", "DestUniqueid", "Subtype", "Report1LSR", "ChanVariable(a;1)", "Mine", "$x",
        ][..]).prop_map(|name| name.as_bytes().to_vec()),
        1 => "[ -~\u{e4}]{0,12}".prop_map(String::into_bytes),
    ];
    let separator = prop_oneof![30 => Just(": "), 1 => Just(":"), 1 => Just("")];
    let value = prop_oneof![
        4 => "[A-Za-z0-9/.<>;@-]{0,40}".prop_map(String::into_bytes),
        2 => "-?[0-9]{0,18}".prop_map(String::into_bytes),
        2 => "[A-D]=[a-z'?\"\\\\=]{0,20}".prop_map(String::into_bytes),
        1 => "(call|user|,){0,4}".prop_map(String::into_bytes),
        1 => "[a-z%0-9\"\\\\'? \u{e4}\u{7f}\r\n\t]{0,20}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..20),
    ];
    (name, separator, value)
        .prop_map(|(name, separator, value)| [&*name, separator.as_bytes(), &*value].concat())
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(
        &[
            "Event: Hangup",
            "Event: VarSet",
            "Event: Status",
            "Event: UserEvent",
            "Event: OriginateResponse",
            "Event: AsyncAGIExec",
            "Event: PresenceStateChange",
            "Event: QueueEntry",
            "Event: \u{e4}\"",
            "Response: Success",
            "Response: Follows",
            "Event:X",
            "Mine: 1",
        ][..],
    );
    (first, vec(line(), 0..12)).prop_map(|(first, lines)| {
        let mut raw = first.as_bytes().to_vec();
        for line in lines {
            raw.extend_from_slice(b"\r\n");
            raw.extend_from_slice(&line);
        }
        raw
    })
}

/// What may happen to a recorded message.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Another byte in one place.
    Byte(Index, u8),
    /// Some bytes are not there.
    Cut(Index, usize),
    /// A line comes once more, in another place.
    Line(Index, Index),
}

impl Change {
    pub(super) fn any() -> impl Strategy<Value = Self> {
        const BYTES: &[u8] = b"\r\n:\"\\'?=,%$ \0\t\x7f\x80\xc3\xa4\xffA0-<";
        prop_oneof![
            3 => (any::<Index>(), prop::sample::select(BYTES)).prop_map(|(at, byte)| Self::Byte(at, byte)),
            1 => (any::<Index>(), 1..6_usize).prop_map(|(at, bytes)| Self::Cut(at, bytes)),
            2 => any::<(Index, Index)>().prop_map(|(from, to)| Self::Line(from, to)),
        ]
    }

    pub(super) fn of(&self, raw: &[u8]) -> Vec<u8> {
        let mut changed = [raw, b"\r\n"].concat();
        match self {
            Self::Byte(at, byte) => changed[at.index(raw.len().max(1))] = *byte,
            Self::Cut(at, bytes) => {
                let at = at.index(raw.len().max(1));
                changed.drain(at..(at + bytes).min(raw.len()).max(at));
            }
            Self::Line(from, to) => {
                let mut lines: Vec<&[u8]> = changed.split_inclusive(|byte| *byte == b'\n').collect();
                let line = lines[from.index(lines.len())];
                lines.insert(to.index(lines.len() + 1), line);
                changed = lines.concat();
            }
        }
        changed.truncate(changed.len() - 2);
        changed
    }
}

proptest! {
    #[test]
    fn the_pass_writes_what_the_obvious_way_writes(messages in vec(message(), 1..6)) {
        let mut memo = Memo::new();
        for raw in &messages {
            takes(&mut memo, raw)?;
        }
        for raw in messages.iter().rev() {
            takes(&mut memo, raw)?;
        }
    }

    #[test]
    fn recorded_messages_that_were_changed_are_the_same_too(
        picks in vec((any::<(Index, Index)>(), vec(Change::any(), 1..4)), 8),
    ) {
        let mut memo = Memo::new();
        let recordings: Vec<_> = RECORDED.values().filter(|messages| !messages.is_empty()).collect();
        for ((recording, message), changes) in picks {
            let messages = recordings[recording.index(recordings.len())];
            let raw = &messages[message.index(messages.len())];
            takes(&mut memo, raw)?;
            let changed = changes.iter().fold(raw.clone(), |raw, change| change.of(&raw));
            takes(&mut memo, &changed)?;
        }
    }
}

/// A message of few names, most of which come again.
pub(super) fn repeats() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(
        &[
            "Event",
            "Privilege",
            "State",
            "ChannelState",
            "CallerIDName",
            "Exten",
            "AppLine",
            "LocalOneCallerIDName",
        ][..],
    );
    let value = prop_oneof![
        8 => "[a-z]{0,20}",
        4 => "-?[0-9]{0,17}",
        4 => "(a|bc|,|]|\\[|\\{){0,5}",
        1 => Just("a".repeat(200)),
    ];
    let event = prop::sample::select(&["X", "UserEvent", "Hangup", "VarSet", "QueueEntry"][..]);
    (event, vec((name, value), 1..=MAX_AGAIN), any::<Option<Index>>()).prop_map(|(event, lines, own)| {
        let mut lines: Vec<_> = lines.iter().map(|(name, value)| format!("\r\n{name}: {value}")).collect();
        if let Some(at) = own {
            lines.insert(at.index(lines.len() + 1), "\r\nMine: 1\r\nExtension: ,\"".into());
        }
        format!("Event: {event}{}", lines.concat()).into_bytes()
    })
}

proptest! {
    #[test]
    fn names_of_the_table_may_come_again(messages in vec(repeats(), 1..4)) {
        let mut memo = Memo::new();
        for raw in messages {
            prop_assert!(takes(&mut memo, &raw)?, "{}", raw.escape_ascii());
        }
    }
}

/// Each array moves what is written behind it.
#[test]
fn where_repeats_would_move_much_the_message_is_left() {
    let mut memo = Memo::new();
    for (names, usual) in [(&["State"][..], true), (&["State", "Exten", "File"][..], false)] {
        let lines: String = names.iter().map(|name| format!("\r\n{name}: 1")).collect();
        let raw = format!("Event: X{lines}\r\nMine: {}{lines}", "x".repeat(30_000));
        let taken = takes(&mut memo, raw.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(taken, usual, "{names:?}");
    }
    for (repeats, usual) in [(MAX_AGAIN, true), (MAX_AGAIN + 1, false)] {
        let raw =
            format!("Event: X\r\nState: 1\r\nExten: {}{}", "x".repeat(2_000), "\r\nState: 2".repeat(repeats));
        let taken = takes(&mut memo, raw.as_bytes()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(taken, usual, "{repeats} repeats");
    }
}
