//! How far the calls are, from events: the `Uniqueid` of a call's channel is the one that amibus chose for its command.

use memchr::memmem;
use serde::Deserialize;

use super::state::Stage;

/// What begins the Uniqueid of a channel that amibus chose, as it stands in an event's JSON.
const OUR_UNIQUEID: &[u8] = b"niqueid\":\"amibus-";

#[derive(Deserialize)]
struct Body {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "Event", default)]
    event: String,
    #[serde(rename = "Uniqueid", default)]
    uniqueid: String,
    #[serde(rename = "DestUniqueid", default)]
    dest_uniqueid: String,
    #[serde(rename = "ChannelStateDesc", default)]
    state: String,
    #[serde(rename = "DialStatus", default)]
    dial_status: String,
}

/// Finds what an event says of one of our channels.
pub(super) struct Watch {
    ours: memmem::Finder<'static>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { ours: memmem::Finder::new(OUR_UNIQUEID) }
    }

    /// The channel and its stage.
    pub(super) fn look(&self, body: &[u8]) -> Option<(String, Stage)> {
        // Most events are of other calls.
        self.ours.find(body)?;
        let Body { data } = serde_json::from_slice(body).ok()?;
        let (channel, is_ringing) = match data.event.as_str() {
            "Newchannel" | "Newstate" => (data.uniqueid, data.state == "Ringing"),
            "DialBegin" => (data.dest_uniqueid, false),
            "DialState" => (data.dest_uniqueid, data.dial_status == "RINGING"),
            _ => return None,
        };
        let stage = if is_ringing { Stage::Ringing } else { Stage::Dialling };
        (!channel.is_empty()).then_some((channel, stage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_of_our_channels_count() {
        let watch = Watch::new();
        let look = |data: &str| watch.look(format!("{{\"data\":{{{data}}}}}").as_bytes());
        let id = "amibus-1".to_owned();
        for (data, expected) in [
            (
                r#""Event":"Newchannel","Uniqueid":"amibus-1","ChannelStateDesc":"Down""#,
                Some(Stage::Dialling),
            ),
            (
                r#""Event":"Newstate","Uniqueid":"amibus-1","ChannelStateDesc":"Ringing""#,
                Some(Stage::Ringing),
            ),
            (r#""Event":"DialState","DestUniqueid":"amibus-1","DialStatus":"RINGING""#, Some(Stage::Ringing)),
            (r#""Event":"DialBegin","DestUniqueid":"amibus-1""#, Some(Stage::Dialling)),
            (r#""Event":"Hangup","Uniqueid":"amibus-1""#, None),
            (r#""Event":"Newstate","Uniqueid":"1763.1","ChannelStateDesc":"Ringing""#, None),
        ] {
            assert_eq!(look(data), expected.map(|stage| (id.clone(), stage)), "{data}");
        }
    }
}
