//! Calls that Vapi runs, as it tells of them in server messages.
//!
//! The decision comes first (`shared::decision`), with the call's pin before the agent's present state; a call that
//! Twilio sent straight to Vapi because it did not know better is Vapi's, too. Messages that
//! need an answer get one in their type's shape; the rest fill the same call record that bridged calls have.

pub mod report;

use std::sync::Arc;

use serde_json::{Value, json};
use shared::decision::{VapiDecision, decide_vapi};
use shared::route::Lookup;
use shared::vapi::answer::{self, Refusal, refuse, tool_error, tool_result, tool_result_ending, tool_results};
use shared::vapi::message::{HOOK_TOOL_CALL_ID, Message, MessageType, ToolCall};
use shared::{AgentId, CallId, E164, SystemType, VapiCallId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::App;
use crate::calls::{Entry, ToolRun};
use crate::end_reason::Ending;
use crate::inbox::{self, Delivery, Source, State, told_at};
use crate::numbers::pointing;
use crate::store::calls::{Call, NewCall};
use crate::store::events::{Actor, NewEvent};
use crate::store::tools::Tool;
use crate::store::{self, StoreError};
use crate::tools::{self, CallFacts, Command, Invocation, ToolError};
use crate::vapi_calls::report::Report;

/// Acts on a message once it is known to be genuine; the answer is Vapi's. An event takes effect once for each
/// `delivery`.
pub async fn handle(app: &App, message: &Message, delivery: &str, body: &[u8]) -> Result<Value, StoreError> {
    if message.kind.needs_answer() {
        return answer(app, message).await;
    }
    let delivery = Delivery {
        id: delivery,
        source: Source::Vapi,
        kind: message.kind.as_str(),
        body,
        call_sid: message.call_sid.as_ref(),
        vapi_call_id: message.call_id.as_ref(),
        changes_record: matches!(message.kind, MessageType::StatusUpdate | MessageType::EndOfCallReport),
    };
    if let Some(mut entry) = inbox::open(app, delivery).await? {
        let became = apply(&mut entry, message, body).await?;
        entry.close(became).await?;
    }
    Ok(json!({}))
}

/// What a message concerns, and what is to be done with it.
struct Decided {
    decision: VapiDecision,
    agent_id: Option<AgentId>,
    call: Option<Call>,
}

async fn decide(conn: &mut PgConnection, message: &Message) -> Result<Decided, StoreError> {
    let call = find_call(conn, message).await?;
    if call.as_ref().is_some_and(|call| is_another(call, message)) {
        tracing::warn!(call_sid = ?message.call_sid, kind = %message.kind, "Vapi tells of a call that has no caller");
        return Ok(Decided { decision: VapiDecision::Unknown, agent_id: None, call: None });
    }
    let route = match &message.assistant_id {
        Some(assistant) => store::routes::assistant(conn, assistant).await?,
        None => None,
    };
    // A message that names no assistant is decided by its call or its number.
    let number_route = match &message.number {
        Some(number) if route.is_none() => store::routes::number(conn, number).await?,
        _ => None,
    };
    let agent_id = call
        .as_ref()
        .map(|call| call.agent_id)
        .or_else(|| route.as_ref().map(|route| route.agent_id))
        .or_else(|| number_route.as_ref().map(|route| route.agent_id));
    let route = match (route, number_route) {
        (Some(route), _) => Some(route),
        (None, Some(by_number)) => Some(as_assistant_route(conn, &by_number).await?),
        (None, None) => None,
    };
    let pin = call.as_ref().map(|call| call.system_type);
    let mut decision = decide_vapi(pin, Lookup::Truth(route.as_ref()), message.call_created_at);
    // The agent has left Vapi, but Twilio may not have known that yet.
    if let (VapiDecision::Skip, None, Some(agent), Some(began_at)) = (decision, pin, agent_id, message.call_created_at)
        && pointing::may_have_gone_to_vapi(conn, agent, message.number.as_ref(), began_at).await?
    {
        decision = VapiDecision::Process;
    }
    let call_id = message.call_id.as_ref().map_or("-", VapiCallId::as_str);
    tracing::info!(vapi_call_id = call_id, kind = %message.kind, ?decision, "Vapi message decided");
    Ok(Decided { decision, agent_id, call })
}

/// Does what an event says.
pub async fn apply(conn: &mut PgConnection, message: &Message, body: &[u8]) -> Result<State, StoreError> {
    let Decided { decision, agent_id, call } = decide(conn, message).await?;
    let call = match (decision, agent_id, call) {
        (VapiDecision::Process, Some(_), Some(call)) => Some(call),
        (VapiDecision::Process, Some(agent_id), None) => begin(conn, message, agent_id).await?,
        (VapiDecision::Skip, agent_id, _) => {
            if let Some(agent_id) = agent_id {
                skipped(conn, agent_id, message).await?;
            }
            return Ok(State::Skipped);
        }
        _ => return Ok(State::Unknown),
    };
    if let Some(call) = call {
        match message.kind {
            MessageType::StatusUpdate => status(conn, message, &call).await?,
            MessageType::EndOfCallReport => report(conn, message, body, &call).await?,
            _ => {}
        }
    }
    Ok(State::Applied)
}

/// Answers a message whose sender waits. Whatever it changes may be repeated: the call is begun once, each tool is run
/// once.
async fn answer(app: &App, message: &Message) -> Result<Value, StoreError> {
    let mut conn = app.db.acquire().await?;
    let Decided { decision, agent_id, call } = decide(&mut conn, message).await?;
    let agent_id = match (decision, agent_id) {
        (VapiDecision::Process, Some(agent_id)) => agent_id,
        (VapiDecision::Skip, agent_id) => {
            if let Some(agent_id) = agent_id {
                skipped(&mut conn, agent_id, message).await?;
            }
            return Ok(refuse(message, Refusal::Switched));
        }
        _ => return Ok(refuse(message, Refusal::UnknownAgent)),
    };
    let call = match call {
        None => begin(&mut conn, message, agent_id).await?,
        known => known,
    };
    match &message.kind {
        MessageType::ToolCalls => {
            let tools = store::tools::of_agent(&mut conn, agent_id).await?;
            let agent = store::agents::by_id(&mut conn, agent_id).await?;
            // Tools may take their time; the connection is not theirs to hold.
            drop(conn);
            let record = call.as_ref().map(|call| call.id);
            let rules = agent.as_ref().and_then(|agent| agent.realtime.as_ref()).map(|settings| &settings.call);
            let farewell = rules.and_then(|rules| rules.end_call_message.clone());
            let facts = call.zip(agent).map_or_else(CallFacts::default, |(call, agent)| CallFacts::new(&call, &agent));
            Ok(Asked { app, agent: agent_id, tools, facts: Arc::new(facts), record, farewell }.answer(message).await)
        }
        MessageType::TransferDestinationRequest => {
            let tools = store::tools::of_agent(&mut conn, agent_id).await?;
            Ok(match tools::only_transfer(&tools) {
                Some(Command::Transfer { destination, say }) => answer::transfer(&json!(destination), say.as_deref()),
                _ => refuse(message, Refusal::Unavailable),
            })
        }
        MessageType::AssistantRequest => {
            let agent = store::agents::by_id(&mut conn, agent_id).await?;
            Ok(match agent.and_then(|agent| agent.vapi_assistant_id) {
                Some(assistant) => json!({ "assistantId": assistant }),
                None => refuse(message, Refusal::UnknownAgent),
            })
        }
        // Nothing of ours answers the others yet; the shape is right and Vapi goes on.
        _ => Ok(refuse(message, Refusal::Unavailable)),
    }
}

async fn as_assistant_route(
    conn: &mut PgConnection,
    by_number: &shared::route::NumberRoute,
) -> Result<shared::route::AssistantRoute, StoreError> {
    let agent = store::agents::by_id(conn, by_number.agent_id).await?;
    Ok(shared::route::AssistantRoute {
        revision: by_number.revision,
        agent_id: by_number.agent_id,
        agent_system_type: by_number.agent_system_type,
        switched_at: agent.and_then(|agent| agent.switched_at),
    })
}

/// The record of the message's call, joined to its name at Vapi when only Twilio's was known.
async fn find_call(conn: &mut PgConnection, message: &Message) -> Result<Option<Call>, StoreError> {
    if let Some(id) = &message.call_id
        && let Some(call) = store::calls::by_vapi_call_id(conn, id).await?
    {
        return Ok(Some(call));
    }
    let Some(call_sid) = &message.call_sid else { return Ok(None) };
    let call = store::calls::by_call_sid(conn, call_sid).await?;
    if let (Some(call), Some(id)) = (&call, &message.call_id)
        && call.system_type == SystemType::Vapi
    {
        store::calls::set_vapi_call_id(conn, call.id, id).await?;
    }
    Ok(call)
}

/// Whether the message is about a call that Vapi was asked for, made too late, and that nobody was brought to: the record
/// is the caller's, who is in another.
fn is_another(call: &Call, message: &Message) -> bool {
    matches!((&call.vapi_call_id, &message.call_id), (Some(its), Some(told)) if its != told)
}

/// Pins a call of Vapi's that we hear of for the first time.
async fn begin(conn: &mut PgConnection, message: &Message, agent_id: AgentId) -> Result<Option<Call>, StoreError> {
    let Some(vapi_call_id) = &message.call_id else { return Ok(None) };
    let Some(agent) = store::agents::by_id(conn, agent_id).await? else { return Ok(None) };
    let number = match &message.number {
        Some(number) => store::numbers::by_number(conn, number).await?,
        None => None,
    };
    let new = NewCall {
        project_id: agent.project_id,
        agent_id,
        number_id: number.filter(|number| number.project_id == agent.project_id).map(|number| number.id),
        call_sid: message.call_sid.as_ref(),
        vapi_call_id: Some(vapi_call_id),
        from: message.customer.as_ref().map(E164::as_str),
        to: message.number.as_ref().map(E164::as_str),
        system_type: SystemType::Vapi,
        started_at: told_at(message.call_created_at.or(message.at), OffsetDateTime::now_utc()),
    };
    let (call, _) = store::calls::begin(conn, &new).await?;
    Ok(Some(call))
}

/// What is said by an agent whose owner has written no words for the end.
const GOODBYE: &str = "Goodbye.";

/// Tools that Vapi's model wants of an agent.
struct Asked<'a> {
    app: &'a App,
    agent: AgentId,
    tools: Vec<Tool>,
    facts: Arc<CallFacts>,
    /// The call that the runs are kept with.
    record: Option<CallId>,
    /// What the agent says before it ends a call.
    farewell: Option<String>,
}

