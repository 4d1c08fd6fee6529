//! Tools of our own, as the model calls them: what they do to the call. Doing it is the bridge's business.

use serde_json::Value;

use super::ToolError;
use super::arguments::{self, Arguments};
use crate::store::tools::settings::{Destination, ToolMoment, ToolSettings};
use crate::store::tools::{Builtin, Tool};

/// More keys than this are no menu's.
const MAX_KEYS: usize = 64;

/// What a tool does to its call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// It ends, once what the agent says has been heard.
    HangUp {
        /// What is said before.
        say: Option<String>,
    },
    /// The caller is put through.
    Transfer {
        /// To whom.
        destination: Destination,
        /// What is said before.
        say: Option<String>,
    },
    /// Keys are pressed towards the other side.
    PressKeys {
        /// Digits, `*`, `#`, and `w` for half a second.
        keys: String,
    },
}

impl Command {
    /// What the model is told.
    pub const fn output(&self) -> &'static str {
        match self {
            Self::HangUp { .. } => "The call is ending.",
            Self::Transfer { .. } => "The caller is being transferred.",
            Self::PressKeys { .. } => "The keys are being pressed.",
        }
    }
}

/// Reads what the model wants of a tool of ours.
pub(super) fn read(tool: &Tool, builtin: Builtin, tool_call_id: &str, raw: &Value) -> Result<Command, ToolError> {
    let arguments = arguments::read(&tool.settings, tool_call_id, raw)?;
    match builtin {
        Builtin::EndCall => Ok(Command::HangUp { say: said_first(&tool.settings) }),
        Builtin::TransferCall => {
            let destination = destination(&tool.settings, &arguments)?;
            let say = destination.message().map(str::to_owned).or_else(|| said_first(&tool.settings));
            Ok(Command::Transfer { destination, say })
        }
        Builtin::SendDtmf => keys(&arguments).map(|keys| Command::PressKeys { keys }),
    }
}

/// What the tool's owner has the agent say before.
fn said_first(settings: &ToolSettings) -> Option<String> {
    let first = |message: &&crate::store::tools::settings::ToolMessage| {
        message.when == ToolMoment::Start && !message.to_model && !message.text.trim().is_empty()
    };
    settings.messages.iter().find(first).map(|message| message.text.clone())
}

/// The one that the model names, of those that the owner allows. Where there is one only, it need not be named.
fn destination(settings: &ToolSettings, arguments: &Arguments) -> Result<Destination, ToolError> {
    let allowed = &settings.destinations;
    let wanted =
        arguments.get("destination").and_then(Value::as_str).map(str::trim).filter(|wanted| !wanted.is_empty());
    let found = match wanted {
        Some(wanted) => allowed.iter().find(|destination| destination.address() == wanted),
        None => allowed.first().filter(|_| allowed.len() == 1),
    };
    found.cloned().ok_or(ToolError::Destination)
}

fn keys(arguments: &Arguments) -> Result<String, ToolError> {
    let named = ["keys", "digits", "dtmf"].into_iter().find_map(|name| arguments.get(name));
    let text = match named {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => return Err(ToolError::Keys),
    };
    let keys: String = text.chars().filter(|key| !matches!(key, ' ' | '-' | ',')).collect();
    let pressable = |key: char| matches!(key, '0'..='9' | '*' | '#' | 'w' | 'W' | 'A'..='D');
    if (1..=MAX_KEYS).contains(&keys.len()) && keys.chars().all(pressable) { Ok(keys) } else { Err(ToolError::Keys) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::store::tools::ToolTarget;

    fn read_with(builtin: Builtin, settings: Value, arguments: &Value) -> Result<Command, ToolError> {
        let tool = Tool {
            id: uuid::Uuid::nil(),
            name: "tool".into(),
            description: String::new(),
            parameters: json!({}),
            target: ToolTarget::Builtin(builtin),
            timeout: Duration::from_secs(1),
            settings: serde_json::from_value(settings).unwrap(),
        };
        read(&tool, builtin, "c1", arguments)
    }

    #[test]
    fn a_caller_is_put_through_to_whom_the_owner_allows() {
        let two = json!({ "destinations": [
            { "type": "number", "number": "+15550100", "message": "One moment." },
            { "type": "sip", "sipUri": "sip:a@b.example" } ] });
        let to = |arguments: Value| read_with(Builtin::TransferCall, two.clone(), &arguments);
        let Ok(Command::Transfer { destination, say }) = to(json!({ "destination": "+15550100" })) else { panic!() };
        assert_eq!((destination.address(), say.as_deref()), ("+15550100", Some("One moment.")));
        assert!(matches!(to(json!({ "destination": "sip:a@b.example" })), Ok(Command::Transfer { say: None, .. })));
        for other in [json!({ "destination": "+15550199" }), json!({}), json!({ "destination": "" })] {
            assert!(matches!(to(other.clone()), Err(ToolError::Destination)), "{other}");
        }
        let one = json!({ "destinations": [{ "type": "number", "number": "+15550100" }] });
        assert!(read_with(Builtin::TransferCall, one, &json!({})).is_ok());
        assert!(matches!(
            read_with(Builtin::TransferCall, json!({}), &json!({ "destination": "+15550100" })),
            Err(ToolError::Destination)
        ));
    }

    #[test]
    fn only_keys_are_pressed() {
        let press = |arguments: Value| read_with(Builtin::SendDtmf, json!({}), &arguments);
        let keys = |keys: &str| Ok::<_, ()>(Command::PressKeys { keys: keys.into() });
        assert_eq!(press(json!({ "keys": "1 2-3w#" })).map_err(|_| ()), keys("123w#"));
        assert_eq!(press(json!({ "digits": 42 })).map_err(|_| ()), keys("42"));
        for bad in [json!({}), json!({ "keys": "" }), json!({ "keys": "1x" }), json!({ "keys": "1".repeat(65) })] {
            assert!(matches!(press(bad.clone()), Err(ToolError::Keys)), "{bad}");
        }
    }

    #[test]
    fn an_ending_may_have_words() {
        let message = json!({ "messages": [{ "when": "start", "text": "Goodbye then." }] });
        let ended = |settings| read_with(Builtin::EndCall, settings, &json!({})).unwrap();
        assert_eq!(ended(message), Command::HangUp { say: Some("Goodbye then.".into()) });
        assert_eq!(ended(json!({})), Command::HangUp { say: None });
    }
}
