//! The reply to a message that is no command at all.
//!
//! Whatever is one frame goes to the root crate, which answers by itself. Only what cannot be given to it, because the
//! frames are not as they must be, is answered here.

use std::time::{SystemTime, UNIX_EPOCH};

/// What is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is longer than a command may be: code `too_large`.
    TooLarge(String),
    /// Its frames are not as they must be: code `malformed`, field `frames`.
    Frames(String),
}

impl Problem {
    /// The code of the error.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::TooLarge(_) => "too_large",
            Self::Frames(_) => "malformed",
        }
    }

    /// The field that the error names.
    pub(crate) fn field(&self) -> Option<&'static str> {
        match self {
            Self::TooLarge(_) => None,
            Self::Frames(_) => Some("frames"),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::TooLarge(text) | Self::Frames(text) => text,
        }
    }
}

/// A response with the outcome `rejected`. `unique` tells it from every other one of this process; its text is
/// ours, without anything from the wire.
pub(crate) fn rejection(unique: &str, problem: &Problem) -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let code = problem.code();
    let field = problem.field().map_or("null".to_owned(), |name| format!("\"{name}\""));
    let message = problem.text().replace(['"', '\\'], "'");
    format!(
        concat!(
            r#"{{"specversion":"1.0","id":"zeromq-{}-{}","source":"/amibus/zeromq","type":"ami.response.Unknown","#,
            r#""datacontenttype":"application/json","data":{{"id":null,"server":null,"action":null,"#,
            r#""outcome":"rejected","response":null,"events":[],"#,
            r#""error":{{"code":"{}","message":"{}","field":{}}}}}}}"#
        ),
        unique, nanos, code, message, field
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_as_the_contract_has_it() {
        let value: serde_json::Value =
            serde_json::from_str(&rejection("7-1", &Problem::Frames("one frame is expected; got 3".into())))
                .expect("JSON");
        assert_eq!(value["data"]["outcome"], "rejected");
        assert_eq!(value["data"]["error"]["code"], "malformed");
        assert_eq!(value["data"]["error"]["field"], "frames");
        assert_eq!(value["data"]["error"]["message"], "one frame is expected; got 3");
        let value: serde_json::Value =
            serde_json::from_str(&rejection("7-2", &Problem::TooLarge("9 bytes".into()))).expect("JSON");
        assert_eq!(value["data"]["error"]["code"], "too_large");
        assert!(value["data"]["error"]["field"].is_null());
    }
}