impl Asked<'_> {
    async fn answer(&self, message: &Message) -> Value {
        let runs = message.tool_calls.iter().map(|call| self.run(call));
        tool_results(&futures_util::future::join_all(runs).await)
    }

    async fn run(&self, call: &ToolCall) -> Value {
        let run = ToolRun::begin(&call.id, &call.name, call.arguments.clone());
        let (outcome, last_words) = match tools::command(&self.tools, &call.name, &call.id, &call.arguments) {
            Some(command) => self.carried_out(command),
            None => (self.run_elsewhere(call).await, None),
        };
        let outcome = outcome.map_err(|error| error.to_string());
        // All hooks of an assistant call by one id: which of them this was only Vapi's report tells.
        if let Some(record) = self.record
            && call.id != HOOK_TOOL_CALL_ID
        {
            self.app.recorder.record(record, Entry::Tool(run.end(&outcome)));
        }
        match (outcome, last_words) {
            (Ok(result), Some(words)) => tool_result_ending(&call.id, &call.name, &result, &words),
            (Ok(result), None) => tool_result(&call.id, &call.name, &result),
            (Err(error), _) => tool_error(&call.id, &call.name, &error),
        }
    }

    /// Of what our own tools do, an answer to this message can have Vapi end the call. It puts nobody through and presses
    /// no keys for one: those are tools of Vapi's own, of which the first asks us where to.
    fn carried_out(&self, command: Result<Command, ToolError>) -> (Result<String, ToolError>, Option<String>) {
        match command {
            Ok(Command::HangUp { ref say }) => {
                let words = say.as_ref().or(self.farewell.as_ref()).map_or(GOODBYE, String::as_str).to_owned();
                (command.map(|command| command.output().to_owned()), Some(words))
            }
            Ok(Command::Transfer { .. } | Command::PressKeys { .. }) => (Err(ToolError::Unavailable), None),
            Err(error) => (Err(error), None),
        }
    }

    async fn run_elsewhere(&self, call: &ToolCall) -> Result<String, ToolError> {
        let invocation = Invocation {
            agent: self.agent,
            call: Arc::clone(&self.facts),
            tool_call_id: call.id.clone(),
            arguments: call.arguments.clone(),
            bridged: false,
        };
        tools::run(self.app, &self.tools, &call.name, invocation).await
    }
}

