//! Many messages through one memo, each of them beside the general way: its `data`, and the whole event.

use std::{
    sync::LazyLock,
    time::{Duration, UNIX_EPOCH},
};

use amibus_ami::Frame;
use amibus_contract::Topics;
use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    MAX_BYTES, Memo,
    tests::{Change, RECORDED, repeats, takes},
};
use crate::{
    normalize::{self, Profile, Stamp, data, fields, lines::Lines, timestamp_micros},
    route,
};

/// Every name of the table.
static LISTED: LazyLock<Vec<String>> = LazyLock::new(|| fields::listed().map(|(name, ..)| name).collect());

const EVENTS: &[&str] = &[
    "Hangup",
    "Newchannel",
    "VarSet",
    "Status",
    "UserEvent",
    "userevent",
    "OriginateResponse",
    "AsyncAGIStart",
    "AsyncAGIExec",
    "PresenceStateChange",
    "QueueEntry",
    "MeetmeList",
    "X",
    "",
    " X",
    "Cdr",
    "\u{e4}\"",
    "x\ry",
];
/// What stands in values that are not plain, or nearly so.
const ODD: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\\"",
    b"\\n",
    b"\\\\",
    b"\\x",
    b"'",
    b"\\'",
    b"?",
    b"=",
    b",",
    b":",
    b": ",
    b" ",
    b"\r",
    b"\n",
    b"\n\r",
    b"\0",
    b"\x01",
    b"\x1f",
    b"\x7f",
    b"\xc3",
    b"\xa4",
    b"\xc3\xa4",
    b"\xe2\x82\xac",
    b"\xff",
    b"%41",
    b"%C3",
    b"%0A",
    b"%2f",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"{",
    b"}",
    b"]",
    b"<unknown>",
    b"$order",
];
const NUMBERS: &[&str] = &[
    "0",
    "7",
    "00",
    "007",
    "+5",
    "-",
    "-0",
    "-1",
    "1.50",
    "1e3",
    " 1",
    "1 ",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740992",
    "-9007199254740993",
    "9223372036854775808",
    "18446744073709551616",
    "99999999999999999999999999",
    "1795220781.585985",
];

fn plain() -> impl Strategy<Value = Vec<u8>> {
    let long = (0..80_usize, 0x20..0x7f_u8).prop_map(|(bytes, byte)| match byte {
        b'"' | b'\\' | b'\'' | b'?' | b'=' => vec![b'x'; bytes],
        byte => vec![byte; bytes],
    });
    prop_oneof![
        4 => "[A-Za-z0-9/.<>;@ -]{0,40}".prop_map(String::into_bytes),
        2 => long,
        2 => prop::sample::select(NUMBERS).prop_map(|text| text.as_bytes().to_vec()),
        1 => Just(vec![]),
    ]
}

fn odd() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        2 => prop::sample::select(ODD).prop_map(<[u8]>::to_vec),
        1 => plain(),
        1 => Just(b"A=".to_vec()),
    ];
    prop_oneof![4 => vec(part, 0..6).prop_map(|parts| parts.concat()), 1 => vec(any::<u8>(), 0..40)]
}

fn value(odd_in: u32) -> impl Strategy<Value = Vec<u8>> {
    let variable = ("[A-D'?\u{e4}]{0,2}", prop_oneof![3 => plain().boxed(), 1 => odd().boxed()])
        .prop_map(|(name, value)| [name.as_bytes(), b"=", &value].concat());
    prop_oneof![odd_in => plain(), odd_in / 2 => variable, 2 => odd()]
}

#[derive(Clone, Debug)]
struct Line {
    name: Vec<u8>,
    separator: &'static str,
    value: Vec<u8>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let some = prop::sample::select(
        &[
            "Event",
            "Response",
            "UserEvent",
            "Privilege",
            "Timestamp",
            "SequenceNumber",
            "CallerIDName",
            "ChanVariable",
            "DestChanVariable",
            "Variable",
            "Value",
            "Env",
            "Result",
            "Uniqueid",
            "Linkedid",
            "DestUniqueid",
            "LinkedID",
            "UniqueID",
            "Subtype",
            "Message",
            "Cause",
            "Report1LSR",
            "Report",
            "ChanVariable(a;1)",
            "ChanVariable(b: 1)",
            "ActionID",
            "Output",
            "event",
            "State",
            "LocalOneConnectedLineNum",
            "SecondTransfererConnectedLineName",
        ][..],
    );
    prop_oneof![
        6 => any::<Index>().prop_map(|at| LISTED[at.index(LISTED.len())].as_bytes().to_vec()),
        8 => some.prop_map(|name| name.as_bytes().to_vec()),
        3 => (0..200_u16).prop_map(|n| format!("N{n}").into_bytes()),
        1 => (0..70_usize).prop_map(|bytes| vec![b'n'; bytes]),
        1 => prop::sample::select(ODD).prop_map(|part| [b"N", part].concat()),
        1 => prop::sample::select(ODD).prop_map(<[u8]>::to_vec),
    ]
}

