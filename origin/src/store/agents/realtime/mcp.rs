//! MCP servers of an agent: OpenAI lists and calls their tools itself, without asking us.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// More would fill the session's instructions with descriptions of tools.
const MOST_SERVERS: usize = 16;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct McpServer {
    /// Names it in the session: letters, digits, `-` and `_`, at most 64.
    pub label: String,
    /// Its https URL.
    pub url: String,
    /// What it is for, for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The token that OpenAI shows to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Secret>,
    /// Other headers of OpenAI's requests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Its tools that the agent may use; empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_tools: Vec<String>,
}

/// A text that is stored and sent, but never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What OpenAI would refuse, each with the field's name.
pub(super) fn faults(servers: &[McpServer], faults: &mut Vec<String>) {
    if servers.len() > MOST_SERVERS {
        faults.push(format!("mcpServers must be {MOST_SERVERS} at most"));
    }
    for (at, server) in servers.iter().enumerate() {
        let mut fault = |is: bool, text: &str| {
            if is {
                faults.push(format!("mcpServers[{at}].{text}"));
            }
        };
        let is_label = |label: &str| (1..=64).contains(&label.len()) && super::is_word(label);
        fault(!is_label(&server.label), "label must be of letters, digits, - and _, 64 at most");
        let is_repeated = servers[..at].iter().any(|other| other.label == server.label);
        fault(is_repeated, "label must differ from the others");
        let is_https = reqwest::Url::parse(&server.url).is_ok_and(|url| url.scheme() == "https" && url.has_host());
        fault(!is_https, "url must be an https URL");
        fault(server.allowed_tools.iter().any(|tool| tool.trim().is_empty()), "allowedTools must be names");
        let header = |name: &String, value: &Secret| {
            axum::http::HeaderName::try_from(name).is_ok() && axum::http::HeaderValue::try_from(value.expose()).is_ok()
        };
        fault(server.headers.iter().any(|(name, value)| !header(name, value)), "headers must be names and values");
        let is_empty = server.authorization.as_ref().is_some_and(|token| token.expose().trim().is_empty());
        fault(is_empty, "authorization must not be empty");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_server_and_secrets_are_not_printed() {
        let text = r#"[
            {"label":"a","url":"https://mcp.test/sse","authorization":"swordfish","headers":{"x-tenant":"swordfish"}},
            {"label":"a","url":"https://","authorization":" ","headers":{"a b":""},"allowedTools":[""]}
        ]"#;
        let servers: Vec<McpServer> = serde_json::from_str(text).unwrap();
        let mut found = Vec::new();
        faults(&servers, &mut found);
        let of_first = found.iter().filter(|fault| fault.starts_with("mcpServers[0]")).count();
        assert_eq!((of_first, found.len()), (0, 5), "{found:?}");
        assert!(!format!("{servers:?}").contains("swordfish"));
        assert!(serde_json::to_string(&servers).unwrap().contains("swordfish"));
    }
}
