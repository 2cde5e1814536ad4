//! The table of field names against the lists of what each version of Asterisk sends.

use amibus_services::corpus::corpus_text;
use serde_json::Value;

use super::{check, data, wire};

/// Events and their fields, documented and seen. What a UserEvent holds beyond its own is the dialplan's.
fn fields() -> Vec<(String, String)> {
    let mut fields = Vec::new();
    for file in ["events-22.tsv", "events-16.tsv"] {
        let text = corpus_text(file);
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("name\t")) {
            let columns: Vec<&str> = line.split('\t').collect();
            let event = columns[0];
            let seen = if event == "UserEvent" { "" } else { columns[4] };
            for field in columns[2].split(',').chain(seen.split(',')).filter(|field| !field.is_empty()) {
                fields.push((event.to_owned(), field.to_owned()));
            }
        }
    }
    fields
}

#[test]
fn every_field_of_every_event_is_in_the_table() {
    let fields = fields();
    assert!(fields.len() > 6_000, "only {} fields", fields.len());
    let missing: Vec<_> =
        fields.iter().filter(|(_, field)| !amibus::normalize::is_known_field(field)).collect();
    assert!(missing.is_empty(), "put these into src/normalize/fields.rs, as numbers or as text: {missing:?}");
}

#[test]
fn what_dials_names_or_identifies_is_text() {
    let text = "Exten CallerIDNum ConnectedLineNum Uniqueid Linkedid AccountCode Channel Context Agent Queue \
                Interface ParkingSpace Mailbox VoiceMailbox CommandId CommandID SSRC Digit Source Destination Data \
                AppData Application Variable Value ActionID Extension Conference Endpoint AOR Name Location \
                Timestamp BridgeUniqueid SessionID RTT ServicelevelPerf QualifyTimeout SentNTP EffectiveConnectedLineNum";
    for field in text.split_whitespace() {
        let data: Value = serde_json::from_str(&data(&wire(&format!("Event: X\n{field}: 1")))).expect("JSON");
        assert_eq!(data[field], Value::from("1"), "{field}");
    }
}

#[test]
fn what_counts_measures_or_flags_is_a_number() {
    let numbers = "ChannelState Priority Cause Duration BillableSeconds DestChannelState LocalTwoPriority Position \
                   Count Penalty CallsTaken LastCall Paused InCall HoldTime TalkTime RingTime Wait BridgeNumChannels \
                   Reason Status ListItems RoundtripUsec ParkingTimeout AppLine SequenceNumber Line Report0LSR \
                   Report3FractionLost SentPackets Uptime New Old Waiting ResultCode Seconds";
    for field in numbers.split_whitespace() {
        let parse = |value: &str| -> Value {
            let message = wire(&format!("Event: X\n{field}: {value}\nEnd: x"));
            check(&message).expect("rebuilt");
            serde_json::from_str(&data(&message)).expect("JSON")
        };
        assert_eq!(parse("16")[field], Value::from(16), "{field}");
        assert_eq!(parse("-1")[field], Value::from(-1), "{field}");
        for kept in ["", "007", "+5", "-0", "1.50", " 1", "1 ", "90071992547409930", "agent", "N/A", "0x10"] {
            assert_eq!(parse(kept)[field], Value::from(kept), "{field}: {kept:?}");
        }
    }
}
