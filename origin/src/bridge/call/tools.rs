//! Tools that the model wants to run, and what it does with their outputs.

use std::collections::HashSet;

use super::{Action, Call, Millis};
use crate::bridge::openai::{self, FunctionCall};
use crate::bridge::responses::Ask;

/// Function calls whose outputs the model still waits for.
#[derive(Debug, Default)]
pub(super) struct RunningTools(HashSet<String>);

impl Call {
    /// The model has finished writing a function call.
    pub(super) fn tool_wanted(&mut self, call: FunctionCall, out: &mut Vec<Action>) {
        if self.tools.0.insert(call.call_id.clone()) {
            out.push(Action::RunTool(call));
        }
    }

    /// A tool has its output. The model speaks once all are there.
    pub(super) fn tool_done(&mut self, now: Millis, call_id: &str, output: &str, out: &mut Vec<Action>) {
        if !self.tools.0.remove(call_id) {
            return;
        }
        out.push(Action::ToModel(openai::function_output(call_id, output)));
        self.unseen_outputs += 1;
        if self.tools.0.is_empty() {
            self.ask(now, Ask::Turn, out);
        }
    }
}
