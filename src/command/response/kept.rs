//! A response read back from its `data`.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::Response;
use crate::command::{Code, CommandError, Outcome};

#[derive(Deserialize)]
struct Data {
    id: Option<String>,
    server: String,
    action: String,
    outcome: String,
    response: Option<Box<RawValue>>,
    events: Vec<Box<RawValue>>,
    call: Option<Value>,
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Error {
    code: String,
    message: String,
    field: Option<String>,
}

impl Response {
    /// The response that this `data` is of, JSON; `None`: it is none of this amibus.
    pub fn of_data(data: &[u8]) -> Option<Self> {
        let data: Data = serde_json::from_slice(data).ok()?;
        let error = match data.error {
            Some(Error { code, message, field }) => {
                let code = Code::ALL.iter().copied().find(|known| known.as_str() == code)?;
                Some(CommandError { code, message, field })
            }
            None => None,
        };
        let raw = |json: Box<RawValue>| json.get().as_bytes().to_vec();
        Some(Self {
            id: data.id,
            outcome: Outcome::parse(&data.outcome)?,
            error,
            server: data.server,
            action: data.action,
            response: data.response.map(raw),
            events: data.events.into_iter().map(raw).collect(),
            call: data.call,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_again() {
        let error = CommandError::at(Code::AsteriskError, "fields.Channel", "no \"such\" thing");
        let refused = Response::of_error(Some("a".into()), "pbx1", "Originate", error);
        let event =
            br#"{"Event":"OriginateResponse","Response":"Failure","Reason":5,"Uniqueid":"u","Channel":"c"}"#;
        let answer = br#"{"Response":"Success"}"#.to_vec();
        let found = Response::of_evidence("b", "pbx1", "Originate", Some(answer), Some(event.to_vec()));
        for response in [refused, found] {
            let data = response.data();
            let again = Response::of_data(&data).expect("read");
            assert_eq!(String::from_utf8_lossy(&again.data()), String::from_utf8_lossy(&data));
            assert_eq!(again.outcome, response.outcome);
        }
        assert!(Response::of_data(br#"{"Response":"Success"}"#).is_none(), "Asterisk's answer alone");
    }
}