fn line(odd_in: u32) -> impl Strategy<Value = Line> {
    let separator = prop_oneof![12 * odd_in => Just(": "), 1 => Just(":"), 1 => Just("")];
    (name(), separator, value(odd_in)).prop_map(|(name, separator, value)| Line { name, separator, value })
}

/// A message in which some lines have the name of another.
fn message(odd_in: u32) -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        14 => prop::sample::select(EVENTS).prop_map(|name| format!("Event: {name}")),
        2 => prop::sample::select(&["Success", "Follows", "follows", "Error", "", "\u{e4}"][..])
            .prop_map(|name| format!("Response: {name}")),
        1 => prop::sample::select(&["Event:X", "event: X", "Mine: 1", "", "Event", "RESPONSE: Success", "Event: "][..])
            .prop_map(str::to_owned),
    ];
    let repeats =
        prop_oneof![3 => vec(any::<(Index, Index)>(), 0..1), 1 => vec(any::<(Index, Index)>(), 1..5)];
    (first, vec(line(odd_in), 0..20), repeats, any::<Index>(), any::<bool>()).prop_map(
        |(first, mut lines, repeats, of, one_name)| {
            let name = lines.get(of.index(lines.len().max(1))).map(|line| line.name.clone());
            let repeats = if lines.is_empty() { Vec::new() } else { repeats };
            for (from, to) in repeats {
                let mut line = lines[from.index(lines.len())].clone();
                line.name = name.clone().filter(|_| one_name).unwrap_or(line.name);
                lines.insert(to.index(lines.len() + 1), line);
            }
            let lines = lines
                .iter()
                .map(|line| [b"\r\n", &*line.name, line.separator.as_bytes(), &line.value].concat());
            std::iter::once(first.into_bytes()).chain(lines).collect::<Vec<_>>().concat()
        },
    )
}

/// What means something else in some events, or behind some line.
fn special() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: &[(&str, &[&str])] = &[
        (
            "UserEvent",
            &["UserEvent", "CallerIDName", "ChanVariable", "DestChanVariable", "State", "ParkeeCallerIDName"],
        ),
        ("VarSet", &["Variable", "Value", "ChanVariable", "CallerIDName"]),
        ("Status", &["Variable", "ChanVariable", "CallerIDName", "State"]),
        (
            "OriginateResponse",
            &["ChanVariable(a)", "ChanVariable(b;1)", "ChanVariable", "CallerIDName", "State"],
        ),
        ("PresenceStateChange", &["Subtype", "Message", "State"]),
        ("AsyncAGIExec", &["Env", "Result", "State"]),
        ("QueueEntry", &["CallerIDName", "ChanVariable", "State"]),
        ("X", &["State", "File", "ID", "Exten", "Variable", "Value", "Privilege"]),
    ];
    const VALUES: &[&str] = &[
        "a", "", "1", "it's", "what?", "a\\n", "a=1", "b=1", "b=it's", "c=x\\n", "d=\\x", "%41", "%2F",
        "\u{e4}", "\"", "x y", "\\'", "a,b",
    ];
    let line = || (any::<Index>(), prop::sample::select(VALUES));
    (prop::sample::select(NAMES), vec(line(), 0..9)).prop_map(|((event, names), lines)| {
        let lines =
            lines.iter().map(|(name, value)| format!("\r\n{}: {value}", names[name.index(names.len())]));
        std::iter::once(format!("Event: {event}")).chain(lines).collect::<String>().into_bytes()
    })
}

/// What may be read next.
#[derive(Clone, Debug)]
enum Step {
    Message(Vec<u8>),
    /// A recorded one, changed.
    Recorded(Index, Index, Vec<Change>),
    /// The beginning of the last one, whose other bytes still stand in the memory.
    Begin(Index),
    /// The last one, some line of which is now the last.
    Lines(Index),
    /// The last one once more, changed.
    Again(Vec<Change>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => message(40).prop_map(Step::Message),
        1 => message(4).prop_map(Step::Message),
        3 => special().prop_map(Step::Message),
        2 => repeats().prop_map(Step::Message),
        2 => (any::<Index>(), any::<Index>(), vec(Change::any(), 0..4))
            .prop_map(|(recording, at, changes)| Step::Recorded(recording, at, changes)),
        2 => any::<Index>().prop_map(Step::Begin),
        1 => any::<Index>().prop_map(Step::Lines),
        1 => vec(Change::any(), 0..4).prop_map(Step::Again),
    ]
}

