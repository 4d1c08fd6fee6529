//! What a tool is called with: the model's arguments, however they were encoded, under those that its owner fixed.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use shared::hmac::to_hex;
use shared::vapi::message::HOOK_TOOL_CALL_ID;

use super::ToolError;
use crate::store::tools::settings::ToolSettings;

/// A tool's arguments, by name.
pub(super) type Arguments = Map<String, Value>;

/// Reads what the model wrote, an object or the JSON text of one; nothing at all counts as no arguments. What the
/// tool's owner fixed goes over it.
pub(super) fn read(settings: &ToolSettings, tool_call_id: &str, raw: &Value) -> Result<Arguments, ToolError> {
    let mut arguments = match raw {
        Value::Object(object) => object.clone(),
        Value::Null => Arguments::new(),
        Value::String(text) if text.trim().is_empty() => Arguments::new(),
        Value::String(text) => serde_json::from_str(text).map_err(|_| ToolError::Arguments)?,
        _ => return Err(ToolError::Arguments),
    };
    if tool_call_id == HOOK_TOOL_CALL_ID {
        arguments = of_hook(arguments);
    }
    arguments.extend(settings.static_arguments.clone());
    Ok(arguments)
}

/// A hook of Vapi's sends the schema of the parameters with the values in it: `properties.<name>.value`.
fn of_hook(arguments: Arguments) -> Arguments {
    match arguments.get("properties") {
        Some(Value::Object(properties)) if arguments.get("type").is_some_and(|kind| kind == "object") => properties
            .iter()
            .filter_map(|(name, property)| Some((name.clone(), property.get("value")?.clone())))
            .collect(),
        _ => arguments,
    }
}

/// What two calls of a tool with other ids are known by as one: the values of the arguments that its owner named.
/// `None`: none are named, or one is missing. Hashed, since it is kept and arguments may be about people.
pub(super) fn business_key(settings: &ToolSettings, arguments: &Arguments) -> Option<String> {
    if settings.idempotency_key.is_empty() {
        return None;
    }
    let values = settings.idempotency_key.iter().map(|name| arguments.get(name).filter(|value| !value.is_null()));
    let values = values.collect::<Option<Vec<_>>>()?;
    let values: Value = values.into_iter().cloned().collect();
    Some(to_hex(&Sha256::digest(values.to_string())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(value: Value) -> ToolSettings {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn every_encoding_of_an_object_and_nothing_else() {
        let read = |raw: Value| read(&ToolSettings::default(), "c1", &raw);
        let expected = json!({ "a": 1 });
        for raw in [json!({ "a": 1 }), json!(r#"{"a":1}"#)] {
            assert_eq!(Value::Object(read(raw).unwrap()), expected);
        }
        for raw in [json!(null), json!(""), json!(" "), json!({})] {
            assert!(read(raw).unwrap().is_empty());
        }
        for raw in [json!("{\"a\":"), json!("[1]"), json!("null"), json!([1]), json!(1), json!(true)] {
            assert!(matches!(read(raw.clone()), Err(ToolError::Arguments)), "{raw}");
        }
    }

    #[test]
    fn what_is_fixed_is_not_the_models_to_choose() {
        let settings = settings(json!({ "staticArguments": { "caller": "+15550100" } }));
        let read = read(&settings, "c1", &json!({ "caller": "+15550199", "date": "x" })).unwrap();
        assert_eq!(Value::Object(read), json!({ "caller": "+15550100", "date": "x" }));
    }

    #[test]
    fn a_hook_sends_values_in_a_schema() {
        let raw = json!({ "type": "object", "properties": { "a": { "type": "number", "value": 1 }, "b": {} } });
        let of = |id| Value::Object(read(&ToolSettings::default(), id, &raw).unwrap());
        assert_eq!(of(HOOK_TOOL_CALL_ID), json!({ "a": 1 }));
        assert_eq!(of("c1"), raw);
    }

    #[test]
    fn a_key_is_of_the_named_arguments_alone() {
        let settings = settings(json!({ "idempotencyKey": ["id", "day"] }));
        let key = |arguments: Value| business_key(&settings, arguments.as_object().unwrap());
        let one = key(json!({ "id": 17, "day": "monday", "note": "a" }));
        assert!(one.is_some());
        assert_eq!(one, key(json!({ "day": "monday", "id": 17, "note": "b" })));
        assert_ne!(one, key(json!({ "id": "17", "day": "monday" })));
        assert_eq!(key(json!({ "id": 17 })), None);
        assert_eq!(key(json!({ "id": 17, "day": null })), None);
        assert_eq!(business_key(&ToolSettings::default(), &Arguments::new()), None);
    }
}
