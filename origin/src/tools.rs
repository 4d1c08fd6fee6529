//! Function handlers: what an agent can do besides talking, the same on both systems.
//!
//! Both doors, OpenAI's function calls and Vapi's `tool-calls` messages, come to [`run`]. A tool's server gets what
//! Vapi's own server tools get, and answers in that shape, whichever system runs the call; so it works unchanged after a
//! switch. Requests are signed like the edge's, with the tool's own secret. Targets on private addresses are refused,
//! after the name was resolved.

mod address;
mod arguments;
mod builtin;
mod envelope;
pub mod fields;
mod http;
pub mod in_call;
pub mod once;

use std::sync::Arc;

use serde_json::Value;
use shared::AgentId;

use crate::App;
use crate::store::StoreError;
use crate::store::tools::{Builtin, Tool, ToolTarget};

pub use self::builtin::Command;
pub use self::envelope::CallFacts;
pub use self::http::Client;

/// What the model of a background tool is told.
const RUNS_ON: &str = "It is being done; there will be no result.";

/// One function call of a model's.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Whose call it is.
    pub agent: AgentId,
    /// The call.
    pub call: Arc<CallFacts>,
    /// The model's id of this function call.
    pub tool_call_id: String,
    /// The arguments as they came: an object, or the text of one.
    pub arguments: Value,
    /// Whether the call is bridged here. Then nobody else runs its tools, and they run without a database too.
    pub bridged: bool,
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
    /// The model's arguments cannot be read.
    #[error("The arguments are not a JSON object. Nothing was done.")]
    Arguments,
    /// The caller cannot be put through there.
    #[error("This destination is not one of those allowed. Nothing was done.")]
    Destination,
    /// What is to be pressed are no keys.
    #[error("These are not keys of a telephone: only digits, * and # are. Nothing was done.")]
    Keys,
    /// The target must not be called.
    #[error("This tool is not available.")]
    ForbiddenTarget,
    /// The server cannot be connected to.
    #[error("The tool cannot be reached. Nothing was done.")]
    Unreachable(#[source] reqwest::Error),
    /// The server did not answer in time or well.
    #[error("The tool failed. It may or may not have taken effect.")]
    Failed(#[source] Option<reqwest::Error>),
    /// The same was asked for before, and what came of that is not known in time.
    #[error("This was asked for already and is not finished. It may still take effect: do not ask for it again.")]
    Undecided,
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

impl ToolError {
    /// Whether it is known that nothing was done, so that the same may be asked for again.
    const fn is_harmless(&self) -> bool {
        !matches!(self, Self::Failed(_) | Self::Undecided | Self::TooLarge)
    }
}

/// What a tool of ours is to do to its call; `None`: it is none of ours.
pub fn command(tools: &[Tool], name: &str, tool_call_id: &str, raw: &Value) -> Option<Result<Command, ToolError>> {
    let tool = tools.iter().find(|tool| tool.name == name)?;
    let ToolTarget::Builtin(builtin) = tool.target else { return None };
    Some(builtin::read(tool, builtin, tool_call_id, raw))
}

/// Where an agent's caller is put through to when nobody has chosen, with what is said before: there is one place only.
pub fn only_transfer(tools: &[Tool]) -> Option<Command> {
    let mut transfers = tools.iter().filter(|tool| matches!(tool.target, ToolTarget::Builtin(Builtin::TransferCall)));
    let (Some(tool), None) = (transfers.next(), transfers.next()) else { return None };
    builtin::read(tool, Builtin::TransferCall, "", &Value::Object(serde_json::Map::new())).ok()
}

/// Runs one of an agent's tools, once for each function call: told of one again, it gives what came of the first run.
pub async fn run(app: &App, tools: &[Tool], name: &str, invocation: Invocation) -> Result<String, ToolError> {
    let agent = invocation.agent;
    let outcome = find_and_run(app, tools, name, invocation).await;
    if let Err(error) = &outcome {
        let error = error as &dyn std::error::Error;
        tracing::warn!(error, agent_id = %agent, tool = name, "tool has no result");
    }
    outcome
}

async fn find_and_run(app: &App, tools: &[Tool], name: &str, invocation: Invocation) -> Result<String, ToolError> {
    let tool = tools.iter().find(|tool| tool.name == name).ok_or(ToolError::Unknown)?;
    if matches!(tool.target, ToolTarget::Builtin(_)) {
        return Err(ToolError::Unavailable);
    }
    let run = once::Run::new(tool, invocation)?;
    if tool.settings.background {
        let (db, client, metrics) = (app.db.clone(), app.tools.clone(), Arc::clone(&app.metrics));
        app.tasks.spawn(async move { once::run(&db, &client, &metrics, run).await });
        return Ok(RUNS_ON.to_owned());
    }
    once::run(&app.db, &app.tools, &app.metrics, run).await
}