impl Step {
    fn of(&self, last: &[u8]) -> Vec<u8> {
        let changed = |raw: &[u8], changes: &[Change]| {
            changes
                .iter()
                .fold(raw.to_vec(), |raw, change| if raw.is_empty() { raw } else { change.of(&raw) })
        };
        match self {
            Self::Message(raw) => raw.clone(),
            Self::Recorded(recording, at, changes) => {
                let recordings: Vec<_> = RECORDED.values().filter(|messages| !messages.is_empty()).collect();
                let messages = recordings[recording.index(recordings.len())];
                changed(&messages[at.index(messages.len())], changes)
            }
            Self::Begin(bytes) => last[..bytes.index(last.len() + 1)].to_vec(),
            Self::Lines(at) => {
                let at = at.index(last.len() + 1);
                let end =
                    last[at..].windows(2).position(|end| end == b"\r\n").map_or(last.len(), |end| at + end);
                last[..end].to_vec()
            }
            Self::Again(changes) => changed(last, changes),
        }
    }
}

/// What of an envelope is the test's.
#[derive(Clone, Debug)]
struct Stamped {
    server: String,
    charset: Option<&'static str>,
    sequence: u64,
    micros: u64,
    boot: Option<String>,
    number: Option<u32>,
    log: String,
}

fn stamped() -> impl Strategy<Value = Stamped> {
    let word = || {
        prop_oneof![
            4 => "[A-Za-z0-9_.+:-]{0,40}",
            1 => ".{0,20}",
            1 => (1020..1030_usize).prop_map(|bytes| "b".repeat(bytes)),
        ]
    };
    let micros = prop_oneof![
        4 => 0..300_000_000_000_000_000_u64,
        1 => (0..200_000_u64, 0..3_u64).prop_map(|(day, less)| (day * 86_400_000_000).saturating_sub(less)),
    ];
    let server = prop_oneof![4 => "[a-z0-9][a-z0-9-]{0,20}", 1 => "[a-z]{127,128}"];
    let charset = prop::sample::select(&[None, Some("windows-1252"), Some("shift_jis"), Some("gbk")][..]);
    let shift = (any::<u64>(), 0..64_u32).prop_map(|(number, bits)| number >> bits);
    (server, charset, shift, micros, proptest::option::of(word()), any::<Option<u32>>(), word()).prop_map(
        |(server, charset, sequence, micros, boot, number, log)| Stamped {
            server,
            charset,
            sequence,
            micros,
            boot,
            number,
            log,
        },
    )
}

/// The inside of a JSON string.
fn json(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            '\n' => "\\n".into(),
            '\r' => "\\r".into(),
            '\t' => "\\t".into(),
            '\0'..'\x20' => format!("\\u{:04x}", c as u32),
            c => c.into(),
        })
        .collect()
}

