//! As much of JSON Schema 2020-12 as our schemas use. A keyword that is not known here fails the test.

use serde_json::Value;

/// Where and how `value` does not fit `schema`; `root` is the document that `$ref` points into.
pub(super) fn validate(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let keywords = schema.as_object().expect("a schema is an object");
    for (keyword, expected) in keywords {
        check(root, schema, keyword, expected, value).map_err(|wrong| format!("{keyword}: {wrong}"))?;
    }
    Ok(())
}

fn check(root: &Value, schema: &Value, keyword: &str, expected: &Value, value: &Value) -> Result<(), String> {
    let fits = |ok: bool| if ok { Ok(()) } else { Err(format!("{value} is not {expected}")) };
    let least = expected.as_u64().unwrap_or(0);
    match keyword {
        "$schema" | "$id" | "$defs" | "title" | "description" | "format" | "pattern" | "contentEncoding" => {
            Ok(())
        }
        "$ref" => {
            let pointer = expected.as_str().and_then(|at| at.strip_prefix('#')).expect("a local reference");
            validate(root, root.pointer(pointer).expect("what it refers to"), value)
        }
        "const" => fits(value == expected),
        "enum" => fits(expected.as_array().expect("a list").contains(value)),
        "type" => match expected {
            Value::Array(types) => fits(types.iter().any(|one| is_of_type(one, value))),
            one => fits(is_of_type(one, value)),
        },
        "oneOf" => {
            let answers: Vec<_> =
                expected.as_array().expect("a list").iter().map(|one| validate(root, one, value)).collect();
            let fitting = answers.iter().filter(|answer| answer.is_ok()).count();
            if fitting == 1 { Ok(()) } else { Err(format!("{fitting} fit {value}: {answers:?}")) }
        }
        "minLength" => fits(value.as_str().is_none_or(|text| text.chars().count() as u64 >= least)),
        "maxLength" => fits(value.as_str().is_none_or(|text| text.chars().count() as u64 <= least)),
        "minimum" => fits(value.as_i64().is_none_or(|number| number >= expected.as_i64().expect("a number"))),
        "minItems" => fits(value.as_array().is_none_or(|all| all.len() as u64 >= least)),
        "minProperties" => fits(value.as_object().is_none_or(|all| all.len() as u64 >= least)),
        "maxProperties" => fits(value.as_object().is_none_or(|all| all.len() as u64 <= least)),
        "items" => value.as_array().into_iter().flatten().try_for_each(|one| validate(root, expected, one)),
        "required" => {
            let missing = expected.as_array().expect("a list").iter().find(|key| {
                value.as_object().is_some_and(|all| !all.contains_key(key.as_str().unwrap_or_default()))
            });
            missing.map_or(Ok(()), |key| Err(format!("{key} is missing")))
        }
        "properties" => value.as_object().into_iter().flatten().try_for_each(|(key, one)| {
            expected.get(key).map_or(Ok(()), |schema| {
                validate(root, schema, one).map_err(|wrong| format!("{key}: {wrong}"))
            })
        }),
        "additionalProperties" => value.as_object().into_iter().flatten().try_for_each(|(key, one)| {
            if schema["properties"].get(key).is_some() {
                return Ok(());
            }
            match expected {
                Value::Bool(false) => Err(format!("{key} should not be there")),
                Value::Bool(true) => Ok(()),
                schema => validate(root, schema, one).map_err(|wrong| format!("{key}: {wrong}")),
            }
        }),
        other => panic!("this test does not know the keyword {other:?}"),
    }
}

fn is_of_type(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        other => panic!("this test does not know the type {other:?}"),
    }
}
