//! Which server a message goes to, and which messages go at all.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::auth::Auth;
use super::deliver::{Backoff, Server};
use super::messages::{DEFAULT_SERVER_MESSAGES, message_type};
use super::resources::server_object;

/// The first of the levels that has a server URL: assistant, then number, then organisation. It is not a chain: if
/// that one fails, the next is not tried.
pub(crate) fn chosen(
    assistant: Option<&Map<String, Value>>,
    number: Option<&Map<String, Value>>,
    organisation: Option<&Server>,
    credentials: &BTreeMap<String, Auth>,
) -> Option<Server> {
    [assistant, number]
        .into_iter()
        .flatten()
        .find_map(server_object)
        .map(|server| from_object(&server, credentials))
        .or_else(|| organisation.cloned())
}

/// A `server` object with its credential looked up.
pub(crate) fn from_object(server: &Map<String, Value>, credentials: &BTreeMap<String, Auth>) -> Server {
    let text = |key: &str| server.get(key).and_then(Value::as_str);
    let auth = match (text("credentialId"), text("secret")) {
        (Some(id), _) => credentials.get(id).cloned().unwrap_or_default(),
        (None, Some(secret)) => Auth::Secret(secret.to_owned()),
        (None, None) => Auth::None,
    };
    let mut result = Server::new(text("url").unwrap_or_default(), auth);
    if let Some(limit) = server.get("timeoutSeconds").and_then(Value::as_f64) {
        result.timeout = Duration::from_secs_f64(limit);
    }
    let headers = server.get("headers").and_then(Value::as_object);
    result.headers = headers
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    result.backoff = server.get("backoffPlan").and_then(Value::as_object).map(backoff);
    result
}

fn backoff(plan: &Map<String, Value>) -> Backoff {
    let excluded = plan.get("excludedStatusCodes").and_then(Value::as_array);
    Backoff {
        exponential: plan.get("type").is_some_and(|kind| kind == "exponential"),
        max_retries: plan
            .get("maxRetries")
            .and_then(Value::as_u64)
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or_default(),
        base_delay: Duration::from_secs_f64(plan.get("baseDelaySeconds").and_then(Value::as_f64).unwrap_or_default()),
        excluded: excluded
            .into_iter()
            .flatten()
            .filter_map(|code| code.as_u64().and_then(|code| u16::try_from(code).ok()))
            .collect(),
    }
}

/// The messages an assistant sends.
pub(crate) fn subscriptions(assistant: Option<&Map<String, Value>>) -> Vec<String> {
    match assistant.and_then(|assistant| assistant.get("serverMessages")).and_then(Value::as_array) {
        Some(list) => list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        None => DEFAULT_SERVER_MESSAGES.map(str::to_owned).to_vec(),
    }
}

/// The body as it is sent to someone who asked for `wanted`, or nothing.
///
/// A final transcript goes out under the suffixed type when only that was asked for.
pub(crate) fn filtered(mut body: Value, wanted: &[String]) -> Option<Value> {
    const FINAL_ONLY: &str = "transcript[transcriptType=\"final\"]";
    let kind = message_type(&body);
    let has = |name: &str| wanted.iter().any(|item| item == name);
    if has(kind) {
        return Some(body);
    }
    if kind == "transcript" && has(FINAL_ONLY) && body["message"]["transcriptType"] == "final" {
        body["message"]["type"] = FINAL_ONLY.into();
        return Some(body);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vapi::facts::object;
    use serde_json::json;

    #[test]
    fn the_assistants_server_wins_and_brings_its_own_proof() {
        let assistant = object(json!({"server": {"url": "https://a.test", "credentialId": "c1", "timeoutSeconds": 3}}));
        let number = object(json!({"server": {"url": "https://n.test", "secret": "n"}}));
        let credentials = BTreeMap::from([("c1".to_owned(), Auth::bearer("t"))]);
        let server = chosen(Some(&assistant), Some(&number), None, &credentials).expect("one is set");
        assert_eq!(
            server,
            Server { timeout: Duration::from_secs(3), ..Server::new("https://a.test", Auth::bearer("t")) }
        );
        let server = chosen(Some(&object(json!({}))), Some(&number), None, &credentials).expect("one is set");
        assert_eq!(server, Server::new("https://n.test", Auth::Secret("n".into())));
    }

    #[test]
    fn transcripts_are_off_by_default_and_can_be_final_only() {
        let body = |kind: &str| json!({"message": {"type": "transcript", "transcriptType": kind}});
        let wanted = subscriptions(None);
        assert_eq!(filtered(body("final"), &wanted), None);
        let wanted = vec!["transcript[transcriptType=\"final\"]".to_owned()];
        assert_eq!(filtered(body("partial"), &wanted), None);
        let sent = filtered(body("final"), &wanted).expect("it was asked for");
        assert_eq!(message_type(&sent), "transcript[transcriptType=\"final\"]");
    }
}
