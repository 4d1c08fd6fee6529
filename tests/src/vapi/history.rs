//! A conversation so far, and the forms in which Vapi's messages carry it.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::clock::{epoch_ms, seconds};

/// One entry of the history.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// The assistant spoke.
    Bot(Spoken),
    /// The caller spoke.
    User(Spoken),
    /// The model asked for tools.
    ToolCalls {
        /// When.
        at: OffsetDateTime,
        /// What it asked for.
        calls: Vec<ToolCall>,
    },
    /// A tool answered.
    ToolResult {
        /// When.
        at: OffsetDateTime,
        /// Which call it answers.
        tool_call_id: String,
        /// The function.
        name: String,
        /// What the model reads.
        result: String,
    },
}

/// Something said aloud.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    /// The words.
    pub text: String,
    /// From when.
    pub from: OffsetDateTime,
    /// Until when.
    pub until: OffsetDateTime,
}

/// A function call of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Not unique across calls: hooks all use `hook-function-call`.
    pub id: String,
    /// The function.
    pub name: String,
    /// An object on the wire, though the SDK's type says string.
    pub arguments: Value,
}

impl ToolCall {
    /// As it appears in a `tool-calls` message: `arguments` is an object.
    pub fn on_the_wire(&self) -> Value {
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}})
    }

    /// As it appears inside `artifact.messages`: `arguments` is a JSON string.
    pub fn in_history(&self) -> Value {
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments.to_string()}})
    }
}

/// A conversation, from the moment it began.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    started_at: OffsetDateTime,
    instructions: Option<String>,
    turns: Vec<Turn>,
}

impl History {
    /// An empty conversation. `instructions` becomes the leading system message, as in real deliveries.
    pub fn new(started_at: OffsetDateTime, instructions: Option<String>) -> Self {
        Self { started_at, instructions, turns: Vec::new() }
    }

    /// When the conversation began.
    pub fn started_at(&self) -> OffsetDateTime {
        self.started_at
    }

    /// Adds what happened next.
    pub fn push(&mut self, turn: Turn) {
        self.turns.push(turn);
    }

    /// All turns so far.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// `artifact.messages`: the roles are `system`, `bot`, `user`, `tool_calls`, `tool_call_result`.
    pub fn messages(&self) -> Vec<Value> {
        let system = self.instructions.as_ref().map(
            |text| json!({"role": "system", "message": text, "time": epoch_ms(self.started_at), "secondsFromStart": 0}),
        );
        system.into_iter().chain(self.turns.iter().map(|turn| self.message(turn))).collect()
    }

    fn message(&self, turn: &Turn) -> Value {
        let spoken = |role: &str, said: &Spoken| {
            json!({
                "role": role,
                "message": said.text,
                "time": epoch_ms(said.from),
                "endTime": epoch_ms(said.until),
                "secondsFromStart": self.since_start(said.from),
                // Milliseconds; deliveries of 2024 had seconds.
                "duration": epoch_ms(said.until) - epoch_ms(said.from),
            })
        };
        match turn {
            Turn::Bot(said) => {
                let mut message = spoken("bot", said);
                message["source"] = "".into();
                message
            }
            Turn::User(said) => spoken("user", said),
            Turn::ToolCalls { at, calls } => json!({
                "role": "tool_calls",
                "message": "",
                "time": epoch_ms(*at),
                "secondsFromStart": self.since_start(*at),
                "toolCalls": calls.iter().map(ToolCall::in_history).collect::<Vec<_>>(),
            }),
            Turn::ToolResult { at, tool_call_id, name, result } => json!({
                "role": "tool_call_result",
                "toolCallId": tool_call_id,
                "name": name,
                "result": result,
                "time": epoch_ms(*at),
                "secondsFromStart": self.since_start(*at),
            }),
        }
    }

    /// `messagesOpenAIFormatted`: spoken turns only; tools appear in `messages`.
    pub fn openai_formatted(&self) -> Vec<Value> {
        let system = self.instructions.as_ref().map(|text| json!({"role": "system", "content": text}));
        let spoken = self.turns.iter().filter_map(|turn| match turn {
            Turn::Bot(said) => Some(json!({"role": "assistant", "content": said.text})),
            Turn::User(said) => Some(json!({"role": "user", "content": said.text})),
            Turn::ToolCalls { .. } | Turn::ToolResult { .. } => None,
        });
        system.into_iter().chain(spoken).collect()
    }

    /// `artifact.transcript`: `AI: …` and `User: …`, a line each.
    pub fn transcript(&self) -> String {
        self.turns
            .iter()
            .filter_map(|turn| match turn {
                Turn::Bot(said) => Some(format!("AI: {}\n", said.text)),
                Turn::User(said) => Some(format!("User: {}\n", said.text)),
                Turn::ToolCalls { .. } | Turn::ToolResult { .. } => None,
            })
            .collect()
    }

    /// `message.artifact` while the call runs.
    pub fn artifact(&self) -> Value {
        json!({"messages": self.messages(), "messagesOpenAIFormatted": self.openai_formatted()})
    }

    fn since_start(&self, at: OffsetDateTime) -> f64 {
        seconds(epoch_ms(at) - epoch_ms(self.started_at))
    }
}
