//! An event as a line for people: time, event, channel, and what it is about.

use serde_json::Value;

/// Whether this is an AMI event.
pub(super) fn is_event(event: &Value) -> bool {
    text(event, "/data/Event").is_some()
}

/// Whether a call ended.
pub(super) fn ends_call(event: &Value) -> bool {
    text(event, "/data/Event") == Some("Hangup")
}

/// The line; `None` for an event that does not tell a call's course, unless `all` are wanted.
pub(super) fn readable(event: &Value, all: bool) -> Option<String> {
    let time = text(event, "/time").and_then(|time| time.get(11..23)).unwrap_or("--:--:--.---");
    if let Some(state) = text(event, "/data/state") {
        let about = ["/data/asterisk", "/data/reason", "/data/list"].iter().find_map(|at| text(event, at));
        return Some(format!("{time}  link {state} {}", about.unwrap_or_default()).trim_end().to_owned());
    }
    let name = text(event, "/data/Event")?;
    let about = about(event, name).or_else(|| all.then(String::new))?;
    let channel =
        text(event, "/data/Channel").or_else(|| text(event, "/data/DestChannel")).unwrap_or_default();
    Some(format!("{time}  {name:<18} {channel:<34} {about}").trim_end().to_owned())
}

fn about(event: &Value, name: &str) -> Option<String> {
    let header = |name: &str| text(event, &format!("/data/{name}")).filter(|text| !text.is_empty());
    let or_nothing = |name: &str| header(name).unwrap_or_default().to_owned();
    Some(match name {
        "Newchannel" => {
            format!("{} for {}@{}", party(event, "CallerID"), or_nothing("Exten"), or_nothing("Context"))
        }
        "Newstate" => or_nothing("ChannelStateDesc"),
        "DialBegin" if header("Channel").is_none() => "is dialled".to_owned(),
        "DialBegin" => format!("dials {}", or_nothing("DestChannel")),
        "DialEnd" if header("Channel").is_none() => or_nothing("DialStatus"),
        "DialEnd" => format!("{} from {}", or_nothing("DialStatus"), or_nothing("DestChannel")),
        "BridgeEnter" => format!("talks with {}", party(event, "ConnectedLine")),
        "BridgeLeave" => "talks no more".to_owned(),
        "MusicOnHoldStart" => "hears music".to_owned(),
        "MusicOnHoldStop" => "hears no more music".to_owned(),
        "Hold" | "Unhold" => String::new(),
        "DTMFEnd" => format!("pressed {}", or_nothing("Digit")),
        "QueueCallerJoin" => format!("waits in queue {}", or_nothing("Queue")),
        "QueueCallerLeave" => format!("leaves queue {}", or_nothing("Queue")),
        "AgentConnect" => format!("is answered by {}", or_nothing("MemberName")),
        "OriginateResponse" => format!("{}: {}", or_nothing("Response"), reason(event)),
        "Hangup" => format!("{} ({})", or_nothing("Cause-txt"), number(event, "/data/Cause")),
        _ => return None,
    })
}

/// What an OriginateResponse's Reason means (`main/manager.c`, the control frame that ended the dialling).
fn reason(event: &Value) -> String {
    match event.pointer("/data/Reason").and_then(Value::as_u64) {
        Some(3) => "no answer".to_owned(),
        Some(4) => "answered".to_owned(),
        Some(5) => "busy".to_owned(),
        Some(8) => "congestion".to_owned(),
        _ => format!("reason {}", number(event, "/data/Reason")),
    }
}

/// `Name <number>`, or what there is of it.
fn party(event: &Value, prefix: &str) -> String {
    let known = |part: &str| {
        text(event, &format!("/data/{prefix}{part}")).filter(|text| !text.is_empty() && *text != "<unknown>")
    };
    match (known("Name"), known("Num")) {
        (Some(name), Some(number)) => format!("{name} <{number}>"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "somebody".to_owned(),
    }
}

fn text<'v>(event: &'v Value, at: &str) -> Option<&'v str> {
    event.pointer(at).and_then(Value::as_str)
}

fn number(event: &Value, at: &str) -> String {
    event.pointer(at).map(Value::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_reads_as_lines() {
        let event = json!({"time": "2026-11-20T15:00:00.123456Z", "data": {
            "Event": "Hangup", "Channel": "PJSIP/100-00000001", "Cause": 16, "Cause-txt": "Normal Clearing"}});
        let expected =
            "15:00:00.123  Hangup             PJSIP/100-00000001                 Normal Clearing (16)";
        assert_eq!(readable(&event, false).as_deref(), Some(expected));
        assert!(is_event(&event) && ends_call(&event));
    }

    #[test]
    fn parties_are_what_is_known_of_them() {
        let begin = json!({"time": "2026-11-20T15:00:00.1Z", "data": {"Event": "Newchannel", "Channel": "PJSIP/1",
            "CallerIDNum": "100", "CallerIDName": "<unknown>", "Exten": "200", "Context": "sales"}});
        let line = readable(&begin, false).expect("shown");
        assert!(line.ends_with("100 for 200@sales"), "{line}");
    }

    #[test]
    fn what_is_no_course_of_a_call_is_left_out() {
        let event = json!({"time": "2026-11-20T15:00:00.123456Z", "data": {"Event": "VarSet"}});
        assert_eq!(readable(&event, false), None);
        assert!(readable(&event, true).is_some());
        let link =
            json!({"time": "2026-11-20T15:00:00.123456Z", "data": {"state": "up", "asterisk": "22.1.0"}});
        assert_eq!(readable(&link, false).as_deref(), Some("15:00:00.123  link up 22.1.0"));
    }
}
