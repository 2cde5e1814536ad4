//! What services read, literally.

use amibus::normalize::{self, Encoded, Notice, Profile, Stamp};
use amibus_ami::Frame;
use amibus_contract::{Bytes, Kind};

use super::{data, encode, profile, stamp, wire};

#[track_caller]
fn assert_event(lines: &str, expected: &str) {
    let (_, body) = encode(&wire(lines));
    assert_eq!(String::from_utf8(body).expect("UTF-8"), expected.replace('\n', ""));
}

#[track_caller]
fn assert_data(lines: &str, expected: &str) {
    assert_eq!(data(&wire(lines)), expected.replace('\n', ""));
}

#[test]
fn the_event_of_the_contract() {
    let lines = "Event: Hangup\nPrivilege: call,all\nTimestamp: 1763650800.123456\nChannel: PJSIP/100-00000001\n\
                 ChannelState: 6\nUniqueid: 1763650800.12\nLinkedid: 1763650800.11\nChanVariable: CUSTOMER=42\n\
                 Cause: 16\nCause-txt: Normal Clearing";
    assert_event(
        lines,
        r#"{"specversion":"1.0","id":"log-1:42","source":"/asterisk/pbx1","type":"ami.event.Hangup",
"subject":"1763650800.12","time":"2025-11-20T15:00:00.123456Z","datacontenttype":"application/json",
"sequence":"00000000000000000042","partitionkey":"1763650800.11",
"data":{"Event":"Hangup","Privilege":["call","all"],"Timestamp":"1763650800.123456",
"Channel":"PJSIP/100-00000001","ChannelState":6,"Uniqueid":"1763650800.12","Linkedid":"1763650800.11",
"ChanVariable":{"CUSTOMER":"42"},"Cause":16,"Cause-txt":"Normal Clearing"}}"#,
    );
}

#[test]
fn without_a_timestamp_and_a_call() {
    assert_event(
        "Event: FullyBooted\nPrivilege: system,all\nUptime: 101\nLastReload: 101\nStatus: Fully Booted",
        r#"{"specversion":"1.0","id":"log-1:42","source":"/asterisk/pbx1","type":"ami.event.FullyBooted",
"time":"2026-11-21T00:00:00.500000Z","datacontenttype":"application/json",
"sequence":"00000000000000000042","partitionkey":"pbx1",
"data":{"Event":"FullyBooted","Privilege":["system","all"],"Uptime":101,"LastReload":101,
"Status":"Fully Booted"}}"#,
    );
}

#[test]
fn the_number_of_asterisk_makes_the_id() {
    let raw =
        wire("Event: Newstate\nPrivilege: call,all\nSequenceNumber: 4711\nFile: channel.c\nLine: 9\nFunc: f");
    let frame = Frame::parse(&raw);
    let boot = "2026-11-21T00:23:05";
    let stamp = Stamp { boot: Some(boot), number: normalize::sequence_number(&frame), ..stamp() };
    let mut out = b"something before".to_vec();
    let before = out.len();
    let encoded = normalize::event(&profile(), frame, &stamp, &mut out);
    let body = &out[before..];
    assert_eq!(
        String::from_utf8_lossy(body),
        r#"{"specversion":"1.0","id":"pbx1:2026-11-21T00-23-05:4711","source":"/asterisk/pbx1","type":"ami.event.Newstate",
"time":"2026-11-21T00:00:00.500000Z","datacontenttype":"application/json",
"sequence":"00000000000000000042","partitionkey":"pbx1",
"data":{"Event":"Newstate","Privilege":["call","all"],"SequenceNumber":4711,"File":"channel.c","Line":9,"Func":"f"}}"#
            .replace('\n', "")
    );
    assert_eq!(normalize::read(body), Ok(encoded));
}

#[test]
fn a_dial_of_two_channels() {
    assert_data(
        r#"Event: DialBegin
Privilege: call,all
Channel: PJSIP/1-1
CallerIDName: Flow: 1001 \"q\"
ChanVariable: H4TAG=
ChanVariable: CALLERID(num)=900
DestChannel: PJSIP/2-2
DestChannelState: 0
DestCallerIDName: Äsync: \'q\'
DestExten: 0049123
DestPriority: 1
DestChanVariable: NOTE=a=b, c: \"d\"\n
DialString: 1900@flows"#,
        r#"{"Event":"DialBegin","Privilege":["call","all"],"Channel":"PJSIP/1-1",
"CallerIDName":"Flow: 1001 \"q\"","ChanVariable":{"H4TAG":"","CALLERID(num)":"900"},
"DestChannel":"PJSIP/2-2","DestChannelState":0,"DestCallerIDName":"Äsync: 'q'","DestExten":"0049123",
"DestPriority":1,"DestChanVariable":{"NOTE":"a=b, c: \"d\"\n"},"DialString":"1900@flows"}"#,
    );
}

