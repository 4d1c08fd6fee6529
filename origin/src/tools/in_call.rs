//! The tools of one bridged call: as the agent had them when the call began, run beside it.
//!
//! A run outlives its call: what was begun is finished and noted, whether or not the caller is still there. Two function
//! calls that are the same share a run here already, so that this holds while the database is away.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use serde_json::Value;
use shared::AgentId;

use super::{CallFacts, Command, Invocation, ToolError, builtin, once};
use crate::App;
use crate::store::tools::{Tool, ToolTarget};

/// What the model gets, shared by all that asked for the same.
pub type Output = Shared<BoxFuture<'static, Result<String, Arc<ToolError>>>>;

/// A function call that has begun.
#[derive(Clone, Debug)]
pub enum Begun {
    /// A tool runs.
    Running(Output),
    /// The call itself is to do something.
    Command(Command),
}

/// The tools of one call, and what was asked of them.
#[derive(Debug)]
pub struct CallTools {
    app: Arc<App>,
    agent: AgentId,
    facts: Arc<CallFacts>,
    tools: Vec<Tool>,
    runs: HashMap<String, Output>,
}

impl CallTools {
    /// The tools of a call that begins.
    pub fn new(app: Arc<App>, agent: AgentId, facts: CallFacts, tools: Vec<Tool>) -> Self {
        Self { app, agent, facts: Arc::new(facts), tools, runs: HashMap::new() }
    }

    /// Starts a tool, unless the same was asked for before: then it is that run.
    pub fn run(&mut self, name: &str, tool_call_id: &str, arguments: String) -> Begun {
        let invocation = Invocation {
            agent: self.agent,
            call: Arc::clone(&self.facts),
            tool_call_id: tool_call_id.to_owned(),
            arguments: Value::String(arguments),
            bridged: true,
        };
        let tool = self.tools.iter().find(|tool| tool.name == name);
        if let Some((tool, ToolTarget::Builtin(builtin))) = tool.map(|tool| (tool, &tool.target)) {
            return match builtin::read(tool, *builtin, tool_call_id, &invocation.arguments) {
                Ok(command) => Begun::Command(command),
                Err(error) => {
                    tracing::warn!(%error, agent_id = %self.agent, tool = name, "tool has no result");
                    Begun::Running(std::future::ready(Err(Arc::new(error))).boxed().shared())
                }
            };
        }
        let same_as = tool.and_then(|tool| once::Run::new(tool, invocation.clone()).ok()).map(|run| run.same_as());
        if let Some(output) = same_as.as_ref().and_then(|same_as| self.runs.get(same_as)) {
            // What certainly had no effect may be tried again.
            if !matches!(output.peek(), Some(Err(error)) if error.is_harmless()) {
                return Begun::Running(output.clone());
            }
        }
        let (app, tools, name) = (Arc::clone(&self.app), self.tools.clone(), name.to_owned());
        let running =
            self.app.tasks.spawn(async move { super::run(&app, &tools, &name, invocation).await.map_err(Arc::new) });
        let output = running.map(|joined| joined.unwrap_or_else(|_| Err(Arc::new(ToolError::Failed(None)))));
        let output = output.boxed().shared();
        if let Some(same_as) = same_as {
            self.runs.insert(same_as, output.clone());
        }
        Begun::Running(output)
    }
}
