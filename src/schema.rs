//! The JSON Schemas of the wire contract, as `amibus schema` prints them.

/// One schema (JSON Schema 2020-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The second word of the topics that it is for.
    pub name: &'static str,
    /// The schema, JSON.
    pub text: &'static str,
}

/// All schemas.
pub const ALL: [Schema; 4] = [
    Schema { name: "event", text: include_str!("../schema/event.json") },
    Schema { name: "link", text: include_str!("../schema/link.json") },
    Schema { name: "command", text: include_str!("../schema/command.json") },
    Schema { name: "response", text: include_str!("../schema/response.json") },
];

/// The schema of that name.
pub fn find(name: &str) -> Option<Schema> {
    ALL.into_iter().find(|schema| schema.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::command::error::{Code, Outcome};

    fn words(schema: &str, pointer: &str) -> Vec<String> {
        let schema: Value = serde_json::from_str(find(schema).expect("known").text).expect("JSON");
        let words = schema.pointer(pointer).and_then(Value::as_array).expect("a list");
        words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    #[test]
    fn the_codes_and_outcomes_are_those_of_the_program() {
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(words("response", "/$defs/error/properties/code/enum"), codes);
        let outcomes: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        assert_eq!(words("response", "/$defs/outcome/properties/outcome/enum"), outcomes);
    }

    #[test]
    fn every_schema_is_json_with_its_own_id() {
        for Schema { name, text } in ALL {
            let schema: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(schema["$id"], format!("urn:amibus:schema:1:{name}"));
        }
    }
}
