//! The reply to a message that is no command at all.
//!
//! Whatever is one frame goes to the root crate, which answers by itself. Only what cannot be given to it, because the
//! frames are not as they must be, is answered here.

use std::time::{SystemTime, UNIX_EPOCH};

/// A response with the outcome `rejected`. `unique` tells it from every other one of this process; `problem` is text
/// of ours, without anything from the wire.
pub(crate) fn rejection(unique: &str, problem: &str) -> String {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    let message = problem.replace(['"', '\\'], "'");
    format!(
        concat!(
            r#"{{"specversion":"1.0","id":"zeromq-{}-{}","source":"/amibus/zeromq","type":"ami.response._","#,
            r#""datacontenttype":"application/json","data":{{"id":null,"server":null,"action":null,"#,
            r#""outcome":"rejected","response":null,"events":[],"#,
            r#""error":{{"code":"malformed","message":"{}","field":"frames"}}}}}}"#
        ),
        unique, nanos, message
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json_as_the_contract_has_it() {
        let value: serde_json::Value =
            serde_json::from_str(&rejection("7-1", "one frame is expected; got 3")).expect("JSON");
        assert_eq!(value["data"]["outcome"], "rejected");
        assert_eq!(value["data"]["error"]["code"], "malformed");
        assert_eq!(value["data"]["error"]["field"], "frames");
        assert_eq!(value["data"]["error"]["message"], "one frame is expected; got 3");
    }
}
