//! Tools that the model wants to run, and what it does with their outputs.

use std::collections::HashSet;

use super::{Action, Call, Millis};
use crate::bridge::openai::{self, FunctionCall};
use crate::bridge::responses::Ask;
use crate::tools::Command;

/// Function calls whose outputs the model still waits for.
#[derive(Debug, Default)]
pub(super) struct RunningTools(HashSet<String>);

impl RunningTools {
    /// Whether none runs.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Their session is gone.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

impl Call {
    /// The model has finished writing a function call.
    pub(super) fn tool_wanted(&mut self, call: FunctionCall, out: &mut Vec<Action>) {
        if self.tools.0.insert(call.call_id.clone()) {
            self.tool_notes.wanted(&call, self.transcript.next_position());
            out.push(Action::RunTool(call));
        }
    }

    /// A tool has its output. The model speaks once all are there.
    pub(super) fn tool_done(
        &mut self,
        now: Millis,
        call_id: &str,
        output: &str,
        command: Option<Command>,
        out: &mut Vec<Action>,
    ) {
        if self.tool_done_for_a_lost_session(now, call_id, output, command.is_none(), out) {
            if let Some(command) = command {
                self.command(now, command, out);
            }
            return;
        }
        if !self.tools.0.remove(call_id) {
            return;
        }
        out.push(Action::ToModel(openai::function_output(call_id, output)));
        self.unseen_outputs += 1;
        if let Some(command) = command {
            self.command(now, command, out);
        } else if self.tools.is_idle() && self.leaving.is_none() {
            self.ask(now, Ask::Turn, out);
        }
    }
}
