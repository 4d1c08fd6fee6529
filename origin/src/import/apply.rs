//! Brings a draft into the database, or says what that would change.
//!
//! What people changed here since the last import stays, unless the same thing changed at Vapi: see `draft::merge`. One
//! transaction of the caller's holds the agent, its tools and the event.

mod stored;

use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Value, json};
use shared::{AgentId, ProjectId, ToolId};
use sqlx::PgConnection;
use uuid::Uuid;

use self::stored::{as_draft, described, has_tool, merge_agent, name_beside, shown, tool_name_beside, without_query};
use super::convert::Conversion;
use super::draft::{AgentDraft, Target, ToolDraft, canonical, merge};
use crate::replication;
use crate::store::StoreError;
use crate::store::agents::{self, NewAgent};
use crate::store::events::{self, Actor, NewEvent};
use crate::store::imports::{self, LastImport, StoredTool, ToolValues};
use crate::store::tools::{Builtin, records};
use crate::tools::fields;

/// The event of an import that changed something.
pub const EVENT: &str = "agent.imported";

/// Why a draft cannot be brought in.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// An assistant belongs to one agent.
    #[error("the assistant belongs to an agent of another project")]
    OtherProject,
    /// The settings would not work; after a merge with what was changed here.
    #[error("the agent's settings would not be valid: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// What is stored is not of a shape that can be compared.
    #[error("what the last import stored cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// No secret can be made.
    #[error("there is no randomness")]
    NoRandomness,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an import does to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// There was none.
    Created,
    /// It, or a tool of it, is different.
    Updated,
    /// It is what it was.
    Unchanged,
}

/// What an import changes.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What it comes to.
    pub action: Action,
    /// The agent; `None`: it has not been made yet.
    pub agent_id: Option<AgentId>,
    /// The agent's name.
    pub name: String,
    /// The agent with the tools that came from Vapi. `null`: there was none.
    pub before: Value,
    /// The same afterwards.
    pub after: Value,
    /// What stays as it is although the assistant says otherwise.
    pub kept: Vec<String>,
}

/// What is to be written.
#[derive(Debug)]
pub struct Plan {
    /// What it changes.
    pub change: Change,
    agent: AgentDraft,
    tools: Vec<PlannedTool>,
    unlinked: Vec<Uuid>,
    last: Option<LastImport>,
    writes_agent: bool,
}

#[derive(Debug)]
struct PlannedTool {
    /// As it shall be.
    tool: ToolDraft,
    /// As the import would have it.
    imported: Value,
    /// It is stored already.
    id: Option<Uuid>,
    /// It becomes another one.
    changes: bool,
    /// It, or what is noted of its import, becomes another.
    writes: bool,
    /// The agent gets it.
    links: bool,
}