#[test]
fn the_same_name_escaped_here_and_raw_there() {
    assert_data(
        "Event: OriginateResponse\nPrivilege: call,all\nActionID: ag\nResponse: Failure\nExten: 007\nReason: 0\n\
         Uniqueid: <unknown>\nCallerIDNum: 77\nCallerIDName: it's \\\"q\\\"\n\
         ChanVariable(Local/1@f-1;1): A='x'\nChanVariable(Local/1@f-1;1): B=\\\\",
        r#"{"Event":"OriginateResponse","Privilege":["call","all"],"ActionID":"ag","Response":"Failure",
"Exten":"007","Reason":0,"Uniqueid":"<unknown>","CallerIDNum":"77","CallerIDName":"it's \\\"q\\\"",
"ChanVariable(Local/1@f-1;1)":{"A":"'x'","B":"\\\\"}}"#,
    );
}

#[test]
fn a_variable_that_is_set() {
    assert_data(
        r"Event: VarSet
Privilege: dialplan,all
Channel: PJSIP/1-1
Priority: 2
Variable: V=1
Value: line1\r\n\r\nEvent: Fake \'q\' \?",
        r#"{"Event":"VarSet","Privilege":["dialplan","all"],"Channel":"PJSIP/1-1","Priority":2,
"Variable":"V=1","Value":"line1\r\n\r\nEvent: Fake 'q' ?"}"#,
    );
}

#[test]
fn the_variables_of_a_channel() {
    assert_data(
        "Event: Status\nPrivilege: Call\nCallerIDName: Fast: \\'q\\'\nEffectiveConnectedLineName: Fast: 'q'\n\
         Seconds: 61\nVariable: PLAYBACKSTATUS=SUCCESS\nVariable: FA=a=b, c: d \"q\"\nActionID: ls-1",
        r#"{"Event":"Status","Privilege":["Call"],"CallerIDName":"Fast: 'q'",
"EffectiveConnectedLineName":"Fast: 'q'","Seconds":61,
"Variable":{"PLAYBACKSTATUS":"SUCCESS","FA":"a=b, c: d \"q\""},"ActionID":"ls-1"}"#,
    );
}

#[test]
fn async_agi() {
    assert_data(
        "Event: AsyncAGIStart\nPrivilege: agi,all\nEnv: agi_request%3A%20async%0Aagi_callerid%3A%2077%0A%0A",
        r#"{"Event":"AsyncAGIStart","Privilege":["agi","all"],"Env":"agi_request: async\nagi_callerid: 77\n\n"}"#,
    );
    assert_data(
        "Event: AsyncAGIExec\nPrivilege: agi,all\nResult: 200%20result%3D1%0A\nCommandId: 12",
        r#"{"Event":"AsyncAGIExec","Privilege":["agi","all"],"Result":"200 result=1\n","CommandId":"12"}"#,
    );
    assert_data(
        "Event: AGIExecEnd\nResult: 100%25\nResultCode: 200",
        r#"{"Event":"AGIExecEnd","Result":"100%25","ResultCode":200}"#,
    );
}

#[test]
fn a_presence() {
    assert_data(
        r"Event: PresenceStateChange
Presentity: CustomPresence:x
Status: away
Subtype: what\?
Message: \'lunch\'",
        r#"{"Event":"PresenceStateChange","Presentity":"CustomPresence:x","Status":"away","Subtype":"what?",
"Message":"'lunch'"}"#,
    );
}

#[test]
fn a_queue_member() {
    assert_data(
        "Event: QueueMember\nQueue: 100\nName: 7\nLocation: Local/a1@agents/n\nPenalty: 1\nCallsTaken: 2\n\
         LastCall: 1795220927\nInCall: 0\nStatus: 1\nPaused: 0\nPausedReason: lunch: 12,30\nWrapuptime: 05",
        r#"{"Event":"QueueMember","Queue":"100","Name":"7","Location":"Local/a1@agents/n","Penalty":1,
"CallsTaken":2,"LastCall":1795220927,"InCall":0,"Status":1,"Paused":0,"PausedReason":"lunch: 12,30",
"Wrapuptime":"05"}"#,
    );
}

#[test]
fn a_response() {
    assert_data(
        "Response: Success\nActionID: c1\nMessage: Command output follows\nOutput: a: b\nOutput: \nOutput:  c",
        r#"{"Response":"Success","ActionID":"c1","Message":"Command output follows","Output":["a: b",""," c"]}"#,
    );
}

