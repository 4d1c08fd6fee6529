//! Function handlers: what an agent can do besides talking, the same on both systems.
//!
//! A tool's server gets what Vapi's own server tools get, and answers in that shape, whichever system runs the call; so
//! it works unchanged after a switch. Requests are signed like the edge's, with the tool's own secret. Targets on
//! private addresses are refused, after the name was resolved.

mod address;
pub mod once;

use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::AgentId;
use shared::hop::{self, SignedRequest};

use crate::App;
use crate::answering::unix_now;
use crate::store::tools::{Tool, ToolTarget};
use crate::store::{self, StoreError};

/// A larger result would fill the model's context.
const MAX_RESULT_BYTES: usize = 64 * 1024;
/// How long the connection to a tool's server may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// The way to tools' servers.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    allow_private: bool,
}

impl Client {
    /// A client that follows no redirects and, unless allowed, connects to public addresses only.
    pub fn new(allow_private: bool) -> reqwest::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if !allow_private {
            builder = builder.dns_resolver(std::sync::Arc::new(address::PublicOnly));
        }
        Ok(Self { http: builder.build()?, allow_private })
    }
}

/// One run of a tool.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// The call's id at the system that runs it.
    pub call_id: Option<&'a str>,
    /// The model's id of this run.
    pub tool_call_id: &'a str,
    /// The tool's name.
    pub name: &'a str,
    /// The arguments, an object.
    pub arguments: &'a Value,
}

/// Why a tool has no result. The sentence is for the model.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The agent has no tool of that name.
    #[error("This tool does not exist.")]
    Unknown,
    /// Built in, but not on this system.
    #[error("This tool is not available in this call.")]
    Unavailable,
    /// The target must not be called.
    #[error("This tool is not available.")]
    ForbiddenTarget,
    /// The server did not answer in time or well.
    #[error("The tool failed. It may or may not have taken effect.")]
    Failed(#[source] Option<reqwest::Error>),
    /// The server answered, and its answer is an error.
    #[error("{0}")]
    Refused(String),
    /// The result is larger than a model should read.
    #[error("The tool's result is too large.")]
    TooLarge,
    /// The tool cannot be looked up.
    #[error("The tool is not available right now.")]
    Store(#[from] StoreError),
}

/// Runs an agent's tool, once for each function call: told of one again, it gives what came of the first run.
pub async fn run(app: &App, agent: AgentId, invocation: &Invocation<'_>) -> Result<String, ToolError> {
    let outcome = look_up_and_call(app, agent, invocation).await;
    if let Err(error) = &outcome {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, agent_id = %agent, tool = invocation.name, "tool has no result");
    }
    outcome
}

async fn look_up_and_call(app: &App, agent: AgentId, invocation: &Invocation<'_>) -> Result<String, ToolError> {
    let tools = store::tools::of_agent(&mut *app.db.acquire().await.map_err(StoreError::from)?, agent).await?;
    let tool = tools.into_iter().find(|tool| tool.name == invocation.name).ok_or(ToolError::Unknown)?;
    once::run(app, agent, tool, invocation).await
}

async fn call(client: &Client, tool: &Tool, invocation: &Invocation<'_>) -> Result<String, ToolError> {
    let ToolTarget::Http { url, secret } = &tool.target else { return Err(ToolError::Unavailable) };
    let url: reqwest::Url = url.parse().map_err(|_| ToolError::ForbiddenTarget)?;
    if !client.allow_private && address::is_private_literal(&url) {
        return Err(ToolError::ForbiddenTarget);
    }
    let body = request_body(invocation).to_string();
    let path_and_query = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let signed = SignedRequest { method: "POST", path_and_query: &path_and_query, body: body.as_bytes() };
    let signature = hop::sign(secret.expose_secret(), unix_now(), signed);
    let failed = |error| ToolError::Failed(Some(error));
    let mut response = client
        .http
        .post(url.clone())
        .header("content-type", "application/json")
        .header(hop::SIGNATURE_HEADER, signature)
        .header(hop::DELIVERY_HEADER, format!("tool:{}:{}", invocation.call_id.unwrap_or("-"), invocation.tool_call_id))
        .timeout(tool.timeout)
        .body(body)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(failed)?;
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        answer.extend_from_slice(&chunk);
        if answer.len() > MAX_RESULT_BYTES {
            return Err(ToolError::TooLarge);
        }
    }
    read_answer(&answer, invocation.tool_call_id)
}

/// The message that Vapi sends to a server tool.
fn request_body(invocation: &Invocation<'_>) -> Value {
    let call = json!({
        "id": invocation.tool_call_id,
        "type": "function",
        "function": { "name": invocation.name, "arguments": invocation.arguments },
    });
    json!({
        "message": {
            "type": "tool-calls",
            "toolCallList": [call],
            "toolCalls": [call],
            "call": { "id": invocation.call_id },
        },
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    results: Vec<ToolResult>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolResult {
    tool_call_id: Option<String>,
    result: Option<Value>,
    error: Option<Value>,
}

fn read_answer(body: &[u8], tool_call_id: &str) -> Result<String, ToolError> {
    let answer: Answer = serde_json::from_slice(body).map_err(|_| ToolError::Failed(None))?;
    let result = answer
        .results
        .into_iter()
        .find(|result| result.tool_call_id.as_deref() == Some(tool_call_id))
        .ok_or(ToolError::Failed(None))?;
    match (result.result, result.error) {
        (Some(result), _) => Ok(text(result)),
        (None, Some(error)) => Err(ToolError::Refused(text(error))),
        (None, None) => Err(ToolError::Failed(None)),
    }
}

/// Vapi asks for a text, but its documentation shows other values as well.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_vapis() {
        let read = |body: Value| read_answer(body.to_string().as_bytes(), "c1");
        assert_eq!(
            read(json!({"results": [{"toolCallId": "c0", "result": "no"}, {"toolCallId": "c1", "result": "yes"}]}))
                .unwrap(),
            "yes"
        );
        assert_eq!(read(json!({"results": [{"toolCallId": "c1", "result": {"a": 1}}]})).unwrap(), r#"{"a":1}"#);
        assert!(
            matches!(read(json!({"results": [{"toolCallId": "c1", "error": "full"}]})), Err(ToolError::Refused(e)) if e == "full")
        );
        for bad in [json!({"results": []}), json!({"results": [{"toolCallId": "c1"}]}), json!("x")] {
            assert!(matches!(read(bad), Err(ToolError::Failed(None))));
        }
    }
}