/// Compares a draft with the database and locks what it would change until the transaction ends. Writes nothing.
pub async fn plan(conn: &mut PgConnection, project: ProjectId, conversion: &Conversion) -> Result<Plan, ApplyError> {
    imports::serialize(conn, project).await?;
    let agent = match imports::agent_of(conn, &conversion.assistant_id).await? {
        Some((owner, _)) if owner != project => return Err(ApplyError::OtherProject),
        Some((_, id)) => agents::lock(conn, project, id).await?,
        None => None,
    };
    let (last, linked) = match &agent {
        Some(agent) => (imports::last(conn, agent.id).await?, imports::tools_of(conn, agent.id).await?),
        None => (None, Vec::new()),
    };
    let base: Option<AgentDraft> = last.as_ref().map(|last| serde_json::from_value(last.draft.clone())).transpose()?;

    let mut kept = Vec::new();
    let ours = agent.as_ref().map(described).transpose()?;
    let mut merged = merge_agent(base.as_ref(), ours.as_ref(), &conversion.draft)?;
    if ours.as_ref().is_none_or(|ours| ours.name != merged.name) {
        let except = agent.as_ref().map(|agent| agent.id);
        if imports::is_agent_name_taken(conn, project, &merged.name, except).await? {
            let other = name_beside(&merged.name, &conversion.assistant_id);
            kept.push(format!("the project has another agent named {:?}; this one is {other:?}", merged.name));
            merged.name = other;
        }
    }
    let faults = merged.realtime.faults();
    if !faults.is_empty() {
        return Err(ApplyError::Invalid(faults));
    }

    let is_wanted = |tool: &StoredTool| {
        conversion.draft.tools.iter().any(|wanted| Some(wanted.source.as_str()) == tool.imported_from.as_deref())
    };
    // Only what an import has linked. A tool that somebody else gave the agent stays.
    let (unlinked, staying): (Vec<&StoredTool>, Vec<&StoredTool>) = linked
        .iter()
        .filter(|tool| !is_wanted(tool))
        .partition(|tool| tool.imported_from.as_deref().is_some_and(|source| has_tool(base.as_ref(), source)));
    let mut tools = Vec::new();
    for theirs in &conversion.draft.tools {
        if staying.iter().any(|tool| tool.name == theirs.name) {
            kept.push(format!("the agent has a tool {:?} of its own, which stays", theirs.name));
            continue;
        }
        let stored = imports::tool_of(conn, project, &theirs.source).await?;
        let is_linked = stored.as_ref().is_some_and(|stored| linked.iter().any(|tool| tool.id == stored.id));
        if stored.is_some() && !is_linked && has_tool(base.as_ref(), &theirs.source) {
            kept.push(format!("the tool {:?} was taken from the agent and stays away", theirs.name));
            continue;
        }
        tools.push(plan_tool(theirs, stored.as_ref(), !is_linked)?);
    }

    let before = match (&ours, &agent) {
        (Some(ours), Some(agent)) => {
            let imported = linked.iter().filter(|tool| tool.imported_from.is_some());
            let mut before = shown(ours, imported.map(as_draft))?;
            if agent.realtime.is_none() {
                before["realtime"] = Value::Null;
            }
            before
        }
        _ => Value::Null,
    };
    let stay = staying.iter().filter(|tool| tool.imported_from.is_some()).map(|tool| as_draft(tool));
    let after = shown(&merged, tools.iter().map(|planned| Ok(planned.tool.clone())).chain(stay))?;
    let writes_agent = ours.as_ref().is_none_or(|ours| *ours != merged);
    let changes = writes_agent || !unlinked.is_empty() || tools.iter().any(|planned| planned.changes || planned.links);
    let action = match (&agent, changes) {
        (None, _) => Action::Created,
        (Some(_), true) => Action::Updated,
        (Some(_), false) => Action::Unchanged,
    };
    let change =
        Change { action, agent_id: agent.map(|agent| agent.id), name: merged.name.clone(), before, after, kept };
    let unlinked = unlinked.iter().map(|tool| tool.id).collect();
    Ok(Plan { change, agent: merged, tools, unlinked, last, writes_agent })
}

/// Compares one tool.
fn plan_tool(theirs: &ToolDraft, stored: Option<&StoredTool>, links: bool) -> Result<PlannedTool, ApplyError> {
    let imported = canonical(&serde_json::to_value(without_query(theirs))?);
    let Some(stored) = stored else {
        return Ok(PlannedTool { tool: theirs.clone(), imported, id: None, changes: true, writes: true, links });
    };
    let ours = canonical(&serde_json::to_value(as_draft(stored)?)?);
    let mut base = stored.imported_draft.as_ref().map(canonical);
    let is_noted = base.as_ref() == Some(&imported);
    let whole = canonical(&serde_json::to_value(theirs)?);
    // Drafts are stored without the queries of URLs, so those that are equal stand for equal ones.
    if let Some(base) = &mut base
        && base["target"] == imported["target"]
    {
        base["target"] = whole["target"].clone();
    }
    let merged = merge(base.as_ref(), &ours, &whole);
    let changes = merged != ours;
    let writes = changes || !is_noted;
    Ok(PlannedTool { tool: serde_json::from_value(merged)?, imported, id: Some(stored.id), changes, writes, links })
}