#[test]
fn headers_that_repeat_with_others_between() {
    assert_data(
        "Event: TestEvent\nState: A\nAppLine: 677\nState: B",
        r#"{"Event":"TestEvent","State":["A","B"],"AppLine":677,"$order":["Event","State","AppLine","State"]}"#,
    );
}

#[test]
fn what_is_torn_off_a_message_is_no_event() {
    assert_event(
        "Variable: V_NL=line1\nEvent: Hangup\nLinkedid: 1.1",
        r#"{"specversion":"1.0","id":"log-1:42","source":"/asterisk/pbx1","type":"ami.event.Unparsed",
"time":"2026-11-21T00:00:00.500000Z","datacontenttype":"application/json",
"sequence":"00000000000000000042","partitionkey":"pbx1",
"data":{"$lines":["Variable: V_NL=line1","Event: Hangup","Linkedid: 1.1"]}}"#,
    );
}

#[test]
fn bytes_that_are_not_utf8() {
    let raw =
        [&wire("Event: UserEvent\nUserEvent: x\nBytes: ")[..], b"\xFF\xE9t\xE9\r\nOk: \xC3\xA9"].concat();
    let base64 = "/+l06Q==";
    assert_eq!(
        data(&raw),
        format!(
            r#"{{"Event":"UserEvent","UserEvent":"x","Bytes":"{bad}{bad}t{bad}","Ok":"é","$bytes":{{"Bytes":"{base64}"}}}}"#,
            bad = '\u{FFFD}'
        )
    );
    let mut out = Vec::new();
    let latin = Profile::new("pbx1", Some("latin1")).expect("a known charset");
    normalize::data(&latin, Frame::parse(&raw), &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        format!(
            r#"{{"Event":"UserEvent","UserEvent":"x","Bytes":"ÿété","Ok":"é","$bytes":{{"Bytes":"{base64}"}}}}"#
        )
    );
}

#[test]
fn what_amibus_says_itself() {
    let notice = Notice {
        kind: Kind::Response,
        name: "Originate",
        subject: Some("1.2"),
        key: Some("1.1"),
        correlation: Some("order \"8812\""),
        data: br#"{"id":"order \"8812\"","outcome":"executed"}"#,
    };
    let mut out = Vec::new();
    let encoded = normalize::envelope(&profile(), &notice, &stamp(), &mut out);
    assert_eq!(
        String::from_utf8_lossy(&out),
        r#"{"specversion":"1.0","id":"log-1:42","source":"/asterisk/pbx1","type":"ami.response.Originate",
"subject":"1.2","time":"2026-11-21T00:00:00.500000Z","datacontenttype":"application/json",
"sequence":"00000000000000000042","partitionkey":"1.1","correlationid":"order \"8812\"",
"data":{"id":"order \"8812\"","outcome":"executed"}}"#
            .replace('\n', "")
    );
    assert_eq!(normalize::read(&out).as_ref(), Ok(&encoded));
    let message = encoded.message("ami", Bytes::from(out)).expect("a valid topic");
    assert_eq!(message.attributes().correlation(), Some("order \"8812\""));
    assert_eq!(message.topic.as_str(), "ami.response.pbx1.Originate");
}

fn message_of(encoded: &Encoded, body: Vec<u8>) -> amibus_contract::Message {
    encoded.message("my.ami", Bytes::from(body)).expect("a valid topic")
}

#[test]
fn a_message_for_the_bus_shares_the_body() {
    let (encoded, body) = encode(&wire("Event: Hangup\nUniqueid: 1.2\nLinkedid: 1.1"));
    let message = message_of(&encoded, body.clone());
    assert_eq!(message.topic.as_str(), "my.ami.event.pbx1.Hangup");
    assert_eq!(message.key(), "1.1");
    let attributes: Vec<_> = message.attributes().iter().collect();
    assert_eq!(
        attributes,
        [
            ("specversion", "1.0"),
            ("id", "log-1:42"),
            ("type", "ami.event.Hangup"),
            ("source", "/asterisk/pbx1"),
            ("time", "2026-11-21T00:00:00.500000Z"),
            ("subject", "1.2"),
            ("sequence", "00000000000000000042"),
        ]
    );
    let inside = message.body.as_ptr_range();
    for shared in
        [message.key(), message.attributes().id(), message.attributes().kind(), message.attributes().time()]
    {
        assert!(inside.contains(&shared.as_ptr()), "{shared} was copied");
    }
    assert_eq!(message.body, body);
}
