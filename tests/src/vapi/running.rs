//! The life of a call: its messages go out, and its record says where it is.

use std::sync::Arc;

use serde_json::Value;
use time::OffsetDateTime;

use super::Shared;
use super::calls::Call;
use super::deliver::{Answer, Server};
use super::facts::{Facts, object};
use super::history::{History, ToolCall};
use super::messages::{self, ToolConfig};
use super::servers;

/// The reason when the media of a handed-over call never came.
const NO_CALL: &str = "phone-call-provider-bypass-enabled-but-no-call-received";

impl Shared {
    /// Puts a new call on record. If its media must come from someone else, it ends when they do not.
    pub(crate) fn open(self: &Arc<Self>, call: Call) {
        let call_id = call.facts.call_id.clone();
        let handed_over = call.handed_over && call.is_live();
        self.calls.push(call);
        if handed_over {
            let shared = Arc::clone(self);
            tokio::spawn(async move {
                tokio::select! {
                    () = tokio::time::sleep(shared.options.no_call_limit) => {}
                    () = shared.stop.cancelled() => return,
                }
                if shared.call(&call_id).is_some_and(|call| call.is_live() && call.started_at.is_none()) {
                    shared.finish(&call_id, None, NO_CALL);
                }
            });
        }
    }

    /// The call with this id, unless it was deleted.
    pub(crate) fn call(&self, call_id: &str) -> Option<Call> {
        self.calls.find(|call| call.facts.call_id == call_id && !call.deleted)
    }

    /// Changes the call with this id.
    pub(crate) fn change(&self, call_id: &str, change: impl FnOnce(&mut Call)) {
        self.calls.update_first(|call| call.facts.call_id == call_id, change);
    }

    /// Sends a message about a call, if the assistant wants its type and there is a server. Nothing waits for the
    /// answer: the next message may overtake this one.
    pub(crate) fn tell(self: &Arc<Self>, body: Value) {
        let Some((server, body)) = self.addressed(body) else {
            return;
        };
        let position = self.sender.enter(&server, body.clone());
        let shared = Arc::clone(self);
        tokio::spawn(async move { shared.sender.post(&server, position, &body).await });
    }

    fn addressed(&self, body: Value) -> Option<(Server, Value)> {
        let assistant = self.assistant_of(&body);
        let wanted = servers::subscriptions(assistant.as_ref());
        let body = servers::filtered(body, &wanted)?;
        Some((self.server_for(&body)?, body))
    }

    /// The assistant of a message's call as stored, or the transient one inside the call.
    fn assistant_of(&self, body: &Value) -> Option<serde_json::Map<String, Value>> {
        let call = &body["message"]["call"];
        let saved = call["assistantId"].as_str().and_then(|id| self.stored().assistants.get(id).cloned());
        saved.or_else(|| call["assistant"].as_object().cloned())
    }

    /// Calls a tool and returns what the model reads; `None` when the answer is of no use.
    pub(crate) async fn ask_tool(&self, facts: &Facts, history: &History, call: &ToolCall) -> Option<String> {
        let (config, own_server) = self.tool(facts, &call.name);
        let body = messages::tool_calls(facts, OffsetDateTime::now_utc(), history, &[(call.clone(), config)]);
        let server = own_server.or_else(|| self.server_for(&body))?;
        let position = self.sender.enter(&server, body.clone());
        let (answer, fault) = self.sender.post(&server, position, &body).await;
        match fault {
            None => tool_text(&answer),
            Some(_) => None,
        }
    }

    /// A tool of the call's assistant by its function name, inline or by `toolIds`, and its own server if it has
    /// one, which comes before all others.
    fn tool(&self, facts: &Facts, name: &str) -> (ToolConfig, Option<Server>) {
        let model = facts.assistant.as_ref().map(|assistant| assistant["model"].clone()).unwrap_or_default();
        let list = |key: &str| model[key].as_array().cloned().unwrap_or_default();
        let stored = self.stored();
        let by_id = list("toolIds").into_iter().filter_map(|id| {
            let tool = stored.tools.get(id.as_str().unwrap_or_default())?;
            Some(Value::from(tool.clone()))
        });
        let tool = list("tools").into_iter().chain(by_id).find(|tool| tool["function"]["name"] == name);
        let tool = tool.unwrap_or_default();
        let own = object(tool["server"].clone());
        let own = own.contains_key("url").then(|| servers::from_object(&own, &self.options.credentials));
        let parameters = match &tool["function"]["parameters"] {
            Value::Null => serde_json::json!({"type": "object", "properties": {}}),
            schema => schema.clone(),
        };
        let config = ToolConfig {
            description: tool["function"]["description"].as_str().unwrap_or_default().to_owned(),
            parameters,
            server_url: own.as_ref().map(|server| server.url.clone()),
        };
        (config, own)
    }

    /// Ends a call: its record, the `ended` status at once, the report after the analysis.
    pub(crate) fn finish(self: &Arc<Self>, call_id: &str, history: Option<&History>, reason: &str) {
        let now = OffsetDateTime::now_utc();
        let Some(call) = self.call(call_id).filter(Call::is_live) else {
            return;
        };
        let history = history.cloned().unwrap_or_else(|| History::new(now, None));
        self.change(call_id, |call| {
            call.status = "ended";
            call.ended_at = Some(now);
            call.ended_reason = Some(reason.to_owned());
            call.history = Some(history.clone());
        });
        self.tell(messages::status_ended(&call.facts, now, &history, reason));
        let shared = Arc::clone(self);
        let reason = reason.to_owned();
        tokio::spawn(async move {
            tokio::time::sleep(shared.options.report_delay).await;
            let at = OffsetDateTime::now_utc();
            shared.tell(messages::end_of_call_report(&call.facts, at, &history, now, &reason));
        });
    }
}

/// The text of a tool's answer: its result, its error, or the error that stands for all.
fn tool_text(answer: &Answer) -> Option<String> {
    let first = &answer.body["results"][0];
    [&first["result"], &first["error"], &answer.body["error"]]
        .into_iter()
        .find_map(|text| text.as_str().map(str::to_owned))
}