/// Does what was planned, in the same transaction. Changes are logged once; no change is not logged.
pub async fn apply(
    conn: &mut PgConnection,
    project: ProjectId,
    conversion: &Conversion,
    plan: &Plan,
    actor: &Actor,
    new_secret: &mut dyn FnMut() -> Option<SecretString>,
) -> Result<AgentId, ApplyError> {
    let agent = &plan.agent;
    let id = match plan.change.agent_id {
        Some(id) if plan.writes_agent => {
            let greeting = agent.greeting.as_deref();
            imports::update_agent(conn, id, &agent.name, &agent.instructions, greeting, &agent.realtime).await?;
            id
        }
        Some(id) => id,
        None => {
            let new = NewAgent {
                project_id: project,
                name: &agent.name,
                instructions: &agent.instructions,
                greeting: agent.greeting.as_deref(),
                realtime: Some(&agent.realtime),
                vapi_assistant_id: Some(&conversion.assistant_id),
                fallback_number: None,
            };
            imports::insert_agent(conn, &new).await?
        }
    };
    for planned in &plan.tools {
        let tool = match planned.id {
            Some(tool) if !planned.writes => tool,
            stored => write_tool(conn, project, planned, stored, new_secret, actor).await?,
        };
        if planned.links {
            imports::link(conn, project, id, tool).await?;
        }
    }
    for tool in &plan.unlinked {
        imports::unlink(conn, id, *tool).await?;
    }

    let tools = conversion.draft.tools.iter().map(without_query).collect();
    let draft = canonical(&serde_json::to_value(AgentDraft { tools, ..conversion.draft.clone() })?);
    let report = serde_json::to_value(&conversion.report)?;
    let is_noted = plan.last.as_ref().is_some_and(|last| canonical(&last.draft) == draft && last.report == report);
    if !is_noted {
        imports::note(conn, project, id, &draft, &report).await?;
    }
    if plan.change.action != Action::Unchanged {
        let event = NewEvent {
            agent_id: Some(id),
            before: Some(plan.change.before.clone()).filter(|before| !before.is_null()),
            after: Some(plan.change.after.clone()),
            details: json!({ "vapiAssistantId": conversion.assistant_id, "openQuestions": conversion.report.open }),
            ..NewEvent::new(project, EVENT, actor)
        };
        events::append(conn, &event).await?;
        replication::enqueue(conn).await?;
    }
    Ok(id)
}

async fn write_tool(
    conn: &mut PgConnection,
    project: ProjectId,
    planned: &PlannedTool,
    stored: Option<Uuid>,
    new_secret: &mut dyn FnMut() -> Option<SecretString>,
    actor: &Actor,
) -> Result<Uuid, ApplyError> {
    let tool = &planned.tool;
    let (builtin, target_url) = match &tool.target {
        Target::EndCall => (Some(Builtin::EndCall), None),
        Target::TransferCall => (Some(Builtin::TransferCall), None),
        Target::SendDtmf => (Some(Builtin::SendDtmf), None),
        Target::Http { url } => (None, Some(url.as_str())),
    };
    let secret = match target_url {
        Some(_) => Some(new_secret().ok_or(ApplyError::NoRandomness)?),
        None => None,
    };
    let values = ToolValues {
        imported_from: &tool.source,
        imported_draft: &planned.imported,
        name: &tool.name,
        description: &tool.description,
        parameters: &tool.parameters,
        builtin,
        target_url,
        new_secret: secret.as_ref(),
        timeout_ms: i32::try_from(tool.timeout_ms).unwrap_or(i32::MAX),
        settings: &tool.settings,
    };
    let before = match stored {
        Some(id) => records::get(conn, project, ToolId(id)).await?,
        None => None,
    };
    let id = if let Some(id) = stored {
        imports::update_tool(conn, id, &values).await?;
        id
    } else {
        imports::insert_tool(conn, project, &values, &tool_name_beside(tool)).await?
    };
    // What is only noted of the import is no change of the tool.
    if planned.changes {
        let after = records::get(conn, project, ToolId(id)).await?;
        fields::log(conn, (before.as_ref(), after.as_ref()), actor).await?;
    }
    Ok(id)
}
