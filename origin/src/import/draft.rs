//! What an import makes of an assistant: an agent and its tools, before they meet the database.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::store::agents::RealtimeSettings;
use crate::store::tools::settings::ToolSettings;

/// An agent as an assistant describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentDraft {
    /// The assistant's name, or one made for it.
    pub name: String,
    /// The system messages.
    pub instructions: String,
    /// What it says first.
    pub greeting: Option<String>,
    /// How it runs on OpenAI Realtime.
    pub realtime: RealtimeSettings,
    /// The assistant's own notes, without what looks like a secret.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// What it can do.
    pub tools: Vec<ToolDraft>,
}

/// A tool as Vapi describes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolDraft {
    /// What it was made of, see `tools.imported_from`.
    pub source: String,
    /// The name that the model sees.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// Who runs it.
    pub target: Target,
    /// How long it may take.
    pub timeout_ms: u32,
    /// How it runs, beside its target.
    pub settings: ToolSettings,
}

/// Who runs a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Target {
    /// We do: the call ends.
    EndCall,
    /// We do: the caller is handed over.
    TransferCall,
    /// We do: keys are pressed.
    SendDtmf,
    /// A server of the customer's.
    Http {
        /// Where.
        url: String,
    },
}

/// A JSON value as Postgres gives it back: its `jsonb` knows neither NUL nor that `1e2` was no integer. Without this, a
/// draft would differ from what was stored of it.
#[must_use]
pub fn canonical(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_nul(text)),
        Value::Number(number) => Value::Number(canonical_number(number)),
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(key, value)| (without_nul(key), canonical(value))).collect())
        }
        other => other.clone(),
    }
}

/// A text without the one character that Postgres cannot store.
#[must_use]
pub fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}

/// An integer if it is one; up to 2^53, where every integer is itself as a float.
fn canonical_number(number: &Number) -> Number {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT => {
            #[expect(clippy::cast_possible_truncation, reason = "integral and within 2^53")]
            let integer = float as i64;
            Number::from(integer)
        }
        _ => number.clone(),
    }
}

/// Three states of one thing into one: what changed at Vapi since the last import (`base` to `theirs`) is taken, what did
/// not stays as it is here (`ours`). Without a last import, everything is taken. Objects are compared member by member,
/// except those with a `type`: their members only make sense together.
pub fn merge(base: Option<&Value>, ours: &Value, theirs: &Value) -> Value {
    if base == Some(theirs) {
        return ours.clone();
    }
    let parts = |value: &'_ Value| -> Option<Map<String, Value>> {
        value.as_object().filter(|members| !members.contains_key("type")).cloned()
    };
    let (Some(base), Some(ours), Some(theirs)) = (base.and_then(parts), parts(ours), parts(theirs)) else {
        return theirs.clone();
    };
    let mut merged = Map::new();
    for key in ours.keys().chain(theirs.keys()) {
        let (base, ours, theirs) = (base.get(key), ours.get(key), theirs.get(key));
        let value = match (ours, theirs) {
            _ if base == theirs => ours.cloned(),
            (Some(ours), Some(theirs)) => Some(merge(base, ours, theirs)),
            (_, theirs) => theirs.cloned(),
        };
        if let Some(value) = value {
            merged.insert(key.clone(), value);
        }
    }
    Value::Object(merged)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changed_there_is_taken_and_what_changed_here_stays() {
        let base = json!({"name": "A", "greeting": "Hi", "realtime": {"voice": "marin", "call": {"idle": 1}}});
        let ours = json!({"name": "B", "greeting": "Hi", "realtime": {"voice": "cedar", "call": {"idle": 1, "x": 1}}});
        let theirs = json!({"name": "A", "greeting": "Hello", "realtime": {"voice": "marin", "call": {"y": 2}}});
        assert_eq!(
            merge(Some(&base), &ours, &theirs),
            json!({"name": "B", "greeting": "Hello", "realtime": {"voice": "cedar", "call": {"x": 1, "y": 2}}})
        );
        assert_eq!(merge(Some(&base), &ours, &base), ours, "no change there changes nothing here");
        assert_eq!(merge(None, &ours, &theirs), theirs);
        assert_eq!(merge(Some(&base), &base, &theirs), theirs);
    }

    #[test]
    fn typed_objects_are_taken_whole() {
        let (base, ours) = (json!({"t": {"type": "a", "x": 1}}), json!({"t": {"type": "b"}}));
        let theirs = json!({"t": {"type": "a", "x": 2}});
        assert_eq!(merge(Some(&base), &ours, &theirs), theirs);
    }

    #[test]
    fn canonical_values_survive_postgres() {
        let value: Value =
            serde_json::from_str(r#"{"a\u0000": ["\u0000b", 1e2, 1.5, 1.0, 18446744073709551615]}"#).unwrap();
        assert_eq!(canonical(&value), json!({"a": ["b", 100, 1.5, 1, 18_446_744_073_709_551_615_u64]}));
    }
}
