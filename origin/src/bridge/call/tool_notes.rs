//! What the agent's tools did, as text: a new session knows no function calls of an old one.

use std::collections::{HashMap, VecDeque};

use super::{Action, Call, Millis, Phase};
use crate::bridge::openai::{self, FunctionCall, Voice};
use crate::bridge::responses::Ask;

/// Notes that are kept; the oldest goes first.
const LIMIT: usize = 32;
/// Characters of a result that are repeated to a new session.
const RESULT_LIMIT: usize = 4_000;

/// A function call without its output.
#[derive(Debug)]
struct Running {
    position: u32,
    name: String,
    arguments: String,
    /// Whether the session that asked for it is gone.
    is_orphan: bool,
}

/// What is known of tools, each at its place in the conversation.
#[derive(Debug, Default)]
pub(super) struct ToolNotes {
    running: HashMap<String, Running>,
    done: VecDeque<(u32, String)>,
}

impl ToolNotes {
    /// The model wants a tool, at this place in the conversation.
    pub(super) fn wanted(&mut self, call: &FunctionCall, position: u32) {
        let (name, arguments) = (call.name.clone(), call.arguments.clone());
        self.running.insert(call.call_id.clone(), Running { position, name, arguments, is_orphan: false });
    }

    /// A tool has its output. Returns the note of it, if the session that asked for it is gone.
    fn done(&mut self, call_id: &str, output: &str) -> Option<String> {
        let Running { position, name, arguments, is_orphan } = self.running.remove(call_id)?;
        let output: String = output.chars().take(RESULT_LIMIT).collect();
        let note = format!("The tool {name} was called with {arguments}. Its result: {output}");
        self.done.push_back((position, note.clone()));
        if self.done.len() > LIMIT {
            self.done.pop_front();
        }
        is_orphan.then_some(note)
    }

    /// The session that asked for what runs is gone.
    pub(super) fn session_is_gone(&mut self) {
        self.running.values_mut().for_each(|running| running.is_orphan = true);
    }

    /// Whether nothing is under way.
    pub(super) fn none_runs(&self) -> bool {
        self.running.is_empty()
    }

    /// Every note, with its place in the conversation.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, String)> {
        let running = self.running.values().map(|running| {
            let Running { position, name, arguments, .. } = running;
            (
                *position,
                format!("The tool {name} was called with {arguments}. Its result is not there yet and will follow."),
            )
        });
        self.done.iter().cloned().chain(running)
    }
}

impl Call {
    /// A tool has an output, after which the model `speaks`. `true`: its session is gone, and the present one is told in words.
    pub(super) fn tool_done_for_a_lost_session(
        &mut self,
        now: Millis,
        call_id: &str,
        output: &str,
        speaks: bool,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(note) = self.tool_notes.done(call_id, output) else { return false };
        // A session yet to come is told with all the rest.
        if matches!(self.phase, Phase::Talking) {
            out.push(Action::ToModel(openai::text_item(Voice::System, &note)));
        }
        if speaks && self.tool_notes.none_runs() && self.leaving.is_none() {
            self.ask(now, Ask::Turn, out);
        }
        true
    }
}