/// Fails where the event is not what is told by each of its parts alone.
fn event_is_the_same(raw: &[u8], with: &Stamped) -> Result<(), TestCaseError> {
    let said = raw.escape_ascii().to_string();
    let profile = Profile::new(&with.server, with.charset).expect("a name and a charset");
    let frame = Frame::parse(raw);
    let lines = Lines::of(frame);
    let mut data = Vec::new();
    data::write(&lines, profile.charset, &mut data);
    let mut alone = b"before".to_vec();
    normalize::data(&profile, frame, &mut alone);
    prop_assert_eq!(&alone[6..], &*data, "{}", &said);

    let received = UNIX_EPOCH + Duration::from_micros(with.micros);
    let Stamped { sequence, number, ref log, .. } = *with;
    let stamp = Stamp { sequence, received, given: None, boot: with.boot.as_deref(), number, log };
    let mut body = Vec::new();
    let encoded = normalize::event(&profile, frame, &stamp, &mut body);

    let safe = |text: &str, others: &str| -> String {
        text.bytes()
            .map(char::from)
            .map(|c| if c.is_ascii_alphanumeric() || others.contains(c) { c } else { '-' })
            .collect()
    };
    let id = match (&with.boot, number) {
        (Some(boot), Some(number)) => format!("{}:{}:{number}", with.server, safe(boot, "-_.+")),
        _ => format!("{}:{sequence}", safe(log, "-_.+")),
    };
    let word = route::topic_word(route::name(&frame));
    let ids = route::CallIds::of(frame);
    prop_assert_eq!(ids, lines.ids, "{}", &said);
    let micros = timestamp_micros(&frame).unwrap_or(with.micros).min(253_402_300_799_999_999);
    // The last hours of 9999 are no moment of jiff's; 400 years before, all is the same.
    const MICROS_OF_400_YEARS: u64 = 146_097 * 86_400_000_000;
    let late = micros > 253_402_000_000_000_000;
    let time =
        jiff::Timestamp::from_microsecond((micros - if late { MICROS_OF_400_YEARS } else { 0 }) as i64);
    let time = format!("{:.6}", time.expect("in range"));
    let time = if late { time.replacen("95", "99", 1) } else { time };
    let subject = ids.subject().map_or(String::new(), |id| format!("\"subject\":\"{}\",", json(id)));
    let key = ids.key().unwrap_or(&with.server);
    let expected = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/asterisk/{server}\",\"type\":\"ami.event.{word}\",\
         {subject}\"time\":\"{time}\",\"datacontenttype\":\"application/json\",\"sequence\":\"{sequence:020}\",\
         \"partitionkey\":\"{}\",\"data\":{}}}",
        json(key),
        String::from_utf8_lossy(&data),
        server = with.server,
    );
    prop_assert_eq!(String::from_utf8_lossy(&body), &*expected, "{}", &said);
    prop_assert_eq!(&normalize::read(&body).expect("ours"), &encoded);

    let topics = Topics::new("ami", &with.server).expect("valid");
    let message = encoded.message_in(&topics, body.into()).expect("valid");
    prop_assert_eq!(message.topic.as_str(), format!("ami.event.{}.{word}", with.server));
    prop_assert_eq!(message.key(), key);
    let told: Vec<_> = message.attributes().iter().map(|(name, value)| (name, value.to_owned())).collect();
    let mut expected = vec![
        ("specversion", "1.0".to_owned()),
        ("id", id),
        ("type", format!("ami.event.{word}")),
        ("source", format!("/asterisk/{}", with.server)),
        ("time", time),
    ];
    expected.extend(ids.subject().map(|id| ("subject", id.to_owned())));
    expected.push(("sequence", format!("{sequence:020}")));
    prop_assert_eq!(told, expected);

    let rebuilt = normalize::restore::restore_json(&data).expect("complete");
    let rebuilt = rebuilt.iter().map(|line| [&*line.name, line.separator.as_bytes(), &*line.value].concat());
    prop_assert_eq!(rebuilt.collect::<Vec<_>>().join(&b"\r\n"[..]).escape_ascii().to_string(), said);
    Ok(())
}

proptest! {
    #[test]
    fn nothing_of_a_message_is_in_another(
        steps in vec((step(), 0..8_u8, any::<u32>()), 1..14), stamped in stamped(), wraps_at in 0..14_usize,
    ) {
        let mut memo = Memo::new();
        let mut last = b"Event: X\r\nExten: 1".to_vec();
        for (at, (step, whole, number)) in steps.into_iter().enumerate() {
            if at == wraps_at {
                // Those that follow get the numbers that the first ones had.
                memo.names.message = u32::MAX;
            }
            let raw = step.of(&last);
            if raw.is_empty() {
                continue;
            }
            takes(&mut memo, &raw)?;
            if whole < 2 {
                event_is_the_same(&raw, &Stamped { number: Some(number), ..stamped.clone() })?;
            }
            last = raw;
        }
    }

    #[test]
    fn any_bytes(begin in prop::sample::select(&["Event: ", "Response: ", "Event: X\r\nState: 1\r\n", ""][..]),
        bytes in vec(prop_oneof![
            any::<u8>().prop_map(|byte| vec![byte]),
            prop::sample::select(ODD).prop_map(<[u8]>::to_vec),
            Just(b"\r\n".to_vec()),
            Just(b"State: ".to_vec()),
        ], 0..60))
    {
        let raw = [begin.as_bytes(), &bytes.concat()].concat();
        takes(&mut Memo::new(), &raw)?;
    }

    /// Around the longest message that is usual, behind one that left other bytes there.
    #[test]
    fn at_the_end_of_the_memory(
        messages in vec((message(40), line(40), any::<Index>(), 0..40_usize, prop::sample::select(ODD)), 1..4),
    ) {
        let mut memo = Memo::new();
        for (raw, end, at, less, fill) in messages {
            let mut lines: Vec<Vec<u8>> =
                raw.split(|byte| *byte == b'\n').map(|line| [line, b"\n"].concat()).collect();
            let end = [&*end.name, end.separator.as_bytes(), &end.value].concat();
            let used = raw.len() + end.len() + 10;
            let bytes = (MAX_BYTES + 10 - less).saturating_sub(used);
            let filled: Vec<u8> = fill.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
            let filled = if filled.is_empty() { b"x".to_vec() } else { filled };
            let long: Vec<u8> = filled.iter().cycle().take(bytes).copied().collect();
            let at = 1 + at.index(lines.len());
            if let Some(last) = lines.last_mut() {
                last.pop();
                last.extend_from_slice(b"\r\n");
            }
            lines.insert(at, [b"Long: ", &*long, b"\r\n"].concat());
            lines.push(end);
            takes(&mut memo, &lines.concat())?;
        }
    }
}