async fn status(conn: &mut PgConnection, message: &Message, call: &Call) -> Result<(), StoreError> {
    let at = told_at(message.at, OffsetDateTime::now_utc());
    match message.status.as_deref() {
        Some("in-progress") => store::calls::answered(conn, call.id, at).await,
        Some("ended") => end(conn, message, call, at).await,
        _ => Ok(()),
    }
}

async fn end(conn: &mut PgConnection, message: &Message, call: &Call, at: OffsetDateTime) -> Result<(), StoreError> {
    let ending = Ending::of_vapi(message.ended_reason.as_deref().unwrap_or("unknown"));
    store::calls::end(conn, call.id, at, &ending).await.map(|_| ())
}

/// A report takes effect once, whatever it is delivered as and whatever came before it.
async fn report(conn: &mut PgConnection, message: &Message, body: &[u8], call: &Call) -> Result<(), StoreError> {
    let report = Report::of_message(body).unwrap_or_else(|error| {
        // Vapi's reports drift; the end of the call counts all the same.
        tracing::warn!(%error, vapi_call_id = ?call.vapi_call_id, "an end-of-call report cannot be read whole");
        Report::default()
    });
    let ended_at = told_at(report.ended_at().or(message.at), OffsetDateTime::now_utc());
    if store::call_facts::reported(conn, call.id).await? {
        report.fill(conn, call.id, ended_at).await?;
    }
    end(conn, message, call, ended_at).await
}

/// A call that is skipped may send several messages a second: of each type the first of a minute is logged, and
/// `tandem_deliveries_total` counts them all.
async fn skipped(conn: &mut PgConnection, agent_id: AgentId, message: &Message) -> Result<(), StoreError> {
    let Some(agent) = store::agents::by_id(conn, agent_id).await? else { return Ok(()) };
    let kind = inbox::bounded_kind(message.kind.as_str());
    let event = NewEvent {
        agent_id: Some(agent_id),
        details: json!({ "type": kind, "vapiCallId": message.call_id }),
        ..NewEvent::new(agent.project_id, "webhook.skipped", &Actor::Origin)
    };
    store::events::append_once_a_minute(conn, &event, kind).await
}
